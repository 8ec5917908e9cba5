//go:build !unix

package cli

import "time"

// askTerminal knows no way to ask here.
func askTerminal(string, time.Duration) string { return "" }
