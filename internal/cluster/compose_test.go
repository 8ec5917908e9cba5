package cluster_test

import (
	"bytes"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"
	"go.temporal.io/server/common/dynamicconfig"
	"go.yaml.in/yaml/v3"

	"github.com/comfyd/comfyd/internal/cluster"
	"github.com/comfyd/comfyd/internal/config"
)

// libraries are variables that ours leave to the libraries that read them.
var libraries = map[string]string{
	"AWS_SHARED_CREDENTIALS_FILE": "aws-sdk-go-v2", "AWS_EC2_METADATA_DISABLED": "aws-sdk-go-v2", "MODAL_CONFIG_PATH": "modal-client",
	"OTEL_EXPORTER_OTLP_HEADERS": "opentelemetry-go", "OTEL_TRACES_SAMPLER": "opentelemetry-go", "OTEL_TRACES_SAMPLER_ARG": "opentelemetry-go",
}

// notHere are settings that this shape has no use for, and why.
var notHere = map[string]string{
	"COMFYD_TLS_CERT": "the proxy's affair", "COMFYD_TLS_KEY": "the proxy's affair",
	"COMFYD_DATA_DIR": "nothing is kept there", "COMFYD_PPROF_LISTEN": "for developers",
	"COMFYUI_DIR": "of local", "COMFYUI_PYTHON": "of local", "COMFYUI_ARGS": "of local",
	"COMFYD_TEMPORAL_LISTEN": "of the embedded Temporal", "COMFYD_TEMPORAL_UI_LISTEN": "of the embedded Temporal",
	"COMFYD_METRICS_KEY": "nobody outside reaches the listener, and its Prometheus has no key", "COMFYD_MIN_FREE_DISK": "nothing is kept on a disk of ours",
}

// given are secrets that an installation may do without. Who wants them gives them by the environment, or mounts a file.
var given = []string{"COMFYD_PAYLOAD_KEYS", "COMFYD_CODEC_KEY", "COMFYD_WEBHOOK_SECRETS", "OTEL_EXPORTER_OTLP_HEADERS"}

// endless services run on; the others end when their work is done.
func endless(s types.ServiceConfig) bool { return !strings.HasPrefix(s.Restart, "on-failure") }

func ours(s types.ServiceConfig) bool { return s.Build != nil }

func services(t *testing.T) types.Services {
	all := cluster.Project(t).Services
	require.Len(t, all, 13)
	return all
}

// TestComposeNamesSettingsThatExist: a setting that nobody reads is a setting that does not hold.
func TestComposeNamesSettingsThatExist(t *testing.T) {
	known := map[string]bool{}
	for f := range reflect.TypeFor[config.Config]().Fields() {
		known[f.Tag.Get("env")] = true
	}
	found := 0
	for name, s := range services(t) {
		if !ours(s) {
			continue
		}
		found++
		vars := map[string]string{}
		for k, v := range s.Environment {
			require.True(t, known[k] || libraries[k] != "", "%s sets %s, which nothing of ours reads", name, k)
			require.NotNil(t, v, "%s: %s has a value", name, k)
			vars[k] = *v
		}
		if strings.HasPrefix(name, "worker") { // the user's part of the settings
			vars["COMFYUI_URLS"] = "http://gpu:8188"
		}
		_, err := config.Parse(vars)
		require.NoError(t, err, name)
	}
	require.Equal(t, 5, found, "two api, two worker, setup")
}

// TestComposePassesSettingsOn: what somebody writes into .env, as README's table says, has to reach the program.
func TestComposePassesSettingsOn(t *testing.T) {
	all := services(t)
	for f := range reflect.TypeFor[config.Config]().Fields() {
		name := f.Tag.Get("env")
		if name == "" || name == "-" || notHere[name] != "" {
			continue
		}
		_, api := all["api-1"].Environment[name]
		_, worker := all["worker-1"].Environment[name]
		require.True(t, api || worker, "docker-compose.yml passes %s to nobody", name)
	}
	for _, name := range []string{"COMFYD_PAYLOAD_KEYS", "COMFYD_LOG_LEVEL", "COMFYD_RETENTION"} {
		for _, s := range []string{"api-1", "api-2", "worker-1", "worker-2"} {
			require.Contains(t, all[s].Environment, name, s)
		}
	}
}

// TestOtherFilesNameSettingsThatExist does the same for what docs/deploy.md offers beside the compose file.
func TestOtherFilesNameSettingsThatExist(t *testing.T) {
	known := map[string]bool{"HOME": true}
	for f := range reflect.TypeFor[config.Config]().Fields() {
		known[f.Tag.Get("env")] = true
	}
	for name, pattern := range map[string]string{
		"kubernetes.yaml": `(?m)^  ([A-Z][A-Z0-9_]+):`, "comfyd.service": `(?m)(?:^Environment=|[^#] )([A-Z][A-Z0-9_]+)=`,
	} {
		raw, err := os.ReadFile(filepath.Join(cluster.Root(), "deploy", name))
		require.NoError(t, err)
		found := regexp.MustCompile(pattern).FindAllSubmatch(raw, -1)
		require.GreaterOrEqual(t, len(found), 4, name)
		for _, m := range found {
			v := string(m[1])
			require.True(t, known[v] || libraries[v] != "", "%s sets %s, which nothing of ours reads", name, v)
		}
	}
	raw, err := os.ReadFile(filepath.Join(cluster.Root(), "deploy", "kubernetes.yaml"))
	require.NoError(t, err)
	kinds := 0
	for d := yaml.NewDecoder(bytes.NewReader(raw)); ; kinds++ {
		var object struct{ Kind string }
		if err := d.Decode(&object); err == io.EOF {
			break
		} else {
			require.NoError(t, err)
		}
		require.NotEmpty(t, object.Kind)
	}
	require.Equal(t, 6, kinds)
}

// TestComposeIsHardened holds the file against what its comments and docs/deploy.md promise.
func TestComposeIsHardened(t *testing.T) {
	all := services(t)
	version := regexp.MustCompile(`:v?\d+\.\d+(\.\d+)?(-[a-z]+)?$`)
	for name, s := range all {
		if !ours(s) {
			require.Regexp(t, version, s.Image, "%s is pinned", name)
		} else {
			require.True(t, s.ReadOnly, name)
		}
		require.Equal(t, []string{"ALL"}, s.CapDrop, name)
		require.Contains(t, s.SecurityOpt, "no-new-privileges:true", name)
		require.False(t, s.Privileged, name)
		require.NotNil(t, s.Deploy, name)
		limits := s.Deploy.Resources.Limits
		require.NotNil(t, limits, name)
		require.Positive(t, limits.NanoCPUs, name)
		require.Positive(t, limits.MemoryBytes, name)
		require.Positive(t, limits.Pids, name)
		require.NotEmpty(t, s.Restart, name)
		if endless(s) {
			require.NotNil(t, s.HealthCheck, name)
			require.Greater(t, len(s.HealthCheck.Test), 1, name)
			require.Equal(t, "CMD", s.HealthCheck.Test[0], "%s: no shell is needed", name)
		}
		for _, p := range s.Ports {
			switch name {
			case "proxy":
			case "temporal-ui":
				require.Equal(t, "127.0.0.1", p.HostIP, "the UI has no login")
			case "grafana":
				require.Equal(t, "127.0.0.1", p.HostIP, "one password for everybody, and no TLS")
			default:
				t.Errorf("%s publishes port %s", name, p.Published)
			}
		}
		for k, v := range s.Environment {
			secret := regexp.MustCompile(`PASSWORD|SECRET|SIGNING|_KEYS?$|PWD|HEADERS`).MatchString(k)
			if slices.Contains(given, k) {
				require.Empty(t, *v, "%s: %s is the user's to give", name, k)
				continue
			}
			require.False(t, secret && !strings.HasPrefix(*v, "@/run/secrets/") && !strings.HasPrefix(*v, "/run/secrets/"), "%s: %s is given by file", name, k)
		}
		for _, d := range s.GetDependencies() {
			want := types.ServiceConditionHealthy
			if !endless(all[d]) {
				want = types.ServiceConditionCompletedSuccessfully
			}
			require.Equal(t, want, s.DependsOn[d].Condition, "%s waits for %s", name, d)
		}
	}
	for _, name := range []string{"postgres", "temporal", "s3", "prometheus"} {
		require.Equal(t, []string{"inside"}, slices.Collect(maps.Keys(all[name].Networks)), "nobody outside reaches %s", name)
	}
	require.True(t, bool(cluster.Project(t).Networks["inside"].Internal))
	grace := time.Duration(*all["worker-1"].StopGracePeriod)
	require.Greater(t, grace, 20*time.Second, "longer than comfyd takes to stop")
}

// TestComposeRunsCommandsThatExist asks the program of the image for what the file starts in it; the cluster's own tests
// run the rest.
func TestComposeRunsCommandsThatExist(t *testing.T) {
	program := cluster.Build(t, "test")
	dockerfile, err := os.ReadFile(filepath.Join(cluster.Root(), "Dockerfile"))
	require.NoError(t, err)
	require.Contains(t, string(dockerfile), `ENTRYPOINT ["/comfyd"]`)
	require.Contains(t, string(dockerfile), `CMD ["/comfyd", "health"]`)
	for name, s := range services(t) {
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind {
				require.FileExists(t, first(v.Source, filepath.Join(v.Source, sample[filepath.Base(v.Source)])), "%s mounts it", name)
			}
		}
		if len(s.Entrypoint) == 2 {
			require.FileExists(t, filepath.Join(cluster.Root(), "deploy", filepath.Base(s.Entrypoint[1])), name)
		}
		if !ours(s) {
			continue
		}
		commands := [][]string{s.Command}
		if endless(s) {
			require.Equal(t, "/comfyd", s.HealthCheck.Test[1], name)
			commands = append(commands, s.HealthCheck.Test[2:])
		}
		for _, c := range commands {
			said := cluster.Help(t, program, c...)
			require.Contains(t, said, "comfyd "+strings.Join(slices.DeleteFunc(slices.Clone(c), func(a string) bool { return strings.HasPrefix(a, "-") }), " "), name)
			for _, a := range c {
				require.Contains(t, said, a, name)
			}
		}
	}
}

// TestPrometheusScrapesWhatThereIs: each process of ours that runs on, at the port where it has its metrics, and Grafana
// finds Prometheus and the dashboard.
func TestPrometheusScrapesWhatThereIs(t *testing.T) {
	all, monitoring := services(t), filepath.Join(cluster.Root(), "deploy", "monitoring")
	raw, err := os.ReadFile(filepath.Join(monitoring, "prometheus.yml"))
	require.NoError(t, err)
	var targets, ports []string
	for _, m := range regexp.MustCompile(`([a-z]+-\d):(\d+)`).FindAllStringSubmatch(string(raw), -1) {
		targets, ports = append(targets, m[1]), append(ports, m[2])
	}
	var want []string
	for name, s := range all {
		if ours(s) && endless(s) {
			want = append(want, name)
			require.Equal(t, "0.0.0.0:"+ports[0], *s.Environment["COMFYD_METRICS_LISTEN"], name)
		}
	}
	require.ElementsMatch(t, want, targets)
	require.Len(t, slices.Compact(ports), 1)

	source, err := os.ReadFile(filepath.Join(monitoring, "grafana", "provisioning", "datasources", "prometheus.yml"))
	require.NoError(t, err)
	require.Contains(t, string(source), "http://prometheus:9090")
	provider, err := os.ReadFile(filepath.Join(monitoring, "grafana", "provisioning", "dashboards", "comfyd.yml"))
	require.NoError(t, err)
	require.Contains(t, string(provider), "/etc/comfyd/grafana/dashboards")
	for _, v := range append(all["grafana"].Volumes, all["prometheus"].Volumes...) {
		if v.Type == types.VolumeTypeBind {
			require.Equal(t, "/etc/comfyd", v.Target)
			require.True(t, v.ReadOnly)
		}
	}
}

// sample is a file of each folder that services mount.
var sample = map[string]string{"deploy": "temporal.sh", "monitoring": "prometheus.yml"}

func first(file, otherwise string) string {
	if i, err := os.Stat(file); err == nil && !i.IsDir() {
		return file
	}
	return otherwise
}

// TestDynamicConfigNamesKeysThatExist: the server takes an unknown key without a word.
func TestDynamicConfigNamesKeysThatExist(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(cluster.Root(), "deploy", "temporal-dynamicconfig.yaml"))
	require.NoError(t, err)
	loaded := dynamicconfig.LoadYamlFile(raw)
	require.NoError(t, loaded.Err())
	require.Empty(t, loaded.Warnings)
	require.Greater(t, len(loaded.Map), 5)
}
