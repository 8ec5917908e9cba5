package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// others are the variables of ours that something else than Config reads: the client commands, the app at Modal when it is
// deployed, the scripts, the tests.
var others = []string{
	"COMFYD_URL", "COMFYD_API_KEY", "COMFYD_DEMO_ONCE", "COMFYD_CACHE_DIR", "COMFYD_RECORD_HISTORIES",
	"COMFYD_MODAL_CPU", "COMFYD_MODAL_GPU", "COMFYD_MODAL_GPU_SNAPSHOT", "COMFYD_MODAL_MAX_CONTAINERS", "COMFYD_MODAL_MEMORY",
	"COMFYD_MODAL_MIN_CONTAINERS", "COMFYD_MODAL_REGION", "COMFYD_MODAL_SCALEDOWN_WINDOW", "COMFYD_MODAL_SNAPSHOT",
	"COMFYD_MODAL_STARTUP_TIMEOUT", "COMFYD_MODAL_TIMEOUT", "COMFYD_MODAL_VOLUME",
}

// ofTests begins the names that only tests read.
const ofTests = "COMFYD_TEST_"

// typo is how many letters a name of somebody else's may differ from one of ours to be taken for it.
const typo = 2

// Unknown names the variables that look like settings of comfyd and are none, one line for each, with the setting that was
// probably meant. COMFYUI_ is not ours alone: there, only a near miss counts.
func Unknown(vars map[string]string) []string {
	known := slices.Clone(others)
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		if name := f.Tag.Get("env"); name != "" && name != "-" {
			known = append(known, name)
		}
	}
	slices.Sort(known)
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		ours := strings.HasPrefix(name, "COMFYD_")
		if slices.Contains(known, name) || strings.HasPrefix(name, ofTests) || !ours && !strings.HasPrefix(name, "COMFYUI_") {
			continue
		}
		near := slices.MinFunc(known, func(a, b string) int {
			return levenshtein.ComputeDistance(name, a) - levenshtein.ComputeDistance(name, b)
		})
		if !ours && levenshtein.ComputeDistance(name, near) > typo {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s is not a setting of comfyd and has no effect; did you mean %s?", name, near))
	}
	return lines
}
