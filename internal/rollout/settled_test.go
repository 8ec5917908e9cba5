package rollout

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
)

// TestSettled: what Temporal does not know yet of workers that have just started is asked again, and nothing else is.
func TestSettled(t *testing.T) {
	early := serviceerror.NewFailedPrecondition("proposed ramping version 'comfyd:v2' is missing active task queues from the current version; ...")
	for name, c := range map[string]struct {
		answers []error
		asked   int
		fails   bool
	}{
		"known at once":    {[]error{nil}, 1, false},
		"known the second": {[]error{early, nil}, 2, false},
		"another refusal":  {[]error{serviceerror.NewFailedPrecondition("no such version"), nil}, 1, true},
		"another error":    {[]error{errors.New("away"), nil}, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			err := settled(t.Context(), func() error { asked++; return c.answers[asked-1] })
			require.Equal(t, c.fails, err != nil)
			require.Equal(t, c.asked, asked)
		})
	}
}
