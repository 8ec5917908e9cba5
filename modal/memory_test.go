package modal

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/internal/fakemodal"
)

// TestMemoryOfABigResult: 50 MB pass through, and none of them is kept. All that is allocated is counted, also by the
// fake, which is in this process.
func TestMemoryOfABigResult(t *testing.T) {
	const size, most = 50 << 20, 8 << 20
	// No looks at the app meanwhile: there are the more of them, the slower the machine is.
	w := newWorld(t, nil, func(_ *fakemodal.Server, _ *Options, tm *timing) { tm.look = time.Hour })
	w.ready(w.b)
	p := w.prompt(script{"size": size})
	out := w.succeeds(w.run(w.ctx(), p, nil))
	b := w.another()
	w.well(b)

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	again, err := b.Run(w.ctx(), p, &out.Handle, w.rec)
	require.NoError(t, err)
	body, n, err := b.Open(w.ctx(), again.Handle, again.Files[0])
	require.NoError(t, err)
	require.EqualValues(t, size, n)
	sum := sha256.New()
	n, err = io.Copy(sum, body)
	require.NoError(t, err)
	require.NoError(t, body.Close())
	runtime.ReadMemStats(&after)
	require.EqualValues(t, size, n)
	entry, ok := b.indexOf(again.Handle.CallID, again.Files[0])
	require.True(t, ok)
	require.Equal(t, entry.SHA256, hex.EncodeToString(sum.Sum(nil)))
	used := after.TotalAlloc - before.TotalAlloc
	t.Logf("%d bytes allocated for a result of %d", used, size)
	require.Less(t, used, uint64(most))
}

func (b *Backend) indexOf(call string, f backend.File) (entry, bool) {
	x, ok := b.indexes.Get(call)
	if !ok {
		return entry{}, false
	}
	return x.find(f)
}
