package activities

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"regexp"
)

// maxGraph bounds what is read back as a graph: the largest body that the API takes.
const maxGraph = 100 << 20

var plainID = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$`)

// outputPrefix is where a job's outputs lie in the store; their hash follows. The ID of a child that another team has
// started may be any text: one that is no plain name goes by its hash.
func outputPrefix(jobID string) string {
	if !plainID.MatchString(jobID) {
		jobID = fmt.Sprintf("~%x", sha256.Sum256([]byte(jobID)))
	}
	return "outputs/" + jobID + "/"
}

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
