package comfy

import "regexp"

var tenantName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`)

// ValidTenant tells whether s can be the name of a tenant: up to 64 letters, digits, dots, dashes and underscores, not
// beginning with a dot. It becomes part of keys in the store.
func ValidTenant(s string) bool { return tenantName.MatchString(s) }
