package store

import "errors"

// The errors that package session exports, and documents.
var (
	ErrClosed          = errors.New("session: manager is closed")
	ErrConfig          = errors.New("session: bad configuration")
	ErrDuplicate       = errors.New("session: already taken")
	ErrInvalidArgument = errors.New("session: wrong use")
	ErrUnavailable     = errors.New("session: database unavailable")
	ErrUnknownSession  = errors.New("session: unknown session")
)

// ErrSessionEnded is returned when the row of a session was deleted, or given
// another token, concurrently.
var ErrSessionEnded = errors.New("the session has ended")

// A DuplicateError names the values of a new user that another user has
// already. It matches [ErrDuplicate].
type DuplicateError struct {
	// Field is the column. It lists several, separated by ", ", where only
	// their combination is unique. It is empty if the column is not known.
	Field string
}

// Error implements error.
func (e *DuplicateError) Error() string {
	if e.Field == "" {
		return ErrDuplicate.Error()
	}
	return ErrDuplicate.Error() + ": " + e.Field
}

// Is reports whether target is [ErrDuplicate].
func (e *DuplicateError) Is(target error) bool { return target == ErrDuplicate }
