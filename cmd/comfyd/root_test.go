package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/cli"
)

// comfyd runs a command line, and returns the exit code and what it printed, errors as the process prints them.
func comfyd(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := root("v9", cli.Env{Out: &o, Err: &e, Getenv: os.Getenv, IsTerminal: func(any) bool { return false }})
	cmd.SetOut(&o)
	cmd.SetErr(&e)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(context.Background())
	if err != nil {
		e.WriteString(err.Error())
	}
	return cli.ExitCode(err), o.String(), e.String()
}

// TestCommandLine: each command is reached by its name, and says what it is for.
func TestCommandLine(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		seen := map[string]bool{}
		for _, sub := range c.Commands() {
			require.False(t, seen[sub.Name()], "%s: two commands have this name", sub.CommandPath())
			seen[sub.Name()] = true
			require.NotEmpty(t, sub.Short, sub.CommandPath())
			found, _, err := c.Root().Find(strings.Fields(sub.CommandPath())[1:])
			require.NoError(t, err)
			require.Same(t, sub, found, sub.CommandPath())
			walk(sub)
		}
	}
	walk(root("v9", cli.Env{}))
	for _, name := range []string{
		"submit", "batch", "status", "watch", "outputs", "jobs", "cancel", "delete", "models", "nodes", "webhooks log", "keys new", "keys list",
		"doctor", "health", "backup", "restore", "models add", "temporal setup",
	} {
		code, out, _ := comfyd(t, append(strings.Fields(name), "--help")...)
		require.Equal(t, 0, code)
		require.Contains(t, out, "Usage:\n  comfyd "+name, name)
		require.Contains(t, out, "Examples:", name)
	}
	_, out, _ := comfyd(t, "--help")
	for _, title := range []string{"Serve:", "Use a comfyd that serves:", "Take care of one:"} {
		require.Contains(t, out, title)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		code, out, _ := comfyd(t, "completion", shell)
		require.Equal(t, 0, code)
		require.Contains(t, out, "__complete", shell)
	}
}

// TestDocsOfTheCommandLine: its page has every command.
func TestDocsOfTheCommandLine(t *testing.T) {
	page, err := os.ReadFile("../../docs/cli.md")
	require.NoError(t, err)
	for _, c := range root("v9", cli.Env{}).Commands() {
		require.Contains(t, string(page), "comfyd "+c.Name(), "docs/cli.md")
	}
}

func TestKeys(t *testing.T) {
	t.Setenv("COMFYD_DATA_DIR", filepath.Join(t.TempDir(), "data"))
	t.Setenv("COMFYD_API_KEYS", "")
	code, out, errs := comfyd(t, "keys", "list")
	require.Equal(t, 0, code, errs)
	require.Empty(t, out)
	require.Contains(t, errs, "no key yet")

	file := filepath.Join(t.TempDir(), "api-keys")
	var all, secrets string
	for range 2 {
		code, out, errs = comfyd(t, "keys", "new", "studio-7")
		require.Equal(t, 0, code, errs)
		require.Regexp(t, `^studio-7:[0-9a-f]{64}\n$`, out)
		all, secrets = all+out, secrets+strings.TrimPrefix(strings.TrimSpace(out), "studio-7:")
	}
	require.NoError(t, os.WriteFile(file, []byte(all), 0o600))
	t.Setenv("COMFYD_API_KEYS", "@"+file)
	code, out, errs = comfyd(t, "keys", "list")
	require.Equal(t, 0, code, errs)
	require.Regexp(t, `^TENANT    FINGERPRINT\nstudio-7  [0-9a-f]{8}\nstudio-7  [0-9a-f]{8}\n$`, out)
	_, out, _ = comfyd(t, "keys", "list", "--json")
	require.Contains(t, out, `{"from":"`+file+`","keys":[{"tenant":"studio-7","fingerprint":"`)
	require.NotContains(t, out, secrets[:16])

	code, _, errs = comfyd(t, "keys", "new", "a/b")
	require.Equal(t, 2, code)
	require.Contains(t, errs, `"a/b" is no tenant`)
}

// TestWrongUsage is the same exit code for every command.
func TestWrongUsage(t *testing.T) {
	for _, wrong := range []string{
		"submt", "keys new", "keys rotate", "backup", "restore a b", "version --loud", "health --nope", "worker now", "temporal setup x",
		"models add URL", "webhooks secret x", "jobs x", "doctor --cpu",
	} {
		code, _, errs := comfyd(t, strings.Fields(wrong)...)
		require.Equal(t, 2, code, "%s: %s", wrong, errs)
	}
	_, _, errs := comfyd(t, "submt")
	require.Equal(t, `"submt" is no command; did you mean submit? See 'comfyd --help'`, errs)
}

// TestCompletion as a shell asks for it.
func TestCompletion(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"jobs":[{"id":"job-1","status":"RUNNING","created_at":"2026-01-31T18:30:00Z"},{"id":"x","status":"RUNNING"}]}`)
	}))
	t.Setenv("COMFYD_URL", s.URL)
	_, out, errs := comfyd(t, "__complete", "cancel", "j")
	require.Regexp(t, `^job-1\trunning, 2026-\d\d-\d\d \d\d:\d\d:\d\d\n:\d+\n`, out, errs)
	s.Close()
	_, out, errs = comfyd(t, "__complete", "cancel", "j")
	require.Regexp(t, `^:\d+\n`, out, errs)
	_, out, _ = comfyd(t, "__complete", "jobs", "--status", "")
	require.Contains(t, out, "completed\n")
}
