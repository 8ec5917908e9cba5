package modal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/comfyd/comfyd/backend/comfyui"
	"github.com/comfyd/comfyd/internal/catalog"
)

// maxManifest bounds the first line of a payload: a node may show a text of any length, and the history holds it.
const maxManifest = 64 << 20

// manifest is the first line of what the app's `run` returns; the bytes of the files follow it.
type manifest struct {
	V         int             `json:"v"`
	End       string          `json:"end"` // "history", "refused", "duplicate", "barred" or "failed"
	Container container       `json:"container"`
	Starts    int             `json:"starts"` // containers that have begun it, the last one included
	StartedMS int64           `json:"started_ms"`
	EndedMS   int64           `json:"ended_ms"`
	History   comfyui.History `json:"history"`
	Errors    []comfyui.Note  `json:"errors"`
	Files     []entry         `json:"files"`
	Frames    []entry         `json:"frames"`
	FramesGap bool            `json:"frames_gap"`

	Answer  json.RawMessage `json:"answer"`  // of "refused": what ComfyUI answered to /prompt
	CallID  string          `json:"call_id"` // of "duplicate"
	Code    string          `json:"code"`    // of "failed"
	Message string          `json:"message"`
}

// container is where a call has run.
type container struct {
	ID          string `json:"id"`
	GPU         string `json:"gpu"`
	ColdStartMS int64  `json:"cold_start_ms"`
}

// entry is a file in a payload. Offset counts from the byte after the manifest's line.
type entry struct {
	Folder    string `json:"folder"`
	Subfolder string `json:"subfolder"`
	Filename  string `json:"filename"`
	Node      string `json:"node"` // of a frame
	Ext       string `json:"ext"`
	Size      int64  `json:"size"`
	SHA256    string `json:"sha256"`
	Offset    int64  `json:"offset"`
	Missing   string `json:"missing"` // why it could not be read
}

// foreign is a result that no app of ours has made, or one of another version.
type foreign struct{ why string }

func (e *foreign) Error() string { return e.why }

// readManifest reads the head of a result: the CBOR head of a byte string, then the manifest's line. It reads little
// more than that. Base is where the files begin.
func readManifest(r io.Reader) (m *manifest, base int64, err error) {
	in := bufio.NewReader(r)
	head, err := byteString(in)
	if err != nil {
		return nil, 0, err
	}
	line, err := readLine(in)
	if err != nil {
		return nil, 0, err
	}
	m = new(manifest)
	if err := json.Unmarshal(catalog.Sanitize(line), m); err != nil {
		return nil, 0, &foreign{fmt.Sprintf("its first line is no manifest (%v): %.80q", err, line)}
	}
	if m.V != 1 {
		return nil, 0, &foreign{fmt.Sprintf("its manifest is of version %d, and this comfyd reads version 1", m.V)}
	}
	return m, int64(head + len(line)), nil
}

// byteString reads the head of a CBOR byte string of known length (RFC 8949, 3.1) and returns its own length.
func byteString(in *bufio.Reader) (int, error) {
	first, err := in.ReadByte()
	if err != nil {
		return 0, cut(err)
	}
	low := first & 0x1f
	if first>>5 != 2 || low > 27 {
		return 0, &foreign{fmt.Sprintf("it is no byte string: its first byte is %#02x", first)}
	}
	more := 0
	if low >= 24 {
		more = 1 << (low - 24)
	}
	if _, err := in.Discard(more); err != nil {
		return 0, cut(err)
	}
	return 1 + more, nil
}

// readLine reads to the end of the first line, which is part of what it returns.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line bytes.Buffer
	for line.Len() <= maxManifest {
		part, err := in.ReadSlice('\n')
		line.Write(part)
		switch {
		case err == nil:
			return line.Bytes(), nil
		case err == io.EOF:
			return nil, &foreign{fmt.Sprintf("it has no manifest: %.80q", line.Bytes())}
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, cut(err)
		}
	}
	return nil, &foreign{fmt.Sprintf("its manifest is longer than %d bytes", maxManifest)}
}

// cut is the error of a result that ends too soon.
func cut(err error) error {
	if err == io.EOF {
		return &foreign{"it is empty"}
	}
	return err
}

// index is where the files of a result lie.
type index struct {
	base  int64
	files map[place]entry
}

// place names a file of a result: a frame by its node, any other by its folders.
type place struct{ node, folder, subfolder, filename string }

func newIndex(m *manifest, base int64) *index {
	x := &index{base: base, files: map[place]entry{}}
	for _, f := range m.Files {
		x.files[place{folder: f.Folder, subfolder: f.Subfolder, filename: f.Filename}] = f
	}
	count := map[string]int{}
	for _, f := range m.Frames {
		count[f.Node]++
		x.files[place{node: f.Node, filename: comfyui.FrameName(f.Node, count[f.Node], f.Ext)}] = f
	}
	return x
}
