package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// keysInFolder prepares a comfyd that makes its own keys, and reads them from its data folder.
func keysInFolder(t *testing.T, comfyui string) *comfyd {
	t.Helper()
	p := prepare(t, "COMFYD_BACKEND=url", "COMFYUI_URLS="+comfyui, "COMFYD_API_KEYS=")
	p.start()
	p.readKey()
	return p
}

func (p *comfyd) readKey() {
	p.t.Helper()
	raw, err := os.ReadFile(filepath.Join(p.variable("COMFYD_DATA_DIR"), "api-key"))
	require.NoError(p.t, err)
	p.key = strings.TrimSpace(string(raw))
}

// command runs a command of comfyd with the settings of p, and returns its exit code and what it said.
func (p *comfyd) command(args ...string) (code int, out string) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), p.vars...)
	cmd.Dir = p.t.TempDir()
	raw, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); !errors.As(err, &exit) {
		require.NoError(p.t, err, "%s", raw)
	}
	p.t.Logf("comfyd %s: %d\n%s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), raw)
	return cmd.ProcessState.ExitCode(), string(raw)
}

func (p *comfyd) backup() (folder string) {
	p.t.Helper()
	folder = filepath.Join(p.t.TempDir(), "backup")
	code, out := p.command("backup", folder)
	require.Zero(p.t, code, out)
	return folder
}

// moved is what is left of p elsewhere: its settings, but an empty data folder.
func (p *comfyd) moved() *comfyd {
	q := &comfyd{t: p.t, url: p.url, vars: append(slices.Clone(p.vars), "COMFYD_DATA_DIR="+filepath.Join(p.t.TempDir(), "data"))}
	p.t.Cleanup(q.kill)
	return q
}

func (p *comfyd) submitKeyed(workflow json.RawMessage, key string) string {
	p.t.Helper()
	code, body, err := p.request("POST", "/submit_workflow", map[string]any{"workflow": workflow}, "Idempotency-Key", key)
	require.NoError(p.t, err)
	require.Equal(p.t, 202, code, "%v", body)
	return body["id"].(string)
}

// files are the digests of all files below a folder, with their modes, but for those that processes use while they run.
func files(t *testing.T, folder string) map[string]string {
	t.Helper()
	found := map[string]string{}
	require.NoError(t, filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(folder, path)
		if err != nil || e.IsDir() || e.Name() == "temporal.lock" || e.Name() == "temporal.db-shm" || strings.HasPrefix(rel, filepath.Join("blobs", ".tmp")) {
			return err
		}
		info, err := e.Info()
		require.NoError(t, err)
		raw, err := os.ReadFile(path)
		sum := sha256.Sum256(raw)
		found[rel] = info.Mode().String() + " " + hex.EncodeToString(sum[:])
		return err
	}))
	return found
}

// TestBackupAndRestore backs a comfyd up under load, takes everything away, and goes on elsewhere.
func TestBackupAndRestore(t *testing.T) {
	s := fakecomfy.New(t)
	p := keysInFolder(t, s.URL)
	answers, keys := map[string]map[string]any{}, map[string]string{}
	var link string
	for i, key := range []string{"one", "two", "three"} {
		id := p.submitKeyed(noise(i), key)
		answers[id], keys[key] = p.finish(id), id
		require.Equal(t, "COMPLETED", answers[id]["status"], "%v", answers[id])
		_, body, err := p.get("/status/" + id + "?output=url")
		require.NoError(t, err)
		link = body["output"].(map[string]any)["images"].([]any)[0].(map[string]any)["url"].(string)
	}
	image := fetch(t, link)
	gate := s.Hold("ImageAddNoise")
	var open []string
	for i := range 4 { // one runs, one waits in ComfyUI, two wait in Temporal
		open = append(open, p.submitKeyed(noise(10+i), "open"+string(rune('a'+i))))
		if i == 0 {
			gate.Reached()
		}
	}
	const before = 5 // of the load's jobs are accepted before the backup begins
	stop, begun := make(chan struct{}), make(chan struct{})
	var load sync.WaitGroup
	var loaded []string
	load.Go(func() {
		for i := 100; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			// Its input is in the store before Temporal knows the job.
			input := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "input %d", i))
			code, body, err := p.request("POST", "/submit_workflow", map[string]any{
				"workflow": noise(i), "images": []any{map[string]any{"name": "input.txt", "image": input}}})
			if err != nil || code != 202 {
				t.Errorf("submission under load: %d %v %v", code, body, err)
				return
			}
			if loaded = append(loaded, body["id"].(string)); len(loaded) == before {
				close(begun)
			}
		}
	})
	pool := filepath.Join("comfyui-data", "pool") // as a local pool keeps its name
	require.NoError(t, os.Mkdir(filepath.Join(p.variable("COMFYD_DATA_DIR"), "comfyui-data"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(p.variable("COMFYD_DATA_DIR"), pool), []byte("local-host-abcdef\n"), 0o600))
	select {
	case <-begun:
	case <-time.After(30 * time.Second):
		require.Fail(t, "no load")
	}
	folder := p.backup()
	close(stop)
	load.Wait()
	require.Greater(t, len(loaded), before, "there was load")
	code, out := p.command("backup", folder)
	require.Equal(t, 2, code)
	require.Contains(t, out, "is there already")
	left, err := filepath.Glob(folder + ".partial*")
	require.NoError(t, err)
	require.Empty(t, left)

	p.kill()
	require.NoError(t, os.RemoveAll(p.variable("COMFYD_DATA_DIR")))
	q := p.moved()
	code, out = q.command("restore", folder)
	require.Zero(t, code, out)
	restored, saved := files(t, q.variable("COMFYD_DATA_DIR")), files(t, folder)
	delete(saved, "manifest.json")
	require.Equal(t, saved, restored)
	require.Contains(t, restored, pool)
	require.Contains(t, restored["api-key"], "-rw-------")
	require.Contains(t, restored["signing-key"], "-rw-------")
	q.start()
	q.readKey()
	require.Equal(t, p.key, q.key)
	for id, answer := range answers {
		require.Equal(t, answer, q.finish(id), "the same answer, with the same bytes")
	}
	require.Equal(t, image, fetch(t, link), "a signed link still opens")
	for key, id := range keys {
		require.Equal(t, id, q.submitKeyed(noise(slices.Index([]string{"one", "two", "three"}, key)), key))
	}
	gate.Open()
	for i, id := range open {
		status := q.finish(id)
		require.Equal(t, "COMPLETED", status["status"], "%v", status)
		require.EqualValues(t, 1, status["attempts"])
		require.Equal(t, id, q.submitKeyed(noise(10+i), "open"+string(rune('a'+i))))
	}
	known := 0
	for i, id := range loaded { // each is in the backup, with its input, or unknown
		code, body, err := q.get("/status/" + id)
		require.NoError(t, err)
		if code == 404 {
			require.GreaterOrEqual(t, i, before)
			continue
		}
		known++
		require.Less(t, code, 300, "%v", body)
		require.Equal(t, "COMPLETED", q.finish(id)["status"])
	}
	t.Logf("%d jobs accepted before and during the backup, %d of them in it", len(loaded), known)
	q.signal(syscall.SIGTERM)
}

func fetch(t *testing.T, url string) []byte {
	t.Helper()
	res, err := http.Get(url)
	require.NoError(t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, 200, res.StatusCode, "%s", raw)
	return raw
}

// TestRestoredTooOld restores a backup whose open jobs have ended since: each ends again, with one more run at most.
func TestRestoredTooOld(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(map[bool]string{false: "ComfyUI remembers", true: "ComfyUI has forgotten"}[lost], func(t *testing.T) {
			s := fakecomfy.New(t)
			p := keysInFolder(t, s.URL)
			gate := s.Hold("ImageAddNoise")
			ids := []string{p.submit(noise(1)), p.submit(noise(2)), p.submit(noise(3))}
			gate.Reached()
			folder := p.backup()
			gate.Open()
			for _, id := range ids {
				require.Equal(t, "COMPLETED", p.finish(id)["status"])
			}
			p.signal(syscall.SIGTERM)
			if lost {
				s.Restart()
			}
			// What ComfyUI answers from its cache costs no GPU: the runs of the node that no cache answers count.
			runs := s.NodeRuns("SaveImage")
			require.Equal(t, len(ids), runs)
			q := p.moved()
			code, out := q.command("restore", folder)
			require.Zero(t, code, out)
			q.start()
			q.readKey()
			for _, id := range ids {
				status := q.finish(id)
				require.Equal(t, "COMPLETED", status["status"], "%v", status)
			}
			again := s.NodeRuns("SaveImage") - runs
			require.Greater(t, again, 0, "the backup was older than their ends")
			require.LessOrEqual(t, again, len(ids), "one more run of each at most")
			t.Logf("%d jobs, %d runs after the restore, by %d prompts in all", len(ids), again, s.TotalRuns())
			q.signal(syscall.SIGTERM)
		})
	}
}
