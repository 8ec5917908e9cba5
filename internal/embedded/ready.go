//go:build !noembedded

package embedded

import (
	"context"
	"fmt"
	"time"

	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// awaitReady returns when the frontend answers and knows the namespace and the search attributes.
func (s *Server) awaitReady(ctx context.Context, o Options) error {
	ctx, done := context.WithTimeout(ctx, readyTime)
	defer done()
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return typed(StartFailed, err, "dialing it")
	}
	defer conn.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx, conn, o)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fail(StartFailed, err, "the embedded Temporal was not ready in time: %v", err)
		case fatal := <-s.log.life.fatal:
			return fail(StartFailed, nil, "the embedded Temporal failed while starting: %s", fatal)
		case <-tick.C:
		}
	}
}

func ready(ctx context.Context, conn *grpc.ClientConn, o Options) error {
	ctx, done := context.WithTimeout(ctx, 5*time.Second)
	defer done()
	_, err := workflowservice.NewWorkflowServiceClient(conn).DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: o.Namespace})
	if err != nil {
		return err
	}
	have, err := operatorservice.NewOperatorServiceClient(conn).ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: o.Namespace})
	if err != nil {
		return err
	}
	for name, t := range o.SearchAttributes {
		if got := have.GetCustomAttributes()[name]; got != t {
			return fmt.Errorf("search attribute %s is of type %s, not %s", name, got, t)
		}
	}
	return nil
}
