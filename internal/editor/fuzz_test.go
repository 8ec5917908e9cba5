package editor_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/editor"
)

// FuzzConvert: whatever a file holds, it is converted to something that can be parsed, or refused with a reason.
func FuzzConvert(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("..", "..", "testdata", "ui", "*.json"))
	require.NoError(f, err)
	for _, name := range files {
		if raw, err := os.ReadFile(name); err == nil && !strings.HasSuffix(name, ".api.json") {
			f.Add(string(raw))
		}
	}
	f.Add(saved())
	all := classes(f)
	f.Fuzz(func(t *testing.T, file string) {
		_, err := comfy.ParseGraph([]byte(file))
		other, ok := err.(*comfy.GraphError)
		if !ok || other.File == nil {
			return
		}
		raw, err := editor.Convert(other.File, all, first)
		if err != nil {
			refused, ok := err.(*comfy.GraphError)
			require.True(t, ok)
			require.NotEmpty(t, refused.Message)
			return
		}
		if _, err := comfy.ParseGraph(raw); err != nil { // its chains, say; never its JSON
			require.NotContains(t, err.Error(), "invalid JSON", string(raw))
			require.NotContains(t, err.Error(), "stands twice", string(raw))
		}
	})
}
