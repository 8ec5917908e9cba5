package fakemodal

import (
	"context"
	"fmt"
	"os"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// call is a function call with its one input.
type call struct {
	ID, InputID, FunctionID string
	Key                     string // idempotency key of the request that made it
	Input                   message[*pb.FunctionInput]
	Async                   bool
	Created, Ended          time.Time
	Attempts                []Attempt
	Canceled                bool // somebody asked for it
	Done                    bool // Output is set
	Gone                    bool // expired or cleared: no output, nothing unfinished
	Forgotten               bool // unknown
	Output                  message[*pb.FunctionGetOutputsItem]

	task  *task // that runs it; nil while it waits
	timer *time.Timer
}

// Attempt is one execution of a call's input in a container.
type Attempt struct {
	TaskID         string
	Started, Ended time.Time
	// Outcome is how it ended: "" while it runs, the status in lower case ("success", "failure", "terminated", "timeout", ...),
	// or why the input was taken from the container: "preempted", "crashed", "stopped" (with the server).
	Outcome string
}

// ending is how a call ended, by Modal's name.
type ending = pb.GenericResult_GenericStatus

const (
	success         = pb.GenericResult_GENERIC_STATUS_SUCCESS
	failure         = pb.GenericResult_GENERIC_STATUS_FAILURE
	terminated      = pb.GenericResult_GENERIC_STATUS_TERMINATED
	timedOut        = pb.GenericResult_GENERIC_STATUS_TIMEOUT
	initFailure     = pb.GenericResult_GENERIC_STATUS_INIT_FAILURE
	internalFailure = pb.GenericResult_GENERIC_STATUS_INTERNAL_FAILURE
)

// FunctionMap makes a call. A retry of the same request (the SDKs send one key for all tries of one RPC, CODE: client.go
// retryInterceptor) gets the call that the first try has made; that Modal does so is a GUESS from the header's name.
func (v *service) FunctionMap(ctx context.Context, r *pb.FunctionMapRequest) (*pb.FunctionMapResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.tables.Functions[r.GetFunctionId()]; !ok {
		return nil, notFound("Function %s not found", r.GetFunctionId())
	}
	if len(r.GetPipelinedInputs()) != 1 {
		return nil, invalid("fakemodal takes calls of one input, this one has %d", len(r.GetPipelinedInputs()))
	}
	c := s.keys[key(ctx)]
	if c == nil {
		s.latest = later(s.latest)
		c = &call{ID: newID("fc"), InputID: newID("in"), FunctionID: r.GetFunctionId(), Key: key(ctx), Created: s.latest,
			Input: wire(r.GetPipelinedInputs()[0].GetInput()), Async: r.GetFunctionCallInvocationType() != pb.FunctionCallInvocationType_FUNCTION_CALL_INVOCATION_TYPE_SYNC}
		if err := s.keep(c); err != nil {
			return nil, err
		}
		s.remember(c)
		s.enqueue(c)
	}
	// The Go SDK takes the first pipelined input unseen (CODE: invocation.go).
	input := pb.FunctionPutInputsResponseItem_builder{InputId: c.InputID, InputJwt: "jwt-" + c.InputID}.Build()
	return pb.FunctionMapResponse_builder{FunctionCallId: c.ID, FunctionCallJwt: "jwt-" + c.ID,
		PipelinedInputs: []*pb.FunctionPutInputsResponseItem{input}}.Build(), nil
}

func key(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if k := md.Get("x-idempotency-key"); len(k) > 0 {
		return k[0]
	}
	return newID("key")
}

// later is now, or a little after t if the clock has not moved since.
func later(t time.Time) time.Time {
	if now := time.Now(); now.After(t) {
		return now
	}
	return t.Add(time.Microsecond)
}

func (s *Server) keep(c *call) error { return s.store.put("calls", c.ID, c) }

func (s *Server) remember(c *call) { s.calls[c.ID], s.inputs[c.InputID], s.keys[c.Key] = c, c, c }

// recover puts a call back that an earlier server had not finished.
func (s *Server) recover(c *call) {
	c.detach("stopped")
	if c.Canceled {
		s.finish(c, result(terminated, ""), nil)
		return
	}
	s.pool(c.FunctionID).queue = append(s.pool(c.FunctionID).queue, c)
}

func (s *Server) enqueue(c *call) {
	p := s.pool(c.FunctionID)
	p.queue = append(p.queue, c)
	s.kick(p)
	s.notify()
}

// find returns a call that clients may know of. s.mu is held.
func (s *Server) find(id string) (*call, error) {
	c, ok := s.calls[id]
	if !ok || c.Forgotten {
		return nil, notFound("Function call %s not found", id)
	}
	return c, nil
}

func (v *service) FunctionCallFromId(_ context.Context, r *pb.FunctionCallFromIdRequest) (*pb.FunctionCallFromIdResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.find(r.GetFunctionCallId())
	if err != nil {
		return nil, err
	}
	md := pb.FunctionCallHandleMetadata_builder{FunctionId: c.FunctionID, AppId: s.tables.Functions[c.FunctionID].AppID}.Build()
	return pb.FunctionCallFromIdResponse_builder{FunctionCallId: c.ID, NumInputs: 1, Metadata: md}.Build(), nil
}

// FunctionGetOutputs waits for the output until the request's timeout. A call that has expired or has been cleared has
// no output and nothing unfinished (CODE: _functions.py poll_function, OutputExpiredError), which is answered at once
// (GUESS: it may be that Modal waits here too).
func (v *service) FunctionGetOutputs(ctx context.Context, r *pb.FunctionGetOutputsRequest) (*pb.FunctionGetOutputsResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	var c *call
	var err error
	s.await(ctx, time.Now().Add(seconds(r.GetTimeout())), func() bool {
		c, err = s.find(r.GetFunctionCallId())
		return err != nil || c.Done || c.Gone
	})
	switch {
	case err != nil:
		return nil, err
	case c.Gone:
		return pb.FunctionGetOutputsResponse_builder{LastEntryId: "0-0"}.Build(), nil
	case !c.Done:
		return pb.FunctionGetOutputsResponse_builder{LastEntryId: "0-0", NumUnfinishedInputs: 1}.Build(), nil
	}
	out := c.Output.m
	if r.GetClearOnSuccess() {
		// Its blob stays: clients fetch it after they have cleared the output (CODE: function.go Remote).
		c.Gone = true
		if err := s.keep(c); err != nil {
			return nil, err
		}
	}
	return pb.FunctionGetOutputsResponse_builder{Idxs: []int32{0}, Outputs: []*pb.FunctionGetOutputsItem{out}, LastEntryId: "1-0"}.Build(), nil
}

// FunctionCallCancel ends a waiting call at once; a running one is told through its container's heartbeat and ends with
// what the container then answers (CODE: container_io_manager.py, canceled_inputs_return_outputs_v2).
func (v *service) FunctionCallCancel(_ context.Context, r *pb.FunctionCallCancelRequest) (*empty, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.find(r.GetFunctionCallId())
	if err != nil || c.Done || c.Gone {
		return &empty{}, err
	}
	c.Canceled = true
	if err := s.keep(c); err != nil {
		return nil, err
	}
	switch {
	case c.task == nil:
		s.finish(c, result(terminated, ""), nil)
	case r.GetTerminateContainers():
		c.task.kill() // taskEnded finishes the call
	default:
		s.interrupt(c.task, c.InputID)
	}
	s.notify()
	return &empty{}, nil
}

// interrupt tells a container to stop its input, and kills it if it does not.
func (s *Server) interrupt(t *task, input string) {
	t.cancel = input
	t.after(s.opts.CancelGrace, func() {
		if t.cancel == input {
			t.why = "its input did not stop when told"
			t.kill()
		}
	})
	s.notify()
}

func (v *service) FunctionGetCallGraph(_ context.Context, r *pb.FunctionGetCallGraphRequest) (*pb.FunctionGetCallGraphResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.find(r.GetFunctionCallId())
	if err != nil {
		return nil, err
	}
	in := pb.InputCallGraphInfo_builder{InputId: c.InputID, FunctionCallId: c.ID, Status: c.Output.m.GetResult().GetStatus()}
	if n := len(c.Attempts); n > 0 && (c.task != nil || c.Done) {
		in.TaskId = c.Attempts[n-1].TaskID
	}
	def := s.tables.Functions[c.FunctionID].Def.m
	fc := pb.FunctionCallCallGraphInfo_builder{FunctionCallId: c.ID, FunctionName: def.GetFunctionName(), ModuleName: def.GetModuleName()}
	return pb.FunctionGetCallGraphResponse_builder{Inputs: []*pb.InputCallGraphInfo{in.Build()},
		FunctionCalls: []*pb.FunctionCallCallGraphInfo{fc.Build()}}.Build(), nil
}

func (v *service) FunctionGetCurrentStats(_ context.Context, r *pb.FunctionGetCurrentStatsRequest) (*pb.FunctionStats, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.tables.Functions[r.GetFunctionId()]; !ok {
		return nil, notFound("Function %s not found", r.GetFunctionId())
	}
	p := s.pool(r.GetFunctionId())
	n := p.census()
	return pb.FunctionStats_builder{Backlog: uint32(len(p.queue)), NumTotalTasks: uint32(n.alive), NumRunningInputs: uint32(n.busy),
		InputHeadroom: uint32(n.idle)}.Build(), nil
}

func result(st ending, exception string) *pb.GenericResult {
	return pb.GenericResult_builder{Status: st, Exception: exception}.Build()
}

// detach ends the attempt that runs, and takes the input away from its container. s.mu is held.
func (c *call) detach(outcome string) {
	c.stopTimer()
	c.task = nil
	if n := len(c.Attempts); n > 0 && c.Attempts[n-1].Outcome == "" {
		c.Attempts[n-1].Ended, c.Attempts[n-1].Outcome = time.Now(), outcome
	}
}

func (c *call) stopTimer() {
	if c.timer != nil {
		c.timer.Stop()
	}
}

// finish gives a call its output: what a container has put, or none but a result. s.mu is held.
func (s *Server) finish(c *call, r *pb.GenericResult, put *pb.FunctionPutOutputsItem) {
	if c.Done {
		return
	}
	b := pb.FunctionGetOutputsItem_builder{Result: r, InputId: c.InputID, DataFormat: put.GetDataFormat(),
		InputStartedAt: put.GetInputStartedAt(), OutputCreatedAt: put.GetOutputCreatedAt(), RetryCount: put.GetRetryCount()}
	if n := len(c.Attempts); n > 0 {
		b.TaskId = c.Attempts[n-1].TaskID
	}
	s.pool(c.FunctionID).drop(c)
	c.detach(outcome(r.GetStatus()))
	c.Done, c.Ended, c.Output = true, time.Now(), wire(b.Build())
	if err := s.keep(c); err != nil {
		s.opts.Log("%v", err)
	}
	s.opts.Log("call %s ends: %s %s", c.ID, outcome(r.GetStatus()), r.GetException())
	s.notify()
}

// args is the input's bytes, wherever they are.
func (s *Server) args(c *call) ([]byte, error) {
	in := c.Input.m
	if id := in.GetArgsBlobId(); id != "" {
		data, err := os.ReadFile(s.blobPath(id))
		if err != nil {
			return nil, fmt.Errorf("fakemodal: input of %s: %w", c.ID, err)
		}
		return data, nil
	}
	return in.GetArgs(), nil
}

// inputItem is a call as a container gets it.
func (c *call) inputItem() *pb.FunctionGetInputsItem {
	kind := pb.FunctionCallInvocationType_FUNCTION_CALL_INVOCATION_TYPE_SYNC
	if c.Async {
		kind = pb.FunctionCallInvocationType_FUNCTION_CALL_INVOCATION_TYPE_ASYNC
	}
	return pb.FunctionGetInputsItem_builder{InputId: c.InputID, FunctionCallId: c.ID, Input: proto.CloneOf(c.Input.m), FunctionCallInvocationType: kind}.Build()
}
