package store

import (
	"errors"
	"strings"
)

// The errors that package session exports, and documents.
var (
	ErrClosed          = errors.New("session: manager is closed")
	ErrConfig          = errors.New("session: bad configuration")
	ErrDuplicate       = errors.New("session: already taken")
	ErrInvalidArgument = errors.New("session: invalid argument")
	ErrUnavailable     = errors.New("session: database unavailable")
	ErrUnknownSession  = errors.New("session: unknown session")
)

// ErrSessionEnded is returned when the row of a session was deleted, or given
// another token, concurrently.
var ErrSessionEnded = errors.New("the session has ended")

// A DuplicateError names the values of a new user that another user has
// already. It matches [ErrDuplicate].
type DuplicateError struct {
	// Columns are the columns of the unique index that rejected the user. It is
	// nil if the index is not known.
	Columns []string
}

// Error implements error.
func (e *DuplicateError) Error() string {
	if len(e.Columns) == 0 {
		return ErrDuplicate.Error()
	}
	return ErrDuplicate.Error() + ": " + strings.Join(e.Columns, ", ")
}

// Is reports whether target is [ErrDuplicate].
func (e *DuplicateError) Is(target error) bool { return target == ErrDuplicate }
