package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"google.golang.org/grpc"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/config"
	"github.com/comfyd/comfyd/internal/embedded"
	"github.com/comfyd/comfyd/internal/logs"
)

// dialTimeout bounds the first contact with Temporal, which may be starting, too.
const dialTimeout = 30 * time.Second

func searchAttributes() map[string]enums.IndexedValueType {
	return map[string]enums.IndexedValueType{
		comfy.AttrBackend:   enums.INDEXED_VALUE_TYPE_KEYWORD,
		comfy.AttrTenant:    enums.INDEXED_VALUE_TYPE_KEYWORD,
		comfy.AttrErrorCode: enums.INDEXED_VALUE_TYPE_KEYWORD,
		comfy.AttrAttempts:  enums.INDEXED_VALUE_TYPE_INT,
		comfy.AttrMetadata:  enums.INDEXED_VALUE_TYPE_KEYWORD_LIST,
		comfy.AttrInputs:    enums.INDEXED_VALUE_TYPE_KEYWORD_LIST,
	}
}

// temporal connects to the Temporal server of the environment, or to the one that it starts in this process.
func (a *App) temporal(ctx context.Context) (client.Client, error) {
	var options client.Options
	if a.config.Embedded() { // TLS and keys of another Temporal must not be tried on ours
		options.Namespace = a.config.TemporalNamespace
		s, err := embedded.Start(ctx, embedded.Options{
			DataDir: a.config.DataDir, Listen: a.config.TemporalListen, UIListen: a.config.TemporalUIListen,
			Namespace: a.config.TemporalNamespace, Retention: time.Duration(a.config.Retention),
			SearchAttributes: searchAttributes(), Codec: a.codecHandler(), Log: a.log,
		})
		if err != nil {
			return nil, err
		}
		a.later(func(context.Context) { a.note("stopping the embedded Temporal", s.Stop()) })
		a.TemporalAddress, a.TemporalUI = s.Address(), s.UIAddress()
		gone := make(chan struct{})
		a.later(func(context.Context) { close(gone) })
		go func() {
			select {
			case err := <-s.Failed():
				a.fail(fmt.Errorf("the embedded Temporal has stopped: %w", err))
			case <-gone:
			}
		}()
		options.HostPort = s.Address()
		options.ConnectionOptions.GrpcCompression = &client.GrpcCompressionNone{} // within one process it only costs time
	} else {
		var err error
		if options, err = clusterOptions(a.config); err != nil {
			return nil, err
		}
	}
	options.Logger = logs.Temporal(a.log)
	if err := a.telemetry.Connect(&options, a.tracing); err != nil {
		return nil, err
	}
	ctx, done := context.WithTimeout(ctx, dialTimeout)
	defer done()
	c, err := connect(ctx, a.codec.For(options))
	if err != nil {
		return nil, err
	}
	a.later(func(context.Context) { c.Close() })
	if a.workers, err = client.NewClientFromExistingWithContext(ctx, c, a.codec.ForWorkers(options)); err != nil {
		return nil, fmt.Errorf("connecting the workers to Temporal at %s: %w", options.HostPort, err)
	}
	a.later(func(context.Context) { a.workers.Close() })
	a.namespace = options.Namespace
	if a.config.Embedded() {
		_, err := ensureEndpoint(ctx, c, comfy.NexusEndpoint, a.namespace)
		a.note("other namespaces cannot start jobs by Nexus", err)
	} else {
		a.TemporalAddress = options.HostPort
		if err := requireSearchAttributes(ctx, c, options.Namespace); err != nil {
			return nil, err
		}
	}
	return c, a.readNamespace(ctx, c)
}

// starter is the API's client. It starts jobs through the workers' one: only that hands the first step of a job to a worker
// in this process.
type starter struct {
	client.Client
	workers client.Client
}

func (s starter) ExecuteWorkflow(ctx context.Context, o client.StartWorkflowOptions, workflow any, args ...any) (client.WorkflowRun, error) {
	return s.workers.ExecuteWorkflow(ctx, o, workflow, args...)
}

// readNamespace asks the namespace for its ID, and how long it keeps jobs: its word counts, not our setting's.
func (a *App) readNamespace(ctx context.Context, c client.Client) error {
	n, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: a.namespace})
	if err != nil {
		return fmt.Errorf("reading the retention of namespace %s: %w", a.namespace, err)
	}
	a.namespaceID = n.GetNamespaceInfo().GetId()
	a.retention = n.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration()
	if asked := time.Duration(a.config.Retention); a.retention != asked {
		a.log.Warnf("namespace %s keeps jobs for %s after their end, and not for the %s of COMFYD_RETENTION; change it with: comfyd temporal setup --update-retention",
			a.namespace, a.retention, asked)
	}
	return nil
}

// connect dials until Temporal answers or ctx ends. A server that starts listens some seconds before it is well.
func connect(ctx context.Context, options client.Options) (client.Client, error) {
	options.ConnectionOptions.DialOptions = append(slices.Clone(options.ConnectionOptions.DialOptions), grpc.WithChainUnaryInterceptor(withoutOddHeaders))
	var once sync.Once
	waiting := func(err error, _ time.Duration) {
		once.Do(func() {
			if options.Logger != nil {
				options.Logger.Warn("Temporal does not answer yet", "Address", options.HostPort, "GivesUpAfter", dialTimeout.String(), "Error", err)
			}
		})
	}
	c, err := backoff.Retry(ctx, func() (client.Client, error) {
		c, err := client.DialContext(ctx, options)
		var away *serviceerror.Unavailable
		if err != nil && !errors.As(err, &away) && !errors.Is(err, context.DeadlineExceeded) {
			return nil, backoff.Permanent(err)
		}
		return c, err
	}, backoff.WithBackOff(backoff.NewConstantBackOff(time.Second)), backoff.WithMaxElapsedTime(dialTimeout), backoff.WithNotify(waiting))
	if err != nil {
		return nil, fmt.Errorf("connecting to Temporal at %s: %w", options.HostPort, err)
	}
	return c, nil
}

// clusterOptions are how the Temporal of the environment is reached.
func clusterOptions(c *config.Config) (client.Options, error) {
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return options, fmt.Errorf("the TEMPORAL_* settings: %w", err)
	}
	if options.Namespace == "" {
		options.Namespace = c.TemporalNamespace
	}
	return options, nil
}

// requireSearchAttributes refuses a cluster on which every start would fail, and says what to do.
func requireSearchAttributes(ctx context.Context, c client.Client, namespace string) error {
	missing, err := missingAttributes(ctx, c, namespace)
	if err != nil {
		return fmt.Errorf("%w; has `comfyd temporal setup` been run with the same TEMPORAL_* settings?", err)
	}
	if len(missing) == 0 {
		return nil
	}
	var flags []string
	for name, t := range missing {
		flags = append(flags, fmt.Sprintf("--name %s --type %s", name, t))
	}
	slices.Sort(flags)
	return fmt.Errorf("namespace %s lacks comfyd's search attributes; add them once with `comfyd temporal setup`, or, where that is not allowed to: temporal operator search-attribute create --namespace %s %s",
		namespace, namespace, strings.Join(flags, " "))
}
