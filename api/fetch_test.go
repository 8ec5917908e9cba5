package api

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/outbound"
)

// here allows this machine, and nothing else that is private.
func here(o *Options) {
	o.Outbound = outbound.New([]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")})
}

// source is a server with files. It counts who asks.
type source struct {
	*httptest.Server
	asked   atomic.Int64
	referer atomic.Int64
	hold    chan struct{}
	release func() // of those who are held
}

func newSource(t *testing.T) *source {
	s := &source{hold: make(chan struct{})}
	s.release = sync.OnceFunc(func() { close(s.hold) })
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		if r.Referer() != "" {
			s.referer.Add(1)
		}
		switch r.URL.Path {
		case "/picture":
			_, _ = w.Write(picture(nil, 2, 2))
		case "/changes":
			_, _ = w.Write(picture(nil, int(s.asked.Load()), 1))
		case "/latent":
			_, _ = w.Write([]byte("\x08\x00\x00\x00\x00\x00\x00\x00{}"))
		case "/bomb":
			_, _ = w.Write(bomb(60_000, 60_000))
		case "/page":
			w.Header().Set("Content-Type", "image/png")
			_, _ = w.Write([]byte("<!DOCTYPE html><html><body>Sign in</body></html>"))
		case "/large":
			w.Header().Set("Content-Length", "1073741824")
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/endless":
			_, _ = w.Write(picture(nil, 2, 2))
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		case "/half":
			w.Header().Set("Content-Length", "4096")
			_, _ = w.Write(picture(nil, 2, 2))
		case "/packed":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte("x"))
		case "/empty":
		case "/silent", "/stalls":
			if r.URL.Path == "/stalls" {
				_, _ = w.Write(picture(nil, 2, 2))
				_ = http.NewResponseController(w).Flush()
			}
			select {
			case <-s.hold:
			case <-r.Context().Done():
			}
		case "/to":
			http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	t.Cleanup(s.release)
	return s
}

func picture(t *testing.T, w, h int) []byte {
	var buf bytes.Buffer
	if err := png.Encode(&buf, image.NewGray(image.Rect(0, 0, w, h))); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// bomb is the beginning of a PNG that says it is so large.
func bomb(w, h uint32) []byte {
	header := binary.BigEndian.AppendUint32([]byte("IHDR"), w)
	header = append(binary.BigEndian.AppendUint32(header, h), 8, 2, 0, 0, 0)
	all := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), header...)
	return binary.BigEndian.AppendUint32(all, crc32.ChecksumIEEE(header))
}

func withImages(urls ...string) string {
	var images []imageField
	for i, u := range urls {
		images = append(images, imageField{Name: fmt.Sprintf("%d.png", i), Image: u})
	}
	raw, _ := json.Marshal(images)
	return `{"workflow":` + graphJSON + `,"images":` + string(raw) + `}`
}

func TestSubmitFetchesImages(t *testing.T) {
	h := newHarness(t, here)
	s := newSource(t)
	body := `{"workflow":` + graphJSON + `,"images":[{"name":"a.png","image":"` + s.URL + `/picture?key=1"},{"name":"b.png","image":"aGVsbG8="},
		{"name":"c.latent","image":" ` + s.URL + `/to?to=/latent "}]}`
	a := h.submit(body)
	require.Equal(t, 202, a.status, "%s", a.raw)
	run, err := h.temporal.get(a.body["id"].(string))
	require.NoError(t, err)
	require.Len(t, run.request.Images, 3)
	for i, want := range [][]byte{picture(t, 2, 2), []byte("hello"), []byte("\x08\x00\x00\x00\x00\x00\x00\x00{}")} {
		in := run.request.Images[i]
		require.Equal(t, want, h.store.objects[in.Ref])
		require.Equal(t, comfy.Input{Name: in.Name, Ref: "inputs/a/" + in.SHA256, SHA256: in.SHA256, Size: int64(len(want))}, in)
	}
	require.NotContains(t, fmt.Sprint(run.request, run.options), s.URL, "no address stands in Temporal: it may hold a secret")

	require.Zero(t, s.referer.Load(), "nor does the next host of a redirect learn it")

	up := h.do("POST", "/inputs", `{"name":"a.png","image":"`+s.URL+`/picture"}`)
	require.Equal(t, 201, up.status, "%s", up.raw)
	require.Equal(t, run.request.Images[0].Ref, up.body["ref"])
}

// TestFetchesAtOnce: a tenant's are bounded, and no other tenant waits for them.
func TestFetchesAtOnce(t *testing.T) {
	h := newTunedHarness(t, func(s *Server) { s.fetcher.silence = time.Minute }, here)
	s := newSource(t)
	var slow []string
	for range 2 * fetchesOfOne {
		slow = append(slow, s.URL+"/silent")
	}
	var wg sync.WaitGroup
	for range 2 * fetchesAtOnce / fetchesOfOne {
		wg.Go(func() {
			require.Equal(t, 422, h.submit(withImages(slow...)).status, "what came is empty")
		})
	}
	require.Eventually(t, func() bool { return s.asked.Load() == fetchesAtOnce }, 30*time.Second, time.Millisecond)
	other := h.submit(withImages(s.URL+"/picture"), "Authorization", "Bearer "+keyB)
	require.Equal(t, 202, other.status, "%s", other.raw)
	require.EqualValues(t, fetchesAtOnce+1, s.asked.Load())
	s.release()
	wg.Wait()
	require.Len(t, h.temporal.runs, 1)
}

// TestFetchesHoldLittle: requests that wait for files which never come cannot fill the memory, whatever else they bring.
func TestFetchesHoldLittle(t *testing.T) {
	h := newTunedHarness(t, func(s *Server) { s.fetcher.silence = time.Minute }, here, func(o *Options) { o.BodyLimit = 1 << 20 })
	s := newSource(t)
	long := strings.Repeat("x", 400<<10)
	with := func(url string) string {
		return `{"workflow":{"1":{"class_type":"A","inputs":{"text":"` + long + `"}}},"images":[{"name":"1.png","image":"` + url + `"}]}`
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { require.Equal(t, 422, h.submit(with(s.URL+"/silent")).status, "what came is empty") })
	}
	require.Eventually(t, func() bool { return s.asked.Load() == 2 }, 30*time.Second, time.Millisecond)
	h.requireError(h.submit(with(s.URL+"/picture")), 429, CodeRateLimited)
	require.Equal(t, 202, h.submit(withImages(s.URL+"/picture")).status, "a small one has room")
	require.Equal(t, 202, h.submit(with("aGVsbG8=")).status, "one that waits for nothing needs none")
	require.Equal(t, 202, h.submit(with(s.URL+"/picture"), "Authorization", "Bearer "+keyB).status, "nor is another tenant kept out")
	s.release()
	wg.Wait()
	require.Equal(t, 202, h.submit(with(s.URL+"/picture")).status)

	images := []imageField{{Name: "a", Image: "aGVsbG8="}, {Name: "b", Image: "https://example.com/b"}}
	_, err := h.server.storeImages(t.Context(), "a", images)
	require.NoError(t, err)
	require.Equal(t, []imageField{{Name: "a"}, {Name: "b", Image: "https://example.com/b"}}, images, "what is stored is not held")
}

// TestFetchIdempotency: the address is what the request says, whatever is there by now.
func TestFetchIdempotency(t *testing.T) {
	h := newHarness(t, here)
	h.setClock(time.Now()) // links are the same in each answer
	s := newSource(t)
	body := withImages(s.URL + "/changes?a=1")
	first := h.submit(body, "Idempotency-Key", "k")
	require.Equal(t, 202, first.status, "%s", first.raw)
	again := h.submit(body, "Idempotency-Key", "k")
	require.Equal(t, "true", again.header.Get("Idempotent-Replayed"))
	require.Equal(t, first.body, again.body)
	require.EqualValues(t, 1, s.asked.Load(), "a repeated request fetches nothing")
	h.requireError(h.submit(withImages(s.URL+"/changes?a=2"), "Idempotency-Key", "k"), 422, CodeIdempotencyKeyReuse)
	require.EqualValues(t, 1, s.asked.Load())
	h.catalogs.refuse.Store(&comfy.Failure{Code: comfy.InvalidWorkflow, Message: "no such class"})
	h.requireError(h.submit(body), 400, CodeInvalidWorkflow)
	require.EqualValues(t, 1, s.asked.Load(), "nor does one that no backend would run")
}

func TestFetchRefusals(t *testing.T) {
	after := func(silence time.Duration) *harness {
		return newTunedHarness(t, func(s *Server) { s.fetcher.silence = silence }, here, func(o *Options) { o.BodyLimit = 1 << 20 })
	}
	h, hasty := after(time.Minute), after(time.Second)
	s := newSource(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(untrusted.Close)
	for name, c := range map[string]struct{ url, text string }{
		"missing":      {s.URL + "/nothing", "answered 404 Not Found"},
		"page":         {s.URL + "/page", "is no picture: its bytes are text/html"},
		"latent":       {s.URL + "/latent", "is no picture: its bytes are application/octet-stream"},
		"bomb":         {s.URL + "/bomb", "60000 x 60000 pixels"},
		"large":        {s.URL + "/large", "too large"},
		"endless":      {s.URL + "/endless", "too large"},
		"half":         {s.URL + "/half", "broke off"},
		"packed":       {s.URL + "/packed", "compressed"},
		"empty":        {s.URL + "/empty", "empty"},
		"silent":       {s.URL + "/silent", "sent nothing for 1s"},
		"stalls":       {s.URL + "/stalls", "sent nothing for 1s"},
		"loop":         {s.URL + "/loop", "more than 5 redirects"},
		"refused":      {gone.URL, "the connection was refused"},
		"untrusted":    {untrusted.URL, "certificate"},
		"unknown host": {"https://comfyd.invalid/x", "cannot be found"},
		"no host":      {"https:///x", "names no host"},
		"password":     {"https://user:pass@example.com/x", "carries a user name"},
		"long":         {"https://example.com/" + strings.Repeat("x", maxURL), "at most 4096"},
	} {
		t.Run(name, func(t *testing.T) {
			h, first := h, s.URL+"/picture"
			if strings.HasPrefix(c.text, "sent nothing") {
				h, first = hasty, "aGVsbG8="
			}
			h.t = t
			began := time.Now()
			a := h.submit(withImages(first, c.url+"?key=hunter2"))
			require.Less(t, time.Since(began), 50*time.Second)
			require.Equal(t, 422, a.status, "%s", a.raw)
			require.Contains(t, a.body["error"], "images[1] (1.png): ")
			require.Contains(t, a.body["error"], c.text)
			require.NotContains(t, string(a.raw), "hunter2", "queries hold secrets")
			require.NotContains(t, string(a.raw), "pass@")
		})
	}
	for _, h := range []*harness{h, hasty} {
		require.Empty(t, h.temporal.runs, "nothing was started")
		require.NotContains(t, h.log.String(), "hunter2")
	}
}

// TestF26FetchesNothingPrivate: whatever is private is refused, however it is written and wherever it stands, and nobody
// is called.
func TestF26FetchesNothingPrivate(t *testing.T) {
	s := newSource(t)
	port := s.Listener.Addr().(interface{ AddrPort() netip.AddrPort }).AddrPort().Port()
	strict := newHarness(t)
	for _, host := range []string{
		"127.0.0.1", "127.1.2.3", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127.1", "0", "0.0.0.0", "localhost", "[::1]",
		"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.169.254", "[fd00::1]",
		"[fe80::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "224.0.0.1", "255.255.255.255",
	} {
		a := strict.submit(withImages(fmt.Sprintf("https://%s:%d/picture", host, port)))
		strict.requireError(a, 422, CodeInvalidInput)
		require.Contains(t, a.body["error"], "images[0] (0.png)", host)
	}
	for _, url := range []string{
		s.URL + "/picture", "file://localhost/etc/passwd", "FILE://x/etc/passwd", "ftp://example.com/a.png", "gopher://example.com/", "unix://x/run/x", "http://example.com/a.png",
	} {
		a := strict.submit(withImages(url))
		strict.requireError(a, 422, CodeInvalidInput)
		require.Contains(t, a.body["error"], outbound.ErrForbidden.Error(), url)
	}
	strict.requireError(strict.submit(withImages("file:///etc/passwd")), 422, CodeInvalidInput)
	require.Zero(t, s.asked.Load())

	other := newSource(t)
	h := newHarness(t, here)
	for _, to := range []string{
		"https://127.0.0.2/", "http://127.0.0.2/", strings.Replace(other.URL, "127.0.0.1", "127.0.0.3", 1), strings.Replace(other.URL, "127.0.0.1", "localhost.", 1) + "%00",
		"https://169.254.169.254/latest/meta-data", "https://10.0.0.1/", "file:///etc/passwd", "https://[::1]/", "http://2130706434/",
	} {
		a := h.submit(withImages(s.URL + "/to?to=" + to))
		h.requireError(a, 422, CodeInvalidInput)
	}
	require.Zero(t, other.asked.Load())
	require.Empty(t, h.temporal.runs)
}

// TestF22PixelBombs: however the file comes, its header is enough to refuse it.
func TestF22PixelBombs(t *testing.T) {
	h := newHarness(t)
	gif := append([]byte("GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00"), "\xff\xff\xff\xff\x00\x02"...)
	for name, raw := range map[string][]byte{"png": bomb(20_000, 20_000), "gif": gif} {
		a := h.do("POST", "/inputs?name=x.png", string(raw), "Content-Type", "image/png")
		h.requireError(a, 422, CodeInvalidInput)
		require.Contains(t, a.body["error"], "The picture ("+name+")")
	}
	require.Equal(t, 201, h.do("POST", "/inputs?name=x.png", string(bomb(13_000, 13_000)), "Content-Type", "image/png").status, "ComfyUI may judge what is cut")
	require.Len(t, h.store.objects, 1)
}
