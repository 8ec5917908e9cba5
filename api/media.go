package api

import (
	"bufio"
	"io"
	"mime"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// skipBOM drops the mark that Windows editors put in front of UTF-8.
func skipBOM(r io.Reader) io.Reader {
	buffered := bufio.NewReader(r)
	if head, err := buffered.Peek(3); err == nil && string(head) == "\xef\xbb\xbf" {
		if _, err := buffered.Discard(3); err != nil {
			return buffered
		}
	}
	return buffered
}

// requireJSON refuses other content types and compressed bodies.
func requireJSON(c *fiber.Ctx) error {
	if !isJSON(c) {
		return failf(CodeUnsupportedMedia, "Send JSON, with the header Content-Type: application/json.")
	}
	return requirePlain(c)
}

func requirePlain(c *fiber.Ctx) error {
	if encoding := c.Get(fiber.HeaderContentEncoding); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return failf(CodeUnsupportedMedia, "Send the body uncompressed: Content-Encoding is not supported.")
	}
	return nil
}

func isJSON(c *fiber.Ctx) bool {
	media, _, err := mime.ParseMediaType(c.Get(fiber.HeaderContentType))
	return err == nil && (media == fiber.MIMEApplicationJSON || (strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json")))
}
