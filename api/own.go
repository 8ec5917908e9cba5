package api

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strings"

	"github.com/comfyd/comfyd/comfy"
)

// ownLink is a signed link to an output of a job, among the files that a request names by URL: one job's output is
// another one's input, without a way through the network.
type ownLink struct {
	from                       string // the address, for a person
	tenant, job, sum, filename string
}

// ownLink reads an address as a link of ours, by its signature alone: what it says before its path depends on where the
// client stands. ours is false for every other address, and for a link with a wrong signature.
func (s *Server) ownLink(raw string) (link ownLink, ours bool, err error) {
	u, err := url.Parse(raw)
	if err != nil {
		return link, false, nil
	}
	_, rest, ok := strings.Cut(u.EscapedPath(), "/outputs/")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 {
		return link, false, nil
	}
	for i, into := range []*string{&link.job, &link.sum, &link.filename} {
		if *into, err = url.PathUnescape(parts[i]); err != nil {
			return link, false, nil
		}
	}
	q := u.Query()
	link.from = withoutQuery(raw)
	link.tenant, err = s.checkLink(outputPath(link.job, link.sum, link.filename), q.Get("expires"), q.Get("signature"))
	var e *Error
	switch {
	case errors.As(err, &e) && e.Code == CodeLinkExpired:
		return link, true, failf(CodeInvalidInput, "%s has expired. Ask the job's status for a new link (?output=url).", link.from)
	case err != nil:
		return link, false, nil
	}
	return link, true, nil
}

// checkURL refuses an address from which no file could ever come, without calling anybody.
func (s *Server) checkURL(raw string) error {
	if _, ours, err := s.ownLink(raw); ours {
		return err
	}
	return s.fetcher.check(raw)
}

// copyOutput makes an output an input. The link is for whoever has it, as it is when it is fetched.
func (s *Server) copyOutput(ctx context.Context, tenant string, img imageField, link ownLink, room *budget) (comfy.Input, error) {
	out, err := s.linkedOutput(ctx, link)
	if err != nil {
		if code := asError(err).Code; code == CodeNotFound || code == CodeOutputLost {
			err = failf(CodeInvalidInput, "%s is there no more: the job was deleted, or the output was lost.", link.from).because(err)
		}
		return comfy.Input{}, err
	}
	if !room.take(out.SizeBytes) {
		return comfy.Input{}, s.fetcher.tooLarge(link.from)
	}
	r, err := s.store.Open(ctx, out.Ref, 0, -1)
	if err != nil {
		return comfy.Input{}, storeError(err)
	}
	defer r.Close()
	return s.storeInput(ctx, tenant, img.Name, io.LimitReader(r, out.SizeBytes), func(head []byte) error { return checkType(link.from, img.Name, head) })
}

func (s *Server) linkedOutput(ctx context.Context, link ownLink) (comfy.Output, error) {
	j, err := s.job(link.job, link.tenant)
	if err != nil {
		return comfy.Output{}, err
	}
	out, ok := findOutput(j.status.Result, link.sum, link.filename)
	if !ok {
		return comfy.Output{}, notFound()
	}
	return out, s.checkOutput(ctx, out)
}
