// Package config is the only reader of the environment. Every setting is here, with its default and what is allowed.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/joho/godotenv"
)

// Config is what comfyd was told.
type Config struct {
	Listen         string   `env:"COMFYD_LISTEN" envDefault:"127.0.0.1:8080"`
	PublicURL      string   `env:"COMFYD_PUBLIC_URL"`
	TrustedProxies []string `env:"COMFYD_TRUSTED_PROXIES"`
	TLSCert        string   `env:"COMFYD_TLS_CERT"`
	TLSKey         string   `env:"COMFYD_TLS_KEY"`
	CORSOrigins    []string `env:"COMFYD_CORS_ORIGINS"`
	BodyLimit      Size     `env:"COMFYD_BODY_LIMIT" envDefault:"100MiB"`
	// PrivateNetworks may be called for inputs and webhooks that clients name, although they are not public.
	PrivateNetworks Networks `env:"COMFYD_PRIVATE_NETWORKS"`

	MaxOpenJobs          int `env:"COMFYD_MAX_OPEN_JOBS" envDefault:"20000"`
	MaxOpenJobsPerTenant int `env:"COMFYD_MAX_OPEN_JOBS_PER_TENANT" envDefault:"10000"`
	// MaxEventStreamsPerTenant is of one process; EventsListen is where a worker tells the APIs of other processes.
	MaxEventStreamsPerTenant int    `env:"COMFYD_MAX_EVENT_STREAMS_PER_TENANT" envDefault:"1000"`
	EventsListen             string `env:"COMFYD_EVENTS_LISTEN"`
	Previews                 bool   `env:"COMFYD_PREVIEWS" envDefault:"true"`
	MinFreeDisk              Size   `env:"COMFYD_MIN_FREE_DISK" envDefault:"1GiB"`

	APIKeys     string `env:"COMFYD_API_KEYS"`
	ChildTenant string `env:"COMFYD_CHILD_TENANT"`
	SigningKey  string `env:"COMFYD_SIGNING_KEY"`
	DataDir     string `env:"COMFYD_DATA_DIR" envDefault:"./data"`
	StoreURL    string `env:"COMFYD_STORE_URL"`

	WebhookSecretList string `env:"COMFYD_WEBHOOK_SECRETS"`
	WebhookList       string `env:"COMFYD_WEBHOOKS"`

	Backends    []string `env:"COMFYD_BACKEND" envDefault:"local"`
	ComfyURLs   []string `env:"COMFYUI_URLS"`
	Site        string   `env:"COMFYD_SITE"`
	ComfyDir    string   `env:"COMFYUI_DIR"`
	ComfyPython string   `env:"COMFYUI_PYTHON"`
	ComfyArgs   []string `env:"COMFYUI_ARGS" envSeparator:" "`

	// Modal's own settings (MODAL_TOKEN_ID, MODAL_TOKEN_SECRET, MODAL_PROFILE, ...) are read by Modal's SDK.
	ModalApp   string   `env:"MODAL_APP" envDefault:"comfyd"`
	ModalEnv   string   `env:"MODAL_ENVIRONMENT"`
	ModalGPUs  []string `env:"COMFYD_MODAL_GPUS"`
	ModalSlots int      `env:"COMFYD_MODAL_SLOTS" envDefault:"16"`

	Retention    Duration `env:"COMFYD_RETENTION" envDefault:"7d"`
	StartTimeout Duration `env:"COMFYD_START_TIMEOUT" envDefault:"1h"`
	RunTimeout   Duration `env:"COMFYD_RUN_TIMEOUT" envDefault:"30m"`
	StallTimeout Duration `env:"COMFYD_STALL_TIMEOUT" envDefault:"10m"`
	PoolTimeout  Duration `env:"COMFYD_POOL_TIMEOUT" envDefault:"1m"`

	DrainTimeout *Duration `env:"COMFYD_DRAIN_TIMEOUT"` // nil: see Drain
	// Deployment turns Temporal's worker versioning on, under this name; BuildID is the version, of the binary by default.
	Deployment string `env:"COMFYD_DEPLOYMENT"`
	BuildID    string `env:"COMFYD_BUILD_ID"`

	TemporalAddress   string `env:"TEMPORAL_ADDRESS"`
	TemporalNamespace string `env:"TEMPORAL_NAMESPACE" envDefault:"default"`
	TemporalListen    string `env:"COMFYD_TEMPORAL_LISTEN" envDefault:"127.0.0.1:7233"`
	TemporalUIListen  string `env:"COMFYD_TEMPORAL_UI_LISTEN" envDefault:"127.0.0.1:8233"`
	TemporalUIURL     string `env:"COMFYD_TEMPORAL_UI_URL"`

	PayloadKeys  string   `env:"COMFYD_PAYLOAD_KEYS"`
	CodecKey     string   `env:"COMFYD_CODEC_KEY"`
	CodecOrigins []string `env:"COMFYD_CODEC_ORIGINS"`

	LogLevel  string `env:"COMFYD_LOG_LEVEL" envDefault:"info"`
	LogFormat string `env:"COMFYD_LOG_FORMAT" envDefault:"text"`

	MetricsListen string `env:"COMFYD_METRICS_LISTEN"`
	MetricsKey    string `env:"COMFYD_METRICS_KEY"`
	GPUPrices     Prices `env:"COMFYD_GPU_PRICES"`

	// Whether there are traces, and how they travel; the rest of OTEL_* is read by OpenTelemetry's library.
	TracesExporter     string `env:"OTEL_TRACES_EXPORTER"`
	TracesEndpoint     string `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`
	TracesOnlyEndpoint string `env:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"`
	TracesProtocol     string `env:"OTEL_EXPORTER_OTLP_PROTOCOL" envDefault:"http/protobuf"`
	TracesOnlyProtocol string `env:"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"`
	PprofListen        string `env:"COMFYD_PPROF_LISTEN"`

	// Keys and the signing key, as found or made.
	Keys    []Key  `env:"-"`
	Signing []byte `env:"-"`
	// Payload are the keys of what lies in Temporal, the first of which encrypts unless PlainPayloads is set; Codec is the
	// password of the codec server.
	Payload       []PayloadKey `env:"-"`
	PlainPayloads bool         `env:"-"`
	Codec         string       `env:"-"`
	// Webhooks are told of the jobs of a tenant that name nobody themselves.
	Webhooks       map[string]string `env:"-"`
	WebhookSecrets []WebhookSecret   `env:"-"`
	// Unknown are lines about variables that look like settings and are none, for the log.
	Unknown []string `env:"-"`
}

// Key is an API key and whose it is.
type Key struct{ Tenant, Secret string }

// Error names the setting that is wrong, its value and what is allowed, in one line.
type Error struct{ Name, Value, Allowed string }

func (e *Error) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("%s is not set: %s", e.Name, e.Allowed)
	}
	return fmt.Sprintf("%s=%q is not allowed: %s", e.Name, e.Value, e.Allowed)
}

// DotEnv adds the lines of .env in the current folder, where there is one, to the environment, which wins: our own
// settings, and those that Temporal's and the stores' libraries read themselves.
func DotEnv() error {
	if err := godotenv.Load(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf(".env cannot be read: %w", err)
	}
	return nil
}

// Load reads the environment. Where they are missing and may be made, it makes the data folder, the API key and the
// signing key.
func Load() (*Config, error) {
	c, err := Read()
	if err != nil {
		return nil, err
	}
	return c, c.secrets()
}

// Read reads the environment, without the keys of the API, and makes nothing. A worker needs no more: it answers nobody.
func Read() (*Config, error) {
	c, err := Parse(environment())
	if err != nil {
		return nil, err
	}
	c.Unknown = Unknown(environment())
	c.MetricsKey, err = secret("COMFYD_METRICS_KEY", c.MetricsKey)
	return c, err
}

// ReadTemporal reads what a command needs that speaks to Temporal alone, such as TEMPORAL_ADDRESS and COMFYD_RETENTION.
// It asks for no store, backend or key, and makes nothing.
func ReadTemporal() (*Config, error) {
	c, err := parse(environment())
	if err != nil {
		return nil, err
	}
	return c, c.checkTimes()
}

// ReadTemporalPayloads is ReadTemporal for a command that reads what jobs are about, too: with COMFYD_PAYLOAD_KEYS.
func ReadTemporalPayloads() (*Config, error) {
	c, err := ReadTemporal()
	if err != nil {
		return nil, err
	}
	return c, c.payload()
}

func environment() map[string]string {
	vars := map[string]string{}
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		vars[k] = v
	}
	return vars
}

// Parse makes a Config of variables, and changes nothing anywhere. Errors are *Error.
func Parse(vars map[string]string) (*Config, error) {
	c, err := parse(vars)
	if err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := c.payload(); err != nil {
		return nil, err
	}
	return c, c.webhooks()
}

func parse(vars map[string]string) (*Config, error) {
	set := map[string]string{}
	for k, v := range vars {
		if v != "" { // VAR= in a file means: not set
			set[k] = v
		}
	}
	var c Config
	if err := env.ParseWithOptions(&c, env.Options{Environment: set}); err != nil {
		return nil, explain(err, set)
	}
	if c.StoreURL == "" && c.TemporalAddress == "" {
		c.StoreURL = "file://" + filepath.ToSlash(abs(filepath.Join(c.DataDir, "blobs")))
	}
	if c.ComfyDir == "" {
		c.ComfyDir = filepath.Join(c.DataDir, "comfyui")
	}
	return &c, nil
}

// explain turns the library's error into ours.
func explain(err error, vars map[string]string) error {
	var all env.AggregateError
	if errors.As(err, &all) {
		for _, e := range all.Errors {
			var p env.ParseError
			if errors.As(e, &p) {
				name := variable(p.Name)
				var number *strconv.NumError
				if errors.As(p.Err, &number) && number.Func == "ParseBool" {
					return &Error{Name: name, Value: vars[name], Allowed: "true or false"}
				}
				if errors.As(p.Err, &number) {
					return &Error{Name: name, Value: vars[name], Allowed: "a whole number"}
				}
				return &Error{Name: name, Value: vars[name], Allowed: p.Err.Error()}
			}
		}
	}
	return fmt.Errorf("the environment: %w", err)
}

// Children is the tenant that owns the jobs of other Temporal users: the one that is set, else the first key's. Empty
// where neither is known, as in a worker without the setting.
func (c *Config) Children() string {
	if c.ChildTenant == "" && len(c.Keys) > 0 {
		return c.Keys[0].Tenant
	}
	return c.ChildTenant
}

// Embedded tells whether Temporal runs in this process.
func (c *Config) Embedded() bool { return c.TemporalAddress == "" }

// KeyFile is where the key lies that comfyd has made, empty where there is none, or where others than those on this
// machine may reach the API.
func (c *Config) KeyFile() string {
	host, _, err := net.SplitHostPort(c.Listen)
	if c.APIKeys != "" || err != nil || !loopback(host) || c.PublicURL != "" || len(c.TrustedProxies) > 0 {
		return ""
	}
	return filepath.Join(c.DataDir, keyFile)
}

// drainLocal is how long a stop waits for the prompts of a ComfyUI that stops with comfyd: most end within it, and service
// managers wait longer.
const drainLocal = 30 * time.Second

// Drain is how long a worker that stops follows the prompts that run on a kind of backend to their end. Where nothing is
// set, only those of a local ComfyUI are worth a wait: they would be lost, and those of the others run on.
func (c *Config) Drain(kind string) time.Duration {
	switch {
	case c.DrainTimeout != nil:
		return time.Duration(*c.DrainTimeout)
	case kind == "local":
		return drainLocal
	}
	return 0
}

// Tracing tells whether spans are sent, and whether by gRPC rather than HTTP.
func (c *Config) Tracing() (on, grpc bool) {
	protocol := c.TracesProtocol
	if c.TracesOnlyProtocol != "" {
		protocol = c.TracesOnlyProtocol
	}
	return (c.TracesEndpoint != "" || c.TracesOnlyEndpoint != "") && c.TracesExporter != "none", protocol == "grpc"
}
