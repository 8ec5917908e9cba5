package config

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/comfyd/comfyd/comfy"
)

func (c *Config) check() error {
	if err := c.checkAddresses(); err != nil {
		return err
	}
	for _, b := range c.Backends {
		if !slices.Contains([]string{"local", "url", "modal"}, b) {
			return &Error{"COMFYD_BACKEND", strings.Join(c.Backends, ","), "local, url or modal, or several in order of preference, separated by commas"}
		}
	}
	if sorted := slices.Sorted(slices.Values(c.Backends)); len(slices.Compact(sorted)) != len(c.Backends) {
		return &Error{"COMFYD_BACKEND", strings.Join(c.Backends, ","), "each kind once; several servers go into COMFYUI_URLS"}
	}
	if slices.Contains(c.Backends, "url") && len(c.ComfyURLs) == 0 {
		return &Error{"COMFYUI_URLS", "", "COMFYD_BACKEND=url needs the addresses of ComfyUI servers, such as http://127.0.0.1:8188"}
	}
	if c.Site != "" && !siteName.MatchString(c.Site) {
		return &Error{"COMFYD_SITE", c.Site, "up to 40 lower-case letters, digits and dashes"}
	}
	for _, u := range c.ComfyURLs {
		if !isHTTP(u) {
			return &Error{"COMFYUI_URLS", withoutLogin(u), "an address such as http://127.0.0.1:8188, or several separated by commas"}
		}
	}
	if err := c.checkModal(); err != nil {
		return err
	}
	for _, n := range []struct {
		name string
		n    int
		what string
	}{
		{"COMFYD_MAX_OPEN_JOBS", c.MaxOpenJobs, "jobs may wait and run at once"},
		{"COMFYD_MAX_OPEN_JOBS_PER_TENANT", c.MaxOpenJobsPerTenant, "jobs may wait and run at once"},
		{"COMFYD_MAX_EVENT_STREAMS_PER_TENANT", c.MaxEventStreamsPerTenant, "event streams may be open at once"},
	} {
		if n.n < 1 {
			return &Error{n.name, strconv.Itoa(n.n), "1 or more: how many " + n.what}
		}
	}
	if c.ChildTenant != "" && !comfy.ValidTenant(c.ChildTenant) {
		return &Error{"COMFYD_CHILD_TENANT", c.ChildTenant, "a tenant as in COMFYD_API_KEYS: up to 64 letters, digits, dots, dashes and underscores"}
	}
	if c.StoreURL == "" {
		return &Error{"COMFYD_STORE_URL", "", "with TEMPORAL_ADDRESS set, name a store that every api and worker reaches, such as s3://bucket?region=us-east-1 or file:///a/shared/folder"}
	}
	if c.TLSCert == "" && c.TLSKey != "" {
		return &Error{"COMFYD_TLS_CERT", "", "it goes together with COMFYD_TLS_KEY"}
	}
	if c.TLSCert != "" && c.TLSKey == "" {
		return &Error{"COMFYD_TLS_KEY", "", "it goes together with COMFYD_TLS_CERT"}
	}
	if c.PublicURL != "" && !isHTTP(c.PublicURL) {
		return &Error{"COMFYD_PUBLIC_URL", c.PublicURL, "an address such as https://comfy.example.com"}
	}
	if c.TemporalUIURL != "" && !isHTTP(c.TemporalUIURL) {
		return &Error{"COMFYD_TEMPORAL_UI_URL", c.TemporalUIURL, "an address such as https://temporal.example.com"}
	}
	for _, o := range c.CORSOrigins {
		if u, err := url.Parse(o); o != "*" && (err != nil || !isHTTP(o) || o != u.Scheme+"://"+u.Host) {
			return &Error{"COMFYD_CORS_ORIGINS", o, "scheme and host, such as https://app.example.com, or several separated by commas; or *"}
		}
	}
	for _, p := range c.TrustedProxies {
		_, addrErr := netip.ParseAddr(p)
		_, rangeErr := netip.ParsePrefix(p)
		if addrErr != nil && rangeErr != nil {
			return &Error{"COMFYD_TRUSTED_PROXIES", p, "an address such as 10.0.0.7, or a range such as 10.0.0.0/8, or several separated by commas"}
		}
	}
	if err := c.checkTimes(); err != nil {
		return err
	}
	if err := c.checkTelemetry(); err != nil {
		return err
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		return &Error{"COMFYD_LOG_LEVEL", c.LogLevel, "debug, info, warn or error"}
	}
	if !slices.Contains([]string{"text", "json"}, c.LogFormat) {
		return &Error{"COMFYD_LOG_FORMAT", c.LogFormat, "text or json"}
	}
	return nil
}

// checkTelemetry leaves OTEL_TRACES_EXPORTER=otlp and none; what else it may be elsewhere is not there here.
func (c *Config) checkTelemetry() error {
	for name, p := range map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": c.TracesProtocol, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": c.TracesOnlyProtocol} {
		if p != "" && p != "grpc" && p != "http/protobuf" {
			return &Error{name, p, "grpc or http/protobuf"}
		}
	}
	for name, e := range map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.TracesEndpoint, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": c.TracesOnlyEndpoint} {
		if e != "" && !isHTTP(e) {
			return &Error{name, e, "an address such as http://127.0.0.1:4318, also for grpc"}
		}
	}
	if !slices.Contains([]string{"", "otlp", "none"}, c.TracesExporter) {
		return &Error{"OTEL_TRACES_EXPORTER", c.TracesExporter, "otlp, which OTEL_EXPORTER_OTLP_ENDPOINT turns on, or none"}
	}
	return nil
}

func (c *Config) checkTimes() error {
	for _, d := range []struct {
		name     string
		d        Duration
		min, max time.Duration
	}{
		{"COMFYD_RETENTION", c.Retention, time.Hour, 365 * 24 * time.Hour},
		{"COMFYD_START_TIMEOUT", c.StartTimeout, time.Second, comfy.MaxStartTimeoutSeconds * time.Second},
		{"COMFYD_RUN_TIMEOUT", c.RunTimeout, time.Second, comfy.MaxTimeoutSeconds * time.Second},
		{"COMFYD_STALL_TIMEOUT", c.StallTimeout, 5 * time.Second, 24 * time.Hour},
		{"COMFYD_POOL_TIMEOUT", c.PoolTimeout, 5 * time.Second, 24 * time.Hour},
	} {
		if time.Duration(d.d) < d.min || time.Duration(d.d) > d.max {
			return &Error{d.name, time.Duration(d.d).String(), fmt.Sprintf("from %s to %s", d.min, d.max)}
		}
	}
	if d := c.DrainTimeout; d != nil && (*d < 0 || time.Duration(*d) > 25*time.Hour) {
		return &Error{"COMFYD_DRAIN_TIMEOUT", time.Duration(*d).String(), "from 0s (let go at once) to 25h"}
	}
	return c.checkDeployment()
}

// checkDeployment keeps to what Temporal takes as names: a dot in a deployment's, and a colon in either, is its own.
func (c *Config) checkDeployment() error {
	switch {
	case c.Deployment == "" && c.BuildID != "":
		return &Error{"COMFYD_DEPLOYMENT", "", "it goes together with COMFYD_BUILD_ID: the name of the deployment, such as comfyd"}
	case c.Deployment == "":
		return nil
	case c.Embedded():
		return &Error{"COMFYD_DEPLOYMENT", c.Deployment, "only with TEMPORAL_ADDRESS: the embedded Temporal has one comfyd, and so one version"}
	case !deploymentName.MatchString(c.Deployment):
		return &Error{"COMFYD_DEPLOYMENT", c.Deployment, "up to 60 letters, digits, dashes and underscores"}
	case c.BuildID != "" && !buildID.MatchString(c.BuildID):
		return &Error{"COMFYD_BUILD_ID", c.BuildID, "up to 60 letters, digits, dots, dashes, underscores and plus signs, such as v1.2.3"}
	}
	return nil
}

var (
	siteName       = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)
	deploymentName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,59}$`)
	buildID        = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,59}$`)
	modalName      = regexp.MustCompile(`^[A-Za-z0-9._-]{1,55}$`) // 64, less "-progress": the app's queue is named after it
)

func (c *Config) checkModal() error {
	if !modalName.MatchString(c.ModalApp) {
		return &Error{"MODAL_APP", c.ModalApp, "the name of the app as deployed: up to 55 letters, digits, dots, dashes and underscores"}
	}
	for _, g := range c.ModalGPUs {
		if !comfy.ValidGPU(g) {
			return &Error{"COMFYD_MODAL_GPUS", strings.Join(c.ModalGPUs, ","), "GPUs as Modal names them, separated by commas, such as L40S,A100-80GB,H100"}
		}
	}
	if c.ModalSlots < 1 || c.ModalSlots > 1000 {
		return &Error{"COMFYD_MODAL_SLOTS", strconv.Itoa(c.ModalSlots), "from 1 to 1000: how many jobs may be at Modal at once"}
	}
	return nil
}

func (c *Config) checkAddresses() error {
	addresses := map[string]string{"COMFYD_LISTEN": c.Listen}
	if c.TemporalAddress == "" {
		addresses["COMFYD_TEMPORAL_LISTEN"], addresses["COMFYD_TEMPORAL_UI_LISTEN"] = c.TemporalListen, c.TemporalUIListen
	}
	if c.MetricsListen != "" {
		addresses["COMFYD_METRICS_LISTEN"] = c.MetricsListen
	}
	if c.EventsListen != "" {
		if c.Embedded() {
			return &Error{"COMFYD_EVENTS_LISTEN", c.EventsListen, "only with TEMPORAL_ADDRESS: in one process the API hears of the worker's prompts without it"}
		}
		addresses["COMFYD_EVENTS_LISTEN"] = c.EventsListen
	}
	if c.PprofListen != "" {
		addresses["COMFYD_PPROF_LISTEN"] = c.PprofListen
	}
	for _, name := range slices.Sorted(maps.Keys(addresses)) {
		a := addresses[name]
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			return &Error{name, a, "host:port, such as 127.0.0.1:8080"}
		}
		open := slices.Contains([]string{"COMFYD_LISTEN", "COMFYD_METRICS_LISTEN", "COMFYD_EVENTS_LISTEN"}, name)
		if !open && !loopback(host) {
			return &Error{name, a, "a loopback address: Temporal, its UI and the profiles have no login of their own here"}
		}
		if name == "COMFYD_LISTEN" && !loopback(host) && c.APIKeys == "" {
			return &Error{name, a, "an address that others reach needs COMFYD_API_KEYS (tenant:secret, or @file)"}
		}
	}
	return nil
}

// OwnMachine tells whether one of COMFYUI_URLS means this machine, and so another server on every other machine.
func (c *Config) OwnMachine() bool {
	return slices.ContainsFunc(c.ComfyURLs, func(address string) bool {
		u, err := url.Parse(address)
		return err == nil && loopback(u.Hostname())
	})
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
