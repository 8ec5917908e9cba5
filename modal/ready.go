package modal

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/fxamacker/cbor/v2"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"

	"github.com/comfyd/comfyd/backend"
)

// Ready implements [backend.Backend] by what is known and by the number of containers. Where there is none it has Modal
// start one, by a call of `warm`, and says BackendUnavailable until that has ended; where there are some it returns nil,
// busy or not, because Modal adds containers for calls that wait, up to the app's limit.
//
// Before a workflow is refused for good, Refresh is asked whether nodes or models have been added since, and meanwhile
// the answer is BackendUnavailable.
func (b *Backend) Ready(ctx context.Context, p *backend.Prompt) error {
	dep, err := b.well()
	if err != nil {
		return err
	}
	if err := b.check(p); err != nil {
		return b.sure(ctx, p, err)
	}
	c := dep.containers(variantOf(p, b.settings()))
	if err := c.enter(ctx); err != nil {
		return detached(ctx)
	}
	defer c.leave()
	if why := c.why; why != nil && time.Now().Before(c.until) {
		return unavailable(why.Cause, "%s", why.Message)
	}
	if time.Since(c.upAt) < b.t.warmed {
		return nil
	}
	if err := b.runners(ctx, c); err != nil {
		if isNotFound(err) {
			b.wake()
		}
		return b.typed(ctx, err)
	}
	switch {
	case c.runners > 0 && (c.busy || c.warming.IsZero()):
		return nil
	case c.warming.IsZero():
		if err := b.warm(ctx, c); err != nil {
			return b.typed(ctx, err)
		}
		return unavailable(nil, "a GPU container is starting at Modal")
	}
	return unavailable(nil, "a GPU container is starting at Modal, for %s now", time.Since(c.warming).Round(time.Second))
}

// sure makes a refusal final only where the catalogue is known to be that of now; else it is BackendUnavailable. It
// waits a moment for that knowledge and no longer: the first heartbeat of a prompt is due.
func (b *Backend) sure(ctx context.Context, p *backend.Prompt, refusal *backend.Error) error {
	if refusal.NodeErrors == nil {
		return refusal // it is no matter of the catalogue
	}
	if fresh, asking := b.current(); fresh {
		return refusal
	} else if !asking {
		r := b.refresh()
		wait := time.NewTimer(b.t.catalogWait)
		defer wait.Stop()
		select { // most often nothing has changed, and that is known at once
		case <-r.done:
			if r.err != nil {
				return b.typed(ctx, r.err)
			}
			if refusal := b.check(p); refusal != nil {
				return refusal
			}
			return unavailable(nil, "the app at Modal has new nodes or models")
		case <-wait.C:
		case <-ctx.Done():
		}
	}
	return unavailable(refusal, "the app at Modal is asked for its nodes and models anew, because it seems to lack some that the workflow wants")
}

func (b *Backend) settings() settings {
	if cat := b.known(); cat != nil {
		return cat.Settings
	}
	return settings{}
}

// warm has Modal start a container, once for all who wait. The lock is held.
func (b *Backend) warm(ctx context.Context, c *containers) error {
	fn, err := c.method(ctx, "warm")
	if err != nil {
		return err
	}
	id, err := b.spawn(ctx, fn, nil, 0)
	if errors.Is(err, errDoubt) {
		id, err = "", nil // should it run all the same, a container is what is wanted
	}
	if err != nil {
		b.putAside(c, unavailable(err, "%s", b.explain(err)))
		return err
	}
	if id != "" {
		b.log.WithField("function_call", id).WithField("gpu", c.v.gpu).Info("a GPU container is starting at Modal")
		if b.background(func() { b.warmed(c, id) }) {
			c.warming = time.Now()
		}
	}
	return nil
}

// warmed waits for the end of a warm-up.
func (b *Backend) warmed(c *containers, id string) {
	began := time.Now()
	ctx, done := context.WithTimeout(b.ctx, b.t.warm)
	defer done()
	item, err := b.await(ctx, id, true)
	if b.ctx.Err() != nil || c.enter(b.ctx) != nil {
		return
	}
	defer c.leave()
	c.warming, c.seen = time.Time{}, time.Time{}
	log := b.log.WithField("function_call", id).WithField("took", time.Since(began).Round(time.Millisecond))
	switch {
	case err != nil:
		log.WithError(err).Warn("nobody knows whether a GPU container came up at Modal")
	case item.GetResult().GetStatus() == pb.GenericResult_GENERIC_STATUS_SUCCESS:
		c.up()
		var text string
		var up container
		if cbor.Unmarshal(item.GetResult().GetData(), &text) == nil && json.Unmarshal([]byte(text), &up) == nil && up.GPU != "" && c.v.gpu == "" {
			b.mu.Lock()
			b.device = up.GPU
			b.mu.Unlock()
		}
		log.WithField("gpu", up.GPU).Info("a GPU container is up at Modal")
	default:
		why := ending(item, false)
		b.putAside(c, why)
		log.WithError(why).Warn("a GPU container did not come up at Modal")
	}
}

// settle notes what a prompt's end says about the containers it was for, which are nil where nobody knows them.
func (b *Backend) settle(c *containers, err error) {
	if c == nil || c.enter(b.ctx) != nil {
		return
	}
	defer c.leave()
	var be *backend.Error
	switch {
	case errors.Is(err, errStart) && errors.As(err, &be):
		b.putAside(c, be)
	case err == nil:
		c.up()
	}
}
