package modal

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

func TestVariant(t *testing.T) {
	deployed := settings{GPU: "L40S", Timeout: 3600}
	for _, c := range []struct {
		gpu  string
		run  time.Duration
		s    settings
		want variant
	}{
		{"", 0, deployed, variant{}},
		{"", 30 * time.Minute, deployed, variant{}},
		{"", 0, settings{GPU: "L40S", CPU: 4, Memory: 40960}, variant{}}, // what the catalogue tells makes no other containers
		{"L40S", 30 * time.Minute, deployed, variant{}},
		{"H100", 0, deployed, variant{gpu: "H100"}},
		{"H100", 0, settings{GPU: "L40S", CPU: 4, Memory: 40960}, variant{gpu: "H100", cpu: 4, memory: 40960}},
		{"L40S", 0, settings{GPU: "L40S", CPU: 4, Memory: 40960}, variant{}},
		{"L40S", 0, settings{GPU: "L40S,A100-80GB", Timeout: 3600}, variant{gpu: "L40S"}},
		{"", 55 * time.Minute, deployed, variant{}},
		{"", 56 * time.Minute, deployed, variant{timeout: 2 * time.Hour}},
		{"", 2 * time.Hour, deployed, variant{timeout: 4 * time.Hour}},
		{"", 23 * time.Hour, settings{Timeout: 10 * 3600}, variant{timeout: 24 * time.Hour}},
		{"", 24 * time.Hour, deployed, variant{timeout: 24 * time.Hour}},
		{"", 24 * time.Hour, settings{Timeout: 86400}, variant{}}, // Modal has no more
		{"", 3 * time.Hour, settings{}, variant{timeout: 4 * time.Hour}},
		{"", 30 * time.Minute, settings{}, variant{}},
	} {
		require.Equal(t, c.want, variantOf(&backend.Prompt{GPU: c.gpu, RunTimeout: c.run}, c.s), "%+v", c)
	}
}

// TestGPUBeforeTheCatalogue: what CPU and memory go with it is not known yet.
func TestGPUBeforeTheCatalogue(t *testing.T) {
	_, err := variantOf(&backend.Prompt{GPU: "H100"}, settings{}).of(nil)
	require.Contains(t, errorOf(t, err, comfy.BackendUnavailable).Message, "how much CPU and memory")
}

// TestPausing: the pauses grow to a limit, one for however many failures that were under way at once.
func TestPausing(t *testing.T) {
	b := &Backend{t: defaultTiming()}
	c := &containers{}
	for _, want := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
		for range 5 {
			b.putAside(c, &backend.Error{Message: "x"})
		}
		require.InDelta(t, (want * time.Second).Seconds(), time.Until(c.starts.until).Seconds(), 5) // half of the shortest
		require.NotNil(t, c.paused())
		c.starts.until = time.Now() // it is over
		require.Nil(t, c.paused())
	}
	b.putAside(c, &backend.Error{Message: "x"})
	c.up()
	require.Zero(t, c.starts)
	require.Nil(t, c.paused())
}
