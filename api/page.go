package api

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"github.com/gofiber/fiber/v2"
)

//go:embed web
var webFiles embed.FS

const (
	// pagePolicy lets the page load from its own origin only, and nothing that stands in a document run: what users send
	// and servers answer cannot become code.
	pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; " +
		"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	// webForever is for files whose address holds their digest.
	webForever = "public, max-age=31536000, immutable"
	iconFile   = "favicon.svg"
)

// webTypes are the content types of the page's files, by extension; the system's own list may lack them.
var webTypes = map[string]string{
	".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".json": fiber.MIMEApplicationJSON, ".svg": "image/svg+xml",
}

// page is the web page: a client of this API that the API serves.
type page struct {
	document *template.Template
	files    map[string][]byte
	// digest of all files, which their addresses hold: modules name each other by relative addresses, so that one digest
	// for all lets a browser keep them for good, and never mix two versions.
	digest string
}

func newPage() (*page, error) {
	p := &page{files: map[string][]byte{}}
	hash := sha256.New()
	err := fs.WalkDir(webFiles, "web", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := webFiles.ReadFile(name)
		if err != nil {
			return err
		}
		p.files[path.Base(name)] = raw
		fmt.Fprintf(hash, "%s %d\n", name, len(raw))
		hash.Write(raw)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("api: read the page: %w", err)
	}
	p.digest = hex.EncodeToString(hash.Sum(nil))[:16]
	p.document, err = template.New("page").Parse(string(p.files["index.html"]))
	if err != nil {
		return nil, fmt.Errorf("api: read the page: %w", err)
	}
	return p, nil
}

// wantsPage tells a browser's visit from a client's call. A visit sends no key; some libraries name HTML among what they
// take unless they are told otherwise, such as Java's.
func wantsPage(c *fiber.Ctx) bool {
	scheme, _, _ := strings.Cut(c.Get(fiber.HeaderAuthorization), " ")
	return strings.Contains(c.Get(fiber.HeaderAccept), fiber.MIMETextHTML) && !strings.EqualFold(scheme, "Bearer")
}

// home is GET /: the page for browsers, and for other clients what there is here.
func (s *Server) home(c *fiber.Ctx) error {
	c.Vary(fiber.HeaderAccept, fiber.HeaderAuthorization)
	if wantsPage(c) {
		return s.sendPage(c)
	}
	return c.JSON(map[string]string{
		"name": "comfyd", "version": s.opts.Version,
		"submit": s.url(c, "/submit_workflow"), "jobs": s.url(c, "/jobs"), "health": s.url(c, "/readyz"),
	})
}

// jobPage is GET /jobs/{id} for browsers: links from elsewhere, such as Temporal's pages, lead there. It tells nothing
// about the job, so it needs no key.
func (s *Server) jobPage(c *fiber.Ctx) error {
	c.Vary(fiber.HeaderAccept, fiber.HeaderAuthorization)
	if wantsPage(c) {
		return s.sendPage(c)
	}
	return c.Next()
}

func (s *Server) sendPage(c *fiber.Ctx) error {
	var buf bytes.Buffer
	err := s.page.document.Execute(&buf, map[string]string{
		// Relative, so that the page works below the path of a proxy.
		"Root": "./" + strings.Repeat("../", strings.Count(c.Path(), "/")-1), "Web": "web/" + s.page.digest + "/", "KeyFile": s.opts.KeyFile,
	})
	if err != nil {
		return failf(CodeInternal, "The page cannot be shown.").because(err)
	}
	c.Set(fiber.HeaderContentType, fiber.MIMETextHTMLCharsetUTF8)
	c.Set(fiber.HeaderContentSecurityPolicy, pagePolicy)
	c.Set(fiber.HeaderReferrerPolicy, "no-referrer")
	c.Set(fiber.HeaderCacheControl, "no-cache")
	return c.Send(buf.Bytes())
}

// webFile is GET /web/{digest}/{file}. Another version's file is not found, rather than taken for this one's.
func (s *Server) webFile(c *fiber.Ctx) error {
	name := c.Params("file")
	if c.Params("digest") != s.page.digest || name == "index.html" {
		return fiber.ErrNotFound
	}
	return s.sendWebFile(c, name, webForever)
}

// icon is GET /favicon.svg, and /favicon.ico for browsers that ask unasked.
func (s *Server) icon(c *fiber.Ctx) error { return s.sendWebFile(c, iconFile, "public, max-age=86400") }

func (s *Server) sendWebFile(c *fiber.Ctx, name, caching string) error {
	raw, ok := s.page.files[name]
	if !ok {
		return fiber.ErrNotFound
	}
	c.Set(fiber.HeaderContentType, webTypes[path.Ext(name)])
	c.Set(fiber.HeaderContentSecurityPolicy, "default-src 'none'") // for the icon, looked at by itself
	c.Set(fiber.HeaderCacheControl, caching)
	return c.Status(http.StatusOK).Send(raw)
}

// pageSettings is GET /page.json: what the page needs to know of this server.
func (s *Server) pageSettings(c *fiber.Ctx) error {
	return c.JSON(map[string]string{
		"version": s.opts.Version, "temporal_ui": s.opts.TemporalUI, "temporal_namespace": s.opts.Namespace,
	})
}
