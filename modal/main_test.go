package modal

import (
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// The SDK uploads inputs by http.DefaultClient, whose idle connections outlive it.
func TestMain(m *testing.M) {
	code := m.Run()
	if made.dir != "" {
		_ = os.RemoveAll(made.dir)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			println(err.Error())
			code = 1
		}
	}
	os.Exit(code)
}
