package modal

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	sdk "github.com/modal-labs/modal-client/go"

	"github.com/comfyd/comfyd/backend/comfyui"
	"github.com/comfyd/comfyd/internal/catalog"
)

// channelBatch is how many messages are taken from the progress channel at once.
const channelBatch = 50

// channel is the queue by which containers tell the progress of their prompts, each in a partition of its own. Its loss
// costs progress and nothing else.
type channel struct {
	b *Backend

	mu     sync.Mutex
	warned time.Time
}

// message is what a container says at most once a second: what ComfyUI has sent since, and the newest preview.
type message struct {
	Preview *struct {
		Node string `json:"node"`
		Type string `json:"type"`
		Data []byte `json:"data"`
	} `json:"preview"`
	Events []struct {
		Type string          `json:"type"`
		Data json.RawMessage `json:"data"`
	} `json:"events"`
}

// each calls f for every event that can be read.
func (m *message) each(f func(kind string, n *comfyui.Note)) {
	for _, e := range m.Events {
		var n comfyui.Note
		if json.Unmarshal(e.Data, &n) == nil {
			f(e.Type, &n)
		}
	}
}

func newChannel(b *Backend) *channel { return &channel{b: b} }

// listen passes on what a container says about a prompt, until ctx ends.
func (c *channel) listen(ctx context.Context, prompt string, news chan<- []message) {
	wait := newPause(c.b.t.again, c.b.t.againMost)
	for ctx.Err() == nil {
		list, err := c.take(ctx, prompt)
		var empty sdk.QueueEmptyError
		switch {
		case ctx.Err() != nil:
			return
		case errors.As(err, &empty):
			wait.Reset()
			continue
		case err != nil:
			c.warn(err)
			if sleep(ctx, wait.NextBackOff()) != nil {
				return
			}
			continue
		}
		wait.Reset()
		select {
		case news <- list:
		case <-ctx.Done():
			return
		}
	}
}

func (c *channel) take(ctx context.Context, prompt string) ([]message, error) {
	ctx, done := context.WithTimeout(ctx, c.b.t.channel+c.b.t.grace)
	defer done()
	line, err := c.b.lines.take()
	if err != nil {
		return nil, err
	}
	defer c.b.lines.put(line)
	q, err := line.progress(ctx, c.b.o.App)
	if err != nil {
		return nil, err
	}
	items, err := q.GetMany(ctx, channelBatch, &sdk.QueueGetManyParams{QueueGetParams: sdk.QueueGetParams{Timeout: &c.b.t.channel, Partition: prompt}})
	if err != nil {
		if isNotFound(err) {
			line.forget()
		}
		return nil, err
	}
	list := make([]message, 0, len(items))
	for _, item := range items {
		var m message
		if text, ok := item.(string); ok {
			_ = json.Unmarshal(catalog.Sanitize([]byte(text)), &m) // one that cannot be read is a sign of life all the same
		}
		list = append(list, m)
	}
	return list, nil
}

func (c *channel) warn(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.warned) > time.Minute {
		c.warned = time.Now()
		c.b.log.WithError(err).Warn("the progress channel at Modal does not answer; jobs go on without progress")
	}
}
