package app

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/embedded"
	"github.com/comfyd/comfyd/internal/logs"
)

// dialTimeout bounds the first contact with Temporal.
const dialTimeout = 15 * time.Second

func searchAttributes() map[string]enums.IndexedValueType {
	return map[string]enums.IndexedValueType{
		comfy.AttrBackend:   enums.INDEXED_VALUE_TYPE_KEYWORD,
		comfy.AttrTenant:    enums.INDEXED_VALUE_TYPE_KEYWORD,
		comfy.AttrErrorCode: enums.INDEXED_VALUE_TYPE_KEYWORD,
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
			SearchAttributes: searchAttributes(), Log: a.log,
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
	} else {
		var err error
		if options, err = envconfig.LoadDefaultClientOptions(); err != nil {
			return nil, fmt.Errorf("the TEMPORAL_* settings: %w", err)
		}
		if options.Namespace == "" {
			options.Namespace = a.config.TemporalNamespace
		}
	}
	options.Logger = logs.Temporal(a.log)
	ctx, done := context.WithTimeout(ctx, dialTimeout)
	defer done()
	c, err := client.DialContext(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("connecting to Temporal at %s: %w", options.HostPort, err)
	}
	a.later(func(context.Context) { c.Close() })
	a.namespace = options.Namespace
	if !a.config.Embedded() {
		a.TemporalAddress = options.HostPort
		if err := requireSearchAttributes(ctx, c, options.Namespace); err != nil {
			return nil, err
		}
	}
	return c, a.readRetention(ctx, c)
}

// readRetention asks the namespace how long it keeps jobs: its word counts, not our setting's.
func (a *App) readRetention(ctx context.Context, c client.Client) error {
	n, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: a.namespace})
	if err != nil {
		return fmt.Errorf("reading the retention of namespace %s: %w", a.namespace, err)
	}
	a.retention = n.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration()
	if asked := time.Duration(a.config.Retention); a.retention != asked {
		a.log.Warnf("namespace %s keeps jobs for %s after their end, and not for the %s of COMFYD_RETENTION; change it with: temporal operator namespace update --namespace %s --retention %s",
			a.namespace, a.retention, asked, a.namespace, asked)
	}
	return nil
}

// requireSearchAttributes refuses a cluster on which every start would fail, and says what to do.
func requireSearchAttributes(ctx context.Context, c client.Client, namespace string) error {
	have, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return fmt.Errorf("reading the search attributes of namespace %s: %w", namespace, err)
	}
	var missing []string
	for name, t := range searchAttributes() {
		if have.GetCustomAttributes()[name] != t {
			missing = append(missing, fmt.Sprintf("--name %s --type %s", name, t))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("namespace %s lacks comfyd's search attributes; add them once with: temporal operator search-attribute create --namespace %s %s",
		namespace, namespace, strings.Join(missing, " "))
}
