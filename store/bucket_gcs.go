//go:build !nogcs

package store

// gs://. Its libraries are 20 MB of a binary, unless the embedded Temporal server, which has them too, is in it.
import _ "gocloud.dev/blob/gcsblob"
