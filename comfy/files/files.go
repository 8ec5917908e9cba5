// Package files opens what comfyd's jobs have made and uploads what they are to read, over comfyd's HTTP API: for the
// activities of workflows that run jobs as children. Results and inputs name files by reference, and no file passes
// through Temporal.
//
// Like package comfy it imports the standard library only. The full client, which repeats calls and saves whole jobs, is
// comfyd's package client.
package files

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
	"net/http"
	"net/url"
	"strings"

	"github.com/comfyd/comfyd/comfy"
)

// Client speaks to one comfyd with the key of the tenant to whom the children belong.
type Client struct {
	URL  string       // such as http://127.0.0.1:8080
	Key  string       // an API key
	HTTP *http.Client // nil means [http.DefaultClient]
}

// Error is what comfyd has answered instead.
type Error struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`
	Message string `json:"error"`
}

func (e *Error) Error() string {
	return fmt.Sprintf("comfyd answers %d %s: %s", e.Status, e.Code, e.Message)
}

// ErrCorrupt says that the bytes of an output are not those that its SHA-256 names.
var ErrCorrupt = errors.New("the output did not arrive whole")

// Open reads an output of a job. At its end the reader compares the SHA-256: only what was read to io.EOF is whole. The
// caller closes it.
func (c *Client) Open(ctx context.Context, out comfy.Output) (io.ReadCloser, error) {
	parts := strings.Split(out.Ref, "/")
	if len(parts) != 3 || parts[0]+"/" != comfy.OutputRoot || strings.HasPrefix(parts[1], "~") {
		return nil, fmt.Errorf("%q is no output that can be opened by its reference: the ID of its job must be up to 128 letters, digits, dots, dashes, underscores and colons", out.Ref)
	}
	res, err := c.do(ctx, http.MethodGet, "/outputs/"+url.PathEscape(parts[1])+"/"+url.PathEscape(parts[2]), nil)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", out.Ref, err)
	}
	return &checked{body: res.Body, sum: sha256.New(), want: out.SHA256}, nil
}

// Upload sends a file that jobs are to read, under the name that their graphs call it: an input image, or a graph that is
// too large for Temporal, whose Ref is then the WorkflowRef of a request.
func (c *Client) Upload(ctx context.Context, name string, r io.Reader) (comfy.Input, error) {
	res, err := c.do(ctx, http.MethodPost, "/inputs?name="+url.QueryEscape(name), r)
	if err != nil {
		return comfy.Input{}, fmt.Errorf("uploading %s: %w", name, err)
	}
	defer res.Body.Close()
	var in comfy.Input
	if err := json.NewDecoder(res.Body).Decode(&in); err != nil {
		return comfy.Input{}, fmt.Errorf("reading the answer to the upload of %s: %w", name, err)
	}
	return in, nil
}

// maxAnswer bounds what is read of an answer that is an error.
const maxAnswer = 64 << 10

func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(c.URL, "/")+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.Key)
	if body != nil {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	e := &Error{Status: res.StatusCode}
	if err != nil || json.Unmarshal(raw, e) != nil || e.Message == "" {
		e.Message = string(bytes.TrimSpace(raw[:min(len(raw), 200)]))
	}
	return nil, e
}

// checked hashes what is read.
type checked struct {
	body io.ReadCloser
	sum  hash.Hash
	want string
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.body.Read(p)
	c.sum.Write(p[:n])
	if errors.Is(err, io.EOF) && hex.EncodeToString(c.sum.Sum(nil)) != c.want {
		return n, ErrCorrupt
	}
	return n, err
}

func (c *checked) Close() error { return c.body.Close() }
