package modal

import (
	"context"
	"sync"
	"time"

	sdk "github.com/modal-labs/modal-client/go"
	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/comfyd/comfyd/backend"
)

// variant is how a prompt's containers differ from the deployed ones: Modal runs each combination in containers of its
// own (Cls.with_options). The zero variant is the app as it was deployed.
type variant struct {
	gpu     string
	cpu     float64 // cores, as deployed; where gpu is set
	memory  int     // MiB, likewise
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
	if p.GPU != "" && p.GPU != deployed.GPU {
		v.gpu, v.cpu, v.memory = p.GPU, deployed.CPU, deployed.Memory
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

// pausing is how long something that has failed is not tried again. Each failure makes the pause longer, up to a limit.
type pausing struct {
	fails int // one after the other
	until time.Time
	why   *backend.Error
}

// failed notes a failure. Those that come while a pause lasts already say nothing new: they were begun before it.
func (p *pausing) failed(why *backend.Error, first, most time.Duration) {
	if time.Now().Before(p.until) {
		return
	}
	p.fails++
	p.until, p.why = time.Now().Add(min(first<<min(p.fails-1, 16), most)), why
}

// containers are those of one variant of one deployment.
type containers struct {
	v   variant
	dep *deployment

	mu   sync.Mutex // guards what follows, and is never held while Modal is asked
	inst *sdk.ClsInstance

	runners int // as last seen, at seen
	busy    bool
	seen    time.Time
	looking chan struct{} // closed at the end of the look that is under way; nil for none
	lookErr error         // of the last one

	warming time.Time // since when one is starting; zero for none
	upAt    time.Time // when one was last known to be up
	hold    time.Time // until then no other is started, because nobody knows what became of the last
	starts  pausing   // after containers did not come up
	calls   pausing   // after Modal took no more calls; until it takes one, only warm-ups are tried
}

// containers returns those of a variant.
func (d *deployment) containers(v variant) *containers {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.pools[v]
	if c == nil {
		c = &containers{v: v, dep: d}
		d.pools[v] = c
	}
	return c
}

// method returns one of the class's methods on these containers. Two that ask at once get the same: Modal names a
// combination of options by what it holds.
func (c *containers) method(ctx context.Context, name string) (*sdk.Function, error) {
	c.mu.Lock()
	inst := c.inst
	c.mu.Unlock()
	if inst == nil {
		cls, err := c.v.of(c.dep.cls)
		if err != nil {
			return nil, err
		}
		if inst, err = cls.Instance(ctx, nil); err != nil {
			return nil, err
		}
		c.mu.Lock()
		c.inst = inst
		c.mu.Unlock()
	}
	return inst.Method(name)
}

// of is the class with a variant's options. With a GPU go CPU and memory: the three are one message, in which the SDK
// writes 0 for what it was not given (v0.11.1, function.go: buildFunctionOptionsProto).
func (v variant) of(cls *sdk.Cls) (*sdk.Cls, error) {
	if v == (variant{}) {
		return cls, nil
	}
	var o sdk.ClsWithOptionsParams
	if v.gpu != "" {
		if v.cpu <= 0 || v.memory <= 0 {
			return nil, unavailable(nil, "the app at Modal has not said yet how much CPU and memory its containers have, which a GPU of the job's own wants too")
		}
		o.GPU, o.CPU, o.MemoryMiB = &v.gpu, &v.cpu, &v.memory
	}
	if v.timeout > 0 {
		o.Timeout = &v.timeout
	}
	return cls.WithOptions(&o), nil
}

// runMethod returns the method that prompts are handed to.
func (b *Backend) runMethod(ctx context.Context, c *containers) (*sdk.Function, error) {
	ctx, done := context.WithTimeout(ctx, b.t.call)
	defer done()
	return c.method(ctx, "run")
}

// lookAt begins to bring the number of runners up to date, or joins the look that is under way. The channel is closed when
// that has ended. Mu is held.
func (b *Backend) lookAt(c *containers) <-chan struct{} {
	if c.looking != nil {
		return c.looking
	}
	done := make(chan struct{})
	if time.Since(c.seen) < b.t.stats || !b.background(func() {
		defer close(done)
		b.count(c)
	}) {
		close(done)
		return done
	}
	c.looking = done
	return done
}

// count asks for the number of runners. Where Modal will not tell, some are believed to be there: it starts containers
// for calls that wait, and only the warm-up is lost.
func (b *Backend) count(c *containers) {
	ctx, done := context.WithTimeout(b.ctx, b.t.call)
	defer done()
	var s *pb.FunctionStats
	fn, err := c.method(ctx, "warm")
	if err == nil {
		s, err = b.client.raw.FunctionGetCurrentStats(ctx, pb.FunctionGetCurrentStatsRequest_builder{FunctionId: fn.FunctionID}.Build())
		switch status.Code(err) {
		case codes.Unimplemented, codes.PermissionDenied, codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange, codes.Internal:
			b.log.WithError(err).Warn("Modal does not say how many containers there are; prompts are handed over without a warm-up")
			s, err = pb.FunctionStats_builder{NumTotalTasks: 1, NumRunningInputs: 1}.Build(), nil
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looking, c.lookErr = nil, err
	if err == nil {
		c.runners, c.busy, c.seen = int(s.GetNumTotalTasks()), s.GetNumRunningInputs() > 0, time.Now()
	}
}

// refusedBy notes that Modal did not take a call. Where that is a limit of its own, none but a warm-up is tried until it
// takes one again. Anything else says nothing about the containers.
func (b *Backend) refusedBy(c *containers, err error) {
	if status.Code(err) != codes.ResourceExhausted {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls.failed(unavailable(err, "%s", b.explain(err)), b.t.aside, b.t.asideMost)
}

// taken notes that Modal took a call.
func (c *containers) taken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = pausing{}
}

// putAside notes that a container of this kind did not come up, and for how long none is tried. Mu is held.
func (b *Backend) putAside(c *containers, why *backend.Error) {
	c.starts.failed(why, b.t.aside, b.t.asideMost)
	c.upAt = time.Time{}
}

// up notes that a container of this kind is there, or has been. Mu is held.
func (c *containers) up() { c.starts, c.upAt, c.hold = pausing{}, time.Now(), time.Time{} }

// paused is why nothing is tried now; nil where it is. Mu is held.
func (c *containers) paused() *backend.Error {
	for _, p := range []*pausing{&c.starts, &c.calls} {
		if time.Now().Before(p.until) {
			return unavailable(p.why.Cause, "%s", p.why.Message)
		}
	}
	return nil
}
