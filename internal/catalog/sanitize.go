package catalog

import "bytes"

// nonFinite are the tokens that Python's json writes for numbers that JSON cannot say; the longer first.
var nonFinite = [][]byte{[]byte("-Infinity"), []byte("Infinity"), []byte("NaN")}

// Sanitize makes JSON of what ComfyUI sends: bare NaN, Infinity and -Infinity become null. They stand in the answer to a
// refused prompt and in the history of an accepted one (seen on 0.3.75), and encoding/json refuses the whole document.
// Where there is none, the data comes back as it is, without a copy.
func Sanitize(data []byte) []byte {
	if !bytes.Contains(data, []byte("NaN")) && !bytes.Contains(data, []byte("Infinity")) {
		return data
	}
	var out []byte
	from := 0
	for i := 0; i < len(data); {
		switch data[i] {
		case '"':
			i = stringEnd(data, i)
		case '-', 'I', 'N':
			token := tokenAt(data[i:])
			if token == nil {
				i++
				continue
			}
			out = append(append(out, data[from:i]...), "null"...)
			i += len(token)
			from = i
		default:
			i++
		}
	}
	if out == nil {
		return data
	}
	return append(out, data[from:]...)
}

func tokenAt(b []byte) []byte {
	for _, t := range nonFinite {
		if bytes.HasPrefix(b, t) {
			return t
		}
	}
	return nil
}

// stringEnd is where the string that begins at i ends; the end of the data where it never does.
func stringEnd(data []byte, i int) int {
	for i++; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(data)
}
