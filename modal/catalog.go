package modal

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/catalog"
)

// maxCatalog bounds what the app's catalogue may be, unpacked.
const maxCatalog = 256 << 20

// catalogue is the answer of the app's function `catalog`. It never changes.
type catalogue struct {
	Version    string          `json:"version"`     // ComfyUI's
	ObjectInfo json.RawMessage `json:"object_info"` // as ComfyUI gives it
	Settings   settings        `json:"settings"`
	Missing    []string        `json:"missing"` // models that the Volume should hold, and does not

	parsed *catalog.Catalog
	at     time.Time
	dep    string // the deployment's key
	print  string // of what it was made from, taken before; empty where that could not be told
}

// settings are those of the deployed app that matter here.
type settings struct {
	GPU     string  `json:"gpu"`
	CPU     float64 `json:"cpu"`     // cores
	Memory  int     `json:"memory"`  // MiB
	Timeout int     `json:"timeout"` // seconds
	Volume  string  `json:"volume"`
}

// refresh is one attempt to be sure of the catalogue. err is set when done is closed.
type refresh struct {
	done chan struct{}
	err  error
}

// Refresh makes sure that the catalogue is that of the app and the models as they are now. It asks Modal what has been
// deployed and what lies in the models' Volume, which is quick; only where that has changed it calls the app for a new
// catalogue, which starts a ComfyUI on a CPU.
func (b *Backend) Refresh(ctx context.Context) error {
	r := b.refresh()
	select {
	case <-r.done:
	case <-ctx.Done():
		return unavailable(ctx.Err(), "the app at Modal has not yet said which nodes and models it has")
	}
	return b.typed(ctx, r.err)
}

// refresh joins the attempt that is under way, or begins one.
func (b *Backend) refresh() *refresh {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refreshing != nil {
		return b.refreshing
	}
	r := &refresh{done: make(chan struct{})}
	if r.err = b.ctx.Err(); r.err != nil {
		close(r.done)
		return r
	}
	b.refreshing = r
	b.done.Go(func() {
		defer close(r.done)
		r.err = b.renew(b.ctx)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.refreshing = nil
		if r.err == nil {
			b.retry.Reset()
		} else if b.ctx.Err() == nil {
			b.askAgain = time.Now().Add(b.retry.NextBackOff())
			b.log.WithError(r.err).Warn("the app at Modal does not say which nodes and models it has; until it does, workflows are judged by what was known before")
		}
	})
	return r
}

// renew compares what is there with what the catalogue was made from, and makes a new one where they differ.
func (b *Backend) renew(ctx context.Context) error {
	ctx, done := context.WithTimeout(ctx, b.t.catalog)
	defer done()
	quick, end := context.WithTimeout(ctx, b.t.call)
	defer end()
	dep, err := b.lookup(quick)
	if err != nil {
		return err
	}
	b.mu.Lock()
	known := b.cat
	b.mu.Unlock()
	var volume string
	if known != nil {
		volume = known.Settings.Volume
	}
	print, err := b.fingerprint(quick, dep, volume)
	if err != nil {
		b.log.WithError(err).Warn("the models' Volume cannot be listed; the catalogue is asked for anew")
	}
	unchanged := known != nil && print != "" && known.print == print
	if blind := known != nil && print == ""; unchanged || blind && known.dep == dep.key && time.Since(known.at) < b.t.catalogBlind {
		b.mu.Lock()
		b.checked = time.Now()
		b.mu.Unlock()
		return nil
	}
	began := time.Now()
	cat, err := b.askCatalog(ctx, dep)
	if err != nil {
		return err
	}
	cat.dep = dep.key
	if cat.print = print; cat.Settings.Volume != volume { // the first one tells where the models are
		again, end := context.WithTimeout(ctx, b.t.call)
		defer end()
		if cat.print, err = b.fingerprint(again, dep, cat.Settings.Volume); err != nil {
			b.log.WithError(err).Warn("the models' Volume cannot be listed; its changes will not be noticed")
		}
	}
	if len(cat.Missing) > 0 {
		b.log.WithField("missing", strings.Join(cat.Missing, ", ")).Warn("models are missing in the app's Volume at Modal; deploy it anew, or add them with `comfyd models add`")
	}
	b.mu.Lock()
	b.cat, b.checked = cat, began
	b.mu.Unlock()
	b.log.WithField("comfyui", cat.Version).WithField("took", time.Since(began).Round(time.Millisecond)).Info("the catalogue of the app at Modal is there")
	return nil
}

// askCatalog calls the app's function.
func (b *Backend) askCatalog(ctx context.Context, dep *deployment) (*catalogue, error) {
	var packed []byte
	if err := b.ask(ctx, dep.catalog, nil, &packed); err != nil {
		return nil, err
	}
	var data []byte
	plain, err := gzip.NewReader(bytes.NewReader(packed))
	if err == nil {
		data, err = io.ReadAll(io.LimitReader(plain, maxCatalog))
	}
	if err != nil {
		return nil, fmt.Errorf("the app's catalogue cannot be unpacked: %w", err)
	}
	c := &catalogue{at: time.Now()}
	if err := json.Unmarshal(catalog.Sanitize(data), c); err != nil {
		return nil, fmt.Errorf("the app's catalogue cannot be read: %w", err)
	}
	if c.parsed, err = catalog.Parse(c.ObjectInfo); err != nil {
		return nil, err
	}
	return c, nil
}

// notes is the folder of the Volume in which the app writes down what it knows of the models. It holds none.
const notes = ".comfyd"

// fingerprint names what a catalogue depends on: the deployed app, and path, size and time of each model.
func (b *Backend) fingerprint(ctx context.Context, dep *deployment, volume string) (string, error) {
	if volume == "" {
		return "", nil
	}
	var entries []string
	add := func(list []*pb.FileEntry) {
		for _, e := range list {
			if name := strings.TrimPrefix(e.GetPath(), "/"); name == notes || strings.HasPrefix(name, notes+"/") {
				continue
			}
			entries = append(entries, fmt.Sprintf("%q %d %d", e.GetPath(), e.GetSize(), e.GetMtime()))
		}
	}
	var got *pb.VolumeGetOrCreateResponse
	see := context.WithValue(ctx, replyKey{}, func(reply any) {
		if r, ok := reply.(*pb.VolumeGetOrCreateResponse); ok {
			got = r
		}
	})
	v, err := b.client.sdk.Volumes.FromName(see, volume, nil)
	if isNotFound(err) {
		return dep.key, nil
	}
	if err != nil {
		return "", err
	}
	// Volumes of the second kind are listed by a call of their own (modal 1.6.4, volume.py: iterdir).
	if got.GetMetadata().GetVersion() == pb.VolumeFsVersion_VOLUME_FS_VERSION_V2 {
		s, err := b.client.raw.VolumeListFiles2(ctx, pb.VolumeListFiles2Request_builder{VolumeId: v.VolumeID, Path: "/", Recursive: true}.Build())
		if err == nil {
			err = drain(s, func(r *pb.VolumeListFiles2Response) { add(r.GetEntries()) })
		}
		if err != nil {
			return "", err
		}
	} else {
		s, err := b.client.raw.VolumeListFiles(ctx, pb.VolumeListFilesRequest_builder{VolumeId: v.VolumeID, Path: "/", Recursive: true}.Build())
		if err == nil {
			err = drain(s, func(r *pb.VolumeListFilesResponse) { add(r.GetEntries()) })
		}
		if err != nil {
			return "", err
		}
	}
	slices.Sort(entries)
	sum := sha256.Sum256([]byte(strings.Join(entries, "\n")))
	return dep.key + " " + hex.EncodeToString(sum[:]), nil
}

// drain reads a stream to its end.
func drain[T any](s grpc.ServerStreamingClient[T], each func(*T)) error {
	for {
		r, err := s.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		each(r)
	}
}

// known is what is known about the nodes and models; nil where nobody has told.
func (b *Backend) known() *catalogue {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cat
}

// current tells whether the catalogue was found to be up to date a moment ago, and whether it is being looked at now.
func (b *Backend) current() (fresh, asking bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.checked.IsZero() && time.Since(b.checked) <= b.t.catalogFresh, b.refreshing != nil
}

// check refuses a prompt that no container of the app will ever run, by what is known.
func (b *Backend) check(p *backend.Prompt) *backend.Error {
	if p.GPU != "" && !slices.Contains(b.pool.GPUs, p.GPU) {
		allowed := "this server allows no choice of GPU (COMFYD_MODAL_GPUS)"
		if len(b.pool.GPUs) > 0 {
			allowed = "allowed are " + strings.Join(b.pool.GPUs, ", ")
		}
		return backend.Errorf(comfy.InvalidWorkflow, "the GPU %q is not to be had: %s", p.GPU, allowed)
	}
	cat := b.known()
	if cat == nil {
		return nil
	}
	names := make([]string, len(p.Inputs))
	for i, in := range p.Inputs {
		names[i] = in.Name
	}
	bad := cat.parsed.Check(p.Graph, names)
	if len(bad) == 0 { // a job that came while nobody knew the classes has had a weaker look
		bad = catalog.PathErrors(p.Graph, cat.parsed, names)
	}
	if len(bad) == 0 {
		return nil
	}
	return &backend.Error{Code: comfy.InvalidWorkflow, Message: bad.Summary(), NodeErrors: bad}
}
