package api

import (
	"archive/zip"
	"bytes"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/comfy"
)

func TestZip(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	h.requireError(h.do("GET", "/outputs/"+id+".zip", ""), 404, CodeNotFound)
	first, second, empty := randomBytes(t, 300_000), randomBytes(t, 10), []byte{}
	h.complete(run, first, second, empty)
	run.result.Images[0].Filename, run.result.Images[1].Filename = "a.png", "A.png"
	run.result.Images[2].Filename, run.result.Images[2].Subfolder = `..\..\etc/x:y`, "../z"
	long := h.store.put("outputs/"+id+"/", []byte("a long text"))
	run.result.Texts = []comfy.Text{{NodeID: "7", Text: "short ü"}, {NodeID: "7", Ref: long.Key, Size: long.Size}}

	a := h.do("GET", "/status/"+id+"?output=url", "")
	link := a.body["zip_url"].(string)
	require.NotContains(t, h.do("GET", "/status/"+id, "").body, "zip_url", "what asks for base64 gets what it always got")
	got := h.do("GET", link, "", "Authorization", "")
	require.Equal(t, 200, got.status, "%s", got.raw)
	require.Equal(t, "application/zip", got.header.Get("Content-Type"))
	require.Equal(t, "attachment; filename=comfyd-"+id+".zip", got.header.Get("Content-Disposition"))
	require.Equal(t, strconv.Itoa(len(got.raw)), got.header.Get("Content-Length"))
	head := h.do("HEAD", link, "", "Authorization", "")
	require.Equal(t, got.header.Get("Content-Length"), head.header.Get("Content-Length"))

	z, err := zip.NewReader(bytes.NewReader(got.raw), int64(len(got.raw)))
	require.NoError(t, err)
	want := map[string][]byte{"a.png": first, "A-2.png": second, "etc/x_y": empty, "node-7.txt": []byte("short ü"), "node-7-2.txt": []byte("a long text")}
	require.Len(t, z.File, len(want))
	for _, f := range z.File {
		require.Equal(t, zip.Store, f.Method)
		require.WithinDuration(t, time.Now(), f.Modified, time.Minute)
		r, err := f.Open()
		require.NoError(t, err)
		raw, err := io.ReadAll(r) // checks the checksum, too
		require.NoError(t, err, f.Name)
		require.True(t, bytes.Equal(want[f.Name], raw), f.Name)
	}

	require.Equal(t, 200, h.do("GET", "/outputs/"+id+".zip", "").status, "the owner needs no signature")
	h.requireError(h.do("GET", "/outputs/"+id+".zip", "", "Authorization", ""), 401, CodeUnauthorized)
	h.requireError(h.do("GET", "/outputs/"+id+".zip", "", "Authorization", "Bearer "+keyB), 404, CodeNotFound)
	h.requireError(h.do("GET", strings.Replace(link, id, "other", 1), "", "Authorization", ""), 403, CodeInvalidLink)
	h.requireError(h.do("GET", "/outputs/"+id, ""), 404, CodeNotFound)
	delete(h.store.objects, run.result.Images[0].Ref)
	h.requireError(h.do("GET", link, "", "Authorization", ""), 500, CodeOutputLost)
	require.Zero(t, h.store.opened.Load(), "everything is closed")
}

func TestZipOfNothing(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	h.complete(run)
	require.NotContains(t, h.do("GET", "/status/"+id+"?output=url", "").body, "zip_url")
	h.requireError(h.do("GET", "/outputs/"+id+".zip", ""), 404, CodeNotFound)
	id, run = h.submitted()
	run.failure = endError(t, temporal.NewNonRetryableApplicationError("x", "node_failed", nil))
	h.finish(run, enums.WORKFLOW_EXECUTION_STATUS_FAILED)
	h.requireError(h.do("GET", "/outputs/"+id+".zip", ""), 404, CodeNotFound)
}

// TestZipPanics: a body is read where nobody else would catch a panic, which would end the process.
func TestZipPanics(t *testing.T) {
	z := &zipStream{src: &stream{log: logrus.New()}, files: []zipped{{name: "a"}}} // with no writer
	_, err := z.Read(make([]byte, 1))
	require.ErrorContains(t, err, "panic")
}

// TestZipSize: headers grow where files, and where they begin, lie beyond 4 GiB.
func TestZipSize(t *testing.T) {
	at := time.Now()
	for name, lengths := range map[string][]int64{"small": {0, 1, 70_000}, "a large file": {5, 1<<32 + 1, 7}, "a large archive": {1<<32 - 10, 100, 3}} {
		t.Run(name, func(t *testing.T) {
			var files []zipped
			for i, n := range lengths {
				files = append(files, zipped{"ü" + strconv.Itoa(i) + ".bin", piece{key: "k", length: n}})
			}
			var n counter
			w := zip.NewWriter(&n)
			zeros := make([]byte, 1<<20)
			for _, f := range files {
				out, err := w.CreateHeader(f.header(at))
				require.NoError(t, err)
				for left := f.piece.length; left > 0; left -= min(left, int64(len(zeros))) {
					_, err := out.Write(zeros[:min(left, int64(len(zeros)))])
					require.NoError(t, err)
				}
			}
			require.NoError(t, w.Close())
			size, err := zipSize(files, at)
			require.NoError(t, err)
			require.EqualValues(t, n, size)
		})
	}
}
