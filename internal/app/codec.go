package app

import (
	"net"
	"net/http"

	"github.com/comfyd/comfyd/api"
	"github.com/comfyd/comfyd/internal/codec"
	"github.com/comfyd/comfyd/internal/config"
)

// newCodec makes the codec of COMFYD_PAYLOAD_KEYS. Without keys there is one, too: it says what is wrong with a payload
// that it meets encrypted.
func newCodec(c *config.Config) (*codec.Codec, error) {
	var keys []codec.Key
	for _, k := range c.Payload {
		keys = append(keys, codec.Key{ID: k.ID, Secret: k.Secret})
	}
	return codec.New(keys, c.PlainPayloads)
}

// codecHandler lets the embedded Temporal UI decrypt; nil where there is nothing to.
func (a *App) codecHandler() http.Handler {
	if len(a.config.Payload) == 0 {
		return nil
	}
	return a.codec.Handler()
}

// codecServer is the API's part of it, for the UI of a cluster; nil where nobody may ask.
func (a *App) codecServer() *api.CodecServer {
	if a.config.Codec == "" {
		return nil
	}
	return &api.CodecServer{Codec: a.codec, Password: a.config.Codec, Origins: a.config.CodecOrigins}
}

// linkURL is where the Temporal UI finds a job's page: under the public URL, or where this process listens, if the UI is
// on the same machine.
func (a *App) linkURL() string {
	address, ok := a.listener.Addr().(*net.TCPAddr)
	if a.config.PublicURL != "" || !ok || !address.IP.IsLoopback() {
		return a.config.PublicURL
	}
	if a.config.TLSCert != "" {
		return "https://" + a.Address()
	}
	return "http://" + a.Address()
}

// temporalUI is where a person finds Temporal's pages: where the settings say, or the embedded ones.
func (a *App) temporalUI() string {
	if a.config.TemporalUIURL == "" && a.TemporalUI != "" {
		return "http://" + a.TemporalUI
	}
	return a.config.TemporalUIURL
}
