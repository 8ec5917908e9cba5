package faults

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
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

// keysInFolder starts a comfyd that makes its own keys, and reads them from its data folder.
func (w *world) keysInFolder(comfyui string) *process {
	w.t.Helper()
	p := w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+comfyui, "COMFYD_API_KEYS=", "COMFYD_SIGNING_KEY=")
	w.readKey(p)
	w.bob = nil // one key, one tenant
	return p
}

func (w *world) readKey(p *process) {
	w.t.Helper()
	raw, err := os.ReadFile(filepath.Join(p.data(), "api-key"))
	require.NoError(w.t, err)
	w.alice.Secret = strings.TrimSpace(string(raw))
	w.secrets["the API key in the data folder"] = []byte(w.alice.Secret)
}

// command runs a command of comfyd with the settings of p, and returns its exit code and what it said.
func (p *process) command(args ...string) (code int, out string) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), p.path, args...)
	cmd.Env = append(environment(), p.vars...)
	cmd.Dir = p.dir
	raw, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); !errors.As(err, &exit) {
		require.NoError(p.t, err, "%s", raw)
	}
	p.t.Logf("comfyd %s: %d\n%s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), raw)
	return cmd.ProcessState.ExitCode(), string(raw)
}

func (p *process) backup() (folder string) {
	p.t.Helper()
	folder = filepath.Join(p.t.TempDir(), "backup")
	code, out := p.command("backup", folder)
	require.Zero(p.t, code, out)
	return folder
}

// data is its data folder.
func (p *process) data() (folder string) {
	for _, v := range p.vars { // the last one counts
		if value, ok := strings.CutPrefix(v, "COMFYD_DATA_DIR="); ok {
			folder = value
		}
	}
	return folder
}

// moved is what is left of p elsewhere: its settings and addresses, but no data folder.
func (w *world) moved(p *process, vars ...string) *process {
	name := fmt.Sprintf("%s-%d", p.name, len(w.all))
	q := w.process(name, p.path, p.args, slices.Concat(p.vars, []string{"COMFYD_DATA_DIR=" + w.data(name)}, vars))
	q.url = p.url
	return q
}

func (w *world) submitKeyed(graph, key string) string {
	w.t.Helper()
	e := w.send(job{graph: graph, key: key})
	require.Equal(w.t, http.StatusAccepted, e.Code, "%v %s", e.Body, e.Err)
	return e.Job
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
	w, s := newWorld(t), fakecomfy.New(t)
	w.gpu = doubles{s}
	p := w.keysInFolder(s.URL)
	answers, keys := map[string]map[string]any{}, map[string]string{}
	var link string
	for i, key := range []string{"one", "two", "three"} {
		id := w.submitKeyed(noise(i), key)
		answers[id], keys[key] = w.finish(id), id
		require.Equal(t, "COMPLETED", answers[id]["status"], "%v", answers[id])
		e := w.alice.Do(t.Context(), "GET", "/status/"+id+"?output=url", id, nil, nil)
		link = e.Body["output"].(map[string]any)["images"].([]any)[0].(map[string]any)["url"].(string)
	}
	image := fetch(t, link)
	gate := s.Hold("ImageAddNoise")
	var open []string
	for i := range 4 { // one runs, one waits in ComfyUI, two wait in Temporal
		open = append(open, w.submitKeyed(noise(10+i), "open"+string(rune('a'+i))))
		if i == 0 {
			gate.Reached()
		}
	}
	const before = 5 // of the load's jobs are accepted before the backup begins
	stop, begun := make(chan struct{}), make(chan struct{})
	var load sync.WaitGroup
	// What these jobs' client saw before the restore counts for those alone that are in the backup.
	seen := &History{}
	loader := *w.alice
	loader.History = seen
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
			e := w.sendBy(&loader, job{graph: noise(i), more: map[string]any{"images": []any{map[string]any{"name": "input.txt", "image": input}}}})
			if e.Code != http.StatusAccepted {
				t.Errorf("submission under load: %d %v %s", e.Code, e.Body, e.Err)
				return
			}
			if loaded = append(loaded, e.Job); len(loaded) == before {
				close(begun)
			}
		}
	})
	pool := filepath.Join("comfyui-data", "pool") // as a local pool keeps its name
	require.NoError(t, os.Mkdir(filepath.Join(p.data(), "comfyui-data"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(p.data(), pool), []byte("local-host-abcdef\n"), 0o600))
	select {
	case <-begun:
	case <-time.After(5 * time.Minute):
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
	require.NoError(t, os.RemoveAll(p.data()))
	w.fired(w.gone(), "comfyd was killed, and its data folder removed")
	q := w.moved(p)
	w.api = q
	code, out = q.command("restore", folder)
	require.Zero(t, code, out)
	restored, saved := files(t, q.data()), files(t, folder)
	delete(saved, "manifest.json")
	require.Equal(t, saved, restored)
	require.Contains(t, restored, pool)
	require.Contains(t, restored["api-key"], "-rw-------")
	require.Contains(t, restored["signing-key"], "-rw-------")
	q.start()
	key := w.alice.Secret
	w.readKey(q)
	require.Equal(t, key, w.alice.Secret)
	for id, answer := range answers {
		require.Equal(t, answer, w.finish(id), "the same answer, with the same bytes")
	}
	require.Equal(t, image, fetch(t, link), "a signed link still opens")
	for key, id := range keys {
		require.Equal(t, id, w.submitKeyed(noise(slices.Index([]string{"one", "two", "three"}, key)), key))
	}
	gate.Open()
	for i, id := range open {
		status := w.finish(id)
		require.Equal(t, "COMPLETED", status["status"], "%v", status)
		require.EqualValues(t, 1, status["attempts"])
		require.Equal(t, id, w.submitKeyed(noise(10+i), "open"+string(rune('a'+i))))
	}
	known := 0
	for i, id := range loaded { // each is in the backup, with its input, or unknown
		asked := *w.alice
		asked.History = &History{}
		e := asked.Do(t.Context(), "GET", "/status/"+id, id, nil, nil)
		if e.Code == http.StatusNotFound {
			require.GreaterOrEqual(t, i, before)
			continue
		}
		known++
		require.Contains(t, []int{http.StatusOK, http.StatusAccepted}, e.Code, "%v %s", e.Body, e.Err)
		for _, submission := range seen.Events() {
			if submission.Job == id {
				w.history.add(submission)
			}
		}
		require.Equal(t, "COMPLETED", w.finish(id)["status"])
	}
	t.Logf("%d jobs accepted before and during the backup, %d of them in it", len(loaded), known)
	w.check()
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
	beside(t)
	for _, lost := range []bool{false, true} {
		t.Run(map[bool]string{false: "ComfyUI remembers", true: "ComfyUI has forgotten"}[lost], func(t *testing.T) {
			if testing.Short() && !lost {
				t.Skip("the long form has it")
			}
			w, s := newWorld(t), fakecomfy.New(t)
			p := w.keysInFolder(s.URL)
			gate := s.Hold("ImageAddNoise")
			ids := []string{w.submit(noise(1)), w.submit(noise(2)), w.submit(noise(3))}
			gate.Reached()
			folder := p.backup()
			gate.Open()
			for _, id := range ids {
				require.Equal(t, "COMPLETED", w.finish(id)["status"])
			}
			p.signal(syscall.SIGTERM)
			if lost {
				s.Restart()
			}
			// What ComfyUI answers from its cache costs no GPU: the runs of the node that no cache answers count.
			runs := s.NodeRuns("SaveImage")
			require.Equal(t, len(ids), runs)
			q := w.moved(p)
			w.api = q
			code, out := q.command("restore", folder)
			require.Zero(t, code, out)
			w.fired(true, "a backup that is older than the jobs' ends was restored")
			w.history.forgetEnds()
			q.start()
			w.readKey(q)
			for _, id := range ids {
				status := w.finish(id)
				require.Equal(t, "COMPLETED", status["status"], "%v", status)
			}
			again := s.NodeRuns("SaveImage") - runs
			require.Greater(t, again, 0, "the backup was older than their ends")
			require.LessOrEqual(t, again, len(ids), "one more run of each at most")
			t.Logf("%d jobs, %d runs after the restore, by %d prompts in all", len(ids), again, s.TotalRuns())
			w.check() // without a count of the runs: attempts are as old as the backup, too
		})
	}
}
