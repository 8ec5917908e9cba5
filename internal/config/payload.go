package config

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// PayloadKey encrypts what lies in Temporal. ID stands beside each payload.
type PayloadKey struct {
	ID     string
	Secret []byte
}

// plainPayloads in the first place of COMFYD_PAYLOAD_KEYS: nothing more is encrypted, and what was is still read.
const plainPayloads = "plain"

// payloadKeyID is short: a summary with it must fit into what Temporal allows.
var payloadKeyID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,32}$`)

// payload reads the keys of payloads, and who may ask the codec server.
func (c *Config) payload() error {
	held, err := indirect("COMFYD_PAYLOAD_KEYS", c.PayloadKeys)
	if err != nil {
		return err
	}
	wrong := &Error{"COMFYD_PAYLOAD_KEYS", "(hidden)", "name:key, separated by commas, each key 32 bytes in base64 (openssl rand -base64 32), each name once, up to 32 letters, digits, dots and dashes; or @file. The first encrypts, all decrypt; `plain` in front encrypts nothing"}
	keys := entries(held)
	if len(keys) > 0 && keys[0] == plainPayloads {
		c.PlainPayloads, keys = true, keys[1:]
	}
	for _, entry := range keys {
		id, key, _ := strings.Cut(entry, ":")
		secret, err := base64.StdEncoding.DecodeString(key)
		if err != nil || len(secret) != 32 || !payloadKeyID.MatchString(id) ||
			slices.ContainsFunc(c.Payload, func(k PayloadKey) bool { return k.ID == id }) {
			return wrong
		}
		c.Payload = append(c.Payload, PayloadKey{ID: id, Secret: secret})
	}
	if held != "" && len(c.Payload) == 0 {
		return wrong
	}
	if c.Codec, err = secret("COMFYD_CODEC_KEY", c.CodecKey); err != nil {
		return err
	}
	switch {
	case c.Codec != "" && len(c.Payload) == 0:
		return &Error{"COMFYD_PAYLOAD_KEYS", "", "COMFYD_CODEC_KEY is for decrypting with them"}
	case c.Codec == "" && len(c.CodecOrigins) > 0:
		return &Error{"COMFYD_CODEC_KEY", "", "COMFYD_CODEC_ORIGINS needs it: pages from there may decrypt with it"}
	}
	for _, origin := range c.CodecOrigins {
		if u, err := url.Parse(origin); !isHTTP(origin) || err != nil || u.Path != "" {
			return &Error{"COMFYD_CODEC_ORIGINS", origin, "where a Temporal UI is opened from, such as https://temporal.example.com"}
		}
	}
	return nil
}
