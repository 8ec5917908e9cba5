package modal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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
	c.mu.Lock()
	if why := c.paused(); why != nil {
		c.mu.Unlock()
		return why
	}
	if c.calls.fails == 0 && time.Since(c.upAt) < b.t.warmed {
		c.mu.Unlock()
		return nil
	}
	looked := b.lookAt(c)
	c.mu.Unlock()
	wait := time.NewTimer(b.t.statsWait)
	defer wait.Stop()
	select {
	case <-looked:
	case <-wait.C:
		return unavailable(nil, "Modal has not said yet whether a GPU container is there")
	case <-ctx.Done():
		return backend.Detached(ctx)
	}
	if err := b.judge(c); err != nil {
		if isNotFound(err) {
			b.wake()
		}
		return b.typed(ctx, err)
	}
	return nil
}

// judge tells by what is known whether a prompt can be handed over, and begins a warm-up where one is wanted.
func (b *Backend) judge(c *containers) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if why := c.paused(); why != nil {
		return why
	}
	if c.lookErr != nil {
		return c.lookErr
	}
	throttled := c.calls.fails > 0
	switch {
	case !throttled && c.runners > 0 && (c.busy || c.warming.IsZero()):
		return nil
	case !c.warming.IsZero():
		return unavailable(nil, "a GPU container is starting at Modal, for %s now", time.Since(c.warming).Round(time.Second))
	case time.Now().Before(c.hold):
		return unavailable(nil, "nobody knows whether a GPU container is starting at Modal; another one is tried in %s", time.Until(c.hold).Round(time.Second))
	case b.background(func() { b.warm(c) }):
		c.warming = time.Now()
	}
	return unavailable(nil, "a GPU container is starting at Modal")
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

// warm has Modal start a container, once for all who wait, and waits until that is up.
func (b *Backend) warm(c *containers) {
	began := time.Now()
	ctx, done := context.WithTimeout(b.ctx, b.t.warm)
	defer done()
	id, err := b.callWarm(ctx, c)
	var item *pb.FunctionGetOutputsItem
	if err == nil {
		c.taken()
		b.log.WithField("function_call", id).WithField("gpu", c.v.gpu).Info("a GPU container is starting at Modal")
		if item, err = b.await(ctx, id, true); err != nil {
			err = fmt.Errorf("%w: %w", errDoubt, err)
		}
	}
	if b.ctx.Err() != nil {
		return
	}
	log := b.log.WithField("function_call", id).WithField("took", time.Since(began).Round(time.Millisecond))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warming, c.seen = time.Time{}, time.Time{}
	switch {
	case errors.Is(err, errDoubt):
		c.hold = time.Now().Add(b.t.hold)
		log.WithError(err).Warn("nobody knows whether a GPU container came up at Modal")
	case err != nil && status.Code(err) == codes.ResourceExhausted:
		c.calls.failed(unavailable(err, "%s", b.explain(err)), b.t.aside, b.t.asideMost)
	case err != nil:
		if isNotFound(err) {
			b.wake()
		}
		b.putAside(c, unavailable(err, "%s", b.explain(err)))
	case item.GetResult().GetStatus() == pb.GenericResult_GENERIC_STATUS_SUCCESS:
		c.up()
		log.WithField("gpu", b.noteDevice(c, item)).Info("a GPU container is up at Modal")
	default:
		why := ending(item, false)
		b.putAside(c, why)
		log.WithError(why).Warn("a GPU container did not come up at Modal")
	}
}

func (b *Backend) callWarm(ctx context.Context, c *containers) (string, error) {
	quick, done := context.WithTimeout(ctx, b.t.call)
	defer done()
	fn, err := c.method(quick, "warm")
	if err != nil {
		return "", err
	}
	return b.spawn(ctx, fn, nil, 0)
}

// noteDevice reads which GPU a container says it has.
func (b *Backend) noteDevice(c *containers, item *pb.FunctionGetOutputsItem) string {
	var text string
	var up container
	if cbor.Unmarshal(item.GetResult().GetData(), &text) != nil || json.Unmarshal([]byte(text), &up) != nil {
		return ""
	}
	if up.GPU != "" && c.v.gpu == "" {
		b.mu.Lock()
		b.device = up.GPU
		b.mu.Unlock()
	}
	return up.GPU
}

// settle notes what a prompt's end says about the containers it was for, which are nil where nobody knows them.
func (b *Backend) settle(c *containers, err error) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var be *backend.Error
	switch {
	case errors.Is(err, errStart) && errors.As(err, &be):
		b.putAside(c, be)
	case err == nil:
		c.up()
	}
}
