package comfyd_test

import (
	"go/build"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/comfyd/comfyd/"

// arrows says which packages of ours each package may import, outside its tests. All arrows end at comfy; the API, the
// worker, the backends and the store never meet but in internal/app.
var arrows = map[string][]string{
	"comfy":                            {},
	"comfy/files":                      {"comfy"},
	"store":                            {"comfy"},
	"backend":                          {"comfy"},
	"backend/backendtest":              {"comfy", "backend"},
	"backend/comfyui":                  {"comfy", "backend", "internal/catalog"},
	"backend/comfyhttp":                {"comfy", "backend", "backend/comfyui", "internal/catalog", "internal/logs"},
	"backend/localcomfy":               {"comfy", "backend", "backend/comfyhttp"},
	"activities":                       {"comfy", "backend", "internal/live", "internal/logs", "internal/removal", "internal/visibility"},
	"workflows":                        {"comfy", "backend", "activities"},
	"worker":                           {"comfy", "backend", "activities", "workflows", "internal/catalog", "internal/live", "internal/removal", "internal/rollout", "internal/visibility"},
	"api":                              {"comfy", "backend", "api/openapi", "internal/live", "internal/logs", "internal/outbound", "internal/removal", "internal/visibility", "internal/webhook"},
	"api/openapi":                      {},
	"client":                           {"comfy"},
	"modal":                            {"comfy", "backend", "backend/comfyui", "internal/catalog", "internal/logs"},
	"internal/catalog":                 {"comfy", "backend", "internal/editor"},
	"internal/editor":                  {"comfy"},
	"internal/cli":                     {"comfy", "client"},
	"internal/config":                  {"comfy"},
	"internal/removal":                 {"comfy", "internal/visibility"},
	"internal/rollout":                 {"comfy", "internal/visibility"},
	"internal/visibility":              {"comfy"},
	"internal/live":                    {"backend"},
	"internal/outbound":                {},
	"internal/webhook":                 {"comfy", "internal/outbound"},
	"internal/disk":                    {},
	"internal/codec":                   {},
	"internal/logs":                    {},
	"internal/telemetry":               {"comfy", "store", "internal/logs"},
	"internal/embedded":                {"internal/logs"},
	"internal/backup":                  {"internal/embedded"},
	"internal/fakecomfy":               {},
	"internal/cluster":                 {},
	"internal/browser":                 {},
	"internal/fakeapi":                 {"comfy", "client"},
	"internal/fakemodal":               {},
	"internal/doctor":                  {"comfy", "backend", "examples", "modal", "internal/config", "internal/logs"},
	"examples":                         {},
	"examples/children/go":             {"comfy", "comfy/files"},
	"bench":                            {"internal/cluster"}, // what it measures are programs
	"internal/fakemodal/cmd/fakemodal": {"internal/fakemodal"},
	"faults":                           {}, // the processes under test are programs
	"faults/table":                     {},
	"faults/temporald":                 {"comfy", "internal/embedded"},
	"internal/app":                     {"*"},
	"cmd/comfyd":                       {"comfy", "store", "internal/app", "internal/backup", "internal/cli", "internal/config", "internal/doctor", "internal/logs"},
}

func TestArrows(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if n := d.Name(); path != "." && (strings.HasPrefix(n, ".") || n == "testdata" || n == "tools" || n == "data" || n == "demo") {
			return fs.SkipDir
		}
		p, err := build.Default.ImportDir(path, 0)
		if err != nil || path == "." { // no Go files
			return nil
		}
		seen++
		path = filepath.ToSlash(path)
		allowed, known := arrows[path]
		require.True(t, known, "the package %s has no line in arrows", path)
		for _, imported := range p.Imports {
			to, ours := strings.CutPrefix(imported, module)
			if path == "comfy" || strings.HasPrefix(path, "comfy/") {
				require.True(t, ours || !strings.Contains(strings.Split(imported, "/")[0], "."), "comfy imports the standard library only")
			}
			if ours && allowed != nil && !contains(allowed, to) {
				t.Errorf("%s must not import %s", path, to)
			}
		}
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, seen, 10, "the walk found the packages")
}

func contains(allowed []string, to string) bool {
	for _, a := range allowed {
		if a == "*" || a == to {
			return true
		}
	}
	return false
}
