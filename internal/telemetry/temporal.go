package telemetry

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/opentelemetry"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/workflow"
)

// temporalMetrics takes the metrics of Temporal's SDK into the registry.
func temporalMetrics(r *prometheus.Registry) (client.MetricsHandler, error) {
	reader, err := otelprom.New(otelprom.WithRegisterer(r), otelprom.WithoutScopeInfo(), otelprom.WithoutTargetInfo())
	if err != nil {
		return nil, fmt.Errorf("the metrics of Temporal's SDK: %w", err)
	}
	// The library's own buckets are for milliseconds, and there are many of these histograms.
	seconds := metric.NewView(metric.Instrument{Name: "*", Kind: metric.InstrumentKindHistogram}, metric.Stream{
		Aggregation: metric.AggregationExplicitBucketHistogram{Boundaries: []float64{.005, .02, .1, .5, 2, 10, 60, 600}, NoMinMax: true},
	})
	provider := metric.NewMeterProvider(metric.WithReader(reader), metric.WithView(seconds))
	return opentelemetry.NewMetricsHandler(opentelemetry.MetricsHandlerOptions{
		Meter: provider.Meter("temporal-sdk-go"), UseMonotonicCounters: true, OnError: func(error) {}, // what cannot be measured is not
	}), nil
}

// Connect completes the options with which a process connects to Temporal: workers inherit them. Tracing may be nil.
func (t *Telemetry) Connect(o *client.Options, tracing *Tracing) error {
	o.MetricsHandler = t.temporal
	o.ContextPropagators = append(o.ContextPropagators, workflow.ContextPropagator(propagator{}))
	if tracing != nil {
		i, err := tracing.interceptor()
		if err != nil {
			return err
		}
		o.Interceptors = append(o.Interceptors, i)
	}
	o.Interceptors = append(o.Interceptors, interceptor.ClientInterceptor(&observer{jobs: t.jobs}))
	return nil
}
