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

// path is what the link means, whenever it was signed.
func (l *ownLink) path() string { return outputPath(l.job, l.sum, l.filename) }

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
	link.tenant, err = s.checkLink(link.path(), q.Get("expires"), q.Get("signature"))
	var e *Error
	switch {
	case errors.As(err, &e) && e.Code == CodeLinkExpired:
		return link, true, failf(CodeInvalidInput, "%s has expired. Ask the job's status for a new link (?output=url).", link.from)
	case err != nil:
		return link, false, nil
	}
	return link, true, nil
}

// checkURL refuses an address from which no file could ever come, without calling anybody. It returns what stands for the
// file until it is there, and what a repeated request is known by.
func (s *Server) checkURL(raw string) (standIn string, err error) {
	if link, ours, err := s.ownLink(raw); ours {
		return link.path(), err
	}
	err = s.fetcher.check(raw)
	if u, bad := url.Parse(raw); err != nil && bad == nil && strings.Contains(u.Path, "/outputs/") && u.Query().Has("signature") {
		err = failf(CodeInvalidInput, "%s is no link to an output that this comfyd has signed, or was changed; ask the job's status for a new one (?output=url). It cannot be fetched either.",
			withoutQuery(raw)).because(err)
	}
	return raw, err
}

// copyOutput makes an output an input. The link is for whoever has it, as it is when it is fetched.
func (s *Server) copyOutput(ctx context.Context, tenant string, img imageField, link ownLink, room *budget) (comfy.Input, error) {
	input, err := s.copyLinked(ctx, tenant, img, link, room)
	if err == nil {
		return input, nil
	}
	if code := asError(err).Code; code == CodeNotFound || code == CodeOutputLost {
		err = failf(CodeInvalidInput, "%s is there no more: the job was deleted, or the output was lost.", link.from).because(err)
	}
	return comfy.Input{}, err
}

func (s *Server) copyLinked(ctx context.Context, tenant string, img imageField, link ownLink, room *budget) (comfy.Input, error) {
	j, err := s.job(link.job, link.tenant)
	if err != nil {
		return comfy.Input{}, err
	}
	out, ok := findOutput(j.status.Result, link.sum, link.filename)
	if !ok {
		return comfy.Input{}, notFound()
	}
	if err := s.checkOutput(ctx, out); err != nil {
		return comfy.Input{}, err
	}
	if !room.take(out.SizeBytes) {
		return comfy.Input{}, s.fetcher.tooLarge(link.from)
	}
	r, err := s.store.Open(ctx, out.Ref, 0, -1)
	if err != nil {
		return comfy.Input{}, lost(err)
	}
	defer r.Close()
	input, err := s.storeInput(ctx, tenant, img.Name, ownOutput{r}, func(head []byte) error { return checkType(link.from, img.Name, head) })
	if err == nil && input.SHA256 != out.SHA256 {
		err = failf(CodeOutputLost, "The output %q is damaged in the store.", out.Filename)
	}
	return input, err
}

// ownOutput says of an error that it is the store's, and not the client's.
type ownOutput struct{ r io.Reader }

func (o ownOutput) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	if err != nil && err != io.EOF {
		err = lost(err)
	}
	return n, err
}
