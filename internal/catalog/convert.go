package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/editor"
)

// Editor returns a class as the editor draws it, nil where this ComfyUI does not have it.
func (c *Catalog) Editor(class string) *editor.Class {
	if cl := c.classes[class]; cl != nil {
		return cl.drawn
	}
	return nil
}

// Nearest returns the classes that a name may have been meant for, the likeliest first.
func (c *Catalog) Nearest(class string) []string { return nearest(class, c.names) }

// Convert turns what the editor saves into a graph in API format, with the node classes of the first server that may run
// the job and has what the file needs. Its error is a [*comfy.GraphError] where none can convert the file, after they have
// been asked anew what they have, and a [*comfy.Failure] where nobody knows the classes.
func (d *Directory) Convert(ctx context.Context, file []byte, w backend.Want) (json.RawMessage, error) {
	if f := d.noPool(ctx, w); f != nil {
		return nil, f
	}
	graph, err := d.convert(ctx, file, w)
	var refused *comfy.GraphError
	if errors.As(err, &refused) && d.refresh != nil && d.renew(ctx) {
		graph, err = d.convert(ctx, file, w)
	}
	return graph, err
}

func (d *Directory) convert(ctx context.Context, file []byte, w backend.Want) (json.RawMessage, error) {
	ctx, done := context.WithTimeout(ctx, checkTimeout)
	defer done()
	records, catalogs, err := d.load(ctx)
	if err != nil {
		records = nil
	}
	options := editor.Options{Pick: rand.IntN, Now: time.Now()}
	var first error
	tried := map[string]bool{} // servers with the same nodes share a catalogue
	for _, r := range records {
		for _, s := range r.Servers {
			c := catalogs[s.CatalogRef]
			if c == nil || !w.Fits(r.Pool) || tried[s.CatalogRef] {
				continue
			}
			tried[s.CatalogRef] = true
			graph, err := editor.Convert(file, c, options)
			if err == nil {
				return graph, nil
			}
			if first == nil {
				first = err
			}
		}
	}
	if first == nil {
		return nil, &comfy.Failure{Code: comfy.BackendUnavailable, Message: "The workflow is in the editor's save format, and no backend has told yet which nodes it has, " +
			"which the conversion needs. Try again when a ComfyUI has started. The API format is always taken: in ComfyUI, \"Workflow > Export (API)\"."}
	}
	return nil, first
}
