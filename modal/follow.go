package modal

import (
	"context"
	"errors"
	"slices"
	"sync"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// maxHops is how often a call may name another one that has the prompt.
const maxHops = 3

// follow waits for the end of the call that the handle names, and makes the outcome of it.
func (r *run) follow(ctx context.Context) (*backend.Outcome, error) {
	for range maxHops {
		item, err := r.watch(ctx)
		switch {
		case errors.Is(err, errGone):
			return nil, r.expired()
		case err != nil:
			return nil, backend.Detached(ctx)
		}
		if item.GetResult().GetStatus() != pb.GenericResult_GENERIC_STATUS_SUCCESS {
			_, stopped := r.b.stopped.Get(r.h.CallID)
			e := ending(item, stopped)
			e.Ran = e.Ran || r.started && !errors.Is(e, errStart)
			if e.Code != comfy.Canceled {
				r.log.WithError(e.Cause).WithField("function_call", r.h.CallID).Warn(e.Message)
			}
			r.b.settle(r.c, e)
			return nil, e
		}
		r.b.settle(r.c, nil)
		out, other, err := r.finish(ctx, item)
		if other == "" {
			return out, r.b.typed(ctx, err)
		}
		r.log.WithField("function_call", r.h.CallID).WithField("other", other).Info("another call has the prompt; following that")
		if _, err := r.b.poll(ctx, r.h.CallID, 0, true); err != nil {
			r.log.WithError(err).Debug("the answer of a second call stays at Modal until it expires")
		}
		r.h.CallID = other
		if err := r.record(ctx); err != nil {
			return nil, err
		}
	}
	return nil, &backend.Error{Code: comfy.Internal, Message: "the calls at Modal name each other as the one that has the prompt"}
}

// expired is the error of a call whose result is not there and will not come.
func (r *run) expired() *backend.Error {
	return &backend.Error{Code: comfy.BackendLost, Ran: true, Message: "Modal no longer has the result; it keeps results for 7 days"}
}

// watch waits for the end of the call and tells the recorder how it goes, from this goroutine alone.
func (r *run) watch(ctx context.Context) (*pb.FunctionGetOutputsItem, error) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	type end struct {
		item *pb.FunctionGetOutputsItem
		err  error
	}
	ends, news, runs := make(chan end, 1), make(chan []message), make(chan struct{})
	group.Go(func() {
		item, err := r.b.await(ctx, r.h.CallID, false)
		ends <- end{item, err}
	})
	group.Go(func() { r.b.queue.listen(ctx, r.h.PromptID, news) })
	if !r.started {
		group.Go(func() { r.b.awaitStart(ctx, r.h.CallID, runs) })
	}
	for {
		select {
		case e := <-ends:
			return e.item, e.err
		case <-runs:
			runs = nil
			r.begin()
		case list := <-news:
			r.begin()
			for _, m := range list {
				m.each(r.track.Event)
			}
			r.tell()
			r.show(list)
		}
	}
}

// begin notes that the call is in a container.
func (r *run) begin() {
	if !r.started {
		r.started = true
		r.track.Place(-1)
		r.tell()
	}
}

func (r *run) tell() {
	if u, ok := r.track.Update(); ok {
		r.rec.Progress(u)
	}
}

// show passes on the newest preview. An app that was deployed before it could be asked for none sends them always.
func (r *run) show(list []message) {
	for _, m := range slices.Backward(list) {
		if p := m.Preview; p != nil && len(p.Data) > 0 && r.b.o.Previews && (p.Type == "image/jpeg" || p.Type == "image/png") {
			r.rec.Preview(backend.Preview{NodeID: p.Node, ContentType: p.Type, Data: p.Data})
			return
		}
	}
}

// awaitStart closes runs when Modal's call graph names the container of a call: that is so once an input has been
// handed to one (InputCallGraphInfo.task_id). It asks seldom, because the progress channel most often tells sooner.
func (b *Backend) awaitStart(ctx context.Context, id string, runs chan<- struct{}) {
	for sleep(ctx, b.t.graph) == nil {
		quick, done := context.WithTimeout(ctx, b.t.call)
		g, err := b.client.raw.FunctionGetCallGraph(quick, pb.FunctionGetCallGraphRequest_builder{FunctionCallId: id}.Build())
		done()
		if err != nil {
			b.log.WithError(err).Debug("Modal does not say whether a call runs")
			continue
		}
		for _, in := range g.GetInputs() {
			if in.GetFunctionCallId() == id && in.GetTaskId() != "" {
				close(runs)
				return
			}
		}
	}
}
