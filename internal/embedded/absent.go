//go:build noembedded

package embedded

import "context"

// Server stands for the server that this build leaves out.
type Server struct{}

func absent() error {
	return &Error{Kind: NotBuiltIn,
		Text: "this comfyd was built without the embedded Temporal server: set TEMPORAL_ADDRESS to the address of one, such as temporal:7233"}
}

// Start always fails with [NotBuiltIn].
func Start(context.Context, Options) (*Server, error) { return nil, absent() }

// CopyDatabase always fails with [NotBuiltIn].
func CopyDatabase(context.Context, string, string) (Database, error) { return Database{}, absent() }

// CheckDatabase always fails with [NotBuiltIn].
func CheckDatabase(context.Context, string) error { return absent() }

// Lock always fails with [NotBuiltIn].
func Lock(string) (func() error, error) { return nil, absent() }

// Address returns the empty string.
func (*Server) Address() string { return "" }

// UIAddress returns the empty string.
func (*Server) UIAddress() string { return "" }

// Failed returns a channel that never delivers.
func (*Server) Failed() <-chan error { return nil }

// Stop does nothing.
func (*Server) Stop() error { return nil }
