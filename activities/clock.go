package activities

import (
	"context"
	"time"

	"go.temporal.io/sdk/activity"
)

// maxAhead is how far this machine's clock may be ahead of Temporal's without a word. The SDK holds the time at which
// Temporal wants all attempts of an activity to be over against the worker's clock, and drops what comes later: a prompt
// that is to be stopped has two minutes, a job's outputs a quarter of an hour. Nothing rests on a clock that is behind.
const maxAhead = 30 * time.Second

// watchClock says once that this machine's clock is wrong. Nothing else would: its jobs fail as if the store, or the
// backend, had been away.
func (a *Activities) watchClock(ctx context.Context) {
	ahead := a.o.Now().Sub(activity.GetInfo(ctx).StartedTime)
	if ahead > maxAhead {
		a.ahead.Do(func() {
			a.o.Log.WithField("ahead", ahead.Round(time.Second)).
				Error("this machine's clock is ahead of Temporal's, or it was paused; where it is ahead by minutes jobs fail here: set it right (NTP), then restart the worker")
		})
	}
}
