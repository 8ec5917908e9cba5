package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

// errUnsure says that Python may read a text that we do not.
var errUnsure = errors.New("unsure")

var (
	pythonInt   = regexp.MustCompile(`^[+-]?[0-9]+(_[0-9]+)*$`)
	pythonFloat = regexp.MustCompile(`^[+-]?([0-9]+(_[0-9]+)*\.?([0-9]+(_[0-9]+)*)?|\.[0-9]+(_[0-9]+)*)([eE][+-]?[0-9]+(_[0-9]+)*)?$`)
	pythonInf   = regexp.MustCompile(`(?i)^[+-]?(inf|infinity|nan)$`)
)

// pythonSpace is what int() and float() strip, as far as ASCII goes.
const pythonSpace = " \t\n\r\v\f"

// decodeValue reads an input's value, numbers as json.Number, and takes off the wrapper {"__value__": ...} with which the
// editor marks a list that is no link (validate_inputs in ComfyUI's execution.py).
func decodeValue(raw json.RawMessage) any {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil
	}
	if o, ok := v.(map[string]any); ok {
		if inner, ok := o["__value__"]; ok {
			return inner
		}
	}
	return v
}

// toInt is Python's int(v), as ComfyUI applies it to the values of INT inputs. The error says why it fails, or is
// errUnsure.
func toInt(v any) (*big.Int, error) {
	switch v := v.(type) {
	case bool:
		if v {
			return big.NewInt(1), nil
		}
		return new(big.Int), nil
	case json.Number:
		if !strings.ContainsAny(string(v), ".eE") {
			return wholeNumber(string(v))
		}
		f, err := strconv.ParseFloat(string(v), 64)
		if err != nil {
			return nil, errors.New("it is infinite")
		}
		i, _ := big.NewFloat(f).Int(nil)
		return i, nil
	case string:
		s := strings.Trim(v, pythonSpace)
		if unusual(s) {
			return nil, errUnsure
		}
		if !pythonInt.MatchString(s) {
			return nil, errors.New("the text is not a whole number")
		}
		return wholeNumber(strings.TrimPrefix(strings.ReplaceAll(s, "_", ""), "+"))
	default:
		return nil, errors.New("it is no number")
	}
}

func wholeNumber(s string) (*big.Int, error) {
	if len(s) > 4301 { // Python refuses texts of more than 4300 digits; the graph's own numbers are within that
		return nil, errors.New("it has too many digits")
	}
	i, ok := new(big.Int).SetString(s, 10)
	if !ok {
		return nil, errUnsure
	}
	return i, nil
}

// toFloat is Python's float(v).
func toFloat(v any) (float64, error) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, nil
		}
		return 0, nil
	case json.Number:
		f, err := strconv.ParseFloat(string(v), 64)
		if err != nil {
			return 0, errors.New("it is too large")
		}
		return f, nil
	case string:
		s := strings.Trim(v, pythonSpace)
		if unusual(s) {
			return 0, errUnsure
		}
		if !pythonFloat.MatchString(s) && !pythonInf.MatchString(s) {
			return 0, errors.New("the text is not a number")
		}
		if strings.HasSuffix(strings.ToLower(s), "nan") {
			return math.NaN(), nil
		}
		f, _ := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64) // what overflows is inf, in Python too
		return f, nil
	default:
		return 0, errors.New("it is no number")
	}
}

// unusual texts hold digits or white space of other scripts, which Python reads, or are absurdly long.
func unusual(s string) bool {
	if len(s) > 10_000 {
		return true
	}
	for i := range len(s) {
		if s[i] >= 0x80 || s[i] >= 0x1C && s[i] <= 0x1F {
			return true
		}
	}
	return false
}

// compareInt and compareFloat compare exactly, as Python does; false where the bound cannot be read.
func compareInt(v *big.Int, bound json.Number) (int, bool) {
	b, ok := rat(bound)
	if !ok {
		return 0, false
	}
	return new(big.Rat).SetInt(v).Cmp(b), true
}

func compareFloat(v float64, bound json.Number) (int, bool) {
	b, ok := rat(bound)
	switch {
	case !ok || math.IsNaN(v): // nan is neither smaller nor bigger
		return 0, false
	case math.IsInf(v, 0):
		return int(math.Copysign(1, v)), true
	}
	return new(big.Rat).SetFloat64(v).Cmp(b), true
}

func rat(n json.Number) (*big.Rat, bool) {
	if n == "" || len(n) > 400 {
		return nil, false
	}
	if !strings.ContainsAny(string(n), ".eE") {
		return new(big.Rat).SetString(string(n))
	}
	f, err := strconv.ParseFloat(string(n), 64)
	if err != nil {
		return nil, false
	}
	return new(big.Rat).SetFloat64(f), true
}

// among is Python's "v in options": 1, 1.0 and true are the same.
func (in *input) among(v any) bool {
	if s, ok := v.(string); ok {
		return in.texts[s]
	}
	for _, o := range in.options {
		if equal(v, o) {
			return true
		}
	}
	return false
}

func equal(a, b any) bool {
	if x, ok := numeric(a); ok {
		y, ok := numeric(b)
		return ok && x == y
	}
	switch a := a.(type) {
	case nil:
		return b == nil
	case string:
		s, ok := b.(string)
		return ok && a == s
	default: // lists and objects among options: in doubt it is one of them
		switch b.(type) {
		case []any, map[string]any:
			return true
		}
		return false
	}
}

func numeric(v any) (float64, bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case json.Number:
		f, err := strconv.ParseFloat(string(v), 64)
		return f, err == nil
	}
	return 0, false
}
