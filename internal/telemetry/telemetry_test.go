package telemetry

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"go.uber.org/goleak"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/logs"
	"github.com/comfyd/comfyd/store"
	"github.com/comfyd/comfyd/workflows"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTelemetry(t *testing.T) *Telemetry {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	tel, err := New(Options{Role: "worker", Version: "test", Prices: map[string]float64{"here": 0.5}, Log: log})
	require.NoError(t, err)
	return tel
}

// page is what Prometheus would get.
func page(t *testing.T, tel *Telemetry) string {
	t.Helper()
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	require.Equal(t, 200, w.Code)
	return w.Body.String()
}

// TestEachEndIsCounted runs workflows to every kind of end.
func TestEachEndIsCounted(t *testing.T) {
	tel := newTelemetry(t)
	for _, c := range []struct {
		result *comfy.Result
		err    error
	}{
		{result: &comfy.Result{Backend: "here", Attempts: 3, Metrics: comfy.Metrics{QueueMS: 20, ColdStartMS: 2000, ExecutionMS: 4000, TotalMS: 7000, GPU: "NVIDIA L40S", GPUSeconds: 4}}},
		{err: temporal.NewApplicationErrorWithOptions("m", "node_failed", temporal.ApplicationErrorOptions{Details: []any{comfy.Failure{Code: comfy.NodeFailed, Backend: "here", Metrics: comfy.Metrics{GPUSeconds: 2}}}})},
		{err: temporal.NewCanceledError(comfy.Failure{Code: comfy.Canceled})},
		{err: errors.New("whatever")},
	} {
		var s testsuite.WorkflowTestSuite
		env := s.NewTestWorkflowEnvironment()
		env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{&observer{jobs: tel.jobs}}})
		tel.jobs.counted.Purge() // all runs of this environment have one ID
		env.RegisterWorkflowWithOptions(func(workflow.Context, comfy.Request) (*comfy.Result, error) { return c.result, c.err },
			workflow.RegisterOptions{Name: comfy.WorkflowName})
		env.ExecuteWorkflow(comfy.WorkflowName, comfy.Request{})
		require.True(t, env.IsWorkflowCompleted())
	}
	got := page(t, tel)
	for _, line := range []string{
		`comfyd_jobs_total{backend="here",code="",outcome="completed"} 1`,
		`comfyd_jobs_total{backend="here",code="node_failed",outcome="failed"} 1`,
		`comfyd_jobs_total{backend="",code="canceled",outcome="canceled"} 1`,
		`comfyd_jobs_total{backend="",code="internal",outcome="failed"} 1`,
		`comfyd_job_phase_seconds_sum{backend="here",phase="execution"} 4`,
		`comfyd_job_retries_total{backend="here"} 2`,
		`comfyd_cold_starts_total{backend="here",gpu="NVIDIA L40S"} 1`,
		`comfyd_gpu_seconds_total{backend="here",gpu="NVIDIA L40S"} 4`,
		`comfyd_gpu_seconds_total{backend="here",gpu=""} 2`,
		`comfyd_gpu_cost_usd_total{backend="here",gpu="NVIDIA L40S"} 2`,
	} {
		require.Contains(t, got, line+"\n")
	}
	require.False(t, tel.jobs.first("default-test-run-id"), "an end that Temporal has refused comes once more")
}

// TestEachWebhookIsCounted: its attempts, and what it came to in the end.
func TestEachWebhookIsCounted(t *testing.T) {
	tel := newTelemetry(t)
	tel.Webhook(comfy.DeliveryFailed, 20*time.Millisecond)
	tel.Webhook(comfy.Delivered, 2*time.Second)
	for _, err := range []error{nil, temporal.NewNonRetryableApplicationError("HTTP 500", "failed", nil), temporal.NewCanceledError()} {
		var s testsuite.WorkflowTestSuite
		env := s.NewTestWorkflowEnvironment()
		env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{&observer{jobs: tel.jobs}}})
		tel.jobs.counted.Purge()
		env.RegisterWorkflowWithOptions(func(workflow.Context, comfy.Webhook) (*comfy.Delivery, error) { return nil, err },
			workflow.RegisterOptions{Name: comfy.WebhookWorkflowName})
		env.ExecuteWorkflow(comfy.WebhookWorkflowName, comfy.Webhook{})
	}
	got := page(t, tel)
	for _, line := range []string{
		`comfyd_webhook_attempt_duration_seconds_bucket{outcome="failed",le="0.05"} 1`,
		`comfyd_webhook_attempt_duration_seconds_count{outcome="delivered"} 1`,
		`comfyd_webhooks_total{outcome="delivered"} 1`,
		`comfyd_webhooks_total{outcome="failed"} 1`,
	} {
		require.Contains(t, got, line+"\n")
	}
	require.NotContains(t, got, "comfyd_jobs_total{")
}

// TestHistoriesReplay: what stands around workflows changes no command of theirs, and counts no old end.
func TestHistoriesReplay(t *testing.T) {
	tel := newTelemetry(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	tracing, err := StartTracing(t.Context(), TracingOptions{Log: tel.log})
	require.NoError(t, err)
	defer func() { _ = tracing.Stop(context.Background()) }() // nobody takes the spans
	var o client.Options
	require.NoError(t, tel.Connect(&o, tracing))
	replayer, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{
		Interceptors:       []interceptor.WorkerInterceptor{o.Interceptors[0].(interceptor.Interceptor), o.Interceptors[1].(interceptor.Interceptor)},
		ContextPropagators: o.ContextPropagators,
	})
	require.NoError(t, err)
	workflows.Register(replayer)
	files, err := filepath.Glob("../../workflows/testdata/*/*.json")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 5)
	for _, f := range files {
		raw, err := os.Open(f)
		require.NoError(t, err)
		h, err := client.HistoryFromJSON(raw, client.HistoryJSONOptions{})
		require.NoError(t, errors.Join(err, raw.Close()))
		id := h.GetEvents()[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowId()
		require.NoError(t, replayer.ReplayWorkflowHistoryWithOptions(nil, h, worker.ReplayWorkflowHistoryOptions{OriginalExecution: workflow.Execution{ID: id}}), f)
	}
	require.Zero(t, testutil.CollectAndCount(tel.jobs.ended))
	require.Zero(t, testutil.CollectAndCount(tel.jobs.webhooks))
}

func TestPrices(t *testing.T) {
	p, err := newPrices(map[string]float64{"url-lab": 0.1, "H100": 0.2})
	require.NoError(t, err)
	for _, c := range []struct {
		backend, gpu string
		want         float64
	}{
		{"modal", "NVIDIA L40S", 0.000542}, {"modal", "NVIDIA A100-SXM4-80GB", 0.000694}, {"modal", "NVIDIA A100-SXM4-40GB", 0.000583},
		{"modal", "NVIDIA H100 80GB HBM3", 0.2}, {"modal", "Tesla T4", 0.000164}, {"modal", "NVIDIA A10", 0.000306},
		{"url-lab", "", 0.1}, {"url", "NVIDIA L40S", -1}, {"modal", "cpu", -1}, {"modal", "", -1},
	} {
		price, ok := p.of(c.backend, c.gpu)
		if !ok {
			price = -1
		}
		require.Equal(t, c.want, price, "%s %s", c.backend, c.gpu)
	}
}

func TestStoreTraffic(t *testing.T) {
	tel, dir := newTelemetry(t), t.TempDir()
	opened, err := store.Open(t.Context(), dir)
	require.NoError(t, err)
	defer opened.Close()
	s := tel.Store(opened)
	b, err := s.PutHashed(t.Context(), "a/", strings.NewReader("12345"))
	require.NoError(t, err)
	r, err := s.Open(t.Context(), b.Key, 0, 3)
	require.NoError(t, err)
	_, err = io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	_, err = s.Open(t.Context(), "a/none", 0, -1)
	require.Error(t, err)
	_, err = s.Put(t.Context(), "b", io.MultiReader(strings.NewReader("x"), broken{}))
	require.Error(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	_, err = s.Put(t.Context(), "file/in", strings.NewReader("x"))
	require.Error(t, err)
	got := page(t, tel)
	require.Contains(t, got, `comfyd_store_bytes_total{direction="in"} 5`)
	require.Contains(t, got, `comfyd_store_bytes_total{direction="out"} 3`)
	require.Contains(t, got, `comfyd_store_errors_total{operation="put"} 1`, "a reader that fails is not the store's fault")
	require.Contains(t, got, `comfyd_store_errors_total{operation="open"} 0`, "nor is a blob that is not there")
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("broken") }

// TestSample: what cannot be asked is left out, and not asked again by each scrape.
func TestSample(t *testing.T) {
	tel, asked := newTelemetry(t), 0
	tel.sampleAge = time.Hour
	tel.Sample(Gauge{Name: "good", Help: "h", Labels: []string{"l"}, Ask: func(context.Context) ([]Sample, error) {
		asked++
		return []Sample{{Labels: []string{"x"}, Value: 7}}, nil
	}})
	tel.Sample(Gauge{Name: "bad", Help: "h", Ask: func(context.Context) ([]Sample, error) { return []Sample{{Value: 1}}, errors.New("away") }})
	page(t, tel)
	got := page(t, tel)
	require.Contains(t, got, "good{l=\"x\"} 7\n")
	require.NotContains(t, got, "\nbad ")
	require.Contains(t, got, `comfyd_scrape_errors_total{metric="bad"} 1`)
	require.Equal(t, 1, asked)
}

func TestLinesAreCounted(t *testing.T) {
	tel := newTelemetry(t)
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.AddHook(tel.LogHook())
	logs.In(logs.With(t.Context(), logs.About{CallID: "j"}), l).Error("x")
	l.Info("x")
	logs.Temporal(l).Error("Activity error.", "WorkerID", "w")
	require.Contains(t, page(t, tel), `comfyd_log_lines_total{level="error",source="comfyd"} 1`)
	require.Contains(t, page(t, tel), `comfyd_log_lines_total{level="error",source="temporal"} 1`)
	require.NotContains(t, page(t, tel), `level="info"`)
}

func TestGuard(t *testing.T) {
	h := newTelemetry(t).Server("a-key-of-16-letters").Handler
	for header, want := range map[string]int{"": 401, "Bearer wrong": 401, "Basic a-key-of-16-letters": 401, "Bearer a-key-of-16-letters": 200} {
		r := httptest.NewRequest("GET", "/metrics", nil)
		r.Header.Set("Authorization", header)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, want, w.Code, header)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/debug/pprof/", nil))
	require.Equal(t, 404, w.Code)
}

// TestRemembered: the gauges of one scrape share one question, whatever its answer.
func TestRemembered(t *testing.T) {
	for _, failure := range []error{nil, errors.New("away")} {
		asked := 0
		ask := rememberedFor(time.Hour, func(context.Context) (int, error) { asked++; return 7, failure })
		for range 3 {
			n, err := ask(t.Context())
			require.Equal(t, 7, n)
			require.Equal(t, failure, err)
		}
		require.Equal(t, 1, asked)
	}
}
