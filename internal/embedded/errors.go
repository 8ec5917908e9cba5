//go:build !noembedded

package embedded

import (
	"errors"
	"fmt"
	"strings"
)

// fail makes an [Error] whose text is one line, whatever the causes in args say.
func fail(kind Kind, cause error, format string, args ...any) *Error {
	return &Error{Kind: kind, Text: oneLine(fmt.Sprintf(format, args...)), Err: cause}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// typed leaves an [Error] alone and wraps everything else.
func typed(kind Kind, err error, doing string) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return fail(kind, err, "embedded Temporal: %s: %v", doing, err)
}
