package modal

import (
	"context"
	"time"

	sdk "github.com/modal-labs/modal-client/go"
	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"

	"github.com/comfyd/comfyd/backend"
)

// variant is how a prompt's containers differ from the deployed ones: Modal runs each combination in containers of its
// own (Cls.with_options). The zero variant is the app as it was deployed.
type variant struct {
	gpu     string
	timeout time.Duration
}

// timeoutMargin is what a call may need beyond the prompt's own limit: the clean-up, and the stop that the limit's own
// watcher asks for.
const timeoutMargin = 5 * time.Minute

// deployedTimeout is the app's own default (COMFYD_MODAL_TIMEOUT), believed until the catalogue tells.
const deployedTimeout = time.Hour

// timeoutSteps are the timeouts that prompts are given which the deployed one would cut off; few, so that prompts share
// containers. Modal's limit is 24 hours (modal.com/docs/guide/timeouts).
var timeoutSteps = []time.Duration{2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 16 * time.Hour, 24 * time.Hour}

// variantOf chooses the containers for a prompt.
func variantOf(p *backend.Prompt, deployed settings) variant {
	var v variant
	if p.GPU != deployed.GPU {
		v.gpu = p.GPU
	}
	limit := deployedTimeout
	if deployed.Timeout > 0 {
		limit = time.Duration(deployed.Timeout) * time.Second
	}
	if p.RunTimeout <= 0 || p.RunTimeout+timeoutMargin <= limit {
		return v
	}
	last := timeoutSteps[len(timeoutSteps)-1]
	for _, step := range timeoutSteps {
		if step > limit && (step >= p.RunTimeout+timeoutMargin || step == last) {
			v.timeout = step
			break
		}
	}
	return v
}

// containers are those of one variant of one deployment.
type containers struct {
	v   variant
	dep *deployment

	lock chan struct{} // held while Modal is asked; guards what follows
	inst *sdk.ClsInstance

	runners int // as last seen, at seen
	busy    bool
	seen    time.Time

	warming time.Time // since when one is starting; zero for none
	upAt    time.Time // when one was last known to be up
	fails   int       // starts that failed, one after the other
	until   time.Time // put aside until then
	why     *backend.Error
}

// containers returns those of a variant.
func (d *deployment) containers(v variant) *containers {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.pools[v]
	if c == nil {
		c = &containers{v: v, dep: d, lock: make(chan struct{}, 1)}
		d.pools[v] = c
	}
	return c
}

// enter waits for the lock, or for ctx's end.
func (c *containers) enter(ctx context.Context) error {
	select {
	case c.lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *containers) leave() { <-c.lock }

// method returns one of the class's methods on these containers. The lock is held.
func (c *containers) method(ctx context.Context, name string) (*sdk.Function, error) {
	if c.inst == nil {
		cls := c.dep.cls
		if c.v != (variant{}) {
			var o sdk.ClsWithOptionsParams
			if c.v.gpu != "" {
				o.GPU = &c.v.gpu
			}
			if c.v.timeout > 0 {
				o.Timeout = &c.v.timeout
			}
			cls = cls.WithOptions(&o)
		}
		inst, err := cls.Instance(ctx, nil)
		if err != nil {
			return nil, err
		}
		c.inst = inst
	}
	return c.inst.Method(name)
}

// run returns the method that prompts are handed to.
func (b *Backend) runMethod(ctx context.Context, c *containers) (*sdk.Function, error) {
	ctx, done := context.WithTimeout(ctx, b.t.call)
	defer done()
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	defer c.leave()
	return c.method(ctx, "run")
}

// look brings the number of runners up to date. The lock is held.
func (b *Backend) runners(ctx context.Context, c *containers) error {
	if time.Since(c.seen) < b.t.stats {
		return nil
	}
	ctx, done := context.WithTimeout(ctx, b.t.call)
	defer done()
	fn, err := c.method(ctx, "warm")
	if err != nil {
		return err
	}
	s, err := b.client.raw.FunctionGetCurrentStats(ctx, pb.FunctionGetCurrentStatsRequest_builder{FunctionId: fn.FunctionID}.Build())
	if err != nil {
		return err
	}
	c.runners, c.busy, c.seen = int(s.GetNumTotalTasks()), s.GetNumRunningInputs() > 0, time.Now()
	return nil
}

// putAside notes that a container of this kind did not come up, and for how long none is tried. The lock is held.
func (b *Backend) putAside(c *containers, why *backend.Error) {
	c.fails++
	c.until = time.Now().Add(min(b.t.aside<<min(c.fails-1, 16), b.t.asideMost))
	c.why, c.upAt = why, time.Time{}
}

// up notes that a container of this kind is there, or has been. The lock is held.
func (c *containers) up() {
	c.fails, c.until, c.why, c.upAt = 0, time.Time{}, nil, time.Now()
}
