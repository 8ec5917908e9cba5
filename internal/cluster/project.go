package cluster

import (
	"context"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// Root is the folder of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Project reads docker-compose.yml as `docker compose` does, with all profiles, and with vars ("NAME=value") as the environment.
func Project(tb testing.TB, vars ...string) *types.Project {
	tb.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(Root(), "docker-compose.yml")}, cli.WithEnv(vars), cli.WithProfiles([]string{"*"}), cli.WithResolvedPaths(true))
	must(tb, err, "docker-compose.yml")
	p, err := options.LoadProject(context.Background())
	must(tb, err, "docker-compose.yml")
	return p
}

// service is one of the compose file as a plain process: its environment and commands with the container's paths and
// host names replaced by those of this machine.
type service struct {
	types.ServiceConfig
	replace *strings.Replacer
	// instead replaces whole variables, where a host name and its port stand apart.
	instead map[string]string
}

func (s service) env(also ...string) []string {
	env := also
	for name, value := range s.Environment {
		if value == nil {
			continue
		}
		v, ok := s.instead[name]
		if !ok {
			v = s.replace.Replace(*value)
		}
		env = append(env, name+"="+v)
	}
	for name, value := range s.instead {
		if _, there := s.Environment[name]; !there {
			env = append(env, name+"="+value)
		}
	}
	return env
}

func (s service) argv(entrypoint ...string) []string {
	var argv []string
	if s.Entrypoint != nil {
		entrypoint = s.Entrypoint
	}
	for _, a := range append(append([]string{}, entrypoint...), s.Command...) {
		argv = append(argv, s.replace.Replace(a))
	}
	return argv
}

// healthCheck is the command that the engine would run in the container.
func (s service) healthCheck() []string {
	var argv []string
	for _, a := range s.HealthCheck.Test[1:] { // after CMD
		argv = append(argv, s.replace.Replace(a))
	}
	return argv
}
