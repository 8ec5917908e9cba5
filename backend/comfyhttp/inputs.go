package comfyhttp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"path"
	"strings"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// upload streams an input to the server and returns the path under which ComfyUI has put it.
func (s *server) upload(ctx context.Context, at string, in backend.Input) (string, error) {
	body, err := in.Open(ctx)
	if err != nil {
		return "", &backend.Error{Code: comfy.Storage, Message: fmt.Sprintf("the input %q cannot be read from the store", in.Name), Cause: err}
	}
	defer body.Close()
	sum := &sumReader{r: body, sum: sha256.New()}
	got, err := s.put(ctx, RemotePath{Folder: "input", Subfolder: path.Dir(at), Filename: path.Base(at)}, sum, in.Size)
	if sum.err != nil {
		return "", &backend.Error{Code: comfy.Storage, Message: fmt.Sprintf("the input %q cannot be read from the store", in.Name), Cause: sum.err}
	}
	if err != nil {
		var ce *callError
		if errors.As(err, &ce) && ce.status == http.StatusRequestEntityTooLarge {
			return "", backend.Errorf(comfy.InvalidWorkflow, "the input %q (%d bytes) is larger than this ComfyUI takes; raise its --max-upload-size", in.Name, in.Size)
		}
		if ce != nil && ce.refused {
			s.down(ctx, err) // until the next probe, nobody else need try
		}
		return "", &backend.Error{Code: comfy.BackendUnavailable, Message: fmt.Sprintf("the input %q could not be sent to ComfyUI", in.Name), Cause: err}
	}
	if found := hex.EncodeToString(sum.sum.Sum(nil)); sum.n != in.Size || found != in.SHA256 {
		return "", backend.Errorf(comfy.Storage, "the input %q is not what it was when it was sent: the store gave other bytes", in.Name)
	}
	if got.Folder != "input" || got.Filename == "" {
		return "", backend.Errorf(comfy.BackendUnavailable, "ComfyUI did not put the input %q where it was told to", in.Name)
	}
	return path.Join(got.Subfolder, got.Filename), nil
}

// sumReader hashes what passes, and keeps the reader's own error apart from those of the connection.
type sumReader struct {
	r   io.Reader
	sum hash.Hash
	n   int64
	err error
}

func (r *sumReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.sum.Write(p[:n])
	r.n += int64(n)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// put writes a file through POST /upload/image, which takes any file, and returns what ComfyUI says it has written.
func (s *server) put(ctx context.Context, to RemotePath, content io.Reader, size int64) (RemotePath, error) {
	var head bytes.Buffer
	form := multipart.NewWriter(&head)
	for _, field := range [][2]string{{"type", to.Folder}, {"subfolder", to.Subfolder}, {"overwrite", "true"}} {
		if err := form.WriteField(field[0], field[1]); err != nil {
			return RemotePath{}, err
		}
	}
	header := textproto.MIMEHeader{}
	header.Set("Content-Disposition", `form-data; name="image"; filename="`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(to.Filename)+`"`)
	header.Set("Content-Type", "application/octet-stream")
	if _, err := form.CreatePart(header); err != nil {
		return RemotePath{}, err
	}
	tail := "\r\n--" + form.Boundary() + "--\r\n"

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	idle := newIdleTimer(s.t.idle, cancel)
	defer idle.stop()
	body := io.MultiReader(&head, touching{io.LimitReader(content, size+1), idle}, strings.NewReader(tail))
	res, err := s.request(ctx, http.MethodPost, "/upload/image", nil, body, int64(head.Len())+size+int64(len(tail)), form.FormDataContentType())
	if err != nil {
		return RemotePath{}, idle.explain(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return RemotePath{}, statusError(res)
	}
	var answer struct {
		Name      string `json:"name"`
		Subfolder string `json:"subfolder"`
		Type      string `json:"type"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&answer); err != nil {
		return RemotePath{}, &callError{status: http.StatusOK, why: "the answer to /upload/image is not what a ComfyUI sends", err: err}
	}
	return RemotePath{Folder: answer.Type, Subfolder: answer.Subfolder, Filename: answer.Name}, nil
}
