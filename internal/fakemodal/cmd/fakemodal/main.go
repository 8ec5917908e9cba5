// Command fakemodal runs a fake of Modal's control plane for a look: it prints the environment that a client needs,
// deploys an app, and serves until it is interrupted.
//
//	fakemodal --python VENV/bin/python --app modal/modal_comfy_api.py --secret HUGGINGFACE_ACCESS_TOKEN=hf_x \
//	          --env COMFYD_COMFYUI_DIR=... --env COMFYD_COMFYUI_ARGS=--cpu
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/comfyd/comfyd/internal/fakemodal"
)

// pairs is a flag that may be given often, NAME=VALUE.
type pairs map[string]string

func (p pairs) String() string { return fmt.Sprint(map[string]string(p)) }

func (p pairs) Set(s string) error {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("%q is not NAME=VALUE", s)
	}
	p[name] = value
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	env, secrets, deployEnv := pairs{}, pairs{}, pairs{}
	dir := flag.String("dir", filepath.Join(os.TempDir(), "fakemodal-data"), "folder that keeps calls, results and deployments")
	addr := flag.String("addr", "127.0.0.1:9555", "where to listen")
	python := flag.String("python", "", "interpreter that has modal installed")
	appFile := flag.String("app", "", "app to deploy")
	flag.Var(env, "env", "NAME=VALUE for containers, may be repeated")
	flag.Var(deployEnv, "deploy-env", "NAME=VALUE for modal deploy, may be repeated")
	flag.Var(secrets, "secret", "NAME=VALUE: a secret of this name, with this one key, may be repeated")
	flag.Parse()

	named := map[string]map[string]string{}
	for name, value := range secrets {
		named[name] = map[string]string{name: value}
	}
	s, err := fakemodal.Start(fakemodal.Options{Dir: *dir, Addr: *addr, Python: *python, AppFile: *appFile, Env: env, DeployEnv: deployEnv, Secrets: named, Log: log.Printf})
	if err != nil {
		return err
	}
	defer s.Stop()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, k := range slices.Sorted(maps.Keys(s.Env())) {
		fmt.Printf("export %s=%q\n", k, s.Env()[k])
	}
	if *appFile != "" {
		d, err := s.Deploy(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%s version %d is deployed: %s\n", d.App, d.Version, strings.Join(slices.Sorted(maps.Keys(d.Functions)), ", "))
	}
	<-ctx.Done()
	return nil
}
