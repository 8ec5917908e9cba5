package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDefaults(t *testing.T) {
	c, err := Parse(map[string]string{})
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:8080", c.Listen)
	require.Equal(t, []string{"local"}, c.Backends)
	require.Equal(t, 7*24*time.Hour, time.Duration(c.Retention))
	require.EqualValues(t, 100<<20, c.BodyLimit)
	require.True(t, c.Embedded())
	require.True(t, strings.HasPrefix(c.StoreURL, "file:///"), c.StoreURL)
	require.Equal(t, filepath.Join("data", "comfyui"), filepath.Clean(c.ComfyDir))

	empty, err := Parse(map[string]string{"COMFYD_BACKEND": "", "TEMPORAL_ADDRESS": ""})
	require.NoError(t, err)
	require.Equal(t, c, empty, "VAR= is the same as no VAR")
}

func TestAWrongValueIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		vars map[string]string
		want []string // variable, value, what is allowed
	}{
		"backend":         {map[string]string{"COMFYD_BACKEND": "cuda"}, []string{"COMFYD_BACKEND", "cuda", "local, url or modal"}},
		"modal app, long": {map[string]string{"MODAL_APP": strings.Repeat("x", 56)}, []string{"MODAL_APP", "55"}},
		"modal app":       {map[string]string{"MODAL_APP": "my app"}, []string{"MODAL_APP", "my app", "dashes"}},
		"price":           {map[string]string{"COMFYD_GPU_PRICES": "L40S=a lot"}, []string{"COMFYD_GPU_PRICES", "a lot", "dollars a second"}},
		"metrics":         {map[string]string{"COMFYD_METRICS_LISTEN": "9464"}, []string{"COMFYD_METRICS_LISTEN", "9464", "host:port"}},
		"traces":          {map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc"}},
		"exporter":        {map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, []string{"OTEL_TRACES_EXPORTER", "zipkin", "none"}},
		"modal gpu":       {map[string]string{"COMFYD_MODAL_GPUS": "L40S,H 100"}, []string{"COMFYD_MODAL_GPUS", "H 100", "A100-80GB"}},
		"modal slots":     {map[string]string{"COMFYD_MODAL_SLOTS": "0"}, []string{"COMFYD_MODAL_SLOTS", "0", "from 1 to 1000"}},
		"no number":       {map[string]string{"COMFYD_MODAL_SLOTS": "abc"}, []string{"COMFYD_MODAL_SLOTS", "abc", "a whole number"}},
		"no urls":         {map[string]string{"COMFYD_BACKEND": "url"}, []string{"COMFYUI_URLS", "http://127.0.0.1:8188"}},
		"bad url":         {map[string]string{"COMFYD_BACKEND": "url", "COMFYUI_URLS": "gpu:8188"}, []string{"COMFYUI_URLS", "gpu:8188", "http://"}},
		"twice":           {map[string]string{"COMFYD_BACKEND": "url,url", "COMFYUI_URLS": "http://a"}, []string{"COMFYD_BACKEND", "url,url", "COMFYUI_URLS"}},
		"login":           {map[string]string{"COMFYD_BACKEND": "url", "COMFYUI_URLS": "me:secret@gpu"}, []string{"COMFYUI_URLS", "(hidden)@gpu"}},
		"duration":        {map[string]string{"COMFYD_RUN_TIMEOUT": "soon"}, []string{"COMFYD_RUN_TIMEOUT", "soon", "30m"}},
		"too long":        {map[string]string{"COMFYD_RUN_TIMEOUT": "25h"}, []string{"COMFYD_RUN_TIMEOUT", "25h", "24h"}},
		"retention":       {map[string]string{"COMFYD_RETENTION": "0s"}, []string{"COMFYD_RETENTION", "0s", "1h"}},
		"open jobs":       {map[string]string{"COMFYD_MAX_OPEN_JOBS": "0"}, []string{"COMFYD_MAX_OPEN_JOBS", "0", "1 or more"}},
		"of a tenant":     {map[string]string{"COMFYD_MAX_OPEN_JOBS_PER_TENANT": "-1"}, []string{"COMFYD_MAX_OPEN_JOBS_PER_TENANT", "-1", "1 or more"}},
		"streams":         {map[string]string{"COMFYD_MAX_EVENT_STREAMS_PER_TENANT": "0"}, []string{"COMFYD_MAX_EVENT_STREAMS_PER_TENANT", "0", "1 or more", "streams"}},
		"events":          {map[string]string{"TEMPORAL_ADDRESS": "t:7233", "COMFYD_STORE_URL": "s3://b", "COMFYD_EVENTS_LISTEN": "9465"}, []string{"COMFYD_EVENTS_LISTEN", "9465", "host:port"}},
		"events in one":   {map[string]string{"COMFYD_EVENTS_LISTEN": "127.0.0.1:9465"}, []string{"COMFYD_EVENTS_LISTEN", "TEMPORAL_ADDRESS"}},
		"previews":        {map[string]string{"COMFYD_PREVIEWS": "some"}, []string{"COMFYD_PREVIEWS", "some", "true or false"}},
		"free disk":       {map[string]string{"COMFYD_MIN_FREE_DISK": "some"}, []string{"COMFYD_MIN_FREE_DISK", "some", "1GiB"}},
		"size":            {map[string]string{"COMFYD_BODY_LIMIT": "-1"}, []string{"COMFYD_BODY_LIMIT", "-1", "100MiB"}},
		"listen":          {map[string]string{"COMFYD_LISTEN": "8080"}, []string{"COMFYD_LISTEN", "8080", "host:port"}},
		"open to all":     {map[string]string{"COMFYD_LISTEN": "0.0.0.0:8080"}, []string{"COMFYD_LISTEN", "0.0.0.0:8080", "COMFYD_API_KEYS"}},
		"temporal open":   {map[string]string{"COMFYD_TEMPORAL_LISTEN": "0.0.0.0:7233"}, []string{"COMFYD_TEMPORAL_LISTEN", "loopback"}},
		"profiles open":   {map[string]string{"COMFYD_PPROF_LISTEN": ":6060"}, []string{"COMFYD_PPROF_LISTEN", ":6060", "loopback"}},
		"store":           {map[string]string{"TEMPORAL_ADDRESS": "t:7233"}, []string{"COMFYD_STORE_URL", "s3://"}},
		"secret":          {map[string]string{"COMFYD_WEBHOOK_SECRETS": "whsec_short"}, []string{"COMFYD_WEBHOOK_SECRETS", "(hidden)", "whsec_"}},
		"webhook":         {map[string]string{"COMFYD_WEBHOOKS": "https://example.com/hook"}, []string{"COMFYD_WEBHOOKS", "(hidden)", "tenant="}},
		"two webhooks":    {map[string]string{"COMFYD_WEBHOOKS": "a=https://example.com,a=https://example.com/b"}, []string{"COMFYD_WEBHOOKS", "one for each"}},
		"drain":           {map[string]string{"COMFYD_DRAIN_TIMEOUT": "-1s"}, []string{"COMFYD_DRAIN_TIMEOUT", "-1s", "25h"}},
		"deployment":      {map[string]string{"TEMPORAL_ADDRESS": "t:7233", "COMFYD_STORE_URL": "s3://b", "COMFYD_DEPLOYMENT": "my.app"}, []string{"COMFYD_DEPLOYMENT", "my.app", "dashes"}},
		"embedded":        {map[string]string{"COMFYD_DEPLOYMENT": "comfyd"}, []string{"COMFYD_DEPLOYMENT", "comfyd", "TEMPORAL_ADDRESS"}},
		"build alone":     {map[string]string{"COMFYD_BUILD_ID": "v1"}, []string{"COMFYD_DEPLOYMENT", "COMFYD_BUILD_ID"}},
		"half a TLS":      {map[string]string{"COMFYD_TLS_CERT": "x.pem"}, []string{"COMFYD_TLS_CERT", "COMFYD_TLS_KEY"}},
		"level":           {map[string]string{"COMFYD_LOG_LEVEL": "loud"}, []string{"COMFYD_LOG_LEVEL", "loud", "debug"}},
		"format":          {map[string]string{"COMFYD_LOG_FORMAT": "xml"}, []string{"COMFYD_LOG_FORMAT", "xml", "json"}},
		"receiver":        {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"}, []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "http://"}},
		"origin":          {map[string]string{"COMFYD_CORS_ORIGINS": "*,app.example.com"}, []string{"COMFYD_CORS_ORIGINS", "app.example.com", "https://"}},
		"origin's path":   {map[string]string{"COMFYD_CORS_ORIGINS": "https://app.example.com/"}, []string{"COMFYD_CORS_ORIGINS", "app.example.com/", "https://"}},
		"proxy":           {map[string]string{"COMFYD_TRUSTED_PROXIES": "10.0.0.0/8,proxy"}, []string{"COMFYD_TRUSTED_PROXIES", "proxy", "10.0.0.0/8"}},
		"networks":        {map[string]string{"COMFYD_PRIVATE_NETWORKS": "10.0.0.0/8,10.0.0.1"}, []string{"COMFYD_PRIVATE_NETWORKS", "10.0.0.1", "10.0.0.0/8,fd00::/8"}},
		"temporal ui":     {map[string]string{"COMFYD_TEMPORAL_UI_URL": "temporal:8233"}, []string{"COMFYD_TEMPORAL_UI_URL", "temporal:8233", "https://"}},
		"public url":      {map[string]string{"COMFYD_PUBLIC_URL": "comfy.example.com"}, []string{"COMFYD_PUBLIC_URL", "comfy.example.com", "https://"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(c.vars)
			require.Error(t, err)
			for _, w := range c.want {
				require.Contains(t, err.Error(), w)
			}
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestKeysAreMadeOnceAndKeptPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	load := func() *Config {
		c, err := Parse(map[string]string{"COMFYD_DATA_DIR": dir})
		require.NoError(t, err)
		require.NoError(t, c.secrets())
		return c
	}
	c := load()
	require.Len(t, c.Keys, 1)
	require.Equal(t, "default", c.Keys[0].Tenant)
	require.Len(t, c.Keys[0].Secret, 64)
	require.NotEqual(t, c.Keys[0].Secret, string(c.Signing))
	again := load()
	require.Equal(t, c.Keys, again.Keys)
	require.Equal(t, c.Signing, again.Signing)
	info, err := os.Stat(filepath.Join(dir, "api-key"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestKeysFromTheEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, os.WriteFile(file, []byte("alice:0123456789abcdef\nbob:fedcba9876543210\n"), 0o600))
	for _, keys := range []string{"alice:0123456789abcdef,bob:fedcba9876543210", "@" + file} {
		c, err := Parse(map[string]string{"COMFYD_DATA_DIR": t.TempDir(), "COMFYD_API_KEYS": keys})
		require.NoError(t, err)
		require.NoError(t, c.secrets())
		require.Equal(t, []Key{{"alice", "0123456789abcdef"}, {"bob", "fedcba9876543210"}}, c.Keys)
	}
	for _, bad := range []string{"alice", "alice:short", ":0123456789abcdef", "a/b:0123456789abcdef", "zoë:0123456789abcdef", ".a:0123456789abcdef", "alice:0123456789abcdef,bob:0123456789abcdef", "@" + file + ".gone"} {
		c, err := Parse(map[string]string{"COMFYD_DATA_DIR": t.TempDir(), "COMFYD_API_KEYS": bad})
		require.NoError(t, err)
		err = c.secrets()
		require.ErrorContains(t, err, "COMFYD_API_KEYS")
		require.NotContains(t, err.Error(), "0123456789abcdef", "a secret is not printed")
	}
}

func TestSigningKeyFromAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "signing")
	require.NoError(t, os.WriteFile(file, []byte("0123456789abcdef0123456789abcdef\n"), 0o600))
	data := filepath.Join(t.TempDir(), "none")
	vars := map[string]string{"COMFYD_DATA_DIR": data, "COMFYD_API_KEYS": "alice:0123456789abcdef", "COMFYD_SIGNING_KEY": "@" + file,
		"TEMPORAL_ADDRESS": "t:7233", "COMFYD_STORE_URL": "s3://b"}
	c, err := Parse(vars)
	require.NoError(t, err)
	require.NoError(t, c.secrets())
	require.Equal(t, "0123456789abcdef0123456789abcdef", string(c.Signing))
	require.NoDirExists(t, data, "with all secrets given, nothing is written: the root may be read-only")

	require.NoError(t, os.WriteFile(file, []byte("\n"), 0o600))
	for _, name := range []string{file, file + ".gone"} {
		vars["COMFYD_SIGNING_KEY"] = "@" + name
		c, err := Parse(vars)
		require.NoError(t, err)
		require.ErrorContains(t, c.secrets(), "COMFYD_SIGNING_KEY", "an empty secret is not the same as none")
	}
}

// TestTemporalAlone: what speaks to Temporal alone asks for no store and no keys.
func TestServersOfThisMachineAlone(t *testing.T) {
	for urls, own := range map[string]bool{
		"http://127.0.0.1:8188": true, "http://gpu:8188,http://localhost:8188/x": true, "http://me:secret@[::1]:8188": true,
		"http://gpu:8188": false, "http://10.0.0.7:8188": false, "https://localhost.example.com": false,
	} {
		c, err := Parse(map[string]string{"COMFYD_BACKEND": "url", "COMFYUI_URLS": urls})
		require.NoError(t, err)
		require.Equal(t, own, c.OwnMachine(), urls)
	}
}

func TestTemporalAlone(t *testing.T) {
	t.Setenv("TEMPORAL_ADDRESS", "t:7233")
	t.Setenv("COMFYD_STORE_URL", "")
	t.Setenv("COMFYD_BACKEND", "url")
	_, err := Read()
	require.Error(t, err)
	c, err := ReadTemporal()
	require.NoError(t, err)
	require.False(t, c.Embedded())
	t.Setenv("COMFYD_RETENTION", "1s")
	_, err = ReadTemporal()
	require.ErrorContains(t, err, "COMFYD_RETENTION")
}

// TestEverySettingIsInTheReadme: nobody should have to read the code for one.
// TestDrain: by default only what would be lost is waited for.
func TestDrain(t *testing.T) {
	for value, want := range map[string]struct{ local, url time.Duration }{
		"": {30 * time.Second, 0}, "0s": {0, 0}, "2h": {2 * time.Hour, 2 * time.Hour},
	} {
		c, err := Parse(map[string]string{"COMFYD_DRAIN_TIMEOUT": value})
		require.NoError(t, err)
		require.Equal(t, want.local, c.Drain("local"), value)
		require.Equal(t, want.url, c.Drain("url"), value)
		require.Equal(t, want.url, c.Drain("modal"), value)
	}
}

func TestEverySettingIsInTheReadme(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	require.NoError(t, err)
	source, err := os.ReadFile("config.go")
	require.NoError(t, err)
	names := regexp.MustCompile(`env:"([A-Z_]+)"`).FindAllSubmatch(source, -1)
	require.Greater(t, len(names), 20)
	for _, n := range names {
		require.Contains(t, string(readme), "`"+string(n[1])+"`")
	}
}

func TestDotEnv(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, DotEnv(), "no file is no error")
	t.Setenv("COMFYD_LOG_LEVEL", "warn")
	t.Setenv("COMFYD_RETENTION", "") // so that the test's end takes back what the file sets
	require.NoError(t, os.Unsetenv("COMFYD_RETENTION"))
	require.NoError(t, os.WriteFile(".env", []byte("# a comment\nCOMFYD_LOG_LEVEL=debug\nCOMFYD_RETENTION=3d\n"), 0o600))
	require.NoError(t, DotEnv())
	c, err := Load()
	require.NoError(t, err)
	require.Equal(t, "warn", c.LogLevel, "the environment wins")
	require.Equal(t, 72*time.Hour, time.Duration(c.Retention))
	require.NoError(t, os.WriteFile(".env", []byte("no equals sign\n"), 0o600))
	require.ErrorContains(t, DotEnv(), ".env")
}
