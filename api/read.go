package api

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/visibility"
)

const (
	readTimeout = 5 * time.Second
	// recheckTimeout bounds what a job told from memory waits for a Temporal that does not answer.
	recheckTimeout = time.Second
	queryTimeout   = time.Second
	// queryPatience is how long a status waits for the workflow's own answer when Temporal's is there. Without a
	// worker nobody answers a query, and reads never depend on one.
	queryPatience = 250 * time.Millisecond
	maxWorkflowID = 1000 // Temporal's limit
)

// patience is what the server grants others; a test on a slow machine grants more.
type patience struct {
	read  time.Duration // readTimeout
	query time.Duration // queryTimeout
	own   time.Duration // queryPatience
	note  time.Duration // noteTimeout
	poll  time.Duration // longPoll
}

// job is a job as last read. It is shared between requests and never changed once it is read.
type job struct {
	id, runID, tenant string
	submitted         bool   // through the API, rather than started as a child by others
	address           string // of the API, as the client of a job with a webhook has named it
	unreadable        error  // why its submission cannot be read
	status            comfy.Status
	live              string        // where the worker says more of an open one; empty where it does not
	waits             bool          // nobody has taken up an open one yet, and this server hears of it when somebody does
	own               *comfy.Status // the workflow's own word of an open one; nil where it gave none
	events            int64         // of the history, when that was asked
	body              []byte        // the whole answer of a job that has ended, where it is kept
}

func (j *job) ended() bool { return j.status.State != comfy.Running }

// job reads a job of a tenant. Somebody else's, and what is no job of comfyd, does not exist.
func (s *Server) job(id, tenant string) (*job, error) {
	j, due := s.closed.get(id, s.now())
	if due && !s.known(j) {
		j = nil
	}
	if j == nil {
		var often bool
		if j, often = s.open.get(id, s.now()); often && j.tenant == tenant {
			s.watches.of(j) // who polls so often wants to know the end as it happens
		}
	}
	if j == nil {
		return s.shared(id, tenant, nil)
	}
	return s.own(j, tenant)
}

// shared reads a job. Many who ask for one at a time share one read.
func (s *Server) shared(id, tenant string, end *outcome) (*job, error) {
	if !validWorkflowID(id) {
		return nil, notFound()
	}
	j, err, _ := s.reads.Do(id, func() (any, error) { return s.read(id, end) })
	if err != nil {
		return nil, err
	}
	return s.own(j.(*job), tenant)
}

// own hides the jobs of others, and what has been deleted.
func (s *Server) own(j *job, tenant string) (*job, error) {
	if j.tenant != tenant || s.deleted.Contains(j.runID) {
		return nil, notFound()
	}
	return j, j.unreadable
}

func validWorkflowID(id string) bool {
	return id != "" && len(id) <= maxWorkflowID && utf8.ValidString(id) && !strings.ContainsFunc(id, func(r rune) bool { return r < ' ' })
}

// read asks Temporal: the server's word by Describe and, of an open job, the workflow's own by a query. end is how
// the run is known to have ended, nil where it is not.
func (s *Server) read(id string, end *outcome) (*job, error) {
	ctx, cancel := context.WithTimeout(s.life, s.patience.read)
	defer cancel()
	began := s.now()
	described, err := s.temporal.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		return nil, temporalError(err)
	}
	info := described.GetWorkflowExecutionInfo()
	if info.GetType().GetName() != comfy.WorkflowName {
		return nil, notFound()
	}
	j := s.jobOf(info)
	if j.unreadable != nil {
		return j, nil
	}
	if !visibility.IsOpen(info.GetStatus()) {
		if s.isDeleted(ctx, id, j.runID) {
			return nil, notFound()
		}
		if end == nil || end.runID != j.runID {
			end = s.outcome(ctx, id, j.runID)
		}
		if err := s.readEnd(j, info, end); err != nil {
			return nil, err
		}
		s.closed.add(j, s.now())
		return j, nil
	}
	// A workflow's state follows from its history: while that has not grown, it says what it has said before.
	j.events = info.GetHistoryLength()
	if before := s.open.last(id); before != nil && before.runID == j.runID && before.events == j.events {
		j.own = before.own
	}
	if j.own == nil {
		j.own = s.ownWord(ctx, id)
	}
	s.merge(j, j.own, described)
	s.open.add(j, began, s.now())
	return j, nil
}

// jobOf is what Temporal says of a job before it is asked for more.
func (s *Server) jobOf(info *workflow.WorkflowExecutionInfo) *job {
	id := info.GetExecution().GetWorkflowId()
	j := &job{
		id: id, runID: info.GetExecution().GetRunId(), tenant: s.opts.DefaultTenant,
		status: comfy.Status{ID: id, State: comfy.Running, Phase: comfy.PhaseQueued, CreatedAt: info.GetStartTime().AsTime()},
	}
	sub, submitted, err := s.submissionOf(info)
	switch {
	case err != nil: // it is the tenant's that the search attributes name, for want of a better word
		j.tenant, j.unreadable = keyword(info, comfy.AttrTenant), err
	case submitted:
		j.tenant, j.address, j.submitted = sub.Tenant, sub.Address, true
	}
	return j
}

// ownWord is what the workflow says of itself; nil where it does not in time.
func (s *Server) ownWord(ctx context.Context, id string) *comfy.Status {
	patience := time.NewTimer(s.patience.own)
	defer patience.Stop()
	answer := make(chan *comfy.Status, 1)
	go func() { answer <- s.query(ctx, id) }()
	select {
	case own := <-answer:
		return own
	case <-patience.C:
		return nil
	}
}

// query returns nil where the workflow does not answer, or has ended.
func (s *Server) query(ctx context.Context, id string) *comfy.Status {
	ctx, cancel := context.WithTimeout(ctx, s.patience.query)
	defer cancel()
	resp, err := s.temporal.QueryWorkflowWithOptions(ctx, &client.QueryWorkflowWithOptionsRequest{
		WorkflowID: id, QueryType: comfy.QueryStatus, QueryRejectCondition: enums.QUERY_REJECT_CONDITION_NOT_OPEN,
	})
	if err != nil || resp.QueryRejected != nil || resp.QueryResult == nil {
		return nil
	}
	var status comfy.Status
	if resp.QueryResult.Get(&status) != nil {
		return nil
	}
	return &status
}

// outcome is how a run has ended, or why that could not be read.
type outcome struct {
	runID  string
	result comfy.Result
	err    error
}

// outcome waits for the end of a run.
func (s *Server) outcome(ctx context.Context, id, runID string) *outcome {
	o := &outcome{runID: runID}
	o.err = s.temporal.GetWorkflow(ctx, id, runID).Get(ctx, &o.result)
	return o
}

// known tells whether it is the word of the run itself.
func (o *outcome) known() bool {
	var failed *temporal.WorkflowExecutionError
	return o.err == nil || errors.As(o.err, &failed) || errors.Is(o.err, converter.ErrUnableToDecode)
}

// readEnd completes j from a closed run.
func (s *Server) readEnd(j *job, info *workflow.WorkflowExecutionInfo, end *outcome) error {
	ended := info.GetCloseTime().AsTime()
	expires := ended.Add(s.opts.Retention)
	j.status.Phase, j.status.EndedAt, j.status.ExpiresAt = "", &ended, &expires

	var failed *temporal.WorkflowExecutionError
	switch {
	case end.err == nil:
		j.status.State, j.status.Result = comfy.Completed, &end.result
		return nil
	case errors.As(end.err, &failed):
		f := failureOf(info.GetStatus(), end.err)
		if f.Metrics.TotalMS == 0 {
			f.Metrics.TotalMS = ended.Sub(j.status.CreatedAt).Milliseconds()
		}
		j.status.State, j.status.Failure = comfy.Failed, f
		return nil
	case errors.Is(end.err, converter.ErrUnableToDecode):
		return failf(CodeInternal, "The job's result cannot be read.").because(end.err)
	}
	return temporalError(end.err)
}

// failureOf words the end of a run that did not complete.
func failureOf(status enums.WorkflowExecutionStatus, err error) *comfy.Failure {
	switch status {
	case enums.WORKFLOW_EXECUTION_STATUS_CANCELED:
		f := &comfy.Failure{}
		var canceled *temporal.CanceledError
		if errors.As(err, &canceled) && canceled.HasDetails() && canceled.Details(f) != nil {
			f = &comfy.Failure{}
		}
		f.Code = comfy.Canceled
		fill(&f.Message, "The job was canceled.")
		return f
	case enums.WORKFLOW_EXECUTION_STATUS_TERMINATED:
		return &comfy.Failure{Code: comfy.Internal, Message: "The job was terminated by an operator in Temporal."}
	case enums.WORKFLOW_EXECUTION_STATUS_TIMED_OUT:
		return &comfy.Failure{Code: comfy.Timeout, Message: "The job did not end within its time limits."}
	}
	var application *temporal.ApplicationError
	if !errors.As(err, &application) || !knownCode(comfy.Code(application.Type())) {
		return &comfy.Failure{Code: comfy.Internal, Message: "The job failed by a fault of comfyd. The Temporal UI and the worker's log have the details under its ID."}
	}
	f := &comfy.Failure{}
	if !application.HasDetails() || application.Details(f) != nil {
		f = &comfy.Failure{}
	}
	f.Code = comfy.Code(application.Type())
	fill(&f.Message, application.Message())
	return f
}

func knownCode(code comfy.Code) bool {
	switch code {
	case comfy.InvalidWorkflow, comfy.NodeFailed, comfy.OutOfMemory, comfy.Timeout, comfy.Canceled, comfy.BackendLost,
		comfy.BackendUnavailable, comfy.OutputLost, comfy.Storage, comfy.Internal:
		return true
	}
	return false
}

// submissionOf reads the start memo, which the jobs of the API have. One without a tenant is as good as none.
func (s *Server) submissionOf(info *workflow.WorkflowExecutionInfo) (sub comfy.Submission, submitted bool, err error) {
	sub, submitted, err = visibility.Submission(info, s.opts.Converter)
	if err != nil {
		return sub, true, failf(CodeInternal, "The job cannot be read: this server lacks the key with which it is encrypted in Temporal, or another version has written it.").because(err)
	}
	return sub, submitted && sub.Tenant != "", nil
}
