package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

var (
	// ErrFull says that the disk, the quota or the bucket's allowance is used up. It is temporary: space comes back.
	ErrFull = errors.New("no space left in the store")
	// ErrUnreachable says that the object store did not answer, or answered that it cannot work now. It is temporary.
	ErrUnreachable = errors.New("the store cannot be reached")
)

// Error is what every method of a [Store] fails with when the store is the reason. It unwraps to
//   - [fs.ErrNotExist]: there is no such key,
//   - [fs.ErrInvalid]: this can never be a key, or a range,
//   - [fs.ErrPermission]: the store refused our credentials, or the file system our user,
//   - [ErrFull] or [ErrUnreachable],
//   - the context's error, where that ended the call,
//
// or to none of them. A Put that failed because its reader failed returns no Error, but the reader's error, wrapped.
type Error struct {
	Op  string // the method, in lower case
	Key string // empty where it concerns no key
	// Temporary says that the same call may succeed later without anybody changing the configuration.
	Temporary bool
	Err       error
}

func (e *Error) Error() string {
	if e.Key == "" {
		return fmt.Sprintf("store: %s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("store: %s %q: %v", e.Op, e.Key, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// IsTemporary returns Temporary, for callers that do not import this package.
func (e *Error) IsTemporary() bool { return e.Temporary }

// sourceError marks an error of the caller's reader, so that it is not taken for the store's.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }

// failure makes the error that a method returns. Drivers classify their own errors with [Error]; what comes unclassified
// is an error of the operating system, because spooling writes files for every kind of store.
func failure(op, key string, err error) error {
	if err == nil {
		return nil
	}
	var src *sourceError
	if errors.As(err, &src) {
		return fmt.Errorf("store: %s %q: reading what is to be stored: %w", op, key, src.err)
	}
	var e *Error
	if errors.As(err, &e) {
		return &Error{Op: op, Key: key, Temporary: e.Temporary, Err: e.Err}
	}
	return &Error{Op: op, Key: key, Temporary: temporary(err), Err: describe(err)}
}

func describe(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w (free some, or lower COMFYD_RETENTION)", ErrFull, err)
	}
	return err
}

// temporary tells the operating system's passing faults (a full disk, too many open files, a network file system that
// is away) from lasting ones (permissions, a read-only disk).
func temporary(err error) bool {
	for _, passing := range []error{
		context.Canceled, context.DeadlineExceeded,
		syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN, syscall.EINTR,
		syscall.EIO, syscall.ESTALE, syscall.ETIMEDOUT, syscall.EHOSTDOWN, syscall.EHOSTUNREACH,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", fs.ErrInvalid, fmt.Sprintf(format, args...))
}
