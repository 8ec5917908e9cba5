package activities

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/visibility"
)

// refsAtOnce is how many of a child's files are looked for at a time.
const refsAtOnce = 16

// Child is what WarmUp has found out about a job that another Temporal user has started, rather than the API: what the
// API checks and notes of its own jobs before they start.
type Child struct {
	// Tenant owns it, by configuration; empty where this worker was not told.
	Tenant string `json:"tenant,omitempty"`
	// Images are its input files, with hash and size as the store has them.
	Images []comfy.Input `json:"images,omitempty"`
	// Inputs and Metadata are the values of its search attributes.
	Inputs   []string `json:"inputs"`
	Metadata []string `json:"metadata,omitempty"`
}

// child checks a request that nobody has checked yet. What it names in the store must be the tenant's: a key of another
// tenant's file is missing like one that never was.
func (a *Activities) child(ctx context.Context, r *comfy.Request) (*Child, error) {
	if err := r.Check(); err != nil {
		return nil, fail(&backend.Error{Code: comfy.InvalidWorkflow, Message: err.Error()})
	}
	if r.WebhookURL != "" {
		if err := a.o.Callable(r.WebhookURL); err != nil {
			return nil, fail(backend.Errorf(comfy.InvalidWorkflow, "webhook_url: %s", err))
		}
	}
	c := &Child{
		Tenant: a.o.ChildTenant, Images: slices.Clone(r.Images), Inputs: visibility.Marks(r), Metadata: visibility.Labels(r.Metadata),
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(refsAtOnce)
	for i := range c.Images {
		group.Go(func() (err error) {
			in := &c.Images[i]
			in.SHA256 = path.Base(in.Ref)
			in.Size, err = a.own(ctx, fmt.Sprintf("images[%d] (%s)", i, in.Name), in.Ref)
			return err
		})
	}
	if r.WorkflowRef != "" {
		group.Go(func() error {
			_, err := a.own(ctx, "workflow_ref", r.WorkflowRef)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return c, nil
}

// own finds a file that children may use, and has it kept for as long as a job may run. It returns its size.
func (a *Activities) own(ctx context.Context, what, ref string) (int64, error) {
	ours, err := a.ours(ctx, ref)
	var blob comfy.Blob
	if err == nil && ours {
		if blob, err = a.o.Store.Stat(ctx, ref); err == nil && !strings.HasPrefix(ref, comfy.OutputRoot) { // an output is kept with its job
			err = a.o.Store.Touch(ctx, ref)
		}
	}
	var be *backend.Error
	switch {
	case errors.As(err, &be):
		return 0, fail(err)
	case !ours && err == nil, errors.Is(err, fs.ErrNotExist):
		return 0, fail(backend.Errorf(comfy.InvalidWorkflow,
			"%s: there is no such file among those that this job may use; give the ref of an upload (POST /inputs) or of an output, both of the tenant to whom such jobs belong, and not forgotten yet", what))
	case err != nil:
		return 0, again(&backend.Error{Code: comfy.Storage, Message: what + " cannot be looked for", Cause: err})
	}
	return blob.Size, nil
}

// ours tells whether a key is that of an upload or an output of the tenant to whom children belong.
func (a *Activities) ours(ctx context.Context, ref string) (bool, error) {
	parts := strings.Split(ref, "/")
	if len(parts) != 3 {
		return false, nil
	}
	owner, sum := parts[1], parts[2]
	if raw, err := hex.DecodeString(sum); err != nil || len(raw) != 32 || strings.ToLower(sum) != sum {
		return false, nil
	}
	switch {
	case strings.HasPrefix(ref, comfy.OutputRoot):
		tenant, found, err := a.o.Owner(ctx, owner)
		return err == nil && found && (tenant == "" || tenant == a.o.ChildTenant), err
	case !strings.HasPrefix(ref, comfy.InputPrefix(owner)) && !strings.HasPrefix(ref, comfy.GraphPrefix(owner)):
		return false, nil
	case a.o.ChildTenant == "":
		return false, backend.Errorf(comfy.Internal, "this worker does not know to whom jobs of other Temporal users belong, and so not which uploads they may use: set COMFYD_CHILD_TENANT on every worker")
	}
	return owner == a.o.ChildTenant, nil
}
