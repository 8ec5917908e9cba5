package modal

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	sdk "github.com/modal-labs/modal-client/go"
	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// deployment is the app as one `modal deploy` has left it.
type deployment struct {
	// key changes with each deploy: it holds the app's version (AppLifecycle in api.proto) and the functions'
	// definition_id, which is made anew with each deploy while the function_id stays (modal 1.6.4, runner.py).
	key     string
	app     string // its ID
	version string // what tells this deploy, empty where Modal does not say
	cls     *sdk.Cls
	catalog *sdk.Function
	locate  *sdk.Function

	mu    sync.Mutex
	pools map[variant]*containers
}

// watch looks at the app until the backend is closed.
func (b *Backend) watch() {
	for {
		wait := b.t.look
		if err := b.look(b.ctx); err != nil {
			wait = b.t.lookSick
		}
		timer := time.NewTimer(wait)
		select {
		case <-b.ctx.Done():
			timer.Stop()
			return
		case <-b.hurry:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// look asks Modal for the app once, and notes what that says. A deploy whose catalogue is not known makes that be asked
// for.
func (b *Backend) look(ctx context.Context) error {
	ctx, done := context.WithTimeout(ctx, b.t.call)
	defer done()
	dep, err := b.lookup(ctx)
	b.mu.Lock()
	if b.ctx.Err() != nil {
		b.mu.Unlock()
		return b.ctx.Err()
	}
	before := b.problem
	if err != nil {
		b.problem = b.explain(err)
		now := b.problem
		b.mu.Unlock()
		if now != before {
			b.log.WithError(err).Warn(now)
		}
		return err
	}
	fresh := b.dep == nil || b.dep.key != dep.key
	if fresh {
		b.dep = dep
	}
	b.problem, b.lastSeen = "", time.Now()
	due := (b.cat == nil || b.cat.dep != dep.key) && !time.Now().Before(b.askAgain)
	b.mu.Unlock()
	if before != "" || fresh {
		b.log.WithField("deployment", dep.key).Info("the app at Modal is there")
	}
	if due {
		b.refresh()
	}
	return nil
}

// lookup finds the app. It returns the deployment that is known already where that has not changed.
func (b *Backend) lookup(ctx context.Context) (*deployment, error) {
	var got *pb.FunctionGetResponse
	see := context.WithValue(ctx, replyKey{}, func(reply any) {
		if r, ok := reply.(*pb.FunctionGetResponse); ok {
			got = r
		}
	})
	dep := &deployment{pools: map[variant]*containers{}}
	var err error
	if dep.cls, err = b.client.sdk.Cls.FromName(see, b.o.App, "ComfyUI", nil); err != nil {
		return nil, err
	}
	methods := got.GetHandleMetadata().GetMethodHandleMetadata()
	keys := []string{got.GetFunctionId(), got.GetHandleMetadata().GetDefinitionId()}
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		if id := methods[name].GetDefinitionId(); id != "" {
			keys = append(keys, id)
		}
	}
	dep.app = got.GetHandleMetadata().GetAppId()
	if dep.version, err = b.version(ctx, dep.app); err != nil {
		return nil, err
	}
	dep.key = strings.Join(append(keys, dep.app, dep.version), "/")
	if known := b.deployment(); known != nil && known.key == dep.key {
		return known, nil
	}
	for _, name := range []string{"run", "warm"} {
		if methods[name] == nil {
			return nil, &appError{fmt.Sprintf("the app %q at Modal is none of comfyd's, or an old one: its class ComfyUI has no method %q; deploy it anew with `modal deploy modal/modal_comfy_api.py`", b.o.App, name)}
		}
		// The Go SDK speaks CBOR only, which functions take that were deployed with modal 1.2 or newer (function.go).
		if !slices.Contains(methods[name].GetSupportedInputFormats(), pb.DataFormat_DATA_FORMAT_CBOR) {
			return nil, &appError{fmt.Sprintf("the app %q was deployed with a modal that is too old; `pip install modal==1.6.4` and deploy it anew with `modal deploy modal/modal_comfy_api.py`", b.o.App)}
		}
	}
	if dep.catalog, err = b.client.sdk.Functions.FromName(ctx, b.o.App, "catalog", nil); err != nil {
		return nil, err
	}
	if dep.locate, err = b.client.sdk.Functions.FromName(ctx, b.o.App, "locate", nil); err != nil {
		return nil, err
	}
	return dep, nil
}

// version tells one deploy of an app from the next. A control plane that does not say leaves it to the definitions, and
// one that said before to what it said then; only one that cannot be asked now is an error.
func (b *Backend) version(ctx context.Context, app string) (string, error) {
	r, err := b.client.raw.AppGetLifecycle(ctx, pb.AppGetLifecycleRequest_builder{AppId: app}.Build())
	switch status.Code(err) {
	case codes.OK:
		l := r.GetLifecycle()
		return fmt.Sprintf("v%d %.3f", l.GetVersion(), l.GetDeployedAt()), nil
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted, codes.Unauthenticated:
		return "", err
	}
	if ctx.Err() != nil {
		return "", err
	}
	if known := b.deployment(); known != nil && known.app == app {
		return known.version, nil
	}
	return "", nil
}

func (b *Backend) deployment() *deployment {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dep
}

// well returns the app, or why it cannot be used now.
func (b *Backend) well() (*deployment, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.problem != "" {
		return nil, unavailable(nil, "%s", b.problem)
	}
	return b.dep, nil
}
