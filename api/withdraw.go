package api

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"go.temporal.io/api/serviceerror"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/logs"
	"github.com/comfyd/comfyd/internal/visibility"
)

const (
	// lookTimeout bounds one question for a job whose start had no answer.
	lookTimeout = 2 * time.Second
	// withdrawEvery is the pause between two rounds of looking for jobs that nobody was told of.
	withdrawEvery = time.Second
	// landsWithin is how long a start may still land after Temporal has begun to answer again: no longer than its own
	// deadline, which Temporal keeps, too.
	landsWithin = 2 * startTimeout
	// maxWithdrawals bounds what is remembered of an outage.
	maxWithdrawals = 10_000
)

// uncertain tells whether Temporal may have done what it was asked to do although the call failed: it did not answer in
// time, or failed in a way that does not say.
func uncertain(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	var typed serviceerror.ServiceError
	code := status.Code(err)
	if errors.As(err, &typed) {
		code = typed.Status().Code()
	}
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Aborted, codes.Internal, codes.DataLoss, codes.Unknown:
		return true
	}
	return false
}

// unknownStart answers a submission whose start may or may not have happened. It asks once more, by the ID. Should that
// not tell, a client with an Idempotency-Key can find out itself, by repeating the request. Without one the client never
// learns the ID, so its answer is that nothing was accepted, and this is made true: the job is looked for until it is
// certain that there is none, and canceled where there is one.
func (s *Server) unknownStart(j *newJob, memo comfy.Submission, cause error) error {
	ctx, cancel := context.WithTimeout(s.life, lookTimeout)
	defer cancel()
	if there, err := s.replay(ctx, j.id, memo); there && err == nil {
		return nil
	}
	if j.key != "" {
		return failf(CodeUnavailable, "Temporal, which keeps the jobs, does not answer, so it is not known whether this job was accepted. "+
			"Send the request again with the same Idempotency-Key: that finds the job, or starts it.").because(cause)
	}
	s.withdrawals.add(s, j.id, logs.In(j.from.in(s.life), s.log), "Temporal did not say whether it has taken this job; it is canceled where it has")
	return failf(CodeUnavailable, "Temporal, which keeps the jobs, does not answer. Nothing was accepted: should it have taken the job all the same, "+
		"the job is canceled as soon as Temporal answers. Try again; with an Idempotency-Key a repeated submission finds its job.").because(cause)
}

// withdrawals are the jobs that may have started although their submissions were refused. They live in memory: a job
// whose replica ends before Temporal answers again may run, once, for nobody.
type withdrawals struct {
	every time.Duration

	mu      sync.Mutex
	running bool
	missing map[string]time.Time // by ID: when Temporal first said that there is no such job; zero before
}

func newWithdrawals() *withdrawals {
	return &withdrawals{every: withdrawEvery, missing: map[string]time.Time{}}
}

func (w *withdrawals) add(s *Server, id string, log logrus.FieldLogger, why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.missing) == maxWithdrawals {
		log.Warn("this job may have started although its submission was refused; nobody will look, too many are looked for")
		return
	}
	log.Warn(why)
	w.missing[id] = time.Time{}
	if !w.running {
		w.running = true
		s.background.Go(func() { w.run(s) })
	}
}

// run ends when there is nothing left to look for.
func (w *withdrawals) run(s *Server) {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for w.some() {
		select {
		case <-s.life.Done():
			return
		case <-tick.C:
		}
		for id, since := range w.snapshot() {
			done, err := s.withdraw(id)
			if err != nil {
				break // Temporal is away still
			}
			w.note(id, done || !since.IsZero() && time.Since(since) > landsWithin)
		}
	}
}

func (w *withdrawals) some() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = len(w.missing) > 0
	return w.running
}

func (w *withdrawals) snapshot() map[string]time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.missing)
}

// note keeps what Temporal has said of a job: it is done with, or there is none.
func (w *withdrawals) note(id string, done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case done:
		delete(w.missing, id)
	case w.missing[id].IsZero():
		w.missing[id] = time.Now()
	}
}

// withdraw cancels a job that has started after all. It reports false where there is no such job, and fails where
// Temporal does not answer.
func (s *Server) withdraw(id string) (done bool, err error) {
	ctx, cancel := context.WithTimeout(s.life, lookTimeout)
	defer cancel()
	described, err := s.temporal.DescribeWorkflowExecution(ctx, id, "")
	var missing *serviceerror.NotFound
	switch {
	case errors.As(err, &missing):
		return false, nil
	case err != nil:
		return false, err
	case !visibility.IsOpen(described.GetWorkflowExecutionInfo().GetStatus()):
		return true, nil
	}
	if err := s.temporal.CancelWorkflow(ctx, id, ""); err != nil && !errors.As(err, &missing) {
		return false, err
	}
	s.log.WithField(logs.CallID, id).Warn("a job whose submission was refused had started after all; it is canceled")
	return true, nil
}
