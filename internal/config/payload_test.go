package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	keyA = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	keyB = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
)

func TestPayloadKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, os.WriteFile(file, []byte("b:"+keyB+"\na:"+keyA+"\n"), 0o600))
	for _, keys := range []string{"b:" + keyB + ",a:" + keyA, "@" + file, "plain,b:" + keyB + ",a:" + keyA} {
		c, err := Parse(map[string]string{"COMFYD_PAYLOAD_KEYS": keys, "COMFYD_CODEC_KEY": "0123456789abcdef", "COMFYD_CODEC_ORIGINS": "https://temporal.example.com"})
		require.NoError(t, err)
		require.Len(t, c.Payload, 2)
		require.Equal(t, "b", c.Payload[0].ID)
		require.EqualValues(t, 1, c.Payload[0].Secret[31])
		require.Equal(t, strings.HasPrefix(keys, "plain"), c.PlainPayloads)
		require.Equal(t, "0123456789abcdef", c.Codec)
	}
	for _, bad := range []string{"plain", keyA, "a:" + keyA[:40], "a:" + keyA + ",a:" + keyB, "a b:" + keyA, strings.Repeat("a", 33) + ":" + keyA, "a:" + keyA + ",plain", "@" + file + ".gone"} {
		_, err := Parse(map[string]string{"COMFYD_PAYLOAD_KEYS": bad})
		require.ErrorContains(t, err, "COMFYD_PAYLOAD_KEYS", bad)
		require.NotContains(t, err.Error(), keyA[:40])
	}
	for name, vars := range map[string]map[string]string{
		"COMFYD_PAYLOAD_KEYS":  {"COMFYD_CODEC_KEY": "0123456789abcdef"},
		"COMFYD_CODEC_KEY":     {"COMFYD_CODEC_ORIGINS": "https://a.example.com"},
		"(hidden)":             {"COMFYD_PAYLOAD_KEYS": "a:" + keyA, "COMFYD_CODEC_KEY": "short"},
		"COMFYD_CODEC_ORIGINS": {"COMFYD_PAYLOAD_KEYS": "a:" + keyA, "COMFYD_CODEC_KEY": "0123456789abcdef", "COMFYD_CODEC_ORIGINS": "https://a.example.com/ui"},
	} {
		_, err := Parse(vars)
		require.ErrorContains(t, err, name)
	}
}
