package client

import (
	"context"
	"time"
)

// followQuiet is how long no event may come before the status is asked for, unless [WithQuiet] tells: one may be held up
// by a proxy, or the server has no stream left to give.
const followQuiet = 3 * time.Second

// Follow is [Client.Wait] by events: it returns the status of a job when it has ended, with links in place of base64 data,
// and calls on with everything that becomes known before. Where no events come it asks for the status instead. It goes on
// through outages of the server until ctx ends.
func (c *Client) Follow(ctx context.Context, id string, on func(Event)) (Status, error) {
	type next struct {
		Event
		err error
	}
	streaming, stop := context.WithCancel(ctx)
	events := make(chan next)
	go func() {
		defer close(events)
		for e, err := range c.Events(streaming, id) {
			select {
			case events <- next{e, err}:
			case <-streaming.Done():
				return
			}
		}
	}()
	defer func() {
		stop()
		for range events { // until it has ended, too
		}
	}()
	status := func(st Status) { on(Event{Kind: EventStatus, Status: &st}) }
	quiet := time.NewTimer(c.quiet)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return Status{}, context.Cause(ctx)
		case e, ok := <-events:
			switch {
			case ctx.Err() != nil:
				return Status{}, context.Cause(ctx)
			case !ok || e.err != nil: // no comfyd that has events, or none that gives them to us
				return c.Wait(ctx, id, func(st Status) {
					if !st.Ended() {
						status(st)
					}
				})
			case e.Kind == EventDone:
				return *e.Status, nil
			}
			on(e.Event)
		case <-quiet.C:
			st, err := c.status(ctx, endless, id, StatusOptions{OutputURL: true})
			if err != nil || st.Ended() {
				return st, err
			}
			status(st)
		}
		quiet.Reset(c.quiet)
	}
}
