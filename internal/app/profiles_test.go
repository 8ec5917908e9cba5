package app

import (
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/config"
)

func TestProfiles(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	log := logrus.New()
	log.SetOutput(io.Discard)
	a := New(&config.Config{PprofListen: address}, Serve, "test", log)
	require.ErrorContains(t, a.profiles(), "COMFYD_PPROF_LISTEN="+address, "the port is taken")
	require.NoError(t, l.Close())
	require.NoError(t, a.profiles())
	for _, name := range []string{"heap", "block", "mutex", "goroutine"} {
		res, err := http.Get("http://" + address + "/debug/pprof/" + name)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, res.StatusCode, name)
		require.NoError(t, res.Body.Close())
	}
	a.Stop(t.Context())
	_, err = http.Get("http://" + address + "/debug/pprof/heap")
	require.Error(t, err, "stopped with the rest")

	a = New(&config.Config{}, Serve, "test", log)
	require.NoError(t, a.profiles())
	require.Empty(t, a.undo, "off unless asked for")
}
