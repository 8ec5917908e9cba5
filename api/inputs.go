package api

import (
	"context"
	"encoding/json"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"path"
	"strings"

	"github.com/gofiber/fiber/v2"

	"github.com/comfyd/comfyd/comfy"
)

// maxFormField is the largest field of a form beside the file, in bytes.
const maxFormField = 1 << 10

// upload is POST /inputs: a form with the field "file" or "image", JSON {"name","image"}, whose image may be an https URL, or
// the bytes themselves with ?name=. The file streams to the store; the ref in the answer names it in the images of a job.
func (s *Server) upload(c *fiber.Ctx) error {
	if err := requirePlain(c); err != nil {
		return err
	}
	if err := s.admission.room(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.life, storeTimeout)
	defer cancel()
	media, params, err := mime.ParseMediaType(c.Get(fiber.HeaderContentType, fiber.MIMEOctetStream))
	if err != nil {
		return failf(CodeUnsupportedMedia, "The header Content-Type cannot be read.")
	}
	var input comfy.Input
	switch {
	case media == fiber.MIMEMultipartForm:
		input, err = s.uploadForm(ctx, c, params["boundary"])
	case isJSON(c):
		input, err = s.uploadJSON(ctx, c)
	case media == fiber.MIMEApplicationForm:
		return failf(CodeUnsupportedMedia, "Send the file as multipart/form-data, as JSON, or as its bytes with their own Content-Type and ?name=.")
	default:
		input, err = s.uploadRaw(ctx, c)
	}
	if err != nil {
		return err
	}
	return c.Status(http.StatusCreated).JSON(input)
}

func (s *Server) uploadRaw(ctx context.Context, c *fiber.Ctx) (comfy.Input, error) {
	name := c.Query("name")
	if problem := nameProblem(name); problem != "" {
		return comfy.Input{}, failf(CodeInvalidInput, "The name %s. Give it in the address: ?name=photo.png", problem)
	}
	body := s.openBody(c, nil)
	defer body.close()
	return s.storeInput(ctx, about(c).tenant, name, body)
}

func (s *Server) uploadJSON(ctx context.Context, c *fiber.Ctx) (comfy.Input, error) {
	body := s.openBody(c, s.memory)
	defer body.close()
	var img imageField
	dec := json.NewDecoder(skipBOM(body))
	if err := decodeValue(dec, "The body", &img); err != nil {
		return comfy.Input{}, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return comfy.Input{}, failf(CodeInvalidRequest, "There is something behind the end of the JSON object.")
	}
	if problem := nameProblem(img.Name); problem != "" {
		return comfy.Input{}, failf(CodeInvalidInput, "name %s.", problem)
	}
	if img.Ref != "" {
		return comfy.Input{}, failf(CodeInvalidRequest, "ref names a file that is there already; send image.")
	}
	input, err := s.storeImage(ctx, about(c).tenant, img)
	if err != nil || img.url() == "" {
		return input, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.fetcher.timeout)
	defer cancel()
	return s.fetchImage(ctx, about(c).tenant, img, newBudget(s.fetcher.limit))
}

func (s *Server) uploadForm(ctx context.Context, c *fiber.Ctx, boundary string) (comfy.Input, error) {
	if boundary == "" {
		return comfy.Input{}, failf(CodeInvalidRequest, "The header Content-Type names no boundary.")
	}
	body := s.openBody(c, nil)
	defer body.close()
	input, err := s.readForm(ctx, about(c).tenant, multipart.NewReader(body, boundary))
	if body.failure() != nil {
		return input, body.failure()
	}
	if err == nil && input.Ref == "" {
		err = failf(CodeInvalidRequest, `The form has no file in the field "file" or "image".`)
	}
	return input, err
}

// readForm stores the file as it comes by; its name is the field "name", or else the file's own.
func (s *Server) readForm(ctx context.Context, tenant string, form *multipart.Reader) (comfy.Input, error) {
	var (
		input comfy.Input
		name  string
	)
	for {
		part, err := form.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return input, failf(CodeInvalidRequest, "The form cannot be read.").because(err)
		}
		switch part.FormName() {
		case "file", "image":
			if input.Ref != "" {
				return input, failf(CodeInvalidRequest, "The form holds more than one file; send one at a time.")
			}
			// A browser may send a path; only its last element names the file.
			stored, err := s.storeInput(ctx, tenant, path.Base(strings.ReplaceAll(part.FileName(), `\`, "/")), part)
			if err != nil {
				return input, err
			}
			input = stored
		case "name":
			raw, err := io.ReadAll(io.LimitReader(part, maxFormField))
			if err != nil {
				return input, failf(CodeInvalidRequest, "The form cannot be read.").because(err)
			}
			name = string(raw)
		}
	}
	if name != "" {
		input.Name = name
	}
	if problem := nameProblem(input.Name); problem != "" && input.Ref != "" {
		return input, failf(CodeInvalidInput, "The file's name %s.", problem)
	}
	return input, nil
}
