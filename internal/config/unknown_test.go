package config

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestANameThatIsNoSettingIsSeen(t *testing.T) {
	require.Equal(t, []string{
		"COMFYD_RETENTON is not a setting of comfyd and has no effect; did you mean COMFYD_RETENTION?",
		"COMFYUI_URL is not a setting of comfyd and has no effect; did you mean COMFYUI_URLS?",
	}, Unknown(map[string]string{
		"COMFYD_RETENTON": "1d", "COMFYUI_URL": "http://x", "COMFYUI_PATH_OF_SOMEBODY_ELSE": "x", "PATH": "/bin",
		"COMFYD_LISTEN": "x", "COMFYD_URL": "x", "COMFYD_TEST_COMFYUI": "x", "COMFYD_MODAL_GPU": "x", "MODAL_APP": "x",
	}))
}

// TestTheModalAppsSettingsAreKnown: the same .env serves comfyd and the deployment of its app.
func TestTheModalAppsSettingsAreKnown(t *testing.T) {
	source, err := os.ReadFile(filepath.Join("..", "..", "modal", "comfyd_modal", "settings.py"))
	require.NoError(t, err)
	names := regexp.MustCompile(`COMFYD_MODAL_[A-Z_]+`).FindAllString(string(source), -1)
	require.NotEmpty(t, names)
	for _, n := range names {
		require.Empty(t, Unknown(map[string]string{n: "x"}))
	}
}

func TestATypoInDotEnvIsSeen(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("COMFYD_STALL_TIMEOT", "") // so that the test's end takes back what the file sets
	require.NoError(t, os.Unsetenv("COMFYD_STALL_TIMEOT"))
	require.NoError(t, os.WriteFile(".env", []byte("COMFYD_STALL_TIMEOT=5m\n"), 0o600))
	require.NoError(t, DotEnv())
	for role, read := range map[string]func() (*Config, error){"serve and api": Load, "worker": Read} {
		c, err := read()
		require.NoError(t, err)
		require.Contains(t, c.Unknown, "COMFYD_STALL_TIMEOT is not a setting of comfyd and has no effect; did you mean COMFYD_STALL_TIMEOUT?", role)
	}
}
