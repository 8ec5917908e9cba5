package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/sirupsen/logrus"
	"go.opentelemetry.io/otel/trace"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/live"
	"github.com/comfyd/comfyd/internal/outbound"
	"github.com/comfyd/comfyd/internal/webhook"
)

// Temporal is what the API needs of Temporal; client.Client satisfies it.
type Temporal interface {
	ExecuteWorkflow(ctx context.Context, options client.StartWorkflowOptions, workflow any, args ...any) (client.WorkflowRun, error)
	GetWorkflow(ctx context.Context, workflowID, runID string) client.WorkflowRun
	CancelWorkflow(ctx context.Context, workflowID, runID string) error
	DescribeWorkflowExecution(ctx context.Context, workflowID, runID string) (*workflowservice.DescribeWorkflowExecutionResponse, error)
	QueryWorkflowWithOptions(ctx context.Context, request *client.QueryWorkflowWithOptionsRequest) (*client.QueryWorkflowWithOptionsResponse, error)
	ListWorkflow(ctx context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error)
	WorkflowService() workflowservice.WorkflowServiceClient
	CountWorkflow(ctx context.Context, request *workflowservice.CountWorkflowExecutionsRequest) (*workflowservice.CountWorkflowExecutionsResponse, error)
	CheckHealth(ctx context.Context, request *client.CheckHealthRequest) (*client.CheckHealthResponse, error)
}

// Store is what the API needs of the blob store. A missing object is fs.ErrNotExist.
type Store interface {
	// PutHashed stores r under prefix followed by the SHA-256 of its content in hex. Nothing is kept of a reader that fails.
	PutHashed(ctx context.Context, prefix string, r io.Reader) (comfy.Blob, error)
	// Open reads length bytes from offset; a negative length means up to the end.
	Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	Stat(ctx context.Context, key string) (comfy.Blob, error)
	// Touch brings an object's Modified up to the present.
	Touch(ctx context.Context, key string) error
	Put(ctx context.Context, key string, r io.Reader) (comfy.Blob, error)
	// Delete removes an object; one that is not there is no error.
	Delete(ctx context.Context, key string) error
	List(ctx context.Context, prefix string) iter.Seq2[comfy.Blob, error]
	// Ping tells whether the store can be reached.
	Ping(ctx context.Context) error
}

// Catalogs knows what the backends can run.
type Catalogs interface {
	// Check returns why no eligible backend would run g, and nil where one would or where nobody knows. inputs are the
	// names of the files that come with the job.
	Check(ctx context.Context, g *comfy.Graph, inputs []string, w backend.Want) *comfy.Failure
	// Convert turns the editor's save format into a graph in API format. Its error is a [*comfy.GraphError] where that
	// cannot be done, and a [*comfy.Failure] where nobody knows the nodes.
	Convert(ctx context.Context, file []byte, w backend.Want) (json.RawMessage, error)
	// Models are the model files that the backends have, by folder of ComfyUI's models/ and name, each with its pools; of one
	// folder where one is named. Where there is none of that name, near are those that may have been meant.
	Models(ctx context.Context, folder string) (found map[string]map[string][]string, near []string, err error)
	// Nodes are the node classes that the backends have, each with its pools.
	Nodes(ctx context.Context) (map[string][]string, error)
	// Node is one class as ComfyUI's /object_info has it, without names of files that people have sent; nil where no
	// backend has it, with the names that may have been meant.
	Node(ctx context.Context, class string) (definition json.RawMessage, pools, near []string, err error)
	// Alive returns nil when at least one backend is alive.
	Alive(ctx context.Context) error
}

// Key lets the holder of Secret act for Tenant. A tenant may have several keys.
type Key struct {
	Tenant string // 1 to 64 of A-Z a-z 0-9 . _ -
	Secret string
}

// Options of a [Server]. Temporal, Store, Catalogs, Keys, SigningKey, Webhooks and Log must be set.
type Options struct {
	Temporal Temporal
	// EagerStart asks Temporal to hand the first step of a job to a worker of this process with the answer to its start.
	// Only a Temporal client that workers of this process use can do that, and it heeds no versions of workers.
	EagerStart bool
	Namespace  string // Temporal's; it must be the one that Temporal is connected to
	// NamespaceID is that namespace's ID, which notes of deleted jobs carry.
	NamespaceID string
	Store       Store
	Catalogs    Catalogs
	// Keys that open the API; at least one.
	Keys []Key
	// DefaultTenant owns the jobs that other Temporal users start as children, which carry no tenant of their own.
	// Empty means the tenant of the first key.
	DefaultTenant string
	// SigningKey signs links to outputs; at least 16 bytes, the same in all replicas.
	SigningKey []byte
	// Webhooks posts what [Server.Deliver] has to tell.
	Webhooks *webhook.Sender
	// DefaultWebhooks are the receivers of jobs that come through the API and name none themselves, by tenant.
	DefaultWebhooks map[string]string
	// PublicURL is the address under which clients see the server; empty means the one that the request names.
	PublicURL string
	// LinkURL is the address under which a person who looks at Temporal finds the server; empty means PublicURL. Without
	// either, Temporal's pages have no link: the address that a request names is the client's to choose.
	LinkURL string
	// Converter reads what Temporal keeps of jobs: their input, memo, heartbeats; nil means Temporal's own. It must be
	// that of the client Temporal.
	Converter converter.DataConverter
	// TemporalUI is where a person finds Temporal's pages, which the page links to; empty means that it has no such links.
	TemporalUI string
	// KeyFile is where the key lies that was made at the first start, for the page to tell who has none yet; empty means
	// that it tells nothing. It is shown without a key: set it only where everybody who reaches the API is on its machine.
	KeyFile string
	// CodecServer is nil where nothing is encrypted, or nobody may read it over HTTP.
	CodecServer *CodecServer
	// TrustedProxies are addresses or CIDR ranges whose X-Forwarded-* headers are believed.
	TrustedProxies []string
	// CORSOrigins are the origins whose pages may call the API; empty means none, "*" means all.
	CORSOrigins []string
	// Outbound calls the addresses that clients name for their inputs; nil means one that allows no private network.
	Outbound *outbound.Caller
	// BodyLimit is the largest request body in bytes, and what the files that a request names by URL may have together; 0
	// means 100 MiB.
	BodyLimit int64
	// StartTimeout, RunTimeout and MaxRunTimeout bound a job: its wait, its run where the request names no limit, and
	// the limit that a request may name. 0 means 1 h, 30 min and 24 h.
	StartTimeout, RunTimeout, MaxRunTimeout time.Duration
	// MaxOpenJobs and MaxOpenJobsPerTenant bound the jobs that wait or run; one more is refused. 0 means 20,000 and 10,000.
	MaxOpenJobs, MaxOpenJobsPerTenant int
	// MaxEventStreamsPerTenant bounds the event streams that a tenant may have open at this server; 0 means 1,000.
	MaxEventStreamsPerTenant int
	// Live has what workers say of prompts as they run; nil: Temporal's own view is all there is.
	Live *live.Hub
	// LiveHere says that all workers are in this process, and publish there: a prompt that begins or ends is heard of at once.
	LiveHere bool
	// Space tells whether the disks that jobs and files are kept on have room: nil, or an error for a person, which names
	// settings and no paths. Nil: nobody asks.
	Space func(ctx context.Context) error
	// Retention is how long Temporal remembers a job that has ended; 0 means 7 days.
	Retention time.Duration
	Log       logrus.FieldLogger
	Version   string

	// Metrics answers GET /metrics; it asks for a key itself. Nil: there is no such address here.
	Metrics http.Handler
	// Observed is told of each answer, by the route's template; nil: nobody is.
	Observed func(route, method string, status int, took time.Duration)
	// Tracer makes spans of requests; nil makes none.
	Tracer trace.Tracer
}

const (
	defaultBodyLimit = 100 << 20
	minSigningKey    = 16
)

// complete checks o and fills in what it leaves open.
func (o *Options) complete() error {
	switch {
	case o.Temporal == nil || o.Store == nil || o.Catalogs == nil || o.Webhooks == nil || o.Log == nil:
		return errors.New("api: Temporal, Store, Catalogs, Webhooks and Log must be set")
	case len(o.Keys) == 0:
		return errors.New("api: at least one key is needed, or nobody could use the API")
	case len(o.SigningKey) < minSigningKey:
		return fmt.Errorf("api: the signing key has %d bytes; at least %d are needed", len(o.SigningKey), minSigningKey)
	}
	for _, k := range o.Keys {
		if !comfy.ValidTenant(k.Tenant) {
			return fmt.Errorf("api: tenant %q: use 1 to 64 letters, digits, dots, dashes and underscores, not beginning with a dot", k.Tenant)
		}
		if k.Secret == "" {
			return fmt.Errorf("api: the key of tenant %q is empty", k.Tenant)
		}
	}
	if o.PublicURL != "" {
		if u, err := url.Parse(o.PublicURL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("api: public URL %q: use an http or https address such as https://comfy.example.com", o.PublicURL)
		}
	}
	for _, origin := range o.CORSOrigins {
		if origin == "*" {
			continue
		}
		// Fiber's CORS panics on these.
		if u, err := url.Parse(origin); err != nil || u.Host == "" || u.Path != "" || (u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("api: CORS origin %q: use scheme and host such as https://app.example.com, or *", origin)
		}
	}
	for tenant, address := range o.DefaultWebhooks {
		if err := o.Webhooks.Check(address); err != nil {
			return fmt.Errorf("api: the webhook of tenant %q may not be called: %w", tenant, err)
		}
	}
	if o.DefaultTenant != "" && !comfy.ValidTenant(o.DefaultTenant) {
		return fmt.Errorf("api: default tenant %q: use 1 to 64 letters, digits, dots, dashes and underscores", o.DefaultTenant)
	}
	fill(&o.DefaultTenant, o.Keys[0].Tenant)
	fill(&o.LinkURL, o.PublicURL)
	fill(&o.BodyLimit, defaultBodyLimit)
	if o.Outbound == nil {
		o.Outbound = outbound.New(nil)
	}
	if o.Converter == nil {
		o.Converter = converter.GetDefaultDataConverter()
	}
	fill(&o.StartTimeout, time.Hour)
	fill(&o.RunTimeout, 30*time.Minute)
	fill(&o.MaxRunTimeout, comfy.MaxTimeoutSeconds*time.Second)
	fill(&o.MaxOpenJobs, 20_000)
	fill(&o.MaxOpenJobsPerTenant, 10_000)
	fill(&o.MaxEventStreamsPerTenant, 1000)
	fill(&o.Retention, 7*24*time.Hour)
	return nil
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
