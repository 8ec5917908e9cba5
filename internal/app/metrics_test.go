package app_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/app"
)

const metricsKey = "a-key-for-prometheus"

// observed is a comfyd of three processes, with a Prometheus: all in one, a replica of the API, a worker.
type observed struct {
	*double
	prom    *prometheus
	replica *api
}

func observe(t *testing.T) *observed {
	t.Setenv("TEMPORAL_ADDRESS", "") // the library for the two others reads it
	vars := map[string]string{"COMFYD_METRICS_KEY": metricsKey, "COMFYD_METRICS_LISTEN": "127.0.0.1:0", "COMFYD_GPU_PRICES": "cpu=0.0002"}
	d := onDouble(t, vars)
	vars["TEMPORAL_ADDRESS"], vars["COMFYD_STORE_URL"], vars["COMFYUI_URLS"] = d.app.TemporalAddress, "file://"+d.blobs, d.comfy.URL
	t.Setenv("TEMPORAL_ADDRESS", d.app.TemporalAddress)
	w := startAs(t, app.Worker, vars)
	delete(vars, "COMFYD_METRICS_LISTEN")
	r := startAs(t, app.API, vars)
	return &observed{double: d, replica: r,
		prom: scrape(t, metricsKey, d.app.MetricsAddress()+", "+r.app.Address(), w.app.MetricsAddress())}
}

// TestMetrics: a real Prometheus scrapes a run with every kind of end, counts each job once, and answers every panel of
// the dashboard with data.
func TestMetrics(t *testing.T) {
	o := observe(t)
	p := o.prom
	p.until(`up{job="comfyd"}`, is(3))

	// A job that comes while no ComfyUI is up waits for one to start.
	o.comfy.Stop()
	p.until("max(comfyd_server_up)", is(0))
	p.until(`max(comfyd_ready{part="backend"})`, is(0))
	require.Equal(t, 503, o.do("GET", "/readyz", nil).code)
	cold := o.submit(map[string]any{"workflow": graph(1, "cold")})
	<-time.After(1100 * time.Millisecond) // a shorter wait counts as the step's own cost
	o.comfy.Start()
	require.Equal(t, "COMPLETED", o.finish(cold)["status"])

	// More jobs than slots; one is canceled in the queue.
	gate := o.comfy.Hold("EmptyImage")
	var many []string
	for n := range 8 {
		many = append(many, o.submit(map[string]any{"workflow": graph(10+n, "many")}))
	}
	gate.Reached()
	p.until("max(comfyd_queue_jobs)", func(v float64) bool { return v > 0 })
	p.until("max(comfyd_queue_age_seconds)", func(v float64) bool { return v > 0 })
	p.until("sum(max by (backend) (comfyd_jobs_open))", is(8))
	o.do("POST", "/cancel/"+many[7], nil)
	require.Equal(t, "canceled", o.finish(many[7])["code"])

	// The ComfyUI dies with a job; it is run again.
	o.comfy.Kill()
	gate.Open()
	o.comfy.Start()
	attempts := 0.0
	for _, id := range many[:7] {
		status := o.finish(id)
		require.Equal(t, "COMPLETED", status["status"])
		attempts += status["attempts"].(float64)
	}
	require.Greater(t, attempts, 7.0)

	o.comfy.FailNode("EmptyImage", "ValueError", "no")
	require.Equal(t, "node_failed", o.finish(o.submit(map[string]any{"workflow": graph(2, "fails")}))["code"])
	o.comfy.FailNode("EmptyImage", "", "")
	require.Equal(t, 404, o.do("GET", "/status/nobody", nil).code)

	// Each end is counted once, also when somebody has an old history replayed.
	counts := func() {
		t.Helper()
		p.until(`comfyd_jobs_total{outcome="completed"}`, is(8))
		p.until(`comfyd_jobs_total{outcome="canceled", code="canceled"}`, is(1))
		p.until(`comfyd_jobs_total{outcome="failed", code="node_failed"}`, is(1))
		p.until("comfyd_jobs_total", is(10))
		p.until("comfyd_job_retries_total", is(attempts-7))
		p.until(`comfyd_job_phase_seconds_count{phase="total"}`, is(8))
		p.until("comfyd_cold_starts_total", func(v float64) bool { return v >= 1 }) // on a slow machine any wait is one
	}
	counts()
	for _, id := range many {
		_, err := o.temporal().QueryWorkflow(t.Context(), id, "", comfy.QueryStatus)
		require.NoError(t, err)
	}
	p.until("sum(max by (backend) (comfyd_jobs_open))", is(0))
	counts()
	// A scrape may come between the two counts of one end.
	p.until(`abs(sum(comfyd_gpu_seconds_total{gpu!=""}) * 0.0002 - sum(comfyd_gpu_cost_usd_total)) < bool 1e-9`, is(1))

	// What clients and jobs are called is no label: more of both make no more series.
	ask := func(from, to int) int {
		for n := from; n < to; n++ {
			o.finish(o.submit(map[string]any{"workflow": graph(100+n, fmt.Sprint("prefix", n)), "metadata": map[string]string{"n": fmt.Sprint(n)}}))
			o.do("GET", fmt.Sprintf("/nothing/%d?x=%d", n, n), nil)
			o.do("GET", fmt.Sprintf("/status/nobody-%d", n), nil)
			o.replica.do("GET", fmt.Sprintf("/nothing/%d", n), nil)
		}
		return strings.Count(o.metrics("http://"+o.app.MetricsAddress()+"/metrics", metricsKey), "\ncomfyd_")
	}
	before := ask(0, 10)
	require.LessOrEqual(t, ask(10, 40), before+15, "a bucket or two of a route and status that had not been seen")
	p.until(`comfyd_jobs_total{outcome="completed"}`, is(48))

	t.Log("the panels:")
	for _, panel := range dashboard(t) {
		for _, target := range panel.Targets {
			expr := strings.NewReplacer("$__rate_interval", "2m", "$__range", "10m").Replace(target.Expr)
			all := p.query(expr)
			require.True(t, finite(all), "%s: %s has no data", panel.Title, expr)
			t.Logf("%s\n  %s\n  %s", panel.Title, expr, show(all))
		}
	}
}

// metrics reads them with a key.
func (o *observed) metrics(address, key string) string {
	o.t.Helper()
	return get(o.t, address, key, 200)
}

func get(t *testing.T, address, key string, want int) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", address, nil)
	require.NoError(t, err)
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, want, res.StatusCode, "%s", raw)
	return string(raw)
}

// TestWhoMayReadMetrics: nobody without a key, and no tenant where there are others.
func TestWhoMayReadMetrics(t *testing.T) {
	d := onDouble(t, nil)
	get(t, d.url+"/metrics", "", 404)
	get(t, d.url+"/metrics", secret, 404) // there are two tenants
	k := onDouble(t, map[string]string{"COMFYD_METRICS_KEY": metricsKey})
	get(t, k.url+"/metrics", "", 401)
	get(t, k.url+"/metrics", secret, 401)
	require.Contains(t, get(t, k.url+"/metrics", metricsKey, 200), "comfyd_build_info")
}
