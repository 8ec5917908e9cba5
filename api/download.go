package api

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"github.com/comfyd/comfyd/comfy"
)

// textName and textType are of what a node shows as text.
const (
	textName = "text.txt"
	textType = "text/plain; charset=utf-8"
)

// shownTypes are content types that a browser may show on this origin: none of them can hold a script. All others are
// attachments.
var shownTypes = []string{
	"image/png", "image/apng", "image/jpeg", "image/webp", "image/gif", "image/avif", "image/bmp", "image/tiff",
	"video/mp4", "video/webm", "video/quicktime", "video/x-matroska",
	"audio/flac", "audio/x-flac", "audio/mpeg", "audio/ogg", "audio/wav", "audio/x-wav", "audio/mp4", "audio/aac", "audio/opus", "audio/webm",
}

// download is GET /outputs/{job}/{sha256}/{filename}: by a signed link, or by the key of the job's owner, which needs
// no filename.
func (s *Server) download(c *fiber.Ctx) error {
	var values [3]string
	for i, name := range []string{"job", "sha256", "filename"} {
		value, err := pathValue(c, name)
		if err != nil {
			return err
		}
		values[i] = value
	}
	id, sum, filename := values[0], values[1], values[2]
	j, err := s.linkedJob(c, id, outputPath(id, sum, filename))
	if err != nil {
		return err
	}
	out, ok := findOutput(j.status.Result, sum, filename)
	if !ok {
		return failf(CodeNotFound, "The job has no such output.")
	}
	ctx, cancel := context.WithTimeout(s.life, checkTimeout)
	defer cancel()
	if err := s.checkOutput(ctx, out); err != nil {
		return s.explainLoss(j, err)
	}
	return s.sendOutput(c, out)
}

// findOutput looks for content; where several outputs have the same, for the one of that name.
func findOutput(r *comfy.Result, sum, filename string) (comfy.Output, bool) {
	if r == nil {
		return comfy.Output{}, false
	}
	var found []comfy.Output
	for _, out := range slices.Concat(r.Images, r.Files) {
		if out.SHA256 == sum {
			found = append(found, out)
		}
	}
	for _, t := range r.Texts {
		if t.Ref != "" && path.Base(t.Ref) == sum {
			found = append(found, comfy.Output{Filename: textName, Ref: t.Ref, ContentType: textType, SizeBytes: t.Size, SHA256: sum})
		}
	}
	if filename == "" && len(found) > 0 {
		return found[0], true
	}
	i := slices.IndexFunc(found, func(out comfy.Output) bool { return out.Filename == filename })
	if i < 0 {
		return comfy.Output{}, false
	}
	return found[i], true
}

// sendOutput streams an object with what belongs to it: entity tag, ranges, and headers that keep a browser from
// running what is in it.
func (s *Server) sendOutput(c *fiber.Ctx, out comfy.Output) error {
	tag := `"` + out.SHA256 + `"`
	c.Set(fiber.HeaderETag, tag)
	c.Set(fiber.HeaderAcceptRanges, "bytes")
	c.Set(fiber.HeaderCacheControl, "private, max-age=3600")
	c.Set(fiber.HeaderContentSecurityPolicy, "default-src 'none'; sandbox")
	c.Set("Cross-Origin-Resource-Policy", "cross-origin")
	if matches(c.Get(fiber.HeaderIfNoneMatch), tag) {
		return c.SendStatus(http.StatusNotModified)
	}
	media, disposition := out.ContentType, "inline"
	if !slices.Contains(shownTypes, media) {
		if media != textType {
			media = fiber.MIMEOctetStream
		}
		disposition = "attachment"
	}
	c.Set(fiber.HeaderContentType, media)
	if full := mime.FormatMediaType(disposition, map[string]string{"filename": out.Filename}); full != "" {
		disposition = full
	}
	c.Set(fiber.HeaderContentDisposition, disposition)

	part := piece{key: out.Ref, length: out.SizeBytes}
	c.Status(http.StatusOK)
	if ranges := c.Get(fiber.HeaderRange); singleRange(ranges) && rangeApplies(c.Get(fiber.HeaderIfRange), tag) {
		first, last, err := fasthttp.ParseByteRange([]byte(ranges), int(out.SizeBytes))
		if err != nil {
			c.Set(fiber.HeaderContentRange, "bytes */"+strconv.FormatInt(out.SizeBytes, 10))
			return failf(CodeRange, "The output has %d bytes; the range lies outside.", out.SizeBytes)
		}
		c.Status(http.StatusPartialContent).Set(fiber.HeaderContentRange, fmt.Sprintf("bytes %d-%d/%d", first, last, out.SizeBytes))
		part.offset, part.length = int64(first), int64(last-first+1)
	}
	st := s.newStream(c)
	st.pieces, st.size = []piece{part}, part.size()
	return s.sendStream(c, st)
}

// singleRange leaves out what a server may ignore: several ranges, and other units than bytes.
func singleRange(header string) bool {
	return strings.HasPrefix(header, "bytes=") && !strings.Contains(header, ",")
}

func rangeApplies(ifRange, tag string) bool { return ifRange == "" || ifRange == tag }

func matches(header, tag string) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		if candidate == tag || candidate == "*" {
			return true
		}
	}
	return false
}
