package activities_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

func pngBytes(t *testing.T, w, h int) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, image.NewRGBA(image.Rect(0, 0, w, h))))
	return b.Bytes()
}

// withText puts a text chunk behind a PNG's header, as ComfyUI does with the graph.
func withText(raw []byte, text string) []byte {
	data := append([]byte("tEXt"), "prompt\x00"+text...)
	chunk := binary.BigEndian.AppendUint32(nil, uint32(len(data)-4))
	chunk = append(chunk, data...)
	chunk = binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(data))
	head := 8 + 25 // signature and IHDR
	return append(append(append([]byte(nil), raw[:head]...), chunk...), raw[head:]...)
}

// webp builds a RIFF container of the given chunks.
func webp(chunks ...[]byte) []byte {
	body := []byte("WEBP")
	for _, c := range chunks {
		body = append(body, c...)
	}
	return append(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(len(body))), body...)
}

func chunk(name string, data ...byte) []byte {
	c := append(binary.LittleEndian.AppendUint32([]byte(name), uint32(len(data))), data...)
	if len(data)%2 == 1 {
		c = append(c, 0)
	}
	return c
}

// served makes the double hand out these bytes for every file.
func (b *bench) served(raw []byte, size int64) {
	b.double.open = func(backend.File) (io.ReadCloser, int64, error) {
		return io.NopCloser(bytes.NewReader(raw)), size, nil
	}
}

func collectInput(name string) activities.CollectInput {
	return activities.CollectInput{JobID: "job-1", Outcome: backend.Outcome{
		Handle: backend.Handle{Pool: "url"},
		Files:  []backend.File{{NodeID: "9", Key: "images", Filename: name, Subfolder: "a/b", Folder: "output"}},
	}}
}

func TestCollectStoresWhatItDescribes(t *testing.T) {
	b := newBench(t)
	raw := pngBytes(t, 31, 17)
	b.served(raw, int64(len(raw)))
	var c activities.Collected
	require.NoError(t, b.do(t, comfy.ActivityCollect, collectInput("x.png"), &c))
	require.Len(t, c.Images, 1)
	o := c.Images[0]
	require.Equal(t, raw, b.store.blobs[o.Ref])
	require.Equal(t, "outputs/job-1/"+o.SHA256, o.Ref)
	require.Equal(t, []any{"x.png", "a/b", "9", "image/png", int64(len(raw)), 31, 17},
		[]any{o.Filename, o.Subfolder, o.NodeID, o.ContentType, o.SizeBytes, o.Width, o.Height})
}

func TestCollectKeepsOddJobIDsInTheirOwnFolder(t *testing.T) {
	raw := pngBytes(t, 3, 3)
	seen := map[string]bool{}
	for _, id := range []string{"../other", "a/b", "a b", ".hidden", "ä", strings.Repeat("x", 900)} {
		b := newBench(t)
		b.served(raw, -1)
		in := collectInput("x.png")
		in.JobID = id
		var c activities.Collected
		require.NoError(t, b.do(t, comfy.ActivityCollect, in, &c))
		require.Regexp(t, `^outputs/~[0-9a-f]{64}/[0-9a-f]{64}$`, c.Images[0].Ref)
		seen[c.Images[0].Ref] = true
	}
	require.Len(t, seen, 6)
}

func TestCollectTellsImagesFromOtherFiles(t *testing.T) {
	for name, c := range map[string]struct {
		raw   string
		image bool
		typ   string
	}{
		"clip.mp4":     {"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2", false, "video/mp4"},
		"sound.flac":   {"fLaC\x00\x00\x00\x22", false, "audio/flac"},
		"x.latent":     {"\x01\x02\x03\x04\x00", false, "application/octet-stream"},
		"anim.gif":     {"GIF89a\x01\x00\x01\x00\x00\x00\x00;", true, "image/gif"},
		"page.svg":     {"<svg xmlns=\"http://www.w3.org/2000/svg\"></svg>", true, "image/svg+xml"},
		"noextension":  {"hello", false, "text/plain; charset=utf-8"},
		"graph.json":   {`{"a": 1}`, false, "application/json"},
		"picture.webp": {string(webp(chunk("VP8L", 0x2f, 0, 0, 0, 0))), true, "image/webp"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.served([]byte(c.raw), -1)
			var got activities.Collected
			require.NoError(t, b.do(t, comfy.ActivityCollect, collectInput(name), &got))
			all := append(got.Images, got.Files...)
			require.Len(t, all, 1)
			require.Equal(t, c.typ, all[0].ContentType)
			require.Equal(t, c.image, len(got.Images) == 1)
		})
	}
}

func TestCollectNeverStoresABrokenFile(t *testing.T) {
	whole := pngBytes(t, 64, 64)
	damaged := bytes.Clone(whole)
	damaged[len(damaged)/2] ^= 0xff
	var jpg bytes.Buffer
	require.NoError(t, jpeg.Encode(&jpg, image.NewRGBA(image.Rect(0, 0, 64, 64)), nil))
	w := webp(chunk("VP8L", 0x2f, 0, 0, 0, 0))
	for name, c := range map[string]struct {
		raw  []byte
		size int64
	}{
		"empty":                   {nil, 0},
		"shorter than announced":  {whole, int64(len(whole)) + 1},
		"a PNG that is cut":       {whole[:len(whole)-5], -1},
		"a PNG in its signature":  {whole[:8], -1},
		"a PNG with a bad sum":    {damaged, -1},
		"a JPEG that is cut":      {jpg.Bytes()[:jpg.Len()-2], -1},
		"a WebP that is cut":      {w[:len(w)-2], -1},
		"announced by the server": {whole[:100], int64(len(whole))},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.served(c.raw, c.size)
			f, final := failure(t, b.do(t, comfy.ActivityCollect, collectInput("x.png"), nil))
			require.Equal(t, comfy.OutputLost, f.Code)
			require.Equal(t, "9", f.NodeID)
			require.False(t, final, "it is fetched again first")
			require.Empty(t, b.store.blobs)
		})
	}
}

func TestCollectTellsTheStoresFaultsFromTheBackends(t *testing.T) {
	t.Run("a frame that the store holds", func(t *testing.T) {
		b := newBench(t)
		blob, err := b.store.PutHashed(t.Context(), "outputs/job-1/", bytes.NewReader(pngBytes(t, 8, 8)))
		require.NoError(t, err)
		b.store.cut = true
		in := collectInput("x.png")
		in.Outcome.Files[0].Blob = &blob
		f, final := failure(t, b.do(t, comfy.ActivityCollect, in, nil))
		require.Equal(t, comfy.Storage, f.Code)
		require.False(t, final)
	})
	b := newBench(t)
	raw := pngBytes(t, 8, 8)
	b.served(raw, -1)
	b.store.err = errors.New("no space left on device")
	f, _ := failure(t, b.do(t, comfy.ActivityCollect, collectInput("x.png"), nil))
	require.Equal(t, comfy.Storage, f.Code)
	require.NotContains(t, f.Message, "device", "a server's words stay in the log")

	b.double.open = func(backend.File) (io.ReadCloser, int64, error) {
		return nil, 0, backend.Errorf(comfy.OutputLost, "it is gone")
	}
	f, _ = failure(t, b.do(t, comfy.ActivityCollect, collectInput("x.png"), nil))
	require.Equal(t, comfy.OutputLost, f.Code)
	require.True(t, f.Again)

	b.double.open = func(backend.File) (io.ReadCloser, int64, error) {
		return nil, 0, backend.Errorf(comfy.BackendUnavailable, "no answer")
	}
	f, final := failure(t, b.do(t, comfy.ActivityCollect, collectInput("x.png"), nil))
	require.Equal(t, comfy.OutputLost, f.Code, "what it means for the job, should it stay so")
	require.False(t, final)
}

func TestCollectUsesWhatIsStoredAlready(t *testing.T) {
	b := newBench(t)
	raw := pngBytes(t, 5, 5)
	b.store.blobs["outputs/job-1/frame"] = raw
	in := collectInput("frame.png")
	in.Outcome.Files[0].Blob = &comfy.Blob{Key: "outputs/job-1/frame", Size: int64(len(raw))}
	var c activities.Collected
	require.NoError(t, b.do(t, comfy.ActivityCollect, in, &c))
	require.Equal(t, 5, c.Images[0].Width)
}

func TestStripMetadata(t *testing.T) {
	plain := pngBytes(t, 40, 30)
	exif := webp(chunk("VP8X", 0x0c, 0, 0, 0, 0, 0, 0, 0, 0, 0), chunk("VP8L", 0x2f, 0, 0, 0, 0), chunk("EXIF", []byte("Make: prompt")...), chunk("XMP ", 1))
	for name, c := range map[string]struct{ in, want []byte }{
		"png with the graph":  {withText(plain, `{"3": "a secret prompt"}`), plain},
		"png without":         {plain, plain},
		"webp with the graph": {exif, webp(chunk("VP8X", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), chunk("VP8L", 0x2f, 0, 0, 0, 0))},
		"something else":      {[]byte("fLaC...."), []byte("fLaC....")},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.served(c.in, int64(len(c.in)))
			in := collectInput("x")
			in.StripMetadata = true
			var got activities.Collected
			require.NoError(t, b.do(t, comfy.ActivityCollect, in, &got))
			o := append(got.Images, got.Files...)[0]
			require.Equal(t, c.want, b.store.blobs[o.Ref])
			require.Equal(t, int64(len(c.want)), o.SizeBytes)
		})
	}
	cut := withText(plain, strings.Repeat("x", 1000))[:100]
	b := newBench(t)
	b.served(cut, -1)
	in := collectInput("x.png")
	in.StripMetadata = true
	f, _ := failure(t, b.do(t, comfy.ActivityCollect, in, nil))
	require.Equal(t, comfy.OutputLost, f.Code, "a file that is cut inside what is stripped is lost all the same")
}
