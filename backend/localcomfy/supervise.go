package localcomfy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// supervise keeps a ComfyUI up until ctx ends.
func (b *Backend) supervise(ctx context.Context) {
	defer close(b.done)
	pause := &backoff.ExponentialBackOff{InitialInterval: b.t.first, RandomizationFactor: backoff.DefaultRandomizationFactor,
		Multiplier: 2, MaxInterval: b.t.most}
	pause.Reset()
	for {
		up, err := b.live(ctx)
		if ctx.Err() != nil {
			return
		}
		b.setProblem(err)
		wait := pause.NextBackOff()
		var failed *InstallError
		switch {
		case errors.As(err, &failed):
			wait = b.t.install
		case up >= b.t.steady:
			pause.Reset()
			wait = 0
		}
		b.log.WithError(err).WithField("again_in", wait.Round(time.Millisecond).String()).Error("ComfyUI is not up")
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// live is the life of one ComfyUI process, from its start or adoption to its end. It returns how long it was up, and
// why it is not any more.
func (b *Backend) live(ctx context.Context) (up time.Duration, err error) {
	out, err := b.openOutput()
	if err != nil {
		return 0, err
	}
	defer out.close()
	c := b.takeOver(ctx)
	if c == nil {
		if c, err = b.launch(ctx, out); err != nil {
			return 0, err
		}
	}
	defer func() {
		c.stop(b.t.grace)
		err = errors.Join(err, b.writeState(state{Port: b.port}))
	}()
	select { // what was said of the process before this one
	case <-b.recycle:
	default:
	}
	if err := b.awaitReady(ctx, c, out); err != nil {
		return 0, err
	}
	b.setProblem(nil)
	b.log.WithField("pid", c.pid).WithField("server", b.server).Info("ComfyUI is ready")
	ready := time.Now()
	err = b.watch(ctx, c, out)
	return time.Since(ready), err
}

// launch starts ComfyUI, after having installed it where there is none.
func (b *Backend) launch(ctx context.Context, out *output) (*child, error) {
	if !installed(b.o.Dir) {
		b.setProblem(errInstalling)
		if err := b.install(ctx); err != nil {
			return nil, err
		}
		b.setProblem(errStarting)
	}
	python, err := b.python()
	if err != nil {
		return nil, &processError{what: "no Python was found for ComfyUI", err: err}
	}
	if !portFree(ctx, b.port) {
		return nil, &processError{what: fmt.Sprintf("port %d, which ComfyUI is to listen on, is taken by another program", b.port)}
	}
	command := b.command(python, b.needsCPU(ctx, python))
	if err := out.mark(command); err != nil {
		return nil, err
	}
	s := state{Port: b.port, Command: command, Dir: b.o.Dir}
	if err := b.writeState(s); err != nil {
		return nil, fmt.Errorf("remembering ComfyUI's process: %w", err)
	}
	c, err := spawn(command, b.o.Dir, environment("PYTHONUNBUFFERED=1"), out.file)
	if err != nil {
		return nil, &processError{what: "ComfyUI cannot be started", err: err}
	}
	s.PID, s.Created = c.pid, c.created
	if err := b.writeState(s); err != nil {
		c.stop(b.t.grace)
		return nil, fmt.Errorf("remembering ComfyUI's process: %w", err)
	}
	b.log.WithField("pid", c.pid).WithField("command", strings.Join(command, " ")).Info("ComfyUI started")
	return c, nil
}

// awaitReady returns when ComfyUI answers.
func (b *Backend) awaitReady(ctx context.Context, c *child, out *output) error {
	ctx, cancel := context.WithCancel(ctx)
	answered := make(chan struct{})
	b.asking.Go(func() {
		// Apart, because a ComfyUI that takes connections and says nothing holds a probe for long, also beyond its context.
		tick := time.NewTicker(b.t.starting)
		defer tick.Stop()
		for ctx.Err() == nil {
			if b.Probe(ctx) == nil {
				close(answered)
				return
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	defer cancel()
	patience := b.o.StartTimeout
	if c.adopted {
		// One that has run for long may be loading a model.
		patience = max(patience-c.age(), b.o.StallTimeout)
	}
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	select {
	case <-answered:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.exited:
		return died("ComfyUI ended while it was starting", c, out)
	case <-deadline.C:
		return &processError{what: fmt.Sprintf("ComfyUI has not answered for %s", patience.Round(time.Second)), tail: out.tail()}
	}
}

// watch returns when ComfyUI has ended, or has to.
func (b *Backend) watch(ctx context.Context, c *child, out *output) error {
	tick := time.NewTicker(b.t.check)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.exited:
			return died("ComfyUI ended", c, out)
		case why := <-b.recycle:
			return &processError{what: "ComfyUI is started anew, because a prompt on it showed no sign of life", err: why, tail: out.tail()}
		case <-tick.C:
			if err := out.rotate(); err != nil {
				b.log.WithError(err).Warn("ComfyUI's log cannot be put aside")
			}
			if silent := time.Since(b.Backend.Servers()[0].LastSeen); silent > b.o.StallTimeout {
				return &processError{what: fmt.Sprintf("ComfyUI is started anew, because it has given no answer for %s", silent.Round(time.Second)), tail: out.tail()}
			}
		}
	}
}

// died describes the end of a process.
func died(what string, c *child, out *output) error {
	if c.err != nil && strings.Contains(c.err.Error(), "signal: killed") {
		what += " by a kill, which is also what the system does when memory runs out"
	}
	return &processError{what: what, err: c.err, tail: out.tail()}
}
