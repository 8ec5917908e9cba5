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
