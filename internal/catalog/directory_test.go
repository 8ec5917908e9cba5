package catalog_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/catalog"
)

// memory is a blob store.
type memory struct {
	mu    sync.Mutex
	blobs map[string][]byte
	puts  int
	down  error
}

func (m *memory) Put(_ context.Context, key string, r io.Reader) (comfy.Blob, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return comfy.Blob{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.puts++
	m.blobs[key] = b
	return comfy.Blob{Key: key}, m.down
}

func (m *memory) PutHashed(ctx context.Context, prefix string, r io.Reader) (comfy.Blob, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return comfy.Blob{}, err
	}
	sum := sha256.Sum256(b)
	return m.Put(ctx, prefix+hex.EncodeToString(sum[:]), bytes.NewReader(b))
}

func (m *memory) Open(_ context.Context, key string, _, _ int64) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.blobs[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (m *memory) List(_ context.Context, prefix string) iter.Seq2[comfy.Blob, error] {
	return func(yield func(comfy.Blob, error) bool) {
		m.mu.Lock()
		keys := slices.Sorted(maps.Keys(m.blobs))
		m.mu.Unlock()
		if m.down != nil {
			yield(comfy.Blob{}, m.down)
			return
		}
		for _, k := range keys {
			if strings.HasPrefix(k, prefix) && !yield(comfy.Blob{Key: k}, nil) {
				return
			}
		}
	}
}

func (m *memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.blobs, key)
	return nil
}

// pool is a backend of which only its description matters.
type pool struct {
	backend.Backend
	is      backend.Pool
	servers []backend.Server
}

func (p *pool) Pool() backend.Pool        { return p.is }
func (p *pool) Servers() []backend.Server { return p.servers }

// nodes is an /object_info with an image source and a saver of that name.
func nodes(saver string) json.RawMessage {
	return json.RawMessage(`{"EmptyImage":{"input":{"required":{"width":["INT",{"default":512,"min":1,"max":16384}]}},"output":["IMAGE"],"output_node":false},
		"` + saver + `":{"input":{"required":{"images":["IMAGE"]}},"output":[],"output_node":true}}`)
}

func parse(t *testing.T, text string) *comfy.Graph {
	t.Helper()
	g, err := comfy.ParseGraph([]byte(text))
	require.NoError(t, err)
	return g
}

const saveImage = `{"1":{"class_type":"EmptyImage","inputs":{"width":64}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0]}}}`

func publish(t *testing.T, m *memory, backends ...backend.Backend) *catalog.Publisher {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	p := catalog.NewPublisher(m, "worker-1", backends, log)
	require.NoError(t, p.Publish(t.Context(), true))
	return p
}

func TestDirectoryRefusesOnlyWhatEveryServerWould(t *testing.T) {
	m := &memory{blobs: map[string][]byte{}}
	now := time.Now()
	old := &pool{is: backend.Pool{Name: "url", Kind: "url"}, servers: []backend.Server{
		{Name: "a", Healthy: true, Catalog: nodes("SaveOther"), CatalogAt: now}, {Name: "b", Healthy: true, Catalog: nodes("SaveImage"), CatalogAt: now},
	}}
	publish(t, m, old)
	g := parse(t, saveImage)
	never := catalog.NewDirectory(m, func(context.Context) error { return nil })
	require.Nil(t, never.Check(t.Context(), g, nil, backend.Want{}), "b has the node")
	require.Nil(t, never.Check(t.Context(), g, nil, backend.Want{Pool: "url"}))

	f := never.Check(t.Context(), parse(t, strings.ReplaceAll(saveImage, "SaveImage", "SaveNothing")), nil, backend.Want{})
	require.NotNil(t, f)
	require.Equal(t, comfy.InvalidWorkflow, f.Code)
	require.Contains(t, f.NodeErrors, "2")

	f = never.Check(t.Context(), g, nil, backend.Want{Pool: "mars"})
	require.NotNil(t, f)
	require.Contains(t, f.Message, "mars")
	require.Contains(t, f.Message, "url", "it names those that there are")

	require.Contains(t, never.Check(t.Context(), g, nil, backend.Want{GPU: "H100"}).Message, "leave gpu out")
	starting := catalog.NewDirectory(m, func(context.Context) error { return errors.New("the catalogue is on its way") })
	require.NotNil(t, starting.Check(t.Context(), g, nil, backend.Want{GPU: "H100"}), "no catalogue is needed to know that")
	publish(t, m, old, &pool{is: backend.Pool{Name: "modal", Kind: "modal", GPUs: []string{"H100", "L40S"}}, servers: old.servers})
	never = catalog.NewDirectory(m, func(context.Context) error { return nil })
	require.Nil(t, never.Check(t.Context(), g, nil, backend.Want{GPU: "h100"}))
	require.Contains(t, never.Check(t.Context(), g, nil, backend.Want{GPU: "B200"}).Message, `"B200"; there are: H100, L40S`)
	require.Contains(t, never.Check(t.Context(), g, nil, backend.Want{GPU: "H100", Pool: "url"}).Message, "leave gpu out")
}

func TestDirectoryLooksAgainBeforeItRefuses(t *testing.T) {
	m := &memory{blobs: map[string][]byte{}}
	p := &pool{is: backend.Pool{Name: "url", Kind: "url"}, servers: []backend.Server{{Name: "a", Healthy: true, Catalog: nodes("SaveOther"), CatalogAt: time.Now()}}}
	pub := publish(t, m, p)
	asked := 0
	d := catalog.NewDirectory(m, func(ctx context.Context) error {
		asked++
		p.servers = []backend.Server{{Name: "a", Healthy: true, Catalog: nodes("SaveImage"), CatalogAt: time.Now().Add(time.Second)}}
		return pub.Publish(ctx, true)
	})
	d.RefreshEvery(time.Hour)
	require.Nil(t, d.Check(t.Context(), parse(t, saveImage), nil, backend.Want{}), "the node has been installed since")
	require.Equal(t, 1, asked)
	bad := parse(t, strings.ReplaceAll(saveImage, "SaveImage", "SaveNothing"))
	for range 5 {
		require.NotNil(t, d.Check(t.Context(), bad, nil, backend.Want{}))
	}
	require.Equal(t, 1, asked, "bad workflows cannot keep the backends busy")
}

func TestDirectoryAcceptsInDoubt(t *testing.T) {
	g := parse(t, saveImage)
	m := &memory{blobs: map[string][]byte{}}
	require.Nil(t, catalog.NewDirectory(m, nil).Check(t.Context(), g, nil, backend.Want{}), "nobody has published anything")

	unknown := &pool{is: backend.Pool{Name: "url", Kind: "url"}, servers: []backend.Server{{Name: "a", Problem: "connection refused"}}}
	publish(t, m, unknown)
	require.Nil(t, catalog.NewDirectory(m, nil).Check(t.Context(), g, nil, backend.Want{}), "a server that nobody has seen yet")

	unknown.servers = []backend.Server{{Name: "a", Healthy: true, Catalog: nodes("SaveOther"), CatalogAt: time.Now()}}
	publish(t, m, unknown)
	require.Nil(t, catalog.NewDirectory(m, nil).Check(t.Context(), g, nil, backend.Want{}), "nobody here can ask it anew")

	m.down = errors.New("the store is away")
	require.Nil(t, catalog.NewDirectory(m, func(context.Context) error { return nil }).Check(t.Context(), g, nil, backend.Want{}))
}

func TestDirectoryKnowsWhoIsAlive(t *testing.T) {
	m := &memory{blobs: map[string][]byte{}}
	d := func() *catalog.Directory { return catalog.NewDirectory(m, nil) }
	require.ErrorIs(t, d().Alive(t.Context()), catalog.ErrNoBackend)
	a := &pool{is: backend.Pool{Name: "url", Kind: "url"}, servers: []backend.Server{{Name: "http://gpu", Problem: "connection refused"}}}
	b := &pool{is: backend.Pool{Name: "local-host", Kind: "local"}, servers: []backend.Server{{Name: "here", Healthy: true}}}
	publish(t, m, a)
	err := d().Alive(t.Context())
	require.ErrorIs(t, err, catalog.ErrNoBackend)
	require.ErrorContains(t, err, "http://gpu: connection refused")
	p := publish(t, m, a, b)
	require.NoError(t, d().Alive(t.Context()))
	pools, err := d().Pools(t.Context())
	require.NoError(t, err)
	require.Equal(t, []backend.Pool{b.is}, pools)

	p.Start()
	p.Stop()
	require.ErrorIs(t, d().Alive(t.Context()), catalog.ErrNoBackend, "a worker that stops takes its records back")
}

func TestPublisherWritesOnlyNews(t *testing.T) {
	m := &memory{blobs: map[string][]byte{}}
	a := &pool{is: backend.Pool{Name: "url", Kind: "url"}, servers: []backend.Server{{Name: "a", Healthy: true, Catalog: nodes("SaveImage"), CatalogAt: time.Now()}}}
	p := publish(t, m, a)
	before := m.puts
	for range 3 {
		require.NoError(t, p.Publish(t.Context(), false))
	}
	require.Equal(t, before, m.puts)
	a.servers[0].Healthy, a.servers[0].Problem = false, "gone"
	require.NoError(t, p.Publish(t.Context(), false))
	require.Equal(t, before+1, m.puts)
}

// TestCataloguesInUseAreRenewed: by their age, a sweep tells those that nobody uses; and it asks for those that are named.
func TestCataloguesInUseAreRenewed(t *testing.T) {
	m := &memory{blobs: map[string][]byte{}}
	p := publish(t, m, &pool{is: backend.Pool{Name: "url"}, servers: []backend.Server{{Name: "s1", Healthy: true, Catalog: nodes("SaveImage"), CatalogAt: time.Now()}}})
	named, err := catalog.Named(t.Context(), m)
	require.NoError(t, err)
	require.Len(t, named, 1)
	for key := range named {
		delete(m.blobs, key) // a sweep has taken it from a worker that was paused for days
		require.NoError(t, p.Publish(t.Context(), true))
		require.NotContains(t, m.blobs, key, "within the hour it is taken to be there")
		p.Age(time.Hour)
		require.NoError(t, p.Publish(t.Context(), true))
		require.Contains(t, m.blobs, key)
	}
	m.down = errors.New("away")
	_, err = catalog.Named(t.Context(), m)
	require.Error(t, err)
}
