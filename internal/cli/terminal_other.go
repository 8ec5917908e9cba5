//go:build !unix

package cli

// askTerminal knows no way to ask here.
func askTerminal(string) string { return "" }
