package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
)

// discoveryTimeout bounds reading what the workers have published.
const discoveryTimeout = 10 * time.Second

// offered is a model, or a node class, and the pools that have it.
type offered struct {
	Name  string   `json:"name"`
	Pools []string `json:"pools"`
}

func offers(found map[string][]string) []offered {
	list := make([]offered, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		list = append(list, offered{name, found[name]})
	}
	return list
}

// models is GET /models and GET /models/{folder}.
func (s *Server) models(c *fiber.Ctx) error {
	folder, err := pathValue(c, "folder")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.life, discoveryTimeout)
	defer cancel()
	found, near, err := s.catalogs.Models(ctx, folder)
	switch {
	case err != nil:
		return unknownCatalogs(err)
	case folder != "" && len(found) == 0:
		return failf(CodeNotFound, "There is no model folder %q.%s", shorten(folder), didYouMean(near))
	}
	lists := make(map[string][]offered, len(found))
	for name, models := range found {
		lists[name] = offers(models)
	}
	if folder == "" {
		return s.sendCacheable(c, fiber.Map{"models": lists})
	}
	name := slices.Collect(maps.Keys(lists))[0] // an older name may have been asked for
	return s.sendCacheable(c, fiber.Map{"folder": name, "models": lists[name]})
}

// nodes is GET /nodes.
func (s *Server) nodes(c *fiber.Ctx) error {
	ctx, cancel := context.WithTimeout(s.life, discoveryTimeout)
	defer cancel()
	found, err := s.catalogs.Nodes(ctx)
	if err != nil {
		return unknownCatalogs(err)
	}
	return s.sendCacheable(c, fiber.Map{"nodes": offers(found)})
}

// node is GET /nodes/{class}.
func (s *Server) node(c *fiber.Ctx) error {
	class, err := pathValue(c, "+")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.life, discoveryTimeout)
	defer cancel()
	definition, pools, near, err := s.catalogs.Node(ctx, class)
	switch {
	case err != nil:
		return unknownCatalogs(err)
	case definition == nil:
		return failf(CodeNotFound, "No backend has a node class %q.%s", shorten(class), didYouMean(near))
	}
	return s.sendCacheable(c, struct {
		offered
		Definition json.RawMessage `json:"definition"`
	}{offered{class, pools}, definition})
}

// unknownCatalogs answers where nobody can tell what the backends have.
func unknownCatalogs(err error) error {
	return failf(CodeUnavailable, "It is not known at the moment what the backends have: no ComfyUI has been seen yet, or the store does not answer. Try again; GET /readyz names what is down.").because(err)
}

func didYouMean(near []string) string {
	if len(near) == 0 {
		return ""
	}
	return fmt.Sprintf(" Did you mean %s?", strings.Join(near, ", "))
}

// sendCacheable answers with something that changes rarely: a client may keep it, and asks whether it is still so.
func (s *Server) sendCacheable(c *fiber.Ctx, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	sum := sha256.Sum256(raw)
	tag := `"` + hex.EncodeToString(sum[:16]) + `"`
	c.Set(fiber.HeaderETag, tag)
	c.Set(fiber.HeaderCacheControl, "private, no-cache")
	c.Set(fiber.HeaderVary, fiber.HeaderAuthorization)
	if matches(c.Get(fiber.HeaderIfNoneMatch), tag) {
		return c.SendStatus(http.StatusNotModified)
	}
	c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	return c.Send(raw)
}
