package modal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/require"
)

func packed(t testing.TB, manifest string, files []byte) []byte {
	data, err := cbor.Marshal(append([]byte(manifest+"\n"), files...))
	require.NoError(t, err)
	return data
}

// TestManifest reads heads of every length, and does not look beyond the first line.
func TestManifest(t *testing.T) {
	for _, size := range []int{0, 10, 200, 300, 70_000} {
		manifest := `{"v":1,"end":"barred","started_ms":7}`
		data := packed(t, manifest, bytes.Repeat([]byte{'\n'}, size))
		m, base, err := readManifest(bytes.NewReader(data))
		require.NoError(t, err)
		require.Equal(t, "barred", m.End)
		require.EqualValues(t, 7, m.StartedMS)
		require.EqualValues(t, len(data)-size, base)
	}
	data := packed(t, `{"v":1,"end":"history","history":{"outputs":{"1":{"text":["é\n"],"x":[NaN]}}},"pad":"`+strings.Repeat("x", 3*firstPart)+`"}`, []byte("abc"))
	m, base, err := readManifest(bytes.NewReader(data))
	require.NoError(t, err)
	require.EqualValues(t, len(data)-3, base)
	require.JSONEq(t, `{"text":["é\n"],"x":[null]}`, string(m.History.Outputs["1"]))
}

func TestManifestOfAnother(t *testing.T) {
	text, err := cbor.Marshal("a text")
	require.NoError(t, err)
	for says, data := range map[string][]byte{
		"it is empty":                        {},
		"no byte string":                     text,
		"no manifest: \"abc\"":               {0x43, 'a', 'b', 'c'},
		"its first line is no manifest":      {0x43, 'a', 'b', '\n'},
		"of version 2":                       packed(t, `{"v":2}`, nil),
		"no byte string: its first byte is ": {0x5f, 0x41, 'a', 0xff}, // in chunks
	} {
		_, _, err := readManifest(bytes.NewReader(data))
		var not *foreign
		require.ErrorAs(t, err, &not, says)
		require.ErrorContains(t, err, says)
	}
	_, _, err = readManifest(io.MultiReader(bytes.NewReader([]byte{0x45, 'a'}), &broken{}))
	var not *foreign
	require.False(t, errors.As(err, &not), "a connection that broke says nothing about the result: %v", err)
}

type broken struct{}

func (*broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// blobs serves one blob, in the way of S3 or of a server that knows no Range, and counts what it sends.
func blobs(t *testing.T, data []byte, ranges bool) (b *Backend, url string, asked *[]string) {
	asked = new([]string)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.Header.Get("Range"))
		if !ranges {
			_, _ = w.Write(data)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(s.Close)
	return &Backend{http: s.Client(), t: defaultTiming()}, s.URL, asked
}

func TestPartsOfABlob(t *testing.T) {
	data := make([]byte, 9*firstPart+firstPart/2)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	for _, ranges := range []bool{true, false} {
		t.Run(fmt.Sprint(ranges), func(t *testing.T) {
			b, url, asked := blobs(t, data, ranges)
			for _, c := range [][2]int64{{0, 1}, {0, -1}, {5, 10}, {100_000, 50_000}, {int64(len(data)) - 3, 3}, {int64(len(data)) - 3, -1}} {
				r, err := b.get(t.Context(), url, c[0], c[1])
				require.NoError(t, err)
				got, err := io.ReadAll(r)
				require.NoError(t, err)
				require.NoError(t, r.Close())
				end := c[0] + c[1]
				if c[1] < 0 {
					end = int64(len(data))
				}
				require.True(t, bytes.Equal(data[c[0]:end], got), "%v: %d bytes", c, len(got))
			}
			*asked = nil
			g := newGrowing(func(off, n int64) (io.ReadCloser, error) { return b.get(t.Context(), url, off, n) })
			got, err := io.ReadAll(g)
			require.NoError(t, err)
			require.True(t, bytes.Equal(data, got))
			require.Len(t, *asked, 3)
			require.Equal(t, "bytes=0-65535", (*asked)[0])
		})
	}
}

// TestPartsThatEndWithTheBlob: the part after the last one is refused by S3 with 416, which is the end and no error.
func TestPartsThatEndWithTheBlob(t *testing.T) {
	data := bytes.Repeat([]byte("abcdefgh"), firstPart/8)
	b, url, asked := blobs(t, data, true)
	got, err := io.ReadAll(newGrowing(func(off, n int64) (io.ReadCloser, error) { return b.get(t.Context(), url, off, n) }))
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.Len(t, *asked, 2)
}

func TestBlobErrors(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/gone":
			w.WriteHeader(http.StatusNotFound)
		case "/denied":
			w.WriteHeader(http.StatusForbidden)
		case "/other":
			w.Header().Set("Content-Range", "bytes 7-8/20")
			w.WriteHeader(http.StatusPartialContent)
		case "/cut":
			w.Header().Set("Content-Length", "10")
			_, _ = w.Write([]byte("abc"))
		case "/stuck":
			_, _ = w.Write([]byte("abc"))
			w.(http.Flusher).Flush()
			<-release
		}
	}))
	defer s.Close()
	defer close(release)
	b := &Backend{http: s.Client(), t: defaultTiming()}
	get := func(path string) (io.ReadCloser, error) {
		return b.get(t.Context(), s.URL+path+"?signature=secret", 2, 3)
	}
	_, err := get("/gone")
	require.ErrorIs(t, err, errGone)
	_, err = get("/denied")
	require.ErrorContains(t, err, "403")
	_, err = get("/other")
	require.ErrorContains(t, err, "bytes 7-8/20")
	r, err := get("/cut")
	require.NoError(t, err)
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.NoError(t, r.Close())
	r, err = get("/stuck")
	require.NoError(t, err)
	r.(*download).after = 50 * time.Millisecond // of the body alone: the answer's head comes
	_, err = io.ReadAll(r)
	require.ErrorContains(t, err, "sent nothing for 50ms")
	require.NoError(t, r.Close())
	b.http = &http.Client{Transport: refusing{}}
	_, err = get("/")
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
}

type refusing struct{}

func (refusing) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, context.DeadlineExceeded
}

// TestFileBody: a body that is short, or of other bytes, is no body.
func TestFileBody(t *testing.T) {
	data := []byte("twelve bytes")
	sum := sha256.Sum256(data)
	read := func(body string, want entry) error {
		_, err := io.ReadAll(&fileBody{body: io.NopCloser(strings.NewReader(body)), want: want, sum: sha256.New()})
		return err
	}
	want := entry{Size: 12, SHA256: hex.EncodeToString(sum[:])}
	require.NoError(t, read("twelve bytes", want))
	require.ErrorIs(t, read("twelve", want), io.ErrUnexpectedEOF)
	require.ErrorContains(t, read("twelve bites", want), "other bytes")
}

func TestIndex(t *testing.T) {
	m := new(manifest)
	require.NoError(t, json.Unmarshal([]byte(`{"files":[{"folder":"output","subfolder":"s","filename":"a.png","size":1,"offset":5}],
		"frames":[{"node":"9","ext":".png","size":2,"offset":6},{"node":"9","ext":".jpg","size":3,"offset":8}]}`), m))
	x := newIndex(m, 100)
	require.Len(t, x.files, 3)
	require.EqualValues(t, 8, x.files[place{node: "9", filename: "node_9_00002.jpg"}].Offset)
	require.EqualValues(t, 5, x.files[place{folder: "output", subfolder: "s", filename: "a.png"}].Offset)
}
