package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
)

// Offer is a model, or a node class, that some backends have.
type Offer struct {
	Name string `json:"name"`
	// Pools are those that have it, the first in order of preference first.
	Pools []string `json:"pools"`
}

// Models are the model files that the backends have, by folder of ComfyUI's models/.
func (c *Client) Models(ctx context.Context) (map[string][]Offer, error) {
	var all struct {
		Models map[string][]Offer `json:"models"`
	}
	err := c.discover(ctx, "/models", &all, func() bool { return all.Models != nil })
	return all.Models, err
}

// ModelsIn are those of one folder, such as "checkpoints". A folder that does not exist is an *[Error] with HTTPStatus 404.
func (c *Client) ModelsIn(ctx context.Context, folder string) ([]Offer, error) {
	var one struct {
		Models []Offer `json:"models"`
	}
	err := c.discover(ctx, "/models/"+url.PathEscape(folder), &one, func() bool { return one.Models != nil })
	return one.Models, err
}

// Nodes are the node classes that the backends have.
func (c *Client) Nodes(ctx context.Context) ([]Offer, error) {
	var all struct {
		Nodes []Offer `json:"nodes"`
	}
	err := c.discover(ctx, "/nodes", &all, func() bool { return all.Nodes != nil })
	return all.Nodes, err
}

// Node is one node class.
type Node struct {
	Offer
	// Definition is what ComfyUI's /object_info says of it, without the names of files that people have sent.
	Definition json.RawMessage `json:"definition"`
}

// Node tells what a node class takes and gives. One that no backend has is an *[Error] with HTTPStatus 404.
func (c *Client) Node(ctx context.Context, class string) (Node, error) {
	var n Node
	err := c.discover(ctx, "/nodes/"+url.PathEscape(class), &n, func() bool { return n.Definition != nil })
	return n, err
}

// discover reads a list; there tells whether it is one.
func (c *Client) discover(ctx context.Context, path string, out any, there func() bool) error {
	if _, err := c.call(ctx, c.within(), request{method: http.MethodGet, path: path}, out); err != nil {
		return err
	}
	if !there() {
		return errors.New("what answers at " + c.base.Redacted() + " is not comfyd: its answer has no list")
	}
	return nil
}
