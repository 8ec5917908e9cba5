package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReadKeys: from each place where they may be, and nothing is made.
func TestReadKeys(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	t.Setenv("COMFYD_DATA_DIR", data)
	t.Setenv("COMFYD_API_KEYS", "")
	keys, from, err := ReadKeys()
	require.NoError(t, err)
	require.Empty(t, keys)
	require.Equal(t, filepath.Join(data, "api-key"), from)
	require.NoDirExists(t, data)

	require.NoError(t, os.Mkdir(data, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(data, "api-key"), []byte("0123456789abcdef\n"), 0o600))
	keys, _, err = ReadKeys()
	require.NoError(t, err)
	require.Equal(t, []Key{{"default", "0123456789abcdef"}}, keys)

	file := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, os.WriteFile(file, []byte("a:0123456789abcdef\na:fedcba9876543210\n"), 0o600))
	t.Setenv("COMFYD_API_KEYS", "@"+file)
	keys, from, err = ReadKeys()
	require.NoError(t, err)
	require.Equal(t, []Key{{"a", "0123456789abcdef"}, {"a", "fedcba9876543210"}}, keys)
	require.Equal(t, file, from)

	t.Setenv("COMFYD_API_KEYS", "a:short")
	_, _, err = ReadKeys()
	require.ErrorContains(t, err, "COMFYD_API_KEYS")
}

// TestNewKey: what it makes is what the setting takes.
func TestNewKey(t *testing.T) {
	a, err := NewKey("studio-1")
	require.NoError(t, err)
	b, err := NewKey("studio-1")
	require.NoError(t, err)
	keys, err := parseKeys(a.Entry() + "," + b.Entry())
	require.NoError(t, err)
	require.Equal(t, []Key{a, b}, keys)
	require.NotEqual(t, a.Secret, b.Secret)
	_, err = NewKey("a:b")
	require.ErrorContains(t, err, `"a:b" is no tenant`)
}
