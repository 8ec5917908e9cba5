package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/sirupsen/logrus"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/config"
	"github.com/comfyd/comfyd/internal/logs"
)

const (
	// setupTimeout bounds a whole setup; a cluster's servers learn of a new namespace within seconds.
	setupTimeout = 2 * time.Minute
	// pollerAge is how long ago a worker that is well may have asked for work last: a poll lasts a minute.
	pollerAge = 2 * time.Minute
)

// ErrNoCluster says that a command for a Temporal cluster has none to speak to.
var ErrNoCluster = errors.New("TEMPORAL_ADDRESS is not set: this command is for a Temporal cluster of its own; the embedded one is set up at each start")

// Setup are the choices of [SetUpTemporal].
type Setup struct {
	// UpdateRetention changes the retention of a namespace that exists.
	UpdateRetention bool
	// NexusEndpoint is the name of the endpoint for callers in other namespaces; empty: none is made.
	NexusEndpoint string
	// Out is told what was done, a line each.
	Out io.Writer
	Log logrus.FieldLogger
}

// SetUpTemporal prepares the cluster of TEMPORAL_ADDRESS for comfyd: it registers the namespace with COMFYD_RETENTION,
// the search attributes and the Nexus endpoint where they are missing, and returns when they can be used. It may be repeated at any time.
func SetUpTemporal(ctx context.Context, c *config.Config, s Setup) error {
	ctx, done := context.WithTimeout(ctx, setupTimeout)
	defer done()
	temporal, namespace, err := dial(ctx, c, s.Log)
	if err != nil {
		return err
	}
	defer temporal.Close()
	if err := registerNamespace(ctx, temporal, namespace, time.Duration(c.Retention), s); err != nil {
		return err
	}
	if err := registerAttributes(ctx, temporal, namespace, s.Out); err != nil {
		return err
	}
	registerEndpoint(ctx, temporal, namespace, s)
	return nil
}

// dial connects to the cluster of the environment. The namespace need not exist.
func dial(ctx context.Context, c *config.Config, log logrus.FieldLogger) (client.Client, string, error) {
	if c.Embedded() {
		return nil, "", ErrNoCluster
	}
	options, err := clusterOptions(c)
	if err != nil {
		return nil, "", err
	}
	options.Logger = logs.Temporal(log)
	temporal, err := connect(ctx, options)
	return temporal, options.Namespace, err
}

func registerNamespace(ctx context.Context, c client.Client, namespace string, retention time.Duration, s Setup) error {
	_, err := c.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace: namespace, Description: "Jobs of comfyd", WorkflowExecutionRetentionPeriod: durationpb.New(retention),
	})
	var exists *serviceerror.NamespaceAlreadyExists
	if err == nil {
		fmt.Fprintf(s.Out, "namespace %s is registered, with a retention of %s\n", namespace, retention)
		return nil
	}
	if !errors.As(err, &exists) {
		return fmt.Errorf("registering namespace %s: %w", namespace, err)
	}
	n, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	if err != nil {
		return fmt.Errorf("reading namespace %s: %w", namespace, err)
	}
	have := n.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration()
	switch {
	case have == retention:
		fmt.Fprintf(s.Out, "namespace %s is there\n", namespace)
	case !s.UpdateRetention:
		fmt.Fprintf(s.Out, "namespace %s is there, with a retention of %s; COMFYD_RETENTION is %s (--update-retention changes the namespace)\n", namespace, have, retention)
	default:
		n.Config.WorkflowExecutionRetentionTtl = durationpb.New(retention)
		if _, err := c.WorkflowService().UpdateNamespace(ctx, &workflowservice.UpdateNamespaceRequest{Namespace: namespace, Config: n.GetConfig()}); err != nil {
			return fmt.Errorf("changing the retention of namespace %s: %w", namespace, err)
		}
		fmt.Fprintf(s.Out, "namespace %s is there; its retention is %s now, and was %s\n", namespace, retention, have)
	}
	return nil
}

// registerAttributes adds what is missing and waits until queries know it. A server asks for changes of its namespaces
// every two seconds, so that both the namespace and the attributes are unknown for a moment.
func registerAttributes(ctx context.Context, c client.Client, namespace string, out io.Writer) error {
	return again(ctx, "search attributes of namespace "+namespace, func() error {
		missing, err := missingAttributes(ctx, c, namespace)
		if err != nil {
			return err
		}
		if len(missing) > 0 {
			_, err := c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: missing})
			if err != nil {
				return fmt.Errorf("adding %s: %w", strings.Join(slices.Sorted(maps.Keys(missing)), ", "), err)
			}
			fmt.Fprintf(out, "search attributes of namespace %s are added: %s\n", namespace, strings.Join(slices.Sorted(maps.Keys(missing)), ", "))
		}
		var all []string
		for name := range searchAttributes() {
			all = append(all, name+" IS NOT NULL")
		}
		if _, err := c.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Namespace: namespace, Query: strings.Join(all, " AND ")}); err != nil {
			return fmt.Errorf("using them in a query: %w", err)
		}
		fmt.Fprintf(out, "search attributes of namespace %s are there and can be used\n", namespace)
		return nil
	})
}

// again repeats what a cluster refuses while its servers have not all heard of the last step. The context bounds it.
func again(ctx context.Context, what string, f func() error) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := f()
		var wrong *serviceerror.InvalidArgument
		var namespace *serviceerror.NamespaceNotFound
		var away *serviceerror.Unavailable
		if err != nil && !errors.As(err, &wrong) && !errors.As(err, &namespace) && !errors.As(err, &away) {
			return struct{}{}, backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(backoff.NewConstantBackOff(200*time.Millisecond)), backoff.WithMaxElapsedTime(30*time.Second))
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// missingAttributes are comfyd's search attributes that the namespace lacks. One of another type is an error.
func missingAttributes(ctx context.Context, c client.Client, namespace string) (map[string]enums.IndexedValueType, error) {
	have, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return nil, fmt.Errorf("reading the search attributes of namespace %s: %w", namespace, err)
	}
	missing := map[string]enums.IndexedValueType{}
	for name, want := range searchAttributes() {
		switch t, there := have.GetCustomAttributes()[name]; {
		case !there:
			missing[name] = want
		case t != want:
			return nil, fmt.Errorf("search attribute %s of namespace %s is of type %s, and comfyd needs %s: choose another TEMPORAL_NAMESPACE", name, namespace, t, want)
		}
	}
	return missing, nil
}

// WorkerHealth returns nil when a worker of this host has lately asked the cluster of TEMPORAL_ADDRESS for work.
func WorkerHealth(ctx context.Context, c *config.Config, host string, log logrus.FieldLogger) error {
	temporal, _, err := dial(ctx, c, log)
	if err != nil {
		return err
	}
	defer temporal.Close()
	d, err := temporal.DescribeTaskQueue(ctx, comfy.TaskQueue, enums.TASK_QUEUE_TYPE_WORKFLOW)
	if err != nil {
		return fmt.Errorf("asking Temporal who serves task queue %s: %w", comfy.TaskQueue, err)
	}
	if !slices.ContainsFunc(d.GetPollers(), func(p *taskqueue.PollerInfo) bool {
		return strings.Contains(p.GetIdentity(), "@"+host+"@") && time.Since(p.GetLastAccessTime().AsTime()) < pollerAge
	}) {
		return fmt.Errorf("no worker of host %s has asked Temporal for work on task queue %s in the last %s", host, comfy.TaskQueue, pollerAge)
	}
	return nil
}
