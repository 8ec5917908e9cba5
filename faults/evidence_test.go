package faults

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"
)

// check ends a test: every job has ended, is asked for again before and after a kill -9 of the API, and what was seen is
// held against the invariants.
func (w *world) check() {
	w.t.Helper()
	w.checked = true
	require.NotEmpty(w.t, w.fires, "no fault was seen to fire")
	ids := w.accepted()
	for _, id := range ids {
		w.finish(id)
	}
	for i, id := range ids {
		if stranger := w.stranger(id); i%10 == 0 && stranger != nil { // a sample
			for _, method := range [][2]string{{"GET", "/status/"}, {"POST", "/cancel/"}} {
				stranger.Do(context.Background(), method[0], method[1]+id, id, nil, nil)
			}
		}
	}
	texts, jobs, withdrawn := w.temporalSays(ids)
	w.api.kill()
	w.api.start()
	for _, id := range ids {
		w.finish(id)
	}
	for _, p := range w.all {
		raw, err := os.ReadFile(p.log)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was never started
		}
		require.NoError(w.t, err)
		texts["the log of "+p.name] = raw
	}
	e := &Evidence{Events: w.history.Events(), Within: w.within, Jobs: jobs, Withdrawn: withdrawn, Texts: texts, Secrets: w.bytesOfJobs(), Stray: w.stray()}
	if w.mail != nil {
		e.Messages, e.Told = w.mail.all()
	}
	if w.gpu != nil {
		e.Runs = map[string]int{}
		for id, mark := range w.history.Marks() {
			e.Runs[id] = w.gpu.runs(mark)
		}
	}
	for _, v := range Check(e) {
		w.t.Errorf("%s", v)
	}
	w.t.Logf("fired: %s", strings.Join(w.fires, "; "))
	w.t.Logf("%d answers about %d jobs checked; %d histories and logs without a secret", len(e.Events), len(ids), len(texts))
}

// bytesOfJobs are the secrets, and pieces of the files that came out, as base64 and as they are.
func (w *world) bytesOfJobs() map[string][]byte {
	all := map[string][]byte{}
	for name, s := range w.secrets {
		all[name] = s
	}
	sample := w.sample(w.accepted())
	for _, e := range w.history.Events() {
		if !slices.Contains(sample, e.Job) {
			continue
		}
		out, _ := e.Body["output"].(map[string]any)
		for _, list := range []string{"images", "files"} {
			files, _ := out[list].([]any)
			for i, f := range files {
				if data, ok := f.(map[string]any)["data"].(string); ok && i < 3 {
					addBytes(all, fmt.Sprintf("%s %d of job %s", list, i, e.Job), data)
				}
			}
		}
	}
	return all
}

// sample are the jobs that are looked at closely.
func (w *world) sample(ids []string) []string {
	var some []string
	for i := 0; i < len(ids); i += w.every {
		some = append(some, ids[i])
	}
	return some
}

// addBytes adds a piece from the middle of a file.
func addBytes(all map[string][]byte, name, base64Data string) {
	at := len(base64Data) / 8 * 4
	if len(base64Data) < at+48 {
		return
	}
	piece := base64Data[at : at+48]
	raw, err := base64.StdEncoding.DecodeString(piece)
	if err != nil {
		return // the checker has said so
	}
	all[name+" in base64"], all[name] = []byte(piece), raw
}

// stray are files where none should be.
func (w *world) stray() []string {
	var found []string
	require.NoError(w.t, filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(w.dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() && (rel == "data" || rel == "logs" || slices.Contains(w.allowed, rel)) {
			return fs.SkipDir
		}
		if !d.IsDir() {
			found = append(found, rel)
		}
		return nil
	}))
	return found
}
