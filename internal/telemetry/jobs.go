package telemetry

import (
	"errors"
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/comfy"
)

// remembered is how many runs a worker remembers that it has counted.
const remembered = 4096

// jobs counts how jobs end.
type jobs struct {
	prices     prices
	ended      *prometheus.CounterVec
	phases     *prometheus.HistogramVec
	retries    *prometheus.CounterVec
	coldStarts *prometheus.CounterVec
	gpuSeconds *prometheus.CounterVec
	cost       *prometheus.CounterVec
	webhooks   *prometheus.CounterVec
	counted    *lru.Cache[string, struct{}] // runs
}

func newJobs(auto promauto.Factory, own map[string]float64) (*jobs, error) {
	counted, err := lru.New[string, struct{}](remembered)
	if err != nil {
		return nil, err
	}
	list, err := newPrices(own)
	if err != nil {
		return nil, fmt.Errorf("the prices of GPUs: %w", err)
	}
	return &jobs{
		prices: list, counted: counted,
		ended: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "comfyd_jobs_total", Help: "Jobs that have ended in a worker: outcome is completed, failed or canceled; code is that of a failure.",
		}, []string{"outcome", "code", "backend"}),
		phases: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: "comfyd_job_phase_seconds", Help: "Where the time of completed jobs went: queue, cold_start, execution, collect, and total.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600},
		}, []string{"phase", "backend"}),
		retries: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "comfyd_job_retries_total", Help: "How often jobs that have ended were put on a GPU beyond once.",
		}, []string{"backend"}),
		coldStarts: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "comfyd_cold_starts_total", Help: "Completed jobs that waited for a ComfyUI to start.",
		}, []string{"backend", "gpu"}),
		gpuSeconds: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "comfyd_gpu_seconds_total", Help: "Time for which jobs that have ended ran on a ComfyUI.",
		}, []string{"backend", "gpu"}),
		cost: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "comfyd_gpu_cost_usd_total", Help: "Estimated cost of that time, where the GPU or the backend has a price.",
		}, []string{"backend", "gpu"}),
		webhooks: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "comfyd_webhooks_total", Help: "Webhooks that are done with: outcome is delivered, or what their last attempt came to.",
		}, []string{"outcome"}),
	}, nil
}

// first tells whether a run has not been counted yet. Temporal refuses the end of a run to which something has happened
// meanwhile (a cancel, a signal), and the run then comes to its end once more.
func (j *jobs) first(run string) bool {
	before, _ := j.counted.ContainsOrAdd(run, struct{}{})
	return !before
}

func (j *jobs) completed(r *comfy.Result) {
	j.ended.WithLabelValues("completed", "", r.Backend).Inc()
	m := r.Metrics
	for phase, ms := range map[string]int64{
		"queue": m.QueueMS, "cold_start": m.ColdStartMS, "execution": m.ExecutionMS, "collect": m.CollectMS, "total": m.TotalMS,
	} {
		if phase != "cold_start" || ms > 0 {
			j.phases.WithLabelValues(phase, r.Backend).Observe(float64(ms) / 1000)
		}
	}
	if m.ColdStartMS > 0 {
		j.coldStarts.WithLabelValues(r.Backend, m.GPU).Inc()
	}
	j.ran(r.Backend, r.Attempts, m)
}

func (j *jobs) failed(f *comfy.Failure) {
	outcome := "failed"
	if f.Code == comfy.Canceled {
		outcome = "canceled"
	}
	j.ended.WithLabelValues(outcome, string(f.Code), f.Backend).Inc()
	j.ran(f.Backend, f.Attempts, f.Metrics)
}

// told counts a webhook whose workflow has ended with err. A replay is another one.
func (j *jobs) told(err error) {
	var app *temporal.ApplicationError
	switch {
	case err == nil:
		j.webhooks.WithLabelValues(string(comfy.Delivered)).Inc()
	case errors.As(err, &app):
		j.webhooks.WithLabelValues(app.Type()).Inc()
	}
}

// ran counts what a job has taken of a backend, however it ended.
func (j *jobs) ran(backend string, attempts int, m comfy.Metrics) {
	if attempts > 1 {
		j.retries.WithLabelValues(backend).Add(float64(attempts - 1))
	}
	if m.GPUSeconds <= 0 {
		return
	}
	j.gpuSeconds.WithLabelValues(backend, m.GPU).Add(m.GPUSeconds)
	if price, ok := j.prices.of(backend, m.GPU); ok {
		j.cost.WithLabelValues(backend, m.GPU).Add(m.GPUSeconds * price)
	}
}
