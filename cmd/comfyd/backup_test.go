package main

import (
	"bytes"
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
	stop := make(chan struct{})
	var load sync.WaitGroup
	var after []string
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
			after = append(after, body["id"].(string))
		}
	})
	pool := filepath.Join("comfyui-data", "pool") // as a local pool keeps its name
	require.NoError(t, os.Mkdir(filepath.Join(p.variable("COMFYD_DATA_DIR"), "comfyui-data"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(p.variable("COMFYD_DATA_DIR"), pool), []byte("local-host-abcdef\n"), 0o600))
	folder := p.backup()
	close(stop)
	load.Wait()
	require.NotEmpty(t, after, "there was load")
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
	for id, before := range answers {
		require.Equal(t, before, q.finish(id), "the same answer, with the same bytes")
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
	for _, id := range after { // accepted while the backup was made: in it, or unknown
		code, body, err := q.get("/status/" + id)
		require.NoError(t, err)
		if code == 404 {
			continue
		}
		known++
		require.Less(t, code, 300, "%v", body)
		require.Equal(t, "COMPLETED", q.finish(id)["status"])
	}
	t.Logf("%d jobs accepted during the backup, %d of them in it", len(after), known)
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

// TestRestoreRefuses everything but a whole backup and an empty data folder, and changes nothing then.
func TestRestoreRefuses(t *testing.T) {
	s := fakecomfy.New(t)
	p := keysInFolder(t, s.URL)
	require.Equal(t, "COMPLETED", p.finish(p.submit(noise(1)))["status"])
	whole := p.backup()
	code, out := p.command("restore", whole)
	require.Equal(t, 1, code, "comfyd runs there")
	require.Contains(t, out, "in use by another comfyd")
	inStore := filepath.Join(p.variable("COMFYD_DATA_DIR"), "blobs", "backup")
	code, out = p.command("backup", inStore)
	require.Equal(t, 2, code)
	require.Contains(t, out, "in the folder of the store")
	linked := filepath.Join(t.TempDir(), "linked")
	code, out = p.command("backup", "--link", linked)
	require.Zero(t, code, out)
	p.signal(syscall.SIGTERM)
	before := files(t, p.variable("COMFYD_DATA_DIR"))
	code, out = p.command("restore", whole)
	require.Equal(t, 2, code)
	require.Contains(t, out, "temporal.db, ")
	require.Equal(t, before, files(t, p.variable("COMFYD_DATA_DIR")))
	stopped := p.backup()
	require.Equal(t, before, files(t, p.variable("COMFYD_DATA_DIR")), "a backup changes nothing")

	q := p.moved()
	code, out = q.command("backup", filepath.Join(t.TempDir(), "backup"))
	require.Equal(t, 1, code)
	require.Contains(t, out, "there is no database")
	for name, tt := range map[string]struct {
		damage func(folder string) error
		code   int
		says   string
	}{
		"no manifest":     {func(f string) error { return os.Remove(filepath.Join(f, "manifest.json")) }, 2, "not a complete one"},
		"half a manifest": {func(f string) error { return os.Truncate(filepath.Join(f, "manifest.json"), 100) }, 2, "cannot be read"},
		"later format": {func(f string) error {
			return replace(filepath.Join(f, "manifest.json"), `"format": 1`, `"format": 2`)
		}, 2, "format 2"},
		"a file outside": {func(f string) error {
			return replace(filepath.Join(f, "manifest.json"), `"api-key"`, `"../api-key"`)
		}, 2, "no backup has"},
		"another database": {func(f string) error { return os.Truncate(filepath.Join(f, "temporal.db"), 4096) }, 2, "not the file that was backed up"},
		"a file less":      {func(f string) error { return os.Remove(blobIn(t, f)) }, 2, "and should have"},
		"a wrong file":     {func(f string) error { return flip(blobIn(t, f)) }, 2, "not those of its name"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "copy")
			require.NoError(t, os.CopyFS(folder, os.DirFS(whole)))
			require.NoError(t, tt.damage(folder))
			q := p.moved()
			code, out := q.command("restore", folder)
			require.Equal(t, tt.code, code)
			require.Contains(t, out, tt.says)
			_, err := os.Stat(q.variable("COMFYD_DATA_DIR"))
			if err == nil {
				require.Empty(t, files(t, q.variable("COMFYD_DATA_DIR")))
			}
		})
	}
	for _, folder := range []string{linked, stopped} {
		q := p.moved()
		code, out = q.command("restore", folder)
		require.Zero(t, code, out)
		code, out = q.command("restore", folder)
		require.Equal(t, 2, code, "a second time: %s", out)
	}
	bucket := p.moved()
	bucket.vars = append(bucket.vars, "COMFYD_STORE_URL=s3://bucket?region=us-east-1")
	code, out = bucket.command("restore", whole)
	require.Equal(t, 2, code)
	require.Contains(t, out, "COMFYD_STORE_URL names a bucket")
	cluster := p.moved()
	cluster.vars = append(cluster.vars, "TEMPORAL_ADDRESS=127.0.0.1:1", "COMFYD_STORE_URL=s3://bucket?region=us-east-1")
	code, out = cluster.command("backup", filepath.Join(t.TempDir(), "backup"))
	require.Equal(t, 2, code)
	require.Contains(t, out, "TEMPORAL_ADDRESS is set")
}

// TestBackupBesideABucket holds no files, and says so.
func TestBackupBesideABucket(t *testing.T) {
	s := fakecomfy.New(t)
	p := keysInFolder(t, s.URL)
	p.signal(syscall.SIGTERM)
	p.vars = append(p.vars, "COMFYD_STORE_URL=s3://bucket?region=us-east-1") // nobody asks it anything
	folder := filepath.Join(t.TempDir(), "backup")
	code, out := p.command("backup", folder)
	require.Zero(t, code, out)
	require.Contains(t, out, "by its own means")
	require.NoDirExists(t, filepath.Join(folder, "blobs"))
	q := p.moved()
	code, out = q.command("restore", folder)
	require.Zero(t, code, out)
	q.vars = append(p.moved().vars, "COMFYD_STORE_URL=")
	code, out = q.command("restore", folder)
	require.Equal(t, 2, code)
	require.Contains(t, out, "set COMFYD_STORE_URL to it")
}

// blobIn is a file of a backup's store whose name is its SHA-256.
func blobIn(t *testing.T, folder string) (path string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(filepath.Join(folder, "blobs", "outputs"), func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			path = p
		}
		return err
	}))
	require.NotEmpty(t, path)
	return path
}

func flip(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	raw[len(raw)/2] ^= 1
	return os.WriteFile(path, raw, 0o600)
}

func replace(path, from, to string) error {
	raw, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(raw, []byte(from)) {
		return errors.Join(err, errors.New("nothing to replace"))
	}
	return os.WriteFile(path, bytes.Replace(raw, []byte(from), []byte(to), 1), 0o600)
}
