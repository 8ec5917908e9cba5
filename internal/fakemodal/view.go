package fakemodal

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
)

// Call is a function call as it is now.
type Call struct {
	ID, InputID, FunctionID string
	Function                string // "ComfyUI.*", "catalog"
	Method                  string // "run"
	GPUs                    []string
	Timeout                 time.Duration
	Created, Ended          time.Time
	State                   State
	TaskID                  string // the container that runs it
	Canceled                bool
	// Outcome is the status in lower case: "success", "failure", "terminated", "timeout", "init_failure",
	// "internal_failure"; "" until it has ended.
	Outcome   string
	Exception string
	Attempts  []Attempt // how often it has really been executed
	Gone      bool      // expired or cleared
}

// State is where a call stands.
type State string

// A call waits, runs in a container, and has ended.
const (
	Queued  State = "queued"
	Running State = "running"
	Done    State = "done"
)

// GPUTime is how long a GPU was busy with it, over all attempts; 0 for calls without one.
func (c Call) GPUTime() time.Duration {
	var sum time.Duration
	if len(c.GPUs) == 0 {
		return 0
	}
	for _, a := range c.Attempts {
		end := a.Ended
		if end.IsZero() {
			end = time.Now()
		}
		sum += end.Sub(a.Started)
	}
	return sum
}

// Container is a container as it is now, or was.
type Container struct {
	ID, FunctionID string
	Function       string // "ComfyUI.*"
	GPUs           []string
	Started        time.Time
	Ready          time.Time // asked for its first input; zero when it has not
	Ended          time.Time // zero while it lives
	Served         int       // inputs that it was given
	ExitCode       int
	Why            string // it ended
}

// Calls returns all calls, the oldest first.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.viewAll()
}

func (s *Server) viewAll() []Call {
	all := make([]Call, 0, len(s.calls))
	for _, c := range s.calls {
		all = append(all, s.view(c))
	}
	slices.SortFunc(all, func(a, b Call) int { return a.Created.Compare(b.Created) })
	return all
}

// Call returns one call.
func (s *Server) Call(id string) (Call, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.calls[id]
	if !ok {
		return Call{}, fmt.Errorf("fakemodal: there is no call %s", id)
	}
	return s.view(c), nil
}

// Wait returns the first call, the oldest first, for which fits is true, as soon as there is one. It asks again after
// each change; fits must not call the server.
func (s *Server) Wait(ctx context.Context, fits func(Call) bool) (Call, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found Call
	if !s.await(ctx, time.Now().Add(time.Hour), func() bool {
		all := s.viewAll()
		i := slices.IndexFunc(all, fits)
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	}) {
		return Call{}, fmt.Errorf("fakemodal: no such call: %w", context.Cause(ctx))
	}
	return found, nil
}

// WaitState returns a call as soon as it is in this state.
func (s *Server) WaitState(ctx context.Context, id string, state State) (Call, error) {
	return s.Wait(ctx, func(c Call) bool { return c.ID == id && c.State == state })
}

func (s *Server) view(c *call) Call {
	f := s.tables.Functions[c.FunctionID]
	v := Call{ID: c.ID, InputID: c.InputID, FunctionID: c.FunctionID, Function: f.Def.m.GetFunctionName(), Method: c.Input.m.GetMethodName(),
		GPUs: gpus(f), Timeout: f.timeout(), Created: c.Created, Ended: c.Ended, State: Queued, Canceled: c.Canceled,
		Attempts: slices.Clone(c.Attempts), Gone: c.Gone}
	switch {
	case c.Done:
		v.State = Done
		v.Outcome, v.Exception = outcome(c.Output.m.GetResult().GetStatus()), c.Output.m.GetResult().GetException()
	case c.task != nil:
		v.State, v.TaskID = Running, c.task.id
	}
	return v
}

// Input returns a call's arguments as they came, (args, kwargs) in CBOR from Go and pickled from Python.
func (s *Server) Input(callID string) ([]byte, pb.DataFormat, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.calls[callID]
	if !ok {
		return nil, 0, fmt.Errorf("fakemodal: there is no call %s", callID)
	}
	data, err := s.args(c)
	return data, c.Input.m.GetDataFormat(), err
}

// Containers returns all containers that this server has started, the oldest first.
func (s *Server) Containers() []Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Container, 0, len(s.tasks))
	for _, t := range s.tasks {
		f := t.pool.function(s)
		all = append(all, Container{ID: t.id, FunctionID: f.ID, Function: f.Def.m.GetFunctionName(), GPUs: gpus(f), Started: t.started,
			Ready: t.readyAt, Ended: t.endedAt, Served: t.served, ExitCode: t.exitCode, Why: t.why})
	}
	slices.SortFunc(all, func(a, b Container) int { return a.Started.Compare(b.Started) })
	return all
}

// WaitContainers returns as soon as fits is true for what Containers returns; fits must not call the server.
func (s *Server) WaitContainers(ctx context.Context, fits func([]Container) bool) error {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if fits(s.Containers()) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("fakemodal: containers are not so: %w", context.Cause(ctx))
		}
	}
}

// ContainerLog returns what a container has printed so far.
func (s *Server) ContainerLog(taskID string) string {
	data, err := os.ReadFile(s.store.path("containers", filepath.Base("/"+taskID), "log"))
	if err != nil {
		return err.Error()
	}
	return string(data)
}
