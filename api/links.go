package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
)

const (
	// linkLife is how long a link works; the status gives a new one at any time.
	linkLife = 24 * time.Hour
	// clockSkew is how far the clocks of replicas may be apart.
	clockSkew = time.Minute
)

// signer makes and checks the signatures of links, to outputs and to events. A signature covers path, expiry and tenant,
// whatever the method, so one link serves GET and HEAD. The tenant is not in the link: it is found by trying those that
// there are, which needs no look at the job for a link that is forged.
type signer struct {
	key     []byte
	tenants []string
}

func newSigner(key []byte, keys []Key, defaultTenant string) *signer {
	s := &signer{key: key, tenants: []string{defaultTenant}}
	for _, k := range keys {
		if !slices.Contains(s.tenants, k.Tenant) {
			s.tenants = append(s.tenants, k.Tenant)
		}
	}
	return s
}

func (s *signer) sign(tenant, path string, expires int64) string {
	mac := hmac.New(sha256.New, s.key)
	for _, part := range []string{"comfyd-output-v1", path, strconv.FormatInt(expires, 10), tenant} {
		mac.Write([]byte(part))
		mac.Write([]byte{0})
	}
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// verify returns the tenant that a link was made for.
func (s *signer) verify(path string, expires int64, signature string) (string, bool) {
	tenant, ok := "", false
	for _, t := range s.tenants {
		if hmac.Equal([]byte(s.sign(t, path, expires)), []byte(signature)) {
			tenant, ok = t, true
		}
	}
	return tenant, ok
}

func outputRoot(job string) string { return "/outputs/" + url.PathEscape(job) }

// outputPath is the address of an output; links are signed over it.
func outputPath(job, sum, filename string) string {
	return outputRoot(job) + "/" + url.PathEscape(sum) + "/" + url.PathEscape(filename)
}

// link makes a link to an output that works without a key.
func (s *Server) link(base string, j *job, sum, filename string) (string, *time.Time) {
	return s.signed(base, j, outputPath(j.id, sum, filename))
}

// signed makes a link that works without a key, for as long as the job is known and at most for linkLife.
func (s *Server) signed(base string, j *job, path string) (string, *time.Time) {
	expires := s.now().Add(linkLife)
	if j.status.ExpiresAt.Before(expires) {
		expires = *j.status.ExpiresAt
	}
	expires = expires.UTC().Truncate(time.Second)
	return base + path + "?" + s.signature(j.tenant, path, expires), &expires
}

// signature is the query with which a path opens without a key.
func (s *Server) signature(tenant, path string, expires time.Time) string {
	return url.Values{
		"expires":   {strconv.FormatInt(expires.Unix(), 10)},
		"signature": {s.signer.sign(tenant, path, expires.Unix())},
	}.Encode()
}

// linkedJob reads the job of an address that opens by the key of its owner, or by a signed link to path.
func (s *Server) linkedJob(c *fiber.Ctx, id, path string) (*job, error) {
	about(c).callID = id
	tenant, err := s.byKeyOrLink(c, path)
	if err != nil {
		return nil, err
	}
	about(c).tenant = tenant
	return s.job(id, tenant)
}

// byKeyOrLink returns the tenant of the request's key, or the one that its signed link was made for.
func (s *Server) byKeyOrLink(c *fiber.Ctx, path string) (string, error) {
	if c.Get(fiber.HeaderAuthorization) == "" && c.Query("signature") != "" {
		return s.checkLink(path, c.Query("expires"), c.Query("signature"))
	}
	return s.bearer(c)
}

// checkLink returns the tenant that a signed link was made for.
func (s *Server) checkLink(path, until, signature string) (string, error) {
	expires, err := strconv.ParseInt(until, 10, 64)
	if err != nil {
		return "", failf(CodeInvalidLink, "The link is not complete. Ask the job's status for a new one (?output=url; events_url).")
	}
	tenant, ok := s.signer.verify(path, expires, signature)
	if !ok {
		return "", failf(CodeInvalidLink, "The link's signature is wrong. Ask the job's status for a new one (?output=url; events_url).")
	}
	if s.now().After(time.Unix(expires, 0).Add(clockSkew)) {
		return "", failf(CodeLinkExpired, "The link has expired. Ask the job's status for a new one (?output=url; events_url).")
	}
	return tenant, nil
}

// url makes an address that the client can use.
func (s *Server) url(c *fiber.Ctx, path string) string { return s.base(c) + path }

// base is what the addresses begin with that the client can use: the public URL, or the one that it used itself.
func (s *Server) base(c *fiber.Ctx) string {
	if s.opts.PublicURL != "" {
		return strings.TrimSuffix(s.opts.PublicURL, "/")
	}
	return c.BaseURL()
}
