package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gofiber/fiber/v2"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/visibility"
)

const (
	defaultListLimit = 50
	maxListLimit     = 100
	maxCursor        = 4 << 10
	// The times that may be asked for.
	minYear, maxYear = 1970, 9999
)

// filter is what GET /jobs was asked for.
type filter struct {
	limit        int
	cursor       string
	status       comfy.State
	code         comfy.Code
	backend      string
	metadata     []string // "key=value"
	since, until time.Time
}

// readFilter refuses what it does not know: a filter with a typing error would list everything.
func readFilter(c *fiber.Ctx) (*filter, error) {
	f := &filter{limit: defaultListLimit}
	seen := map[string]bool{}
	for k, v := range c.Context().QueryArgs().All() {
		name := string(k)
		if seen[name] && name != "metadata" {
			return nil, failf(CodeInvalidRequest, "%s stands twice in the address.", shorten(name))
		}
		seen[name] = true
		if err := f.set(name, string(v)); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *filter) set(name, value string) (err error) {
	if !plainText(value) {
		return failf(CodeInvalidRequest, "%s must be text without control characters.", shorten(name))
	}
	switch name {
	case "limit":
		f.limit, err = strconv.Atoi(value)
		if err != nil || f.limit < 1 || f.limit > maxListLimit {
			return failf(CodeInvalidRequest, "limit must be a number from 1 to %d.", maxListLimit)
		}
	case "cursor":
		f.cursor = value
	case "status":
		f.status = comfy.State(value)
		if f.status != comfy.Running && f.status != comfy.Completed && f.status != comfy.Failed {
			return failf(CodeInvalidRequest, "status must be RUNNING, COMPLETED or FAILED.")
		}
	case "code":
		if f.code = comfy.Code(value); !knownCode(f.code) {
			return failf(CodeInvalidRequest, "code: %q is none of the codes with which jobs fail.", shorten(value))
		}
	case "backend":
		if f.backend = value; value == "" || len(value) > comfy.MaxLabel {
			return failf(CodeInvalidRequest, "backend must be the name of a pool.")
		}
	case "metadata":
		key, _, ok := strings.Cut(value, "=")
		if !ok || key == "" || len(value) > comfy.MaxLabel {
			return failf(CodeInvalidRequest, "metadata must be key=value, at most %d bytes long.", comfy.MaxLabel)
		}
		if f.metadata = append(f.metadata, value); len(f.metadata) > comfy.MaxLabels {
			return failf(CodeInvalidRequest, "metadata: more than %d labels; a job has no more.", comfy.MaxLabels)
		}
	case "since":
		f.since, err = timeFilter(name, value)
	case "until":
		f.until, err = timeFilter(name, value)
	default:
		return failf(CodeInvalidRequest, "%s is no filter; there are limit, cursor, status, code, backend, metadata, since and until.", shorten(name))
	}
	return err
}

func plainText(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}

func timeFilter(name, value string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return at, failf(CodeInvalidRequest, "%s must be a time such as 2026-01-31T18:30:00Z.", name)
	}
	// Years beyond have no four digits in Temporal's queries; the first second of year 1 would count as none given.
	if y := at.UTC().Year(); y < minYear || y > maxYear {
		return at, failf(CodeInvalidRequest, "%s must be in the years %d to %d (UTC).", name, minYear, maxYear)
	}
	return at, nil
}

// query asks Temporal for a tenant's jobs. Jobs that others have started as children carry no tenant: the default one
// has them.
func (f *filter) query(tenant string, orphans bool) string {
	owner := comfy.AttrTenant + " = " + visibility.Quote(tenant)
	if orphans {
		owner = "(" + owner + " OR " + comfy.AttrTenant + " IS NULL)"
	}
	all := []string{visibility.Jobs(), owner}
	switch f.status {
	case comfy.Running:
		all = append(all, "CloseTime IS NULL")
	case comfy.Completed:
		all = append(all, "ExecutionStatus = 'Completed'")
	case comfy.Failed:
		all = append(all, "ExecutionStatus IN ('Failed', 'Canceled', 'Terminated', 'TimedOut')")
	}
	if f.code != "" {
		all = append(all, codeQuery(f.code))
	}
	if f.backend != "" {
		all = append(all, comfy.AttrBackend+" = "+visibility.Quote(f.backend))
	}
	for _, label := range slices.Compact(slices.Sorted(slices.Values(f.metadata))) {
		// The embedded Temporal's full-text index takes these for its own; such labels are compared afterwards only.
		if !strings.ContainsAny(label, `"\`) {
			all = append(all, comfy.AttrMetadata+" = "+visibility.Quote(label))
		}
	}
	if !f.since.IsZero() {
		all = append(all, fmt.Sprintf("StartTime >= '%s'", f.since.UTC().Format(time.RFC3339Nano)))
	}
	if !f.until.IsZero() {
		all = append(all, fmt.Sprintf("StartTime < '%s'", f.until.UTC().Format(time.RFC3339Nano)))
	}
	return strings.Join(all, " AND ")
}

// codeQuery finds what codeOf tells: ends that Temporal made itself carry no code.
func codeQuery(code comfy.Code) string {
	byCode := comfy.AttrErrorCode + " = " + visibility.Quote(string(code))
	switch code {
	case comfy.Canceled:
		return "ExecutionStatus = 'Canceled'"
	case comfy.Timeout:
		return "(ExecutionStatus = 'TimedOut' OR (ExecutionStatus = 'Failed' AND " + byCode + "))"
	case comfy.Internal:
		return "(ExecutionStatus = 'Terminated' OR (ExecutionStatus = 'Failed' AND (" + byCode + " OR " + comfy.AttrErrorCode + " IS NULL)))"
	}
	return "ExecutionStatus = 'Failed' AND " + byCode
}

// cursor seals Temporal's place in a list. It opens for the same tenant and filters only, and nobody else can make one.
func (s *signer) cursor(tenant, query string, token []byte) string {
	return base64.RawURLEncoding.EncodeToString(append(s.sealOf(tenant, query, token), token...))
}

func (s *signer) openCursor(tenant, query, cursor string) ([]byte, error) {
	if cursor == "" {
		return nil, nil
	}
	wrong := failf(CodeInvalidRequest, "cursor: it is not one of this list. Leave it out to begin anew; the filters must stay the same from page to page.")
	if len(cursor) > maxCursor {
		return nil, wrong
	}
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(raw) <= sha256.Size || !hmac.Equal(raw[:sha256.Size], s.sealOf(tenant, query, raw[sha256.Size:])) {
		return nil, wrong
	}
	return raw[sha256.Size:], nil
}

func (s *signer) sealOf(tenant, query string, token []byte) []byte {
	mac := hmac.New(sha256.New, s.key)
	for _, part := range []string{"comfyd-cursor-v1", tenant, query, string(token)} {
		mac.Write([]byte(part))
		mac.Write([]byte{0})
	}
	return mac.Sum(nil)
}
