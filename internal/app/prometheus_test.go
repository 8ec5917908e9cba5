package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// monitoring is the folder of what docker-compose.yml mounts into Prometheus and Grafana.
var monitoring = filepath.Join("..", "..", "deploy", "monitoring")

// prometheusDir holds a real Prometheus and its promtool.
func prometheusDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("COMFYD_TEST_PROMETHEUS")
	if dir == "" {
		t.Skip("COMFYD_TEST_PROMETHEUS is not set: make test gets a real Prometheus and sets it")
	}
	return dir
}

// prometheus is a real one that scrapes processes of comfyd, by the configuration of deploy/monitoring.
type prometheus struct {
	t   *testing.T
	url string
}

// scrape starts a Prometheus with the shipped configuration, but for the targets, the key and the intervals.
func scrape(t *testing.T, key string, api, worker string) *prometheus {
	t.Helper()
	program, dir := filepath.Join(prometheusDir(t), "prometheus"), t.TempDir()
	raw, err := os.ReadFile(filepath.Join(monitoring, "prometheus.yml"))
	require.NoError(t, err)
	change := strings.NewReplacer("api-1:9464, api-2:9464", api, "worker-1:9464, worker-2:9464", worker, "15s", "1s",
		"- job_name: comfyd\n", "- job_name: comfyd\n    authorization: {credentials: "+key+"}\n")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(change.Replace(string(raw))), 0o644))
	rules, err := os.ReadFile(filepath.Join(monitoring, "alerts.yml"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "alerts.yml"), rules, 0o644))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	at := l.Addr().String()
	require.NoError(t, l.Close())
	cmd := exec.Command(program, "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address="+at, "--log.level=warn")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, testWriter{t}, testWriter{t}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	p := &prometheus{t: t, url: "http://" + at}
	require.Eventually(t, func() bool {
		res, err := http.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == 200
	}, 2*time.Minute, 50*time.Millisecond, "Prometheus starts")
	return p
}

// value is one of an answer.
type value struct {
	labels map[string]string
	v      float64
}

// query asks Prometheus for the values of an expression now.
func (p *prometheus) query(expr string) (all []value) {
	p.t.Helper()
	ctx, done := context.WithTimeout(context.Background(), 30*time.Second)
	defer done()
	req, err := http.NewRequestWithContext(ctx, "GET", p.url+"/api/v1/query?query="+url.QueryEscape(expr), nil)
	require.NoError(p.t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(p.t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(p.t, err)
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	require.NoError(p.t, json.Unmarshal(raw, &answer), "%s", raw)
	require.Equal(p.t, "success", answer.Status, "%s: %s", expr, answer.Error)
	for _, r := range answer.Data.Result {
		v, err := strconv.ParseFloat(r.Value[1].(string), 64)
		require.NoError(p.t, err)
		all = append(all, value{r.Metric, v})
	}
	return all
}

// sum is the only value of an expression; 0 where there is none.
func (p *prometheus) sum(expr string) float64 {
	p.t.Helper()
	all := p.query("sum(" + expr + ")")
	if len(all) == 0 {
		return 0
	}
	return all[0].v
}

// until waits until an expression has a value for which ok holds.
func (p *prometheus) until(expr string, ok func(float64) bool) {
	p.t.Helper()
	require.Eventually(p.t, func() bool { return ok(p.sum(expr)) }, 2*time.Minute, 200*time.Millisecond, expr)
}

func is(want float64) func(float64) bool { return func(v float64) bool { return v == want } }

// panel is one of the dashboard, with what it asks.
type panel struct {
	Title   string
	Targets []struct{ Expr string }
}

func dashboard(t *testing.T) (all []panel) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(monitoring, "grafana", "dashboards", "comfyd.json"))
	require.NoError(t, err)
	var d struct{ Panels []panel }
	require.NoError(t, json.Unmarshal(raw, &d))
	for _, p := range d.Panels {
		if len(p.Targets) > 0 {
			all = append(all, p)
		}
	}
	return all
}

// show writes an answer as a line: a few of its values.
func show(all []value) string {
	var text []string
	for i, v := range all {
		if i == 4 {
			text = append(text, fmt.Sprintf("and %d more", len(all)-i))
			break
		}
		var labels []string
		for name, l := range v.labels {
			if name != "job" && name != "__name__" {
				labels = append(labels, l)
			}
		}
		text = append(text, fmt.Sprintf("%s %.4g", strings.Join(labels, " "), v.v))
	}
	return strings.Join(text, "; ")
}

func finite(all []value) bool {
	for _, v := range all {
		if !math.IsNaN(v.v) && !math.IsInf(v.v, 0) {
			return true
		}
	}
	return false
}

// TestAlertRules: promtool takes the rules, and they fire when they should and only then.
func TestAlertRules(t *testing.T) {
	promtool := filepath.Join(prometheusDir(t), "promtool")
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"check", "config", "prometheus.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = monitoring
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}
