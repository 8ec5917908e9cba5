package telemetry

import (
	_ "embed"
	"encoding/json"
	"strings"
)

//go:embed prices.json
var pricesJSON []byte

// prices are US dollars a second.
type prices struct {
	own     map[string]float64 // by backend or GPU
	backend string             // whose the list is
	list    map[string]float64 // by GPU, as the list names them
}

func newPrices(own map[string]float64) (prices, error) {
	var file struct {
		Backend string             `json:"backend"`
		Prices  map[string]float64 `json:"usd_per_second"`
	}
	err := json.Unmarshal(pricesJSON, &file)
	return prices{own: own, backend: file.Backend, list: file.Prices}, err
}

// of is the price of a GPU of a backend: the one that was set for the backend, for the GPU, or the list's. GPUs are named
// as ComfyUI sees them ("NVIDIA A100-SXM4-80GB"), prices as they are sold ("A100-80GB").
func (p prices) of(backend, gpu string) (float64, bool) {
	if price, ok := p.own[backend]; ok {
		return price, true
	}
	if price, ok := find(p.own, gpu); ok {
		return price, true
	}
	if backend != p.backend {
		return 0, false
	}
	return find(p.list, gpu)
}

// find takes the longest name whose words all stand in the GPU's.
func find(list map[string]float64, gpu string) (price float64, ok bool) {
	have := map[string]bool{}
	for _, w := range words(gpu) {
		have[w] = true
	}
	best := 0
next:
	for name, p := range list {
		for _, w := range words(name) {
			if !have[w] {
				continue next
			}
		}
		if len(name) > best {
			price, ok, best = p, true, len(name)
		}
	}
	return price, ok
}

func words(name string) []string {
	return strings.FieldsFunc(strings.ToUpper(name), func(r rune) bool { return r == ' ' || r == '-' || r == '_' })
}
