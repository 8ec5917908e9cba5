package main

import (
	"context"
	"fmt"
	"time"
)

// refetches is how often the images are fetched again; the median counts.
const refetches = 3

// noiseRow runs a job of many large images, and fetches them again.
func noiseRow(ctx context.Context, b *bench) error {
	return b.each(ctx, func(s *system) error {
		c := s.connect(1)
		defer c.close()
		j := noise(b.Images, b.Pixels)
		var h handed
		before, peak, err := s.most(func() (err error) {
			h, err = b.one(ctx, s, c, j, false)
			return err
		})
		if err != nil {
			return err
		}
		what := fmt.Sprintf("%d images of %dx%d", b.Images, b.Pixels, b.Pixels)
		b.add(s, what, "s", h.whole.Seconds())
		b.add(s, "bytes on the wire", "MB", float64(h.result.bytes)/1e6)
		if len(s.processes) > 0 {
			b.add(s, "most memory of the server", "MiB", peak)
			b.add(s, "... more than before", "MiB", peak-before)
		}
		before, peak, err = s.most(func() error {
			return b.refetch(s, j, h.id, "fetched again", func() (result, error) {
				is, answer, err := s.poll(c, h.id)
				if err != nil || is != completed {
					return result{}, fmt.Errorf("the job is not completed any more: %w", err)
				}
				return s.fetch(c, h.id, answer)
			})
		})
		if err != nil {
			return err
		}
		if len(s.processes) > 0 {
			b.add(s, "most memory of the server while fetched again", "MiB", peak)
			b.add(s, "... more than before it", "MiB", peak-before)
		}
		if l, can := s.adapter.(linker); can {
			return b.refetch(s, j, h.id, "fetched again, as files by links", func() (result, error) { return l.links(c, h.id) })
		}
		return nil
	})
}

func (b *bench) refetch(s *system, j job, id, what string, fetch func() (result, error)) error {
	var took []time.Duration
	for range refetches {
		began := time.Now()
		r, err := fetch()
		if err != nil {
			return err
		}
		took = append(took, time.Since(began))
		b.judge(s, j, id, r, 0)
	}
	b.add(s, what, "ms", ms(percentile(took, 50)))
	return nil
}
