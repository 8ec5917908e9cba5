// Package telemetry says what a comfyd process does: metrics for Prometheus, traces for OpenTelemetry, and the request
// behind a job in every line of the log. Nothing of it is global, so that two may live in one process.
package telemetry

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"
	"go.temporal.io/sdk/client"

	"github.com/comfyd/comfyd/comfy"
)

// Options of a [Telemetry].
type Options struct {
	Role, Version string
	// Prices are added to the list that comes with comfyd, and go before it.
	Prices map[string]float64
	Log    logrus.FieldLogger
}

// Telemetry is what one process measures.
type Telemetry struct {
	log       logrus.FieldLogger
	registry  *prometheus.Registry
	auto      promauto.Factory
	temporal  client.MetricsHandler
	sampleAge time.Duration

	jobs         *jobs
	requests     *prometheus.HistogramVec
	attempts     *prometheus.HistogramVec
	storeBytes   *prometheus.CounterVec
	storeErrors  *prometheus.CounterVec
	lines        *prometheus.CounterVec
	failedScrape *prometheus.CounterVec
}

// New registers everything that is counted as it happens. What has to be asked for is added by [Telemetry.Sample].
func New(o Options) (*Telemetry, error) {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	auto := promauto.With(r)
	t := &Telemetry{
		log: o.Log, registry: r, auto: auto, sampleAge: sampleAge,
		requests: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: "comfyd_http_request_duration_seconds", Help: "Time from a request's headers to its answer's, by route template.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route", "method", "status"}),
		attempts: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: "comfyd_webhook_attempt_duration_seconds", Help: "Time that attempts to tell a webhook's receiver took, by what came of them: delivered, failed, gone or refused.",
			Buckets: []float64{.05, .25, 1, 5, 15},
		}, []string{"outcome"}),
		storeBytes: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "comfyd_store_bytes_total", Help: "Bytes that went into the store and came out of it.",
		}, []string{"direction"}),
		storeErrors: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "comfyd_store_errors_total", Help: "Calls of the store that failed; a missing object is no failure.",
		}, []string{"operation"}),
		lines: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "comfyd_log_lines_total", Help: "Lines in the log at level warning and above; source is comfyd, or temporal for what Temporal's server and SDK say.",
		}, []string{"level", "source"}),
		failedScrape: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "comfyd_scrape_errors_total", Help: "Questions that a scrape asked and nobody answered; their metric is left out then.",
		}, []string{"metric"}),
	}
	auto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "comfyd_build_info", Help: "Always 1; the labels say which comfyd this is.",
	}, []string{"version", "role"}).WithLabelValues(o.Version, o.Role).Set(1)
	var err error
	if t.jobs, err = newJobs(auto, o.Prices); err != nil {
		return nil, err
	}
	for _, level := range []string{"warning", "error"} { // so that the first one is an increase
		t.lines.WithLabelValues(level, "comfyd")
		t.lines.WithLabelValues(level, "temporal")
	}
	t.temporal, err = temporalMetrics(r)
	return t, err
}

// Webhook counts an attempt to tell a receiver.
func (t *Telemetry) Webhook(outcome comfy.DeliveryOutcome, took time.Duration) {
	t.attempts.WithLabelValues(string(outcome)).Observe(took.Seconds())
}

// Handler answers with the metrics in Prometheus' format. Who may ask is the caller's matter.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{ErrorLog: scrapeLog{t.log}, ErrorHandling: promhttp.ContinueOnError})
}

// scrapeLog is where the handler says what it could not gather.
type scrapeLog struct{ log logrus.FieldLogger }

func (l scrapeLog) Println(v ...any) { l.log.Warn(v...) }

// LogHook counts the lines of a logger.
func (t *Telemetry) LogHook() logrus.Hook { return lineHook{t.lines} }

type lineHook struct{ lines *prometheus.CounterVec }

// Levels implements [logrus.Hook].
func (lineHook) Levels() []logrus.Level {
	return []logrus.Level{logrus.WarnLevel, logrus.ErrorLevel, logrus.FatalLevel, logrus.PanicLevel}
}

// Fire implements [logrus.Hook]. Temporal's SDK logs each activity that fails as an error, also for a node's exception, so
// its lines are told apart: they name the worker.
func (h lineHook) Fire(e *logrus.Entry) error {
	source := "comfyd"
	if _, sdk := e.Data["worker_id"]; sdk || e.Data["component"] == "temporal" {
		source = "temporal"
	}
	h.lines.WithLabelValues(e.Level.String(), source).Inc()
	return nil
}
