// Package cluster runs docker-compose.yml without a container engine: the same programs, with the commands and the
// environment of that file, as plain processes of this machine that a test can kill. What it cannot show is what the
// engine does: images, users, limits, networks.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Cluster is everything of docker-compose.yml but the proxy and the UI.
type Cluster struct {
	Postgres, Temporal, S3 *Process
	Workers, APIs          [2]*Process
	// URLs are where the two APIs answer; Key opens them, and OtherKey does for another tenant.
	URLs          [2]string
	Key, OtherKey string
	// TemporalAddress and Namespace are for tests that look behind the API.
	TemporalAddress, Namespace string

	tb  testing.TB
	dir string
	// postgresPort is where PostgreSQL listens.
	postgresPort string
	programs     programs
	spawn        chan<- func()
	service      func(name string) service
	setup        *Process
}

// New brings the cluster up; it ends with the test. Vars are what a user sets in .env beside the compose file, such as
// COMFYUI_URLS=http://127.0.0.1:8188.
func New(tb testing.TB, vars ...string) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb, dir: tb.TempDir(), programs: find(tb)}
	c.spawn = spawner(tb)
	c.prepare(vars)
	c.Postgres.Start()
	for range 2 { // as at a second `docker compose up`
		c.script("temporal-schema").run()
	}
	c.S3.Start()
	c.up()
	return c
}

// up starts what stands on the stores.
func (c *Cluster) up() {
	c.tb.Helper()
	c.Temporal.Start()
	c.setup.run()
	for _, p := range c.all()[3:] {
		p.start()
	}
	for _, p := range c.all()[3:] {
		p.AwaitHealth()
	}
}

func (c *Cluster) all() []*Process {
	return []*Process{c.Postgres, c.S3, c.Temporal, c.Workers[0], c.Workers[1], c.APIs[0], c.APIs[1]}
}

// prepare turns services into processes.
func (c *Cluster) prepare(vars []string) {
	ports := freePorts(c.tb, 19)
	at := func(i int) string { return "127.0.0.1:" + ports[i] }
	secrets := filepath.Join(c.dir, "secrets")
	must(c.tb, exec.Command(filepath.Join(Root(), "deploy", "secrets.sh"), secrets).Run(), "deploy/secrets.sh")
	keys := filepath.Join(secrets, "api_keys")
	raw, err := os.ReadFile(keys)
	must(c.tb, err, "the API key")
	_, c.Key, _ = strings.Cut(strings.TrimSpace(string(raw)), ":")
	c.OtherKey = "the-key-of-another-tenant-0123456789"
	must(c.tb, errors.Join(os.Remove(keys), os.WriteFile(keys, append(raw, "other:"+c.OtherKey+"\n"...), 0o444)), "a second API key")
	c.TemporalAddress = at(1)

	project := Project(c.tb, vars...)
	c.Namespace = *project.Services["api-1"].Environment["TEMPORAL_NAMESPACE"]
	instead := map[string]map[string]string{
		"temporal-schema": {"SQL_HOST": "127.0.0.1", "SQL_PORT": ports[0]},
		"temporal": {"POSTGRES_SEEDS": "127.0.0.1", "DB_PORT": ports[0], "BIND_ON_IP": "127.0.0.1",
			"FRONTEND_GRPC_PORT": ports[1], "FRONTEND_MEMBERSHIP_PORT": ports[2], "FRONTEND_HTTP_PORT": ports[3],
			"MATCHING_GRPC_PORT": ports[4], "MATCHING_MEMBERSHIP_PORT": ports[5], "HISTORY_GRPC_PORT": ports[6],
			"HISTORY_MEMBERSHIP_PORT": ports[7], "WORKER_GRPC_PORT": ports[8], "WORKER_MEMBERSHIP_PORT": ports[9]},
		"s3":    {"VGW_PORT": at(10)},
		"api-1": {"COMFYD_LISTEN": at(11), "COMFYD_METRICS_LISTEN": at(13)},
		"api-2": {"COMFYD_LISTEN": at(12), "COMFYD_METRICS_LISTEN": at(14)},

		"worker-1": {"COMFYD_METRICS_LISTEN": at(15), "COMFYD_EVENTS_LISTEN": at(17)},
		"worker-2": {"COMFYD_METRICS_LISTEN": at(16), "COMFYD_EVENTS_LISTEN": at(18)},
	}
	replace := strings.NewReplacer(
		"/run/secrets/", secrets+"/", "/etc/comfyd/", filepath.Join(Root(), "deploy")+"/",
		"temporal:7233", c.TemporalAddress, "s3:7070", at(10), "127.0.0.1:7070", at(10))
	c.service = func(name string) service {
		return service{ServiceConfig: project.Services[name], replace: replace, instead: instead[name]}
	}

	c.postgresPort = ports[0]
	c.Postgres = c.postgres()
	c.S3 = c.script("s3")
	c.S3.env = append(c.S3.env, "S3_FOLDER="+c.folder("s3-data"))
	c.S3.health = func(ctx context.Context) error { return answers(ctx, "http://"+at(10)+"/health") }
	c.Temporal = c.script("temporal")
	c.Temporal.health = func(ctx context.Context) error { return listens(ctx, c.TemporalAddress) }
	c.setup = c.ours("setup", c.programs.comfyd)
	for i := range 2 {
		c.Workers[i] = c.ours(fmt.Sprintf("worker-%d", i+1), c.programs.comfyd)
		c.APIs[i] = c.ours(fmt.Sprintf("api-%d", i+1), c.programs.comfyd)
		c.URLs[i] = "http://" + at(11+i)
	}
}

func (c *Cluster) process(name string, argv, env []string) *Process {
	p := &Process{Name: name, tb: c.tb, spawn: c.spawn, argv: argv, env: env, dir: c.folder(name)}
	c.tb.Cleanup(func() {
		p.Kill()
		if c.tb.Failed() {
			c.tb.Logf("%s said:\n%s", name, tail(p.Log(), 6000))
		}
	})
	return p
}

// base is the environment that a container has by itself; nothing of the test's own gets in.
func (c *Cluster) base(name string) []string {
	return []string{"PATH=" + c.programs.folder + ":/usr/local/bin:/usr/bin:/bin", "HOME=" + c.folder(name), "TMPDIR=" + c.folder(name)}
}

// script is a service that starts with a script of deploy/.
func (c *Cluster) script(name string) *Process {
	s := c.service(name)
	return c.process(name, s.argv(), s.env(c.base(name)...))
}

// ours is a service of comfyd's own image; program is what stands for it.
func (c *Cluster) ours(name, program string) *Process {
	s := c.service(name)
	p := c.process(name, s.argv(program), s.env(c.base(name)...))
	if s.HealthCheck != nil && len(s.HealthCheck.Test) > 1 {
		probe := append([]string{program}, s.healthCheck()[1:]...)
		p.health = func(ctx context.Context) error { return check(ctx, probe, p.env) }
	}
	return p
}

// Replace stops a process of ours as a rolling upgrade does, and starts it from another program. It returns how long the
// stop took.
func (c *Cluster) Replace(p *Process, program string) (stop string) {
	took := p.Stop()
	p.argv[0] = program
	p.Start()
	return took.Round(1e6).String()
}

// Setup runs `comfyd temporal setup` again and returns what it said.
func (c *Cluster) Setup() string {
	before := len(c.setup.Log())
	c.setup.run()
	return c.setup.Log()[before:]
}

// Try runs comfyd with the environment of a service of ours, some variables changed ("NAME=value"), and returns what it
// said. It is for commands that end; ctx ends one that does not.
func (c *Cluster) Try(ctx context.Context, name string, args []string, vars ...string) (string, error) {
	s := c.service(name)
	cmd := exec.CommandContext(ctx, c.programs.comfyd, args...)
	cmd.Env = append(s.env(c.base(name)...), vars...)
	cmd.Dir = c.folder(name)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// postgres makes an empty database cluster, as the image does at its first start.
func (c *Cluster) postgres() *Process {
	s := c.service("postgres")
	data, password := c.folder("postgres-data"), filepath.Join(c.folder("postgres-init"), "password")
	raw, err := os.ReadFile(s.replace.Replace(*s.Environment["POSTGRES_PASSWORD_FILE"]))
	must(c.tb, err, "the password of PostgreSQL")
	must(c.tb, os.WriteFile(password, raw, 0o644), "the password of PostgreSQL")
	uid := 0
	if asRoot() { // PostgreSQL refuses to run as root
		uid = 65534
		for _, dir := range []string{c.dir, filepath.Dir(c.dir)} { // on the way to its data
			must(c.tb, os.Chmod(dir, 0o755), "the folder of the test")
		}
		must(c.tb, os.Chown(data, uid, uid), "the folder of PostgreSQL")
	}
	env := c.postgresEnv()
	initdb := c.process("initdb", append([]string{filepath.Join(c.programs.postgres, "initdb"), "-D", data, "--no-locale", "--encoding=UTF8",
		"--username=" + *s.Environment["POSTGRES_USER"], "--pwfile=" + password}, strings.Fields(*s.Environment["POSTGRES_INITDB_ARGS"])...), env)
	initdb.uid, initdb.dir = uid, data
	initdb.run()
	p := c.process("postgres", append(append([]string{filepath.Join(c.programs.postgres, "postgres")}, s.argv()[1:]...),
		"-D", data, "-p", c.postgresPort, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="), env)
	p.uid, p.dir = uid, data
	ready := []string{filepath.Join(c.programs.postgres, "pg_isready"), "-q", "-h", "127.0.0.1", "-p", c.postgresPort}
	p.health = func(ctx context.Context) error { return check(ctx, ready, env) }
	return p
}

// postgresEnv finds the libraries of packages that scripts/postgres.sh has only unpacked.
func (c *Cluster) postgresEnv() []string {
	lib, err := filepath.Glob(filepath.Join(c.programs.postgres, "..", "..", "..", "*-linux-gnu"))
	must(c.tb, err, "the libraries of PostgreSQL")
	return append(c.base("postgres"), "LD_LIBRARY_PATH="+strings.Join(lib, ":"))
}

func (c *Cluster) folder(name string) string {
	dir := filepath.Join(c.dir, name)
	must(c.tb, os.MkdirAll(dir, 0o755), "a folder")
	return dir
}

// freePorts finds ports that nothing listens on, all different and below 32768: Temporal keeps them in PostgreSQL as
// signed numbers of 16 bits.
func freePorts(tb testing.TB, n int) []string {
	tb.Helper()
	var ports []string
	for tries := 0; len(ports) < n; tries++ {
		port := strconv.Itoa(10000 + rand.IntN(22000))
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil && tries < 1000 {
			continue
		}
		must(tb, err, "a free port")
		defer l.Close()
		ports = append(ports, port)
	}
	return ports
}

func listens(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func answers(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	return nil
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }
