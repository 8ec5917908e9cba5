// Package doctor checks a deployment at Modal from the outside, and says of each thing that is wrong what to do about it.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/comfyd/comfyd/examples"
	"github.com/comfyd/comfyd/modal"
)

// ErrUnwell says that at least one check has failed; what, has been printed.
var ErrUnwell = errors.New("not everything is well")

// limit is for one example, a container's cold start with all its models included.
const limit = 20 * time.Minute

// checkLimit is for the app's own look at itself: a container without a GPU has to start.
const checkLimit = 5 * time.Minute

// Doctor prints one line for each check.
type Doctor struct {
	Backend *modal.Backend
	Out     io.Writer
	failed  int
}

// Check looks at token, app, secret, models and node packs; with gpu it runs every example, too, which costs GPU time.
// It returns ErrUnwell when something is wrong.
func (d *Doctor) Check(ctx context.Context, gpu bool) error {
	if err := d.Backend.Find(ctx); err != nil {
		d.say(false, "app", err.Error())
		return ErrUnwell
	}
	d.say(true, "app", d.Backend.Servers()[0].Name+" is deployed, and Modal takes the token")
	short, done := context.WithTimeout(ctx, checkLimit)
	defer done()
	r, err := d.Backend.Check(short)
	if err != nil {
		d.say(false, "check", "the app cannot look at itself: "+err.Error())
		return ErrUnwell
	}
	d.report(r)
	if err := d.Backend.Refresh(short); err != nil {
		d.say(false, "catalogue", err.Error())
	} else {
		d.say(true, "catalogue", fmt.Sprintf("ComfyUI %s lists its nodes and models", d.Backend.Servers()[0].Version))
	}
	if gpu {
		if err := d.examples(ctx); err != nil {
			return err
		}
	}
	if d.failed > 0 {
		return ErrUnwell
	}
	return nil
}

func (d *Doctor) report(r *modal.Report) {
	d.say(r.Secret.OK, "secret", r.Secret.Message)
	d.say(r.Volume.OK, "volume", r.Volume.Message)
	for _, s := range r.Sources {
		if !s.OK { // where all is well, one line for each says nothing
			d.say(false, "source "+s.Path, s.Message)
		}
	}
	if len(r.Nodes) == 0 {
		d.say(false, "nodes", "the image has no report of its node packs; deploy it anew with `modal deploy modal/modal_comfy_api.py`")
	}
	for _, n := range r.Nodes {
		d.say(n.OK, "node "+n.Name, join(n.Version, n.Message))
	}
}

// examples runs each example by itself, one after the other.
func (d *Doctor) examples(ctx context.Context) error {
	all, err := examples.All()
	if err != nil {
		return err
	}
	for _, e := range all {
		one, done := context.WithTimeout(ctx, limit)
		text, err := d.example(one, e)
		done()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			text = err.Error()
		}
		d.say(err == nil, "example "+e.Name, text)
	}
	return nil
}

func (d *Doctor) say(ok bool, what, text string) {
	mark := "ok  "
	if !ok {
		mark = "FAIL"
		d.failed++
	}
	fmt.Fprintf(d.Out, "%s  %-34s %s\n", mark, what, text)
}

func join(version, text string) string {
	if version == "" || text == "" {
		return version + text
	}
	return version + ": " + text
}
