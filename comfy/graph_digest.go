package comfy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"slices"
)

// Digest is the SHA-256, in hex, of what the graph means: two graphs have the same one exactly when they differ in
// nothing but white space, the order of keys and the way characters are escaped. Numbers count by their digits, so 1
// and 1.0 differ, as they do for ComfyUI's cache.
func (g *Graph) Digest() string {
	sum := sha256.New()
	digest(sum, g.raw, 0)
	return hex.EncodeToString(sum.Sum(nil))
}

// digest writes the value that begins at i and returns where it ends. What has no order of its own goes in as it
// stands; an object goes in as the hash of its members' hashes, so that each byte is read once however deep it lies.
func digest(to hash.Hash, b []byte, i int) int {
	depth, from := 0, i
	for {
		switch b[i] {
		case '"':
			end := skipString(b, i)
			to.Write(b[from:i])
			to.Write(append(canonical([]byte{'"'}, b[i:end]), 0xFE)) // neither 0xFE nor 0xFF stands in UTF-8 text
			i, from = end, end
		case '{':
			to.Write(b[from:i])
			i = digestObject(to, b, i)
			from = i
		case '[':
			depth++
			i++
		case ']':
			depth--
			i++
		case ',':
			i++
		default:
			for b[i] != ',' && b[i] != ']' && b[i] != '}' {
				i++
			}
		}
		if depth == 0 {
			to.Write(b[from:i])
			return i
		}
	}
}

func digestObject(to hash.Hash, b []byte, i int) int {
	var parts [][sha256.Size]byte
	h := sha256.New()
	for i++; b[i] != '}'; {
		if b[i] == ',' {
			i++
		}
		h.Reset()
		colon := digest(h, b, i)
		i = digest(h, b, colon+1)
		parts = append(parts, [sha256.Size]byte(h.Sum(nil)))
	}
	slices.SortFunc(parts, func(x, y [sha256.Size]byte) int { return bytes.Compare(x[:], y[:]) })
	h.Reset()
	for _, part := range parts {
		h.Write(part[:])
	}
	to.Write(h.Sum([]byte{'{'}))
	return i + 1
}
