package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/sirupsen/logrus"
	"go.opentelemetry.io/otel/trace"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/comfyd/comfyd/api"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/catalog"
	"github.com/comfyd/comfyd/internal/telemetry"
	"github.com/comfyd/comfyd/internal/visibility"
)

// MetricsAddress is where the metrics have a listener of their own, once started; empty where they have none.
func (a *App) MetricsAddress() string {
	if a.metrics == nil {
		return ""
	}
	return a.metrics.Addr().String()
}

// observe makes what the process measures, first of all, so that it outlives whatever is measured.
func (a *App) observe(ctx context.Context) error {
	t, err := telemetry.New(telemetry.Options{Role: string(a.role), Version: a.version, Prices: a.config.GPUPrices, Log: a.log})
	if err != nil {
		return err
	}
	a.telemetry = t
	if l, ok := a.log.(*logrus.Logger); ok {
		l.AddHook(t.LogHook())
	}
	if on, grpc := a.config.Tracing(); on {
		if a.tracing, err = telemetry.StartTracing(ctx, telemetry.TracingOptions{Role: string(a.role), Version: a.version, GRPC: grpc, Log: a.log}); err != nil {
			return err
		}
		a.later(func(ctx context.Context) { a.note("sending the last spans", a.tracing.Stop(ctx)) })
	}
	return a.serveMetrics()
}

func (a *App) serveMetrics() error {
	if a.config.MetricsListen == "" {
		return nil
	}
	l, err := listenOn("COMFYD_METRICS_LISTEN", a.config.MetricsListen)
	if err != nil {
		return err
	}
	a.metrics = l
	s, served := a.telemetry.Server(a.config.MetricsKey), make(chan struct{})
	go func() {
		defer close(served)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.fail(fmt.Errorf("the metrics have stopped: %w", err))
		}
	}()
	a.later(func(ctx context.Context) {
		a.note("stopping the metrics", s.Shutdown(ctx))
		<-served
	})
	return nil
}

// metricsOfAPI are the metrics on the API's own listener, which the world may reach: for holders of COMFYD_METRICS_KEY.
// Without one the key of the only tenant opens them; where there are several, nobody's does, since each would see what the
// others do.
func (a *App) metricsOfAPI() http.Handler {
	if a.config.MetricsKey != "" {
		return telemetry.Guard(a.telemetry.Handler(), a.config.MetricsKey)
	}
	if len(a.config.Keys) != 1 {
		return nil
	}
	return telemetry.Guard(a.telemetry.Handler(), a.config.Keys[0].Secret)
}

func (a *App) tracerOfAPI() trace.Tracer {
	if a.tracing == nil {
		return nil
	}
	return a.tracing.Tracer("api")
}

// sampleBackends adds what is known of this worker's own backends.
func (a *App) sampleBackends(backends []backend.Backend) {
	a.telemetry.Sample(telemetry.Gauge{
		Name: "comfyd_server_up", Help: "Whether a ComfyUI of this worker is well, as last seen.", Labels: []string{"backend", "server"},
		Ask: func(context.Context) (all []telemetry.Sample, _ error) {
			for _, b := range backends {
				for _, s := range b.Servers() {
					all = append(all, telemetry.Sample{Labels: []string{b.Pool().Name, s.Name}, Value: truth(s.Healthy)})
				}
			}
			return all, nil
		},
	})
	a.telemetry.Sample(telemetry.Gauge{
		Name: "comfyd_backend_slots", Help: "How many prompts this worker hands over to a backend at once.", Labels: []string{"backend"},
		Ask: func(context.Context) (all []telemetry.Sample, _ error) {
			for _, b := range backends {
				all = append(all, telemetry.Sample{Labels: []string{b.Pool().Name}, Value: float64(b.Pool().Slots)})
			}
			return all, nil
		},
	})
}

// sampleJobs adds what Temporal, the store and the disks tell of all jobs. Every replica of the API says the same.
func (a *App) sampleJobs(temporal client.Client, directory *catalog.Directory, s *api.Server) {
	open := visibility.Jobs() + " AND ExecutionStatus = 'Running'"
	served := telemetry.Remembered(directory.Served)
	queues := telemetry.Remembered(func(ctx context.Context) (map[string]*taskqueue.TaskQueueStats, error) {
		pools, err := served(ctx)
		if err != nil {
			return nil, err
		}
		stats := map[string]*taskqueue.TaskQueueStats{}
		for pool := range pools {
			d, err := temporal.WorkflowService().DescribeTaskQueue(ctx, &workflowservice.DescribeTaskQueueRequest{
				Namespace: a.namespace, TaskQueue: &taskqueue.TaskQueue{Name: comfy.PromptTaskQueue(pool)},
				TaskQueueType: enums.TASK_QUEUE_TYPE_ACTIVITY, ReportStats: true,
			})
			if err != nil {
				return nil, err
			}
			stats[pool] = d.GetStats()
		}
		return stats, nil
	})
	a.telemetry.Sample(telemetry.Gauge{
		Name: "comfyd_jobs_open", Help: "Jobs that wait or run, by the backend that they were placed on; empty before that.", Labels: []string{"backend"},
		Ask: func(ctx context.Context) (all []telemetry.Sample, _ error) {
			pools, err := served(ctx)
			if err != nil {
				return nil, err
			}
			for _, pool := range append([]string{""}, slices.Sorted(maps.Keys(pools))...) {
				where := " AND " + comfy.AttrBackend + " IS NULL"
				if pool != "" {
					where = " AND " + comfy.AttrBackend + " = " + visibility.Quote(pool)
				}
				n, err := temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Namespace: a.namespace, Query: open + where})
				if err != nil {
					return nil, err
				}
				all = append(all, telemetry.Sample{Labels: []string{pool}, Value: float64(n.GetCount())})
			}
			return all, nil
		},
	})
	for name, of := range map[string]func(*taskqueue.TaskQueueStats) float64{
		"comfyd_queue_jobs":        func(s *taskqueue.TaskQueueStats) float64 { return float64(s.GetApproximateBacklogCount()) },
		"comfyd_queue_age_seconds": func(s *taskqueue.TaskQueueStats) float64 { return s.GetApproximateBacklogAge().AsDuration().Seconds() },
	} {
		a.telemetry.Sample(telemetry.Gauge{
			Name: name, Help: "Jobs that wait in Temporal for a slot of a backend, and for how long the first of them has.", Labels: []string{"backend"},
			Ask: func(ctx context.Context) (all []telemetry.Sample, _ error) {
				stats, err := queues(ctx)
				for pool, one := range stats {
					all = append(all, telemetry.Sample{Labels: []string{pool}, Value: of(one)})
				}
				return all, err
			},
		})
	}
	a.telemetry.Sample(telemetry.Gauge{
		Name: "comfyd_backend_served", Help: "Whether a worker serves a backend that was served within the last day.", Labels: []string{"backend"},
		Ask: func(ctx context.Context) (all []telemetry.Sample, _ error) {
			pools, err := served(ctx)
			for pool, is := range pools {
				all = append(all, telemetry.Sample{Labels: []string{pool}, Value: truth(is)})
			}
			return all, err
		},
	})
	a.telemetry.Sample(telemetry.Gauge{
		Name: "comfyd_ready", Help: "Whether a part of GET /readyz can be used.", Labels: []string{"part"},
		Ask: func(context.Context) (all []telemetry.Sample, _ error) {
			for part, ok := range s.Ready() {
				all = append(all, telemetry.Sample{Labels: []string{part}, Value: truth(ok)})
			}
			return all, nil
		},
	})
	a.telemetry.Sample(telemetry.Gauge{
		Name: "comfyd_event_streams", Help: "Clients that listen to the events of a job at this API.",
		Ask: func(context.Context) ([]telemetry.Sample, error) {
			return []telemetry.Sample{{Value: float64(s.EventStreams())}}, nil
		},
	})
	a.telemetry.Sample(telemetry.Gauge{
		Name: "comfyd_disk_free_bytes", Help: "Room on the disks of the data folder and of a store that is a folder.", Labels: []string{"what"},
		Ask: func(ctx context.Context) (all []telemetry.Sample, _ error) {
			for what, free := range a.disks().Free(ctx) {
				all = append(all, telemetry.Sample{Labels: []string{what}, Value: float64(free)})
			}
			return all, nil
		},
	})
	a.telemetry.Sample(telemetry.Gauge{
		Name: "comfyd_disk_kept_free_bytes", Help: "COMFYD_MIN_FREE_DISK: with less room, no job is accepted.",
		Ask: func(context.Context) ([]telemetry.Sample, error) {
			return []telemetry.Sample{{Value: float64(a.config.MinFreeDisk)}}, nil
		},
	})
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
