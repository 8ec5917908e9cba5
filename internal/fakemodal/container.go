package fakemodal

import (
	"context"
	"fmt"
	"strings"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What a container says: the RPCs of modal/_container_entrypoint.py and modal/_runtime.

// A heartbeat is answered when there is something to cancel, and else a little before the container gives it up
// (CODE: client.py HEARTBEAT_INTERVAL 15 s, HEARTBEAT_TIMEOUT 15.1 s).
const heartbeat = 14 * time.Second

// Inputs are asked for again and again; one request waits so long.
const inputPoll = 30 * time.Second

// caller finds the container that asks. s.mu is held.
func (s *Server) caller(ctx context.Context) (*task, error) {
	t, ok := s.tasks[taskID(ctx)]
	if !ok || t.ended {
		return nil, status.Error(codes.PermissionDenied, "this is for containers")
	}
	return t, nil
}

func (v *service) ContainerHello(context.Context, *empty) (*empty, error) { return &empty{}, nil }

func (v *service) ContainerHeartbeat(ctx context.Context, _ *pb.ContainerHeartbeatRequest) (*pb.ContainerHeartbeatResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	if !s.await(ctx, time.Now().Add(heartbeat), func() bool { return t.cancel != "" || t.ended }) || t.cancel == "" {
		return &pb.ContainerHeartbeatResponse{}, nil
	}
	// Told again with each heartbeat until the input has ended: it may just have been starting (CODE: IOContext.cancel).
	event := pb.CancelInputEvent_builder{InputIds: []string{t.cancel}}.Build()
	return pb.ContainerHeartbeatResponse_builder{CancelInputEvent: event}.Build(), nil
}

// FunctionGetInputs hands out one input, the oldest first, or the kill switch that ends a container gracefully: after
// scaledown_window without work, or when it has asked for that (CODE: container_io_manager.py _generate_inputs).
func (v *service) FunctionGetInputs(ctx context.Context, _ *pb.FunctionGetInputsRequest) (*pb.FunctionGetInputsResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	if !t.ready || t.call != nil {
		t.idle()
	}
	if !t.ready {
		t.ready, t.readyAt = true, time.Now()
		s.notify()
	}
	for until := time.Now().Add(inputPoll); ; {
		p := t.pool
		over := t.idleSince.Add(p.function(s).scaledown())
		if p.census().alive <= p.function(s).minContainers() {
			over = until
		}
		s.await(ctx, earlier(until, over), func() bool { return t.stopping || t.ended || len(p.queue) > 0 })
		switch {
		case ctx.Err() != nil || t.ended || s.closed:
			return nil, status.Error(codes.Canceled, "container is gone")
		case t.stopping:
			return killSwitch(), nil
		case len(p.queue) > 0:
			return s.deliver(t, p)
		case !time.Now().Before(over) && over != until:
			t.stop(fmt.Sprintf("idle for %s", p.function(s).scaledown()))
			return killSwitch(), nil
		case !time.Now().Before(until):
			return &pb.FunctionGetInputsResponse{}, nil
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func killSwitch() *pb.FunctionGetInputsResponse {
	item := pb.FunctionGetInputsItem_builder{KillSwitch: true}.Build()
	return pb.FunctionGetInputsResponse_builder{Inputs: []*pb.FunctionGetInputsItem{item}}.Build()
}

// deliver starts the oldest input of the queue on t.
func (s *Server) deliver(t *task, p *pool) (*pb.FunctionGetInputsResponse, error) {
	c := p.queue[0]
	p.queue = p.queue[1:]
	p.failures = 0
	c.task, t.call = t, c
	t.served++
	c.Attempts = append(c.Attempts, Attempt{TaskID: t.id, Started: time.Now()})
	if err := s.keep(c); err != nil {
		return nil, err
	}
	limit := p.function(s).timeout()
	attempt := len(c.Attempts)
	c.timer = time.AfterFunc(limit, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if c.task == t && len(c.Attempts) == attempt && !s.closed {
			s.timeOut(c, limit)
		}
	})
	s.notify()
	s.opts.Log("call %s runs in %s", c.ID, t.id)
	return pb.FunctionGetInputsResponse_builder{Inputs: []*pb.FunctionGetInputsItem{c.inputItem()}}.Build(), nil
}

// timeOut ends a call whose time is over. The container is told to cancel the input and lives on (DOC: the log lines of
// gpu-mode/kernelbot#496, text of the exception as in axolotl#1289).
func (s *Server) timeOut(c *call, limit time.Duration) {
	t := c.task
	s.finish(c, result(timedOut, fmt.Sprintf("Task's current input %s hit its timeout of %ds", c.InputID, int(limit.Seconds()))), nil)
	s.interrupt(t, c.InputID)
}

// FunctionPutOutputs ends calls. What comes from a container that no longer has the input (it has been preempted, the
// call has timed out) only frees the container.
func (v *service) FunctionPutOutputs(ctx context.Context, r *pb.FunctionPutOutputsRequest) (*empty, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	for _, put := range r.GetOutputs() {
		if t.cancel == put.GetInputId() {
			t.cancel = ""
		}
		if c := s.inputs[put.GetInputId()]; c != nil && c.task == t {
			s.finish(c, put.GetResult(), put)
		}
		t.idle()
	}
	s.notify()
	return &empty{}, nil
}

// TaskResult is how a container reports that it failed before or after its inputs (CODE: task_lifecycle_manager.py).
func (v *service) TaskResult(ctx context.Context, r *pb.TaskResultRequest) (*empty, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	t.failed = r.GetResult()
	t.why = r.GetResult().GetException()
	return &empty{}, nil
}

// ContainerStop ends a container after the input that it runs: modal.experimental.stop_fetching_inputs (CODE), or at
// once when it is not meant gracefully (`modal container stop`).
func (v *service) ContainerStop(_ context.Context, r *pb.ContainerStopRequest) (*pb.ContainerStopResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.tasks[r.GetTaskId()]
	if !ok {
		return nil, notFound("Task %s not found", r.GetTaskId())
	}
	if r.GetGraceful() {
		t.stop("it asked to stop")
	} else {
		s.preempt(t, "stopped by a client")
	}
	s.notify()
	return &pb.ContainerStopResponse{}, nil
}

// ContainerCheckpoint is a container that is ready for its memory snapshot. It is restored at once, by the file that
// Modal's worker writes into a restored container (CODE: task_lifecycle_manager.py memory_restore).
func (v *service) ContainerCheckpoint(ctx context.Context, _ *pb.ContainerCheckpointRequest) (*empty, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	return &empty{}, t.restore()
}

func (v *service) TaskList(_ context.Context, r *pb.TaskListRequest) (*pb.TaskListResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	var b pb.TaskListResponse_builder
	for _, t := range s.tasks {
		f := t.pool.function(s)
		if t.ended || (r.GetAppId() != "" && f.AppID != r.GetAppId()) {
			continue
		}
		b.Tasks = append(b.Tasks, pb.TaskStats_builder{TaskId: t.id, AppId: f.AppID, EnqueuedAt: unix(t.started), StartedAt: unix(t.readyAt)}.Build())
	}
	return b.Build(), nil
}

// outcome is a status as Attempt and Call name it: GENERIC_STATUS_INIT_FAILURE is "init_failure".
func outcome(st ending) string {
	return strings.ToLower(strings.TrimPrefix(st.String(), "GENERIC_STATUS_"))
}
