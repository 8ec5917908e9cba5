package modal

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
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
		{"L40S", 30 * time.Minute, deployed, variant{}},
		{"H100", 0, deployed, variant{gpu: "H100"}},
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

// TestPutAside: the pauses grow to a limit, and one start that works ends them.
func TestPutAside(t *testing.T) {
	b := &Backend{t: defaultTiming()}
	c := &containers{}
	for _, want := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
		b.putAside(c, &backend.Error{Message: "x"})
		require.InDelta(t, want.Seconds()*float64(time.Second), time.Until(c.until).Seconds(), 1)
	}
	c.up()
	require.Zero(t, c.fails)
	require.Nil(t, c.why)
	require.True(t, c.until.IsZero())
}
