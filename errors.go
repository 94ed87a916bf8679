package session

import (
	"errors"

	"github.com/candysession/session/internal/store"
)

// Why a request is not logged in, as [Manager.Err] reports it.
var (
	// ErrNoCookie: the request carries no session cookie, or the session was logged out in this very request.
	ErrNoCookie = errors.New("session: no session cookie")

	// ErrMalformedCookie: the session cookie is not something that this library writes. The database was not asked.
	ErrMalformedCookie = errors.New("session: malformed session cookie")

	// ErrUnknownSession: no session has this token. It was logged out, revoked or purged, or never existed.
	ErrUnknownSession = store.ErrUnknownSession

	// ErrExpired: the session was idle for more than Config.MaxAge, or is older than Config.MaxLifetime.
	ErrExpired = errors.New("session: expired session")

	// ErrFingerprintMismatch: the session was given to another browser, as Config.Fingerprint judges it.
	ErrFingerprintMismatch = errors.New("session: session belongs to another browser")

	// ErrUserNotFound: the user is not in the users table. LoginAs returns it too.
	ErrUserNotFound = errors.New("session: no such user")

	// ErrAccountChanged is reported when the user's password, or another
	// column that Config.AccountColumns names, has changed since the login.
	ErrAccountChanged = errors.New("session: account changed since login")

	// ErrNoMiddleware: the request did not pass through this Manager's Middleware, Require, Guest or Switch,
	// so nothing is known of it.
	ErrNoMiddleware = errors.New("session: request did not pass through the Manager's Middleware")
)

// What the calls of a Manager return.
var (
	// ErrInvalidCredentials: no user has these credentials. It never tells which part was wrong (OWASP
	// Authentication Cheat Sheet, "Authentication and Error Messages").
	ErrInvalidCredentials = errors.New("session: invalid credentials")

	// ErrTooManyAttempts: too many logins failed from this network, for this identifier from there, or for this account
	// from everywhere. The error is a *TooManyAttemptsError, which says when to try again. errors.Is takes it for an
	// ErrInvalidCredentials too, so ask for this one first.
	ErrTooManyAttempts = errors.New("session: too many attempts")

	// ErrNotLoggedIn: the call needs a logged-in request.
	ErrNotLoggedIn = errors.New("session: not logged in")

	// ErrReauthRequired: the login was too long ago for what was asked.
	ErrReauthRequired = errors.New("session: login too long ago")

	// ErrSessionNotFound: the user has no session of this id.
	ErrSessionNotFound = errors.New("session: no such session")

	// ErrDuplicate: another user has this value already, where the users table allows it once. The error is a *DuplicateError.
	ErrDuplicate = store.ErrDuplicate

	// ErrPasswordTooLong: the password is longer than the 72 bytes that bcrypt reads.
	ErrPasswordTooLong = errors.New("session: password longer than 72 bytes")

	// ErrUnavailable: the database did not answer, or answered with an error that says nothing about the session.
	// The driver's error is wrapped beside it: errors.As finds a *mysql.MySQLError.
	ErrUnavailable = store.ErrUnavailable

	// ErrBusy is returned when too many passwords are being hashed: the call
	// would not get its turn within Config.Timeout. Answer 503 with
	// Retry-After. It is no ErrUnavailable.
	ErrBusy = errors.New("session: too busy to hash a password")

	// ErrClosed: the Manager was closed.
	ErrClosed = store.ErrClosed

	// ErrConfig: the Config, or the file or environment it was read from, is wrong. The text names the field, its
	// value and what is allowed.
	ErrConfig = store.ErrConfig

	// ErrInvalidArgument: the call itself is wrong: a mistake in the program, or values for Register that the program has not
	// checked.
	ErrInvalidArgument = store.ErrInvalidArgument
)

// A DuplicateError names the values of a registration that another user has
// already. Its Field is the column; several, separated by ", ", where only their
// combination is unique; "" if it is not known. It matches [ErrDuplicate].
type DuplicateError = store.DuplicateError
