package catalog_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/internal/catalog"
)

// TestGonePools: a pool is gone when all of its workers have stopped, and is not when another one serves it.
func TestGonePools(t *testing.T) {
	m := &memory{blobs: map[string][]byte{}}
	a := &pool{is: backend.Pool{Name: "url", Kind: "url"}, servers: []backend.Server{{Name: "a", Healthy: true}}}
	b := &pool{is: backend.Pool{Name: "local-x", Kind: "local"}, servers: []backend.Server{{Name: "b", Problem: "ComfyUI is starting"}}}
	d := catalog.NewDirectory(m, nil)
	gone := func() []catalog.Gone {
		pools, err := d.Gone(t.Context())
		require.NoError(t, err)
		return pools
	}
	require.Empty(t, gone())
	first := publish(t, m, a, b)
	require.Empty(t, gone(), "a pool whose server is not well is served all the same")
	first.Start()
	first.Stop()
	require.Equal(t, []catalog.Gone{{Pool: "local-x", Stopped: true}, {Pool: "url", Stopped: true}}, gone())
	publish(t, m, a)
	require.Equal(t, []catalog.Gone{{Pool: "local-x", Stopped: true}}, gone())
}

// TestLeavingWorker: what it serves is offered to nobody any more, and is not gone while its jobs end.
func TestLeavingWorker(t *testing.T) {
	m := &memory{blobs: map[string][]byte{}}
	a := &pool{is: backend.Pool{Name: "url", Kind: "url"}, servers: []backend.Server{{Name: "a", Healthy: true}}}
	p := publish(t, m, a)
	look := func() *catalog.Directory { return catalog.NewDirectory(m, nil) } // one remembers for a second
	pools, err := look().Pools(t.Context())
	require.NoError(t, err)
	require.Len(t, pools, 1)
	p.Leave(t.Context())
	pools, err = look().Pools(t.Context())
	require.NoError(t, err)
	require.Empty(t, pools)
	require.ErrorIs(t, look().Alive(t.Context()), catalog.ErrNoBackend)
	gone, err := look().Gone(t.Context())
	require.NoError(t, err)
	require.Empty(t, gone)
}

// TestHalted: a reason of the worker's own is told like one of its servers'.
func TestHalted(t *testing.T) {
	m := &memory{blobs: map[string][]byte{}}
	p := publish(t, m, &pool{is: backend.Pool{Name: "url", Kind: "url"}, servers: []backend.Server{{Name: "a", Healthy: true}}})
	p.Halt("no version is current")
	require.NoError(t, p.Publish(t.Context(), false), "at once: it is news")
	require.ErrorContains(t, catalog.NewDirectory(m, nil).Alive(t.Context()), "no version is current")
	p.Halt("")
	require.NoError(t, p.Publish(t.Context(), false))
	require.NoError(t, catalog.NewDirectory(m, nil).Alive(t.Context()))
}
