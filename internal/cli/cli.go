// Package cli holds the commands that speak to a comfyd over HTTP. They read and write
// through [Env] only, so that tests and other programs can drive them.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/comfyd/comfyd/client"
)

// Env is what the commands see of the world. The context that they are executed with ends at the first Ctrl-C.
type Env struct {
	In       io.Reader
	Out, Err io.Writer // results; all that is for a person
	// IsTerminal says whether In or Err is a terminal.
	IsTerminal func(stream any) bool
	Getenv     func(string) string
	// Ask sends a query to the terminal and returns its answer, empty where there is none.
	Ask func(query string) string
	// Notify asks that each further Ctrl-C be sent to a channel. It is called when the context has ended.
	Notify func(chan<- os.Signal)

	again <-chan os.Signal
	// How long what a Ctrl-C interrupts may still take; the constants of these names where they are zero.
	submitGrace, cancelTime time.Duration
	options                 []client.Option // of every client, beside its own
}

// askTime is how long a terminal has for its answer. All but the strangest answer at once; some are far away.
const askTime = time.Second

// System is the Env of this process. Its context is that of [signal.NotifyContext].
func System() Env {
	return Env{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Ask: func(query string) string { return askTerminal(query, askTime) },
		IsTerminal: func(stream any) bool {
			f, ok := stream.(*os.File)
			return ok && term.IsTerminal(int(f.Fd()))
		},
		Notify: func(c chan<- os.Signal) { signal.Notify(c, os.Interrupt, syscall.SIGTERM) },
	}
}

// interruptible makes every Ctrl-C after the one that ends ctx heard.
func (e Env) interruptible(ctx context.Context) (env Env, done func()) {
	again := make(chan os.Signal, 1)
	e.again = again
	stop := context.AfterFunc(ctx, func() { e.Notify(again) })
	return e, func() {
		stop()
		signal.Stop(again)
	}
}

const exitCodes = `Exit codes:
  0    done
  1    the job failed, or its files could not be written
  2    wrong usage, or the server refuses the request or the workflow
  3    the server cannot be reached, or is too busy
  4    not authorised: no key, or a wrong one
  130  interrupted`

// ExitCode is what a process that ran a command should exit with; each command's help lists the codes.
func ExitCode(err error) int {
	var refused *client.Error
	var unreachable *client.UnreachableError
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled):
		return 130
	case errors.As(err, &usage):
		return 2
	case errors.As(err, &unreachable):
		return 3
	case !errors.As(err, &refused):
		return 1
	case refused.HTTPStatus == http.StatusUnauthorized, refused.HTTPStatus == http.StatusForbidden:
		return 4
	case refused.Busy():
		return 3
	}
	return 2
}

var errInterrupted = errors.New("interrupted")

// usageError is a command line, or a file that it names, that cannot be used.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// Usage marks an error as one that the caller has to change the command line or the settings for: exit code 2.
func Usage(err error) error { return &usageError{err} }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// Commands are the client commands.
func Commands(env Env) []*cobra.Command {
	env.submitGrace, env.cancelTime = cmp.Or(env.submitGrace, submitGrace), cmp.Or(env.cancelTime, cancelTime)
	webhooks := webhooksCommand(env)
	commands := []*cobra.Command{
		submitCommand(env), batchCommand(env), statusCommand(env), watchCommand(env), outputsCommand(env), jobsCommand(env),
		cancelCommand(env), deleteCommand(env), modelsCommand(env), nodesCommand(env), webhooks,
	}
	for _, c := range slices.Concat(commands, webhooks.Commands()) {
		c.SilenceUsage = true
		c.SetIn(env.In)
		c.SetOut(env.Out)
		c.SetErr(env.Err)
		c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
			return usagef("%w; see '%s --help'", err, c.CommandPath())
		})
		c.Long += "\n\n" + exitCodes
	}
	return commands
}

// one is cobra.ExactArgs(1) with a name for what is missing.
func one(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usagef("give one %s; see '%s --help'", what, c.CommandPath())
		}
		return nil
	}
}

// server are the flags that say whom to call.
type server struct {
	url, key string
	json     bool
}

func (s *server) flags(c *cobra.Command) {
	c.Flags().StringVar(&s.url, "url", "", "address of comfyd (default $COMFYD_URL, where comfyd listens here by $COMFYD_LISTEN, or http://127.0.0.1:8080)")
	c.Flags().StringVar(&s.key, "key", "", "API key (default $COMFYD_API_KEY; for a comfyd on this machine the one in its data folder, $COMFYD_DATA_DIR or ./data)")
	c.Flags().BoolVar(&s.json, "json", false, "print one JSON object in place of text")
}

// client makes the client that the flags and the environment ask for. screen shows failed tries.
func (s *server) client(env Env, screen *screen, more ...client.Option) (*client.Client, error) {
	address := first(s.url, env.Getenv("COMFYD_URL"), listening(env.Getenv("COMFYD_LISTEN")), "http://127.0.0.1:8080")
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, usagef("--url %q: use an address such as http://127.0.0.1:8080", address)
	}
	key, err := s.apiKey(env, u.Hostname())
	if err != nil {
		return nil, err
	}
	notice := client.WithNotice(func(err error, next time.Duration) { screen.say("%v; trying again", err) })
	return client.New(address, key, slices.Concat(env.options, more, []client.Option{notice})...), nil
}

// apiKey finds the key for a host. The one in the data folder opens the comfyd of this machine and goes nowhere else.
func (s *server) apiKey(env Env, host string) (string, error) {
	if key := first(s.key, env.Getenv("COMFYD_API_KEY")); key != "" {
		return key, nil
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", nil
	}
	b, err := os.ReadFile(filepath.Join(first(env.Getenv("COMFYD_DATA_DIR"), "data"), "api-key"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the API key: %w; give it with --key or COMFYD_API_KEY", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// listening is the address of a comfyd on this machine that was told to listen there.
func listening(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
