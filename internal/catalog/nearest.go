package catalog

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

const (
	maxNearest = 3
	maxAllowed = 20
	// maxCompared bounds the names that one look-up compares: 5,000 take about 5 ms.
	maxCompared = 20_000
)

// nearest returns the names that a person may have meant, the likeliest first; none where nothing is near.
func nearest(name string, names []string) []string {
	if name == "" || len(name) > 200 {
		return nil
	}
	type scored struct {
		name  string
		score int
	}
	var found []scored
	want := fold(name)
	for _, candidate := range names[:min(len(names), maxCompared)] {
		got := fold(candidate)
		limit := max(2, max(len(want), len(got))*2/5)
		score := 0
		switch {
		case got == want:
		case strings.Contains(got, want) || strings.Contains(want, got):
			score = 1 + min(limit, max(len(want), len(got))-min(len(want), len(got)))/4
			if min(len(want), len(got)) < 3 {
				continue
			}
		case max(len(want), len(got))-min(len(want), len(got)) > limit:
			continue
		default:
			if score = levenshtein.ComputeDistance(want, got); score > limit {
				continue
			}
		}
		found = append(found, scored{candidate, score})
	}
	slices.SortFunc(found, func(a, b scored) int { return cmp.Or(cmp.Compare(a.score, b.score), strings.Compare(a.name, b.name)) })
	var list []string
	for _, f := range found[:min(len(found), maxNearest)] {
		list = append(list, f.name)
	}
	return list
}

// fold leaves what people mistype out of a name: case, separators, the folder and the ending of a model's file.
func fold(name string) string {
	name = strings.ToLower(strings.ReplaceAll(name, `\`, "/"))
	if modelFile(name) {
		name = strings.TrimSuffix(path.Base(name), path.Ext(name))
	}
	return strings.NewReplacer("_", "", "-", "", " ", "", ".", "", "(", "", ")", "").Replace(name)
}

// modelFile says whether a name looks like a file of weights.
func modelFile(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf", ".onnx", ".pkl":
		return true
	}
	return false
}
