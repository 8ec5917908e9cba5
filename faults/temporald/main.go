// Command temporald is a Temporal server alone, as a process that the tests can kill: the one that comfyd embeds, with
// the search attributes that comfyd needs. It takes the data folder and the address.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"go.temporal.io/api/enums/v1"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/embedded"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 3 {
		return fmt.Errorf("usage: temporald <data folder> <address>")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	log := logrus.New()
	log.SetLevel(logrus.WarnLevel)
	s, err := embedded.Start(ctx, embedded.Options{
		DataDir: os.Args[1], Listen: os.Args[2], Namespace: "default", Retention: 7 * 24 * time.Hour, Log: log,
		SearchAttributes: map[string]enums.IndexedValueType{
			comfy.AttrBackend:   enums.INDEXED_VALUE_TYPE_KEYWORD,
			comfy.AttrTenant:    enums.INDEXED_VALUE_TYPE_KEYWORD,
			comfy.AttrErrorCode: enums.INDEXED_VALUE_TYPE_KEYWORD,
			comfy.AttrMetadata:  enums.INDEXED_VALUE_TYPE_KEYWORD_LIST,
			comfy.AttrAttempts:  enums.INDEXED_VALUE_TYPE_INT,
			comfy.AttrInputs:    enums.INDEXED_VALUE_TYPE_KEYWORD_LIST,
		},
	})
	if err != nil {
		return err
	}
	fmt.Println("Temporal", s.Address())
	select {
	case <-ctx.Done():
		return s.Stop()
	case err := <-s.Failed():
		return err
	}
}
