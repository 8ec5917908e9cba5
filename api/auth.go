package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// keyring finds the tenant of a key. It holds hashes, so that all comparisons are of equal length.
type keyring struct{ entries []keyEntry }

type keyEntry struct {
	hash   [sha256.Size]byte
	tenant string
}

func newKeyring(keys []Key) *keyring {
	k := &keyring{}
	for _, key := range keys {
		k.entries = append(k.entries, keyEntry{hash: sha256.Sum256([]byte(key.Secret)), tenant: key.Tenant})
	}
	return k
}

// tenant compares with every key, whether one has matched or not, and in constant time.
func (k *keyring) tenant(secret string) (string, bool) {
	hash := sha256.Sum256([]byte(secret))
	found := -1
	for i := range k.entries {
		if subtle.ConstantTimeCompare(hash[:], k.entries[i].hash[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return "", false
	}
	return k.entries[found].tenant, true
}

// authenticate lets requests with a key pass: "Authorization: Bearer KEY".
func (s *Server) authenticate(c *fiber.Ctx) error {
	tenant, err := s.bearer(c)
	if err != nil {
		return err
	}
	about(c).tenant = tenant
	return c.Next()
}

// bearer returns the tenant of the request's key. A missing and a wrong key get one answer.
func (s *Server) bearer(c *fiber.Ctx) (string, error) {
	scheme, secret, _ := strings.Cut(c.Get(fiber.HeaderAuthorization), " ")
	tenant, ok := s.keys.tenant(strings.TrimSpace(secret))
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", failf(CodeUnauthorized, "A valid key is needed. Send it as: Authorization: Bearer <key>.")
	}
	return tenant, nil
}
