package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
)

// prefix is how a secret for webhooks begins; base64 follows.
const prefix = "whsec_"

// Secret signs messages.
type Secret struct {
	Tenant string // empty: of all who have none of their own
	Value  string // whsec_...
}

// SecretsOf are those with which a tenant's receivers verify messages, each of which is signed with all of them. One that
// is not the tenant's own is made of what all share, so that no tenant can sign for another.
func (s *Sender) SecretsOf(tenant string) []string {
	var own, made []string
	for _, secret := range s.o.Secrets {
		switch secret.Tenant {
		case tenant:
			own = append(own, secret.Value)
		case "":
			made = append(made, derive([]byte(secret.Value), tenant))
		}
	}
	switch {
	case len(own) > 0:
		return own
	case len(made) > 0:
		return made
	}
	return []string{derive(s.o.Fallback, tenant)}
}

func derive(root []byte, tenant string) string {
	mac := hmac.New(sha256.New, root)
	mac.Write([]byte("comfyd-webhook-v1\x00" + tenant))
	return prefix + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
