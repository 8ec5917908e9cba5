package outbound_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/outbound"
)

func TestCheck(t *testing.T) {
	strict := outbound.New(nil)
	for _, ok := range []string{"https://example.com/a?b=c", "https://example.com:8443/", "https://8.8.8.8/", "https://[2606:4700::1111]/"} {
		require.NoError(t, strict.Check(ok), ok)
	}
	for _, bad := range []string{
		"", "example.com", "ftp://example.com/", "file:///etc/passwd", "https:///x", "https://user:pass@example.com/", "http://example.com/", "https://%zz/",
		"https://127.0.0.1/", "https://10.0.0.1/", "https://169.254.169.254/latest/meta-data", "https://192.168.1.1/", "https://100.64.0.1/", "https://0.0.0.0/",
		"https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[fd00::1]/", "https://[fe80::1%25eth0]/", "https://[64:ff9b::7f00:1]/",
	} {
		require.Error(t, strict.Check(bad), bad)
	}
	open := outbound.New([]netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")})
	for _, ok := range []string{"http://10.1.2.3:9000/", "https://10.1.2.3/", "http://receiver.internal/"} {
		require.NoError(t, open.Check(ok), ok)
	}
	for _, bad := range []string{"http://10.2.0.1/", "https://10.2.0.1/", "http://8.8.8.8/"} {
		require.Error(t, open.Check(bad), bad)
	}
}

// TestDial: names and redirects that lead to this machine are refused when they are dialled.
func TestDial(t *testing.T) {
	reached := 0
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached++
		if to := r.URL.Query().Get("to"); to != "" {
			http.Redirect(w, r, to, http.StatusFound)
		}
	}))
	defer plain.Close()
	secure := httptest.NewTLSServer(plain.Config.Handler)
	defer secure.Close()
	get := func(c *outbound.Caller, follow bool, url string) (int, error) {
		client := c.Client(follow)
		defer client.CloseIdleConnections()
		resp, err := client.Get(url)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	byName := func(url string) string { return strings.Replace(url, "127.0.0.1", "localhost", 1) }

	strict := outbound.New(nil)
	for _, url := range []string{plain.URL, secure.URL, byName(plain.URL), byName(secure.URL)} {
		_, err := get(strict, true, url)
		require.ErrorIs(t, err, outbound.ErrForbidden, url)
	}
	require.Zero(t, reached)

	here := outbound.New([]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("::1/128")})
	status, err := get(here, true, byName(plain.URL))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	status, err = get(here, false, plain.URL+"?to=https://example.com/")
	require.NoError(t, err)
	require.Equal(t, http.StatusFound, status, "redirects are the caller's affair")
	for _, to := range []string{"http://127.0.0.2/", "https://10.0.0.1/", "http://8.8.8.8/", "ftp://127.0.0.1/"} {
		_, err = get(here, true, plain.URL+"?to="+to)
		require.ErrorIs(t, err, outbound.ErrForbidden, to)
	}
	_, err = get(here, true, plain.URL+"?to="+plain.URL+"?to=/loop")
	require.NoError(t, err)
}
