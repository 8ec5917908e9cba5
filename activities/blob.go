package activities

import (
	"context"
	"io"
)

// maxGraph bounds what is read back as a graph: the largest body that the API takes.
const maxGraph = 100 << 20

// outputPrefix is where a job's outputs lie in the store; their hash follows.
func outputPrefix(jobID string) string { return "outputs/" + jobID + "/" }

func (a *Activities) read(ctx context.Context, key string) ([]byte, error) {
	r, err := a.o.Store.Open(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, maxGraph))
}

func (a *Activities) opener(key string) func(context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) { return a.o.Store.Open(ctx, key, 0, -1) }
}
