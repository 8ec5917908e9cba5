package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"io"
	"net/http"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/cors"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/encoding/protojson"
)

// CodecServer lets a Temporal UI, or the temporal command, read what is encrypted in Temporal. It opens the payloads of
// all tenants, so it has a password of its own, which is none of the API's keys.
type CodecServer struct {
	Codec    converter.PayloadCodec
	Password string
	// Origins are where the UI is opened from, such as https://temporal.example.com.
	Origins []string
}

const codecPath = "/codec"

// codecRoutes serve POST /codec/decode and POST /codec/encode, as converter.NewPayloadCodecHTTPHandler does.
func (s *Server) codecRoutes() {
	o := s.opts.CodecServer
	if o == nil {
		return
	}
	group := s.app.Group(codecPath)
	if len(o.Origins) > 0 {
		group.Use(cors.New(cors.Config{
			AllowOrigins: strings.Join(o.Origins, ","), AllowMethods: "POST", AllowCredentials: true, MaxAge: 600,
			AllowHeaders: strings.Join([]string{fiber.HeaderAuthorization, fiber.HeaderContentType, "X-Namespace"}, ","),
		}))
	}
	want := sha256.Sum256([]byte(o.Password))
	group.Use(func(c *fiber.Ctx) error {
		got := sha256.Sum256([]byte(codecPassword(c)))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			c.Set(fiber.HeaderWWWAuthenticate, `Basic realm="comfyd codec"`) // a browser asks for it
			return failf(CodeUnauthorized, "The password of the codec server is needed (COMFYD_CODEC_KEY): as the password of a login with any name, or as Authorization: Bearer <password>.")
		}
		return c.Next()
	})
	group.Post("/decode", s.codec(o.Codec.Decode))
	group.Post("/encode", s.codec(o.Codec.Encode))
}

// codecPassword reads "Bearer PASSWORD", and "Basic", with any name, for browsers.
func codecPassword(c *fiber.Ctx) string {
	scheme, value, _ := strings.Cut(c.Get(fiber.HeaderAuthorization), " ")
	switch strings.ToLower(scheme) {
	case "bearer":
		return strings.TrimSpace(value)
	case "basic":
		raw, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(value))
		_, password, _ := strings.Cut(string(raw), ":")
		return password
	}
	return ""
}

func (s *Server) codec(step func([]*common.Payload) ([]*common.Payload, error)) fiber.Handler {
	return func(c *fiber.Ctx) error {
		body := s.openBody(c, s.memory)
		defer body.close()
		raw, err := io.ReadAll(body)
		if err != nil {
			return err
		}
		var in common.Payloads
		if err := protojson.Unmarshal(raw, &in); err != nil {
			return failf(CodeInvalidRequest, "The body must be payloads as Temporal's codec servers take them.").because(err)
		}
		payloads, err := step(in.GetPayloads())
		if err != nil {
			return failf(CodeInvalidInput, "A payload cannot be read: it is encrypted with a key that this server does not have, or damaged.").because(err)
		}
		out, err := protojson.Marshal(&common.Payloads{Payloads: payloads})
		if err != nil {
			return failf(CodeInternal, "The payloads cannot be written.").because(err)
		}
		c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
		return c.Status(http.StatusOK).Send(out)
	}
}
