package comfyhttp

import (
	"errors"
	"fmt"

	"github.com/sony/gobreaker/v2"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// failuresInARow is how many prompts in a row a server may lose or turn away before it gets no new ones for a while.
// Without this the server that fails at once is always the one with the fewest prompts, and draws all jobs.
const failuresInARow = 3

func newBreaker(t timing) *gobreaker.TwoStepCircuitBreaker[any] {
	return gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
		MaxRequests:  1, // the one that tries the server again
		Timeout:      t.rest,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= failuresInARow },
		IsSuccessful: func(err error) bool { return !blamesServer(err) },
		IsExcluded:   func(err error) bool { return err != nil && !blamesServer(err) && !blamesPrompt(err) },
	})
}

// blamesServer tells whether an end of a prompt speaks against its server.
func blamesServer(err error) bool {
	switch codeOf(err) {
	case comfy.BackendLost, comfy.BackendUnavailable, comfy.Timeout:
		return true
	}
	return false
}

// blamesPrompt tells whether the server has done its work and the prompt was at fault.
func blamesPrompt(err error) bool {
	switch codeOf(err) {
	case comfy.InvalidWorkflow, comfy.NodeFailed, comfy.OutOfMemory:
		return true
	}
	return false
}

func codeOf(err error) comfy.Code {
	var be *backend.Error
	if !errors.As(err, &be) {
		return ""
	}
	return be.Code
}

// resting is why the server gets no new prompts although it answers; empty when it does get them.
func (s *server) resting() string {
	switch s.breaker.State() {
	case gobreaker.StateOpen:
		return fmt.Sprintf("it has lost or turned away %d prompts in a row; it is tried again within %s", failuresInARow, s.t.rest)
	case gobreaker.StateHalfOpen:
		// Of a trial that says nothing about the server only the exclusion is counted.
		if c := s.breaker.Counts(); c.Requests > c.TotalExclusions {
			return "it had lost or turned away several prompts in a row, and is being tried again with one"
		}
	}
	return ""
}
