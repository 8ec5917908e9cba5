package fakemodal

import (
	"fmt"
	"os"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
)

// What can be done to one call. Each of these returns an error when it could not be done; what came of it is in Call's
// Attempts.

// Preempt takes the container of a running call away as for a machine that is reclaimed: SIGINT, Options.PreemptGrace,
// SIGKILL. The same input, under the same call ID, runs again in another container when that one has ended.
func (s *Server) Preempt(callID string) error {
	return s.running(callID, func(c *call) { s.preempt(c.task, "preempted") })
}

// KillContainer kills the container of a running call with SIGKILL, as the kernel does when memory is out. Modal runs
// the input of a deployed app again after a moment (DOC: guide/retries, "Container crashes").
func (s *Server) KillContainer(callID string) error {
	return s.running(callID, func(c *call) { c.task.kill() })
}

// End ends a call that waits or runs with this status and kills its container: what Modal does for INTERNAL_FAILURE,
// TERMINATED that nobody asked for, MEMORY_MANAGER_EVICTION.
func (s *Server) End(callID string, st pb.GenericResult_GenericStatus, exception string) error {
	return s.one(callID, func(c *call) error {
		if c.Done {
			return fmt.Errorf("fakemodal: %s has ended already", callID)
		}
		t := c.task
		s.finish(c, result(st, exception), nil)
		if t != nil {
			t.why = "its call was ended"
			t.kill()
		}
		return nil
	})
}

// InternalFailure ends a call as for a failure of Modal's own.
func (s *Server) InternalFailure(callID string) error {
	return s.End(callID, internalFailure, "Internal error: the input was lost (by fakemodal).")
}

// TimeOut ends a running call as though its time had run out.
func (s *Server) TimeOut(callID string) error {
	return s.running(callID, func(c *call) { s.timeOut(c, s.tables.Functions[c.FunctionID].timeout()) })
}

// Expire makes a call that has ended one whose result is too old (DOC: after 7 days): no output, nothing unfinished.
func (s *Server) Expire(callID string) error {
	return s.ended(callID, func(c *call) error {
		c.Gone = true
		return s.keep(c)
	})
}

// LoseBlob deletes the bytes of a result that is kept as a blob. The result still names it.
func (s *Server) LoseBlob(callID string) error {
	return s.ended(callID, func(c *call) error {
		id := c.Output.m.GetResult().GetDataBlobId()
		if id == "" {
			return fmt.Errorf("fakemodal: the result of %s is not in a blob", callID)
		}
		return os.Remove(s.blobPath(id))
	})
}

// Forget makes a call unknown, whatever it does: NOT_FOUND.
func (s *Server) Forget(callID string) error {
	return s.one(callID, func(c *call) error {
		c.Forgotten = true
		return s.keep(c)
	})
}

func (s *Server) one(callID string, do func(*call) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.calls[callID]
	if !ok {
		return fmt.Errorf("fakemodal: there is no call %s", callID)
	}
	defer s.notify()
	return do(c)
}

func (s *Server) running(callID string, do func(*call)) error {
	return s.one(callID, func(c *call) error {
		if c.task == nil || c.Done {
			return fmt.Errorf("fakemodal: %s does not run", callID)
		}
		do(c)
		return nil
	})
}

func (s *Server) ended(callID string, do func(*call) error) error {
	return s.one(callID, func(c *call) error {
		if !c.Done {
			return fmt.Errorf("fakemodal: %s has not ended", callID)
		}
		return do(c)
	})
}
