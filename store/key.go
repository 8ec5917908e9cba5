package store

import (
	"encoding/hex"
	"path"
	"strings"
	"unicode/utf8"
)

const (
	maxKey     = 1024 // S3's limit
	maxSegment = 200  // file systems allow 255 bytes; some drivers escape characters into longer ones
)

// checkKey refuses what is not the same key in every kind of store, or would leave a folder. Segments that start with a
// dot are the stores' own.
func checkKey(key string) error {
	switch {
	case key == "":
		return invalid("a key is not empty")
	case len(key) > maxKey:
		return invalid("a key has at most %d bytes, this one %d", maxKey, len(key))
	case !utf8.ValidString(key):
		return invalid("a key is UTF-8")
	}
	for _, r := range key {
		if r < 0x20 || r == 0x7f || r == '\\' {
			return invalid("a key holds neither control characters nor backslashes")
		}
	}
	for segment := range strings.SplitSeq(key, "/") {
		switch {
		case segment == "":
			return invalid("a key neither starts nor ends with a slash, and has no two in a row")
		case segment[0] == '.':
			return invalid("no part of a key starts with a dot")
		case len(segment) > maxSegment:
			return invalid("a part of a key has at most %d bytes, this one %d", maxSegment, len(segment))
		}
	}
	return nil
}

// checkPrefix refuses prefixes that no key can have.
func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	return checkKey(strings.TrimSuffix(prefix, "/"))
}

// digestIn returns the SHA-256 that a key names in its last segment, as those of PutHashed do.
func digestIn(key string) string {
	name := path.Base(key)
	if len(name) != 64 || strings.ToLower(name) != name {
		return ""
	}
	if _, err := hex.DecodeString(name); err != nil {
		return ""
	}
	return name
}
