package main

import (
	"encoding/json"
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/comfy"
)

// Input of [Pipeline].
type Input struct {
	Candidates int `json:"candidates"` // pictures to choose from
	Posters    int `json:"posters"`    // slow branches, of which not all are wanted
	Enough     int `json:"enough"`     // branches that make a good result
}

// Branch is one of the upscales.
type Branch struct {
	Name string `json:"name"`
	// Job is the ID of the child that ended it, Tries how many there were.
	Job   string         `json:"job"`
	Tries int            `json:"tries"`
	Made  *comfy.Output  `json:"made,omitempty"`
	Error *comfy.Failure `json:"error,omitempty"`

	graphs  []json.RawMessage // the best first: the next is tried when one fails by its own fault
	must    bool
	urgency int
}

// Output of [Pipeline].
type Output struct {
	Picked   comfy.Output `json:"picked"`
	Branches []*Branch    `json:"branches"`
}

// Pipeline makes some candidates, picks one, upscales it in several ways at once, tries a branch that fails in another
// way, and cancels what is left when enough are done.
func Pipeline(ctx workflow.Context, in Input) (*Output, error) {
	picked, err := candidates(ctx, in.Candidates)
	if err != nil {
		return nil, err
	}
	branches := []*Branch{
		{Name: "x512", graphs: []json.RawMessage{upscale(512)}, urgency: 2},
		{Name: "print", graphs: []json.RawMessage{broken(), upscale(768)}, must: true, urgency: 1},
	}
	for i := range in.Posters {
		branches = append(branches, &Branch{Name: fmt.Sprintf("poster-%d", i), graphs: []json.RawMessage{poster(i, 8)}, urgency: 5})
	}

	rest, cancel := workflow.WithCancel(ctx)
	defer cancel()
	ended := workflow.NewBufferedChannel(ctx, len(branches))
	for _, b := range branches {
		workflow.Go(rest, func(ctx workflow.Context) {
			b.run(ctx, *picked)
			ended.Send(ctx, nil) // buffered: it never waits
		})
	}
	for range branches {
		ended.Receive(ctx, nil)
		if enough(branches, in.Enough) {
			cancel() // of no effect on those that have ended
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err // we were canceled ourselves; each child has stopped by now
	}
	return &Output{Picked: *picked, Branches: branches}, nil
}

// candidates makes n pictures at once and picks one.
func candidates(ctx workflow.Context, n int) (*comfy.Output, error) {
	var jobs []workflow.ChildWorkflowFuture
	for i := range n {
		jobs = append(jobs, job(ctx, childID(ctx, "candidate", i), comfy.Request{
			Workflow: clouds(i, 0.1+0.2*float64(i%4)), Metadata: map[string]string{"step": "candidate"},
		}))
	}
	var made []comfy.Output
	for i, j := range jobs {
		var r comfy.Result
		if err := j.Get(ctx, &r); err != nil {
			return nil, fmt.Errorf("candidate %d: %w", i, err)
		}
		made = append(made, r.Images[0])
	}
	var a *Activities
	var picked comfy.Output
	if err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, pickOptions), a.Pick, made).Get(ctx, &picked); err != nil {
		return nil, fmt.Errorf("picking one of %d candidates: %w", n, err)
	}
	return &picked, nil
}

// run tries the graphs of a branch, one after the other.
func (b *Branch) run(ctx workflow.Context, picked comfy.Output) {
	for i, graph := range b.graphs {
		b.Tries, b.Error = i+1, nil
		b.Job = childID(ctx, b.Name, b.Tries)
		var r comfy.Result
		err := job(ctx, b.Job, comfy.Request{
			Workflow: graph, Images: []comfy.Input{picked.AsInput("picked.png")}, // by reference: no byte moves
			Priority: b.urgency, Metadata: map[string]string{"step": b.Name},
		}).Get(ctx, &r)
		if err == nil {
			b.Made = &r.Images[0]
			return
		}
		f := failureOf(err)
		b.Error = &f
		if ctx.Err() != nil {
			return
		}
	}
}

// enough tells whether what is left may be canceled.
func enough(branches []*Branch, want int) bool {
	done := 0
	for _, b := range branches {
		if b.Made != nil {
			done++
		} else if b.must && b.Error == nil || b.must && b.Tries < len(b.graphs) {
			return false
		}
	}
	return done >= want
}
