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
	t.failedScrape.WithLabelValues(g.Name)
	t.registry.MustRegister(&sampler{gauge: g, desc: prometheus.NewDesc(g.Name, g.Help, g.Labels, nil), failed: t.failedScrape})
}

type sampler struct {
	gauge  Gauge
	desc   *prometheus.Desc
	failed *prometheus.CounterVec

	mu   sync.Mutex
	at   time.Time
	last []Sample
}

// Describe implements [prometheus.Collector].
func (s *sampler) Describe(to chan<- *prometheus.Desc) { to <- s.desc }

// Collect implements [prometheus.Collector].
func (s *sampler) Collect(to chan<- prometheus.Metric) {
	for _, v := range s.now() {
		to <- prometheus.MustNewConstMetric(s.desc, prometheus.GaugeValue, v.Value, v.Labels...)
	}
}

func (s *sampler) now() []Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.at.IsZero() && time.Since(s.at) < sampleAge {
		return s.last
	}
	ctx, done := context.WithTimeout(context.Background(), sampleTimeout)
	defer done()
	var err error
	if s.last, err = s.gauge.Ask(ctx); err != nil {
		s.failed.WithLabelValues(s.gauge.Name).Inc()
		s.last = nil
	}
	s.at = time.Now()
	return s.last
}
