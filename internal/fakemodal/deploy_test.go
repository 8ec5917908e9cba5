package fakemodal_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakemodal"
)

// fresh is a server on which nothing is deployed.
func fresh(t *testing.T, change func(*fakemodal.Options)) *fakemodal.Server {
	t.Helper()
	t.Parallel()
	opts := options(t, t.TempDir())
	if change != nil {
		change(&opts)
	}
	s, err := fakemodal.Start(opts)
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	return s
}

func TestDeployRecordsEverything(t *testing.T) {
	s := fresh(t, nil)
	d, err := s.Deploy(testContext(t))
	require.NoError(t, err)
	require.Equal(t, "testapp", d.App)
	require.Equal(t, 1, d.Version)
	require.Contains(t, d.Output, "App deployed")
	require.Len(t, d.Functions, 5)

	w := d.Functions["Worker.*"]
	require.Equal(t, []string{"L40S", "A100-80GB"}, w.GPUs)
	require.InDelta(t, 4.0, w.CPU, 0)
	require.Equal(t, 40960, w.MemoryMiB)
	require.Equal(t, 10*time.Minute, w.Timeout)
	require.Equal(t, 2*time.Minute, w.StartupTimeout)
	require.Equal(t, time.Minute, w.ScaledownWindow)
	require.Equal(t, 0, w.MinContainers)
	require.Equal(t, 2, w.MaxContainers)
	require.Equal(t, 0, w.Retries)
	require.Equal(t, []string{"us-east"}, w.Regions)
	require.Empty(t, w.Secrets)
	require.Equal(t, map[string]string{"/models": "testapp-models"}, w.Volumes)
	require.True(t, w.MemorySnapshot)
	require.False(t, w.GPUSnapshot)
	require.Contains(t, w.Methods, "echo")
	require.Equal(t, []string{"/root/testapp.py"}, w.Files)
	require.Contains(t, w.Lines(), "RUN echo building > /built")
	require.Contains(t, w.Lines(), `ENV TESTAPP_FROM_IMAGE='it'"'"'s set'`)
	require.Equal(t, []string{"TESTAPP_SECRET"}, w.Layers[len(w.Layers)-1].Secrets, "only the step that asked for it sees the secret")
	for _, l := range w.Layers[:len(w.Layers)-1] {
		require.Empty(t, l.Secrets)
	}

	peek := d.Functions["peek"]
	require.Empty(t, peek.GPUs)
	require.Equal(t, []string{"TESTAPP_SECRET"}, peek.Secrets)
	require.Equal(t, 5*time.Minute, peek.Timeout, "Modal's default")

	var gpus []string
	for _, r := range s.Requests("FunctionCreate") {
		for _, ranked := range r.Message.(*pb.FunctionCreateRequest).GetFunctionData().GetRankedFunctions() {
			gpus = append(gpus, ranked.GetFunction().GetResources().GetGpuConfig().GetGpuType())
		}
	}
	require.Equal(t, []string{"L40S", "A100-80GB"}, gpus, "the requests themselves are there too")

	again, err := s.Deploy(testContext(t))
	require.NoError(t, err)
	require.Equal(t, 2, again.Version)
	require.Equal(t, w.ID, again.Functions["Worker.*"].ID, "a second deploy keeps the functions' IDs")
}

func TestDeployNeedsItsSecret(t *testing.T) {
	s := fresh(t, func(o *fakemodal.Options) { o.Secrets = nil })
	_, err := s.Deploy(testContext(t))
	require.ErrorContains(t, err, "Secret 'TESTAPP_SECRET' not found in environment 'main'")
	require.Nil(t, s.Deployment("testapp"))
}

func TestDeployNeedsTheSecretsKey(t *testing.T) {
	s := fresh(t, func(o *fakemodal.Options) { o.Secrets["TESTAPP_SECRET"] = map[string]string{"OTHER": "x"} })
	_, err := s.Deploy(testContext(t))
	require.ErrorContains(t, err, "missing key(s): TESTAPP_SECRET")
}

func TestDeployRefusesMountOverFiles(t *testing.T) {
	s := fresh(t, nil)
	fault := s.RefuseMount("/models")
	_, err := s.Deploy(testContext(t))
	require.ErrorContains(t, err, `cannot mount volume on non-empty path: "/models"`)
	require.Positive(t, fault.Fired())
	fault.Clear()
	_, err = s.Deploy(testContext(t))
	require.NoError(t, err)
}

func TestDeployRefusesMountOverLocalFiles(t *testing.T) {
	dir := t.TempDir()
	app := filepath.Join(dir, "clash.py")
	require.NoError(t, os.WriteFile(app, []byte(`
import modal
app = modal.App("clash")
image = modal.Image.debian_slim().add_local_file(__file__, "/models/readme.txt", copy=True)
@app.function(image=image, volumes={"/models": modal.Volume.from_name("v", create_if_missing=True)})
def f():
    pass
`), 0o600))
	s := fresh(t, func(o *fakemodal.Options) { o.AppFile = app })
	_, err := s.Deploy(testContext(t))
	require.ErrorContains(t, err, "non-empty path")
}

func TestNewVersionReplacesContainers(t *testing.T) {
	w := newWorld(t)
	first := w.run(w.method("echo"), 1).(map[any]any)["task"]
	_, err := w.Deploy(testContext(t))
	require.NoError(t, err)
	require.NotEqual(t, first, w.run(w.method("echo"), 2).(map[any]any)["task"])
}

func TestModalRun(t *testing.T) {
	w := newWorld(t)
	cmd := exec.CommandContext(testContext(t), python(t), "-m", "modal", "run", testApp+"::peek")
	cmd.Env = os.Environ()
	for k, v := range w.Env() {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "seen by peek")
	require.Equal(t, "success", w.Calls()[0].Outcome)
	require.Equal(t, 1, w.Deployment("testapp").Version, "the deployed app is not touched")
}
