package telemetry

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// sampleAge is how old the answer to a question may be: several may scrape, and each question is load on what it asks.
	sampleAge = 5 * time.Second
	// sampleTimeout bounds a question; Prometheus itself waits ten seconds for everything.
	sampleTimeout = 3 * time.Second
)

// Sample is one value of a gauge, with the values of its labels.
type Sample struct {
	Labels []string
	Value  float64
}

// Gauge describes a metric that is asked for when somebody scrapes.
type Gauge struct {
	Name, Help string
	Labels     []string
	// Ask answers with the gauge's values. Where it fails, the metric is left out of the scrape.
	Ask func(ctx context.Context) ([]Sample, error)
}

// Sample registers a gauge.
func (t *Telemetry) Sample(g Gauge) {
	failed := t.failedScrape.WithLabelValues(g.Name)
	t.registry.MustRegister(&sampler{
		desc: prometheus.NewDesc(g.Name, g.Help, g.Labels, nil),
		ask: rememberedFor(t.sampleAge, func(ctx context.Context) ([]Sample, error) {
			all, err := g.Ask(ctx)
			if err != nil {
				failed.Inc()
			}
			return all, err
		}),
	})
}

// Remembered asks a question, and gives the same answer, or the same error, to all who want to know within sampleAge: the
// gauges of one scrape that rest on one question.
func Remembered[T any](ask func(context.Context) (T, error)) func(context.Context) (T, error) {
	return rememberedFor(sampleAge, ask)
}

func rememberedFor[T any](age time.Duration, ask func(context.Context) (T, error)) func(context.Context) (T, error) {
	var (
		mu   sync.Mutex
		at   time.Time
		last T
		err  error
	)
	return func(ctx context.Context) (T, error) {
		mu.Lock()
		defer mu.Unlock()
		if at.IsZero() || time.Since(at) >= age {
			last, err = ask(ctx)
			at = time.Now()
		}
		return last, err
	}
}

type sampler struct {
	desc *prometheus.Desc
	ask  func(context.Context) ([]Sample, error)
}

// Describe implements [prometheus.Collector].
func (s *sampler) Describe(to chan<- *prometheus.Desc) { to <- s.desc }

// Collect implements [prometheus.Collector].
func (s *sampler) Collect(to chan<- prometheus.Metric) {
	ctx, done := context.WithTimeout(context.Background(), sampleTimeout)
	defer done()
	all, err := s.ask(ctx)
	if err != nil {
		return
	}
	for _, v := range all {
		to <- prometheus.MustNewConstMetric(s.desc, prometheus.GaugeValue, v.Value, v.Labels...)
	}
}
