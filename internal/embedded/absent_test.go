//go:build noembedded

package embedded

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNotBuiltIn(t *testing.T) {
	s, err := Start(context.Background(), Options{DataDir: t.TempDir()})
	require.Nil(t, s)
	require.ErrorIs(t, err, NotBuiltIn)
	require.ErrorContains(t, err, "TEMPORAL_ADDRESS")
}
