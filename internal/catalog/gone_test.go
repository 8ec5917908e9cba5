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
	gone := func() []string {
		names, err := d.Gone(t.Context())
		require.NoError(t, err)
		return names
	}
	require.Empty(t, gone())
	first := publish(t, m, a, b)
	require.Empty(t, gone(), "a pool whose server is not well is served all the same")
	first.Start()
	first.Stop()
	require.Equal(t, []string{"local-x", "url"}, gone())
	publish(t, m, a)
	require.Equal(t, []string{"local-x"}, gone())
}
