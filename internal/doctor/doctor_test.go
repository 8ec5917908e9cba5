package doctor

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakemodal"
)

// run executes one of the commands as a user does.
func run(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	c := &cobra.Command{Use: "comfyd"}
	c.AddCommand(Command(), AddModelCommand())
	var b bytes.Buffer
	c.SetOut(&b)
	c.SetErr(&b)
	c.SetArgs(args)
	err = c.ExecuteContext(t.Context())
	return b.String(), err
}

func connect(t *testing.T, m *fakemodal.Server) {
	for k, v := range m.Env() {
		t.Setenv(k, v)
	}
}

// line is the line that begins with a mark and a name.
func line(out, mark, what string) string {
	for l := range strings.SplitSeq(out, "\n") {
		if strings.HasPrefix(l, mark+"  "+what) || strings.HasPrefix(l, mark+"    "+what) {
			return l
		}
	}
	return ""
}

// TestDoctorOfAFreshApp: an app without models and without node packs, on a ComfyUI of the CPU. What is well is told
// from what is not, and each of these says what to do.
func TestDoctorOfAFreshApp(t *testing.T) {
	connect(t, fakemodal.Product(t))
	out, err := run(t, "doctor", "--gpu")
	require.ErrorIs(t, err, ErrUnwell, out)
	require.NotEmpty(t, line(out, "ok", "app"), out)
	require.NotEmpty(t, line(out, "ok", "catalogue"), out)
	require.Contains(t, line(out, "FAIL", "secret"), "Hugging Face", out)
	require.Contains(t, line(out, "FAIL", "volume"), "download_models", out)
	require.Contains(t, line(out, "FAIL", "node comfyui-impact-pack"), "deploy", out)
	require.Contains(t, line(out, "ok", "example two_images"), "2 files", out)
	require.Contains(t, line(out, "FAIL", "example flux_dev"), "flux1-dev.safetensors", out)
	require.Contains(t, line(out, "FAIL", "example rgthree"), "does not exist", out)
	require.NotContains(t, out, "Traceback")
}

func TestDoctorSaysWhatIsMissing(t *testing.T) {
	m := fakemodal.Product(t)
	connect(t, m)
	t.Setenv("MODAL_APP", "another")
	out, err := run(t, "doctor")
	require.ErrorIs(t, err, ErrUnwell)
	require.Contains(t, out, "modal deploy modal/modal_comfy_api.py")

	t.Setenv("MODAL_APP", "")
	t.Setenv("MODAL_TOKEN_SECRET", "as-wrong")
	out, err = run(t, "doctor")
	require.ErrorIs(t, err, ErrUnwell)
	require.Contains(t, out, "https://modal.com/settings/tokens")

	t.Setenv("MODAL_TOKEN_ID", "")
	t.Setenv("MODAL_TOKEN_SECRET", "")
	_, err = run(t, "doctor")
	require.ErrorContains(t, err, "MODAL_TOKEN_ID")
	require.ErrorContains(t, err, "/readyz", "who has no GPUs at Modal is told where to look")
}

// TestModelsAdd: a file of the Volume, and the sentence for one that is not there.
func TestModelsAdd(t *testing.T) {
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/style.safetensors" {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "style.safetensors", time.Unix(1700000000, 0), strings.NewReader(strings.Repeat("lora", 1000)))
	}))
	defer source.Close()
	m := fakemodal.Product(t)
	connect(t, m)
	out, err := run(t, "add", source.URL+"/style.safetensors", "loras")
	require.NoError(t, err, out)
	require.Contains(t, out, "loras/style.safetensors  4000 bytes")
	require.FileExists(t, filepath.Join(m.VolumeDir("comfyd-models"), "loras", "style.safetensors"))

	_, err = run(t, "add", source.URL+"/moved.safetensors", "loras")
	require.ErrorContains(t, err, "404")
	_, err = run(t, "add", source.URL+"/style.safetensors", "../../etc")
	require.ErrorContains(t, err, "folder")
}
