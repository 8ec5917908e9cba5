package client

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"mime"
	"net/http"
	"time"

	"github.com/tmaxmax/go-sse"
)

// EventKind says what an [Event] is about.
type EventKind string

// Kinds of events. A client passes over those that it does not know.
const (
	EventStatus  EventKind = "status"  // how the job is, when that has changed
	EventPreview EventKind = "preview" // what a sampler has so far; it may be left out
	EventOutput  EventKind = "output"  // one output of the job
	EventDone    EventKind = "done"    // its end
)

// Event is one thing that has become known of a job.
type Event struct {
	Kind    EventKind
	Status  *Status  // of EventStatus and EventDone, the latter with links in place of base64 data
	Preview *Preview // of EventPreview
	Output  *Output  // of EventOutput: a file, or else
	Text    *Text    // a text
	// List says where an output stands in [Outputs]: "images", "files" or "texts".
	List string
}

// Preview is a picture of what is not done.
type Preview struct {
	NodeID      string `json:"node_id"`
	ContentType string `json:"content_type"`
	Data        []byte `json:"data"`
}

const (
	// maxEvent is the largest event that is read; a preview or the end of a job with many texts is far smaller.
	maxEvent = 64 << 20
	// streamAgain is the pause before a stream that broke off is opened again.
	streamAgain = time.Second
)

// Events yields what becomes known of a job as it goes, and ends after EventDone. It goes on through outages of the
// server until ctx ends, and yields no output twice. An error is the last thing that it yields.
func (c *Client) Events(ctx context.Context, id string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		s := &eventStream{c: c, path: job("events", id)}
		for {
			next := time.NewTimer(streamAgain)
			over, err := s.read(ctx, yield)
			if over || err != nil {
				next.Stop()
				if err != nil {
					yield(Event{}, err)
				}
				return
			}
			select {
			case <-next.C:
			case <-ctx.Done():
				next.Stop()
			}
		}
	}
}

// eventStream is a job's stream across connections.
type eventStream struct {
	c    *Client
	path string
	last string // ID of the last event
}

// read connects and yields until the connection ends. It tells whether no more is to come: the job has ended, or nobody
// wants to know.
func (s *eventStream) read(ctx context.Context, yield func(Event, error) bool) (over bool, err error) {
	var resp *http.Response
	var watch *silence
	err = s.c.retry(ctx, endless, func(ctx context.Context) (err error) {
		ctx, watch = watchSilence(ctx, s.c.silence)
		header := http.Header{"Accept": {"text/event-stream"}}
		if s.last != "" {
			header.Set("Last-Event-ID", s.last)
		}
		resp, err = s.c.send(ctx, watch, request{method: http.MethodGet, path: s.path, header: header}, s.c.base.String()+s.path)
		if err != nil {
			watch.stop()
		}
		return err
	})
	if err != nil {
		return false, err
	}
	defer watch.stop()
	defer func() { _ = resp.Body.Close() }()
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != "text/event-stream" {
		return false, fmt.Errorf("what answers at %s is no comfyd that has events: it sent %q", s.c.base.Redacted(), kind)
	}
	for raw, err := range sse.Read(watch.reader(resp.Body), &sse.ReadConfig{MaxEventSize: maxEvent}) {
		if err != nil {
			return false, nil // the next connection goes on, or says what is wrong
		}
		s.last = raw.LastEventID
		e, err := decodeEvent(raw)
		if err != nil {
			return false, fmt.Errorf("cannot read the events of comfyd at %s: %w", s.c.base.Redacted(), err)
		}
		if e.Kind == "" {
			continue
		}
		if !yield(e, nil) || e.Kind == EventDone {
			return true, nil
		}
	}
	return false, nil
}

// decodeEvent returns no kind for one that is not known.
func decodeEvent(raw sse.Event) (e Event, err error) {
	data := []byte(raw.Data)
	switch kind := EventKind(raw.Type); kind {
	case EventStatus, EventDone:
		e = Event{Kind: kind, Status: &Status{}}
		err = json.Unmarshal(data, e.Status)
	case EventPreview:
		e = Event{Kind: kind, Preview: &Preview{}}
		err = json.Unmarshal(data, e.Preview)
	case EventOutput:
		var list struct {
			List string `json:"list"`
		}
		if err = json.Unmarshal(data, &list); err != nil {
			break
		}
		e = Event{Kind: kind, List: list.List}
		if list.List == "texts" {
			e.Text = &Text{}
			err = json.Unmarshal(data, e.Text)
		} else {
			e.Output = &Output{}
			err = json.Unmarshal(data, e.Output)
		}
	}
	return e, err
}
