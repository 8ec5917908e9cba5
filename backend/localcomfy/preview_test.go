package localcomfy

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend/backendtest"
)

// TestRealPreviews: the real ComfyUI, as it is started here, sends what a sampler has so far.
func TestRealPreviews(t *testing.T) {
	w := newReal(t)
	models := t.TempDir()
	backendtest.MakeModel(t, w.o.Dir, models)
	paths := filepath.Join(models, "paths.yaml")
	require.NoError(t, os.WriteFile(paths, fmt.Appendf(nil, "test:\n  base_path: %s\n  diffusion_models: diffusion_models\n", models), 0o600))

	w.o.Args, w.o.Previews = []string{"--extra-model-paths-config", paths}, true
	began := time.Now()
	b, err := Start(t.Context(), w.o)
	require.NoError(t, err)
	defer b.Close()
	w.again(t, b, 0, began)
	backendtest.RequirePreviews(t, b, 4)
}
