package comfyhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/comfyui"
	"github.com/comfyd/comfyd/comfy"
)

// Open implements [backend.Backend]. An empty file counts as gone: that is how a released one looks. A body shorter
// than announced ends in io.ErrUnexpectedEOF.
func (b *Backend) Open(ctx context.Context, h backend.Handle, f backend.File) (io.ReadCloser, int64, error) {
	if f.Blob != nil {
		return nil, 0, backend.Errorf(comfy.Internal, "%s is in the store already", f.Filename)
	}
	s := b.find(h.Server)
	if s == nil {
		return nil, 0, notHere(comfy.OutputLost, h)
	}
	ctx, cancel := context.WithCancel(ctx)
	idle := newIdleTimer(s.t.idle, cancel)
	res, err := s.request(ctx, http.MethodGet, "/view", viewQuery(f.Folder, f.Subfolder, f.Filename), nil, 0, "")
	idle.stop()
	if err != nil {
		err = idle.explain(err)
		cancel()
		return nil, 0, &backend.Error{Code: comfy.BackendUnavailable, Message: "ComfyUI does not hand out " + f.Filename + " at the moment", Cause: err}
	}
	if e := fileError(res, f); e != nil {
		res.Body.Close()
		cancel()
		return nil, 0, e
	}
	return &fileBody{body: res.Body, name: f.Filename, idle: idle, cancel: cancel}, res.ContentLength, nil
}

func fileError(res *http.Response, f backend.File) error {
	gone := &backend.Error{Code: comfy.OutputLost, NodeID: f.NodeID}
	switch {
	case res.StatusCode == http.StatusNotFound || (res.StatusCode == http.StatusOK && res.ContentLength == 0):
		gone.Message = fmt.Sprintf("ComfyUI lists the output %s of node %s, but the file is gone", f.Filename, f.NodeID)
	case res.StatusCode == http.StatusBadRequest:
		gone.Message = fmt.Sprintf("ComfyUI does not hand out a file named %s", f.Filename)
	case res.StatusCode != http.StatusOK:
		return &backend.Error{Code: comfy.BackendUnavailable, Message: "ComfyUI does not hand out " + f.Filename + " at the moment", Cause: statusError(res)}
	default:
		return nil
	}
	return gone
}

// viewQuery asks /view for a file. It takes what stands before a " [output]" at the end of a name for the name.
func viewQuery(folder, subfolder, filename string) url.Values {
	return url.Values{"filename": {filename}, "subfolder": {subfolder}, "type": {folder}}
}

// fileBody gives up a download in which nothing moves. The time in which nobody reads does not count.
type fileBody struct {
	body   io.ReadCloser
	name   string
	idle   *idleTimer
	cancel context.CancelFunc
}

func (f *fileBody) Read(p []byte) (int, error) {
	f.idle.touch()
	n, err := f.body.Read(p)
	f.idle.stop()
	if err != nil && err != io.EOF {
		err = &backend.Error{Code: comfy.BackendUnavailable, Message: "the download of " + f.name + " broke off", Cause: err}
	}
	return n, err
}

func (f *fileBody) Close() error {
	f.idle.stop()
	f.cancel()
	return f.body.Close()
}

// Release implements [backend.Backend]. It touches the job's own inputs, and those of the files that were written
// while its prompt ran: a node may list any file, another job's too, and a name may have been given anew since. A prompt
// that is not known to have ended may wait still, where a cancel could not reach ComfyUI: it is taken out of the queue.
func (b *Backend) Release(ctx context.Context, h backend.Handle, files []backend.File) error {
	s := b.find(h.Server)
	if s == nil {
		return nil // nobody can reach it any more
	}
	errs := []error{b.removeInputs(ctx, s, h)}
	if h.PromptID != "" && h.To.IsZero() {
		errs = append(errs, s.dequeue(ctx, h.PromptID))
	}
	if len(files) > 0 {
		errs = append(errs, b.removeOutputs(ctx, s, h, files))
	}
	if errors.Join(errs...) == nil && h.PromptID != "" {
		errs = append(errs, s.post(ctx, "/history", map[string][]string{"delete": {h.PromptID}}))
	}
	if err := errors.Join(errs...); err != nil {
		return &backend.Error{Code: comfy.BackendUnavailable, Message: "not everything that the job left on ComfyUI could be removed", Cause: err}
	}
	return nil
}

func (b *Backend) removeInputs(ctx context.Context, s *server, h backend.Handle) error {
	var own []RemotePath
	for _, p := range h.Inputs {
		if path.Clean(p) == p && strings.HasPrefix(p, comfyui.InputRoot+"/") {
			own = append(own, RemotePath{Folder: "input", Subfolder: path.Dir(p), Filename: path.Base(p)})
		}
	}
	return b.remove(ctx, s, own, time.Time{}, time.Time{})
}

func (b *Backend) removeOutputs(ctx context.Context, s *server, h backend.Handle, files []backend.File) error {
	from, to := h.From, h.To
	if from.IsZero() || to.IsZero() { // the handle of before the end
		e, err := s.history(ctx, h.PromptID)
		if err != nil || e == nil {
			return err
		}
		if from, to = e.Times(); from.IsZero() || to.IsZero() {
			return nil
		}
	}
	var own []RemotePath
	for _, f := range files {
		if f.Blob == nil && (f.Folder == "output" || f.Folder == "temp") {
			own = append(own, RemotePath{Folder: f.Folder, Subfolder: f.Subfolder, Filename: f.Filename})
		}
	}
	return b.remove(ctx, s, own, from, to)
}

// remove deletes or empties those files that are there, not empty, and were written between the two times.
func (b *Backend) remove(ctx context.Context, s *server, files []RemotePath, from, to time.Time) error {
	var group errgroup.Group
	group.SetLimit(transfers)
	errs := make([]error, len(files)+1)
	ours := make([]bool, len(files))
	for i, f := range files {
		group.Go(func() error {
			ours[i], errs[i] = s.mayRemove(ctx, f, from, to, b.o.Remover != nil)
			if ours[i] && b.o.Remover == nil {
				_, errs[i] = s.put(ctx, f, strings.NewReader(""), 0)
			}
			return nil
		})
	}
	_ = group.Wait()
	if b.o.Remover != nil {
		var gone []RemotePath
		for i, f := range files {
			if ours[i] {
				gone = append(gone, f)
			}
		}
		if len(gone) > 0 {
			errs[len(files)] = b.o.Remover(ctx, s.name, gone)
		}
	}
	return errors.Join(errs...)
}

func (s *server) mayRemove(ctx context.Context, f RemotePath, from, to time.Time, empty bool) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.t.call)
	defer cancel()
	res, err := s.request(ctx, http.MethodHead, "/view", viewQuery(f.Folder, f.Subfolder, f.Filename), nil, 0, "")
	if err != nil {
		return false, err
	}
	res.Body.Close()
	switch {
	case res.StatusCode == http.StatusNotFound, res.StatusCode == http.StatusBadRequest:
		return false, nil
	case res.StatusCode != http.StatusOK:
		return false, statusError(res)
	case res.ContentLength == 0 && !empty:
		return false, nil
	case from.IsZero():
		return true, nil
	}
	at, rough := written(res.Header)
	// File systems stamp by a clock that is up to some milliseconds behind; Last-Modified knows only seconds.
	slack := 20 * time.Millisecond
	if rough {
		slack = time.Second
	}
	return !at.IsZero() && !at.Before(from.Add(-slack)) && !at.After(to.Add(slack)), nil
}

// written tells when a file was written: to the nanosecond by the ETag of aiohttp, which is the time and the size in
// hexadecimal, else by Last-Modified.
func written(h http.Header) (at time.Time, rough bool) {
	mark, _, ok := strings.Cut(strings.Trim(h.Get("ETag"), `"`), "-")
	if ns, err := strconv.ParseInt(mark, 16, 64); ok && err == nil && ns > int64(time.Hour) {
		return time.Unix(0, ns), false
	}
	at, err := http.ParseTime(h.Get("Last-Modified"))
	if err != nil {
		return time.Time{}, true
	}
	return at, true
}
