package disk

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGuard(t *testing.T) {
	here := Folder{Path: t.TempDir(), What: "the jobs", Setting: "COMFYD_DATA_DIR"}
	require.NoError(t, (&Guard{Min: 1, Folders: []Folder{here}}).Check(t.Context()))

	err := (&Guard{Min: math.MaxInt64, Folders: []Folder{here}}).Check(t.Context())
	var low *LowError
	require.ErrorAs(t, err, &low)
	require.Less(t, low.Free, low.Min)
	require.Regexp(t, `^the disk of the jobs \(COMFYD_DATA_DIR\) has .+ free, and 8EiB are kept free \(COMFYD_MIN_FREE_DISK\)$`, err.Error())
	require.NotContains(t, err.Error(), here.Path, "anybody may read it")

	gone := Folder{Path: filepath.Join(here.Path, "gone")}
	require.NoError(t, (&Guard{Min: math.MaxInt64, Folders: []Folder{gone}}).Check(t.Context()), "in doubt there is room")
}
