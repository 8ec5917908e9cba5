package activities

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// TestCausesAreClean: what Temporal keeps beneath a failure tells a person more, and holds no credentials.
func TestCausesAreClean(t *testing.T) {
	get := errors.New(`Get "https://blob.example.com/x?X-Amz-Signature=0123456789abcdef": EOF`)
	inner := &backend.Error{Code: comfy.BackendUnavailable, Message: "inner", Cause: fmt.Errorf("asking: %w", get)}
	err := fail(&backend.Error{Code: comfy.OutputLost, Message: "the file is gone", Cause: inner})
	var app *temporal.ApplicationError
	require.ErrorAs(t, err, &app)
	require.Equal(t, "output_lost", app.Type())
	require.Equal(t, "the file is gone", app.Message())
	require.EqualError(t, app.Unwrap(), `asking: Get "https://blob.example.com/x?X-Amz-Signature=[hidden]": EOF`)
	for _, alone := range []error{&backend.Error{Code: comfy.NodeFailed, Message: "node 3"}, &backend.Error{Message: "no slot", Cause: errWait}} {
		require.ErrorAs(t, fail(alone), &app)
		require.NoError(t, app.Unwrap())
	}
}
