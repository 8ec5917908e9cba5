package api

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io"
	"mime"
	"path"

	"github.com/gofiber/fiber/v2"
	"github.com/swaggest/swgui/v5/static"
)

// Our part of the page: the frame, and the script that starts Swagger UI in it.
//
//go:embed docspage
var docsPage embed.FS

// docsPolicy keeps the page to what this server sends, and calls of it to this server.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// absent are the paths that are served with some settings only.
func (s *Server) absent() (paths []string) {
	if s.opts.Metrics == nil {
		paths = append(paths, "/metrics")
	}
	if s.opts.CodecServer == nil {
		paths = append(paths, codecPath+"/decode", codecPath+"/encode")
	}
	return paths
}

// describe is GET /openapi.json.
func (s *Server) describe(c *fiber.Ctx) error {
	raw, err := s.description.JSON(s.url(c, ""))
	if err != nil {
		return err
	}
	c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	return c.Send(raw)
}

// docs is GET /docs: the description, for people.
func (s *Server) docs(c *fiber.Ctx) error {
	page, err := docsPage.ReadFile("docspage/index.html")
	if err != nil {
		return fmt.Errorf("read the page: %w", err)
	}
	c.Set(fiber.HeaderContentSecurityPolicy, docsPolicy)
	c.Set(fiber.HeaderContentType, fiber.MIMETextHTMLCharsetUTF8)
	return c.Send(page)
}

// docsFile is GET /docs/{file}: what the page is made of, ours and Swagger UI's.
func (s *Server) docsFile(c *fiber.Ctx) error {
	name := c.Params("file")
	media := mime.TypeByExtension(path.Ext(name))
	raw, zipped, err := readDocsFile(name)
	if err != nil || media == "" {
		return failf(CodeNotFound, "There is nothing at this address.")
	}
	c.Set(fiber.HeaderContentType, media)
	c.Set(fiber.HeaderCacheControl, "public, max-age=3600")
	c.Set(fiber.HeaderVary, fiber.HeaderAcceptEncoding)
	if !zipped {
		return c.Send(raw)
	}
	if c.AcceptsEncodings("gzip") == "gzip" {
		c.Set(fiber.HeaderContentEncoding, "gzip")
		return c.Send(raw)
	}
	r, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	if raw, err = io.ReadAll(r); err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	return c.Send(raw)
}

// readDocsFile tells whether what it returns is compressed.
func readDocsFile(name string) (raw []byte, zipped bool, err error) {
	if raw, err = docsPage.ReadFile("docspage/" + name); err == nil {
		return raw, false, nil
	}
	if raw, err = static.FS.ReadFile(name + ".gz"); err == nil {
		return raw, true, nil
	}
	raw, err = static.FS.ReadFile(name)
	return raw, false, err
}
