// Package embedded runs a Temporal server with its UI inside this process, on SQLite in the data folder. It is for one
// machine; a cluster is reached through TEMPORAL_ADDRESS instead.
//
// Its data survives a kill at any moment. It is not for more than one process: the folder is locked.
//
// The build tag noembedded leaves the server out. [Start] then fails with [NotBuiltIn].
package embedded

import (
	"net/http"
	"time"

	"github.com/sirupsen/logrus"
	"go.temporal.io/api/enums/v1"
)

// Options of [Start].
type Options struct {
	// DataDir is the folder of temporal.db. It is made if need be, and locked while the server runs.
	DataDir string
	// Listen is the address of the gRPC frontend, such as 127.0.0.1:7233. Port 0 picks a free one. There is no
	// authentication behind it, so only a loopback address is safe.
	Listen string
	// UIListen is the address of the Temporal UI, such as 127.0.0.1:8233; the same holds for it. Empty: no UI.
	UIListen string
	// Codec decrypts payloads for the UI, which finds it at /codec of its own address; nil: nothing is encrypted. Whoever
	// reaches the UI reads all.
	Codec http.Handler
	// Namespace is made if need be. Empty is "default".
	Namespace string
	// Retention is how long a closed workflow is kept, at least an hour (Temporal's own minimum). It is applied at
	// every start to workflows that close from then on.
	Retention time.Duration
	// SearchAttributes are registered at every start where they are missing, and usable when Start returns.
	SearchAttributes map[string]enums.IndexedValueType
	// Log gets the server's warnings and errors, and its chatter at level debug. Nil logs nothing.
	Log logrus.FieldLogger
}

// Database is what a database file was made with, and by which Temporal server.
type Database struct {
	Schema     string `json:"schema"`
	Visibility string `json:"visibility"`
	Digest     string `json:"digest"` // of the schema's statements
	Server     string `json:"server"`
}

// DatabaseFile is the name of the database in the data folder.
const DatabaseFile = "temporal.db"

// Kind is why a function failed. Test for one with errors.Is(err, embedded.AddressTaken).
type Kind string

// Kinds of [Error].
const (
	BadOptions     Kind = "wrong options"
	FolderUnusable Kind = "data folder cannot be used"
	FolderLocked   Kind = "data folder is in use"
	AddressTaken   Kind = "address cannot be listened on"
	SchemaOlder    Kind = "database is older than this program"
	SchemaNewer    Kind = "database is newer than this program"
	Corrupt        Kind = "database cannot be read"
	StartFailed    Kind = "server did not start"
	StopFailed     Kind = "server did not stop"
	Crashed        Kind = "server failed while running"
	NoDatabase     Kind = "there is no database"
	CopyFailed     Kind = "database was not copied"
	NotBuiltIn     Kind = "no embedded server in this program"
)

func (k Kind) Error() string { return string(k) }

// Error is what every function of this package fails with. Its text is one line: what, why and what to do.
type Error struct {
	Kind Kind
	Text string
	Err  error // the cause; may be nil
}

func (e *Error) Error() string { return e.Text }

// Unwrap makes errors.Is work with a [Kind] and with the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}
