package modal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	sdk "github.com/modal-labs/modal-client/go"
)

// Report is what the deployed app says of itself: the answer of its function `check`.
type Report struct {
	// Secret says whether Hugging Face takes the app's token, Volume whether all listed models are there.
	Secret Finding `json:"secret"`
	Volume Finding `json:"volume"`
	// Sources says for each listed model whether it could be downloaded now.
	Sources []struct {
		Path string `json:"path"`
		Finding
	} `json:"sources"`
	// ComfyUI is the version in the image; Nodes are the node packs as the build has verified them.
	ComfyUI string `json:"comfyui"`
	Nodes   []struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		Finding
	} `json:"nodes"`
	// Settings are those of the deployment.
	Settings map[string]any `json:"settings"`
}

// Finding is one thing that was looked at. Where it is not OK, the message says what to do.
type Finding struct {
	OK      bool   `json:"ok"`
	Message string `json:"message"`
}

// Model is a model file on the app's Volume.
type Model struct {
	Path   string `json:"path"` // folder and name: "loras/x.safetensors"
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// Find asks Modal for the app. Its error says in a sentence what is wrong: the token, the app, the way to Modal.
func (b *Backend) Find(ctx context.Context) error {
	ctx, done := context.WithTimeout(ctx, b.t.call)
	defer done()
	if _, err := b.lookup(ctx); err != nil {
		return errors.New(b.explain(err))
	}
	return nil
}

// Check has the app look at its secret, Volume, models and node packs. No GPU is used.
func (b *Backend) Check(ctx context.Context) (*Report, error) {
	r := new(Report)
	return r, b.admin(ctx, "check", nil, r)
}

// AddModel has the app download one more model to its Volume, into one of ComfyUI's model folders. An empty name is that
// of the URL, an empty hash the one that the source publishes. What was downloaded before a failure is kept for the next
// try.
func (b *Backend) AddModel(ctx context.Context, url, folder, name, sha256 string) (*Model, error) {
	m := new(Model)
	return m, b.admin(ctx, "add_model", []any{url, folder, name, sha256}, m)
}

// admin calls a function of the app that answers in JSON.
func (b *Backend) admin(ctx context.Context, name string, args []any, into any) error {
	quick, done := context.WithTimeout(ctx, b.t.call)
	defer done()
	var fn *sdk.Function
	fn, err := b.client.sdk.Functions.FromName(quick, b.o.App, name, nil)
	if err != nil {
		return errors.New(b.explain(err))
	}
	var text string
	err = b.ask(ctx, fn, args, &text)
	var failed *callFailed
	switch {
	case errors.As(err, &failed):
		_, message, _, _ := exception(failed.item.GetResult().GetException())
		return fmt.Errorf("%s (%s at Modal: %s)", orElse(strings.TrimSpace(message), "no reason given"), name, statusName(failed.item))
	case err != nil:
		return errors.New(b.explain(err))
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return fmt.Errorf("the app's function %s answered something that cannot be read: %w; deploy the app that belongs to this comfyd", name, err)
	}
	return nil
}
