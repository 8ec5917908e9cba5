package app

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

func TestIDsThatAreNoHeaders(t *testing.T) {
	for id, there := range map[string]bool{"workflow:order 42/a?#%": true, "workflow:bestellung-ü": false, "workflow:注文": false} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), resourceHeader, id, "other", "stays")
		require.NoError(t, withoutOddHeaders(ctx, "", nil, nil, nil, func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
			md, _ := metadata.FromOutgoingContext(ctx)
			require.Equal(t, there, len(md.Get(resourceHeader)) == 1, id)
			require.Equal(t, []string{"stays"}, md.Get("other"))
			return nil
		}))
	}
}
