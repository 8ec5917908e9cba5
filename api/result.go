package api

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"path"
	"time"

	"github.com/gofiber/fiber/v2"
	"golang.org/x/sync/errgroup"

	"github.com/comfyd/comfyd/comfy"
)

const (
	// statsAtOnce is how many objects are looked up at a time before an answer begins.
	statsAtOnce = 8
	// maxInlineText is the largest stored text that is put into the answer; a larger one comes as a link.
	maxInlineText = 4 << 20
	checkTimeout  = 20 * time.Second
)

// outputHead and outputTail are one file of a result; its bytes stand between the two. The head is the PRD's.
type outputHead struct {
	Filename string `json:"filename"`
	Type     string `json:"type"`
}

// Where the bytes of an output are: in the answer, or behind a link.
const (
	typeBase64 = "base64"
	typeURL    = "url"
)

type outputTail struct {
	URL          string     `json:"url,omitempty"`
	URLExpiresAt *time.Time `json:"url_expires_at,omitempty"`
	NodeID       string     `json:"node_id"`
	ContentType  string     `json:"content_type"`
	SizeBytes    int64      `json:"size_bytes"`
	SHA256       string     `json:"sha256"`
	Width        int        `json:"width,omitempty"`
	Height       int        `json:"height,omitempty"`
	Subfolder    string     `json:"subfolder,omitempty"`
	Temp         bool       `json:"temp,omitempty"`
}

type outputText struct {
	NodeID       string     `json:"node_id"`
	Text         *string    `json:"text,omitempty"`
	SizeBytes    int64      `json:"size_bytes,omitempty"`
	URL          string     `json:"url,omitempty"`
	URLExpiresAt *time.Time `json:"url_expires_at,omitempty"`
}

type completedHead struct {
	ID     string      `json:"id"`
	Status comfy.State `json:"status"`
}

type completedTail struct {
	Cached    bool          `json:"cached"`
	Attempts  int           `json:"attempts"`
	Backend   string        `json:"backend,omitempty"`
	Metrics   comfy.Metrics `json:"metrics"`
	CreatedAt time.Time     `json:"created_at"`
	EndedAt   *time.Time    `json:"ended_at,omitempty"`
	ExpiresAt *time.Time    `json:"expires_at,omitempty"`
	ZipURL    string        `json:"zip_url,omitempty"` // of all outputs, with links only
}

// sendResult answers for a completed job: a small answer from memory, a large one as a stream from the store. Every
// object is looked up first, so that a missing one is an error and not half an answer.
func (s *Server) sendResult(c *fiber.Ctx, j *job, links bool) error {
	c.Status(http.StatusOK).Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	if j.body != nil && !links {
		c.Context().Response.SetBodyRaw(j.body)
		return nil
	}
	ctx, cancel := context.WithTimeout(s.life, checkTimeout)
	defer cancel()
	if !links {
		if err := s.checkStored(ctx, j.status.Result); err != nil {
			return s.explainLoss(j, err)
		}
	}
	stream, err := s.composeResult(ctx, s.newStream(c), s.base(c), j, links)
	if err != nil {
		return err
	}
	if links || stream.size > maxBody {
		return s.sendStream(c, stream)
	}
	body, err := io.ReadAll(stream)
	if err = errors.Join(err, stream.Close()); err != nil {
		return lost(err)
	}
	s.closed.addBody(j, body)
	c.Context().Response.SetBodyRaw(body)
	return nil
}

func (s *Server) checkStored(ctx context.Context, r *comfy.Result) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(statsAtOnce)
	for _, list := range [][]comfy.Output{r.Images, r.Files} {
		for _, out := range list {
			group.Go(func() error { return s.checkOutput(ctx, out) })
		}
	}
	return group.Wait()
}

func (s *Server) checkOutput(ctx context.Context, out comfy.Output) error {
	blob, err := s.store.Stat(ctx, out.Ref)
	switch {
	case err != nil:
		return lost(err)
	case blob.Size != out.SizeBytes:
		return failf(CodeOutputLost, "The output %q is damaged in the store: it has %d bytes instead of %d.", out.Filename, blob.Size, out.SizeBytes)
	}
	return nil
}

// lost tells an object that is gone from a store that does not answer.
func lost(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return failf(CodeOutputLost, "The store no longer has an output of this job. Submit it again.").because(err)
	}
	return storeError(err)
}

// composeResult lays out the answer: JSON, with the bytes of the outputs to be filled in where they belong, or links
// below base.
func (s *Server) composeResult(ctx context.Context, to *stream, base string, j *job, links bool) (*stream, error) {
	st, r := &j.status, j.status.Result
	w := &layout{stream: to}
	var archive string
	if links && len(r.Images)+len(r.Files)+len(r.Texts) > 0 {
		archive, _ = s.signed(base, j, archivePath(j.id))
	}
	w.object(completedHead{ID: st.ID, Status: comfy.Completed}, func() {
		w.text(`"output":{"images":[`)
		s.composeOutputs(w, base, j, r.Images, links)
		w.text(`]`)
		if len(r.Files) > 0 {
			w.text(`,"files":[`)
			s.composeOutputs(w, base, j, r.Files, links)
			w.text(`]`)
		}
		if len(r.Texts) > 0 {
			w.text(`,"texts":[`)
			s.composeTexts(ctx, w, base, j, links)
			w.text(`]`)
		}
		w.text(`}`)
	}, completedTail{
		Cached: r.Cached, Attempts: r.Attempts, Backend: r.Backend, Metrics: r.Metrics,
		CreatedAt: st.CreatedAt, EndedAt: st.EndedAt, ExpiresAt: st.ExpiresAt,
		ZipURL: archive,
	})
	return w.done()
}

func (s *Server) composeOutputs(w *layout, base string, j *job, outputs []comfy.Output, links bool) {
	for i, out := range outputs {
		if i > 0 {
			w.text(",")
		}
		if links {
			w.object(outputHead{Filename: out.Filename, Type: typeURL}, nil, s.linkedTail(base, j, out))
			continue
		}
		w.object(outputHead{Filename: out.Filename, Type: typeBase64}, func() {
			w.text(`"data":"`)
			w.base64(out.Ref, out.SizeBytes)
			w.text(`"`)
		}, tailOf(out))
	}
}

func tailOf(out comfy.Output) outputTail {
	return outputTail{
		NodeID: out.NodeID, ContentType: out.ContentType, SizeBytes: out.SizeBytes, SHA256: out.SHA256,
		Width: out.Width, Height: out.Height, Subfolder: out.Subfolder, Temp: out.Temp,
	}
}

func (s *Server) linkedTail(base string, j *job, out comfy.Output) outputTail {
	tail := tailOf(out)
	tail.URL, tail.URLExpiresAt = s.link(base, j, out.SHA256, out.Filename)
	return tail
}

func (s *Server) textLink(base string, j *job, t comfy.Text) (string, *time.Time) {
	return s.link(base, j, path.Base(t.Ref), textName)
}

// composeTexts puts texts into the answer; one that lies in the store is read, or linked where it is long.
func (s *Server) composeTexts(ctx context.Context, w *layout, base string, j *job, links bool) {
	for i, t := range j.status.Result.Texts {
		if i > 0 {
			w.text(",")
		}
		item := outputText{NodeID: t.NodeID, SizeBytes: t.Size}
		switch {
		case t.Ref == "":
			item.Text = &t.Text
		case links || t.Size > maxInlineText:
			item.URL, item.URLExpiresAt = s.textLink(base, j, t)
		default:
			text, err := s.readText(ctx, t)
			if err != nil {
				w.err = err
				return
			}
			item.Text = &text
		}
		w.json(item)
	}
}

func (s *Server) readText(ctx context.Context, t comfy.Text) (_ string, err error) {
	r, err := s.store.Open(ctx, t.Ref, 0, -1)
	if err != nil {
		return "", lost(err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(r, maxInlineText))
	if err != nil {
		return "", lost(err)
	}
	return string(raw), nil
}
