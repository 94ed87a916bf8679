package session

import (
	"errors"

	"github.com/candysession/session/internal/store"
)

// The reasons why a request is not logged in, as [Manager.Err] reports them.
var (
	// ErrNoCookie is reported when the request carries no session cookie, and
	// after Logout in the same request.
	ErrNoCookie = errors.New("session: no session cookie")

	// ErrMalformedCookie is reported when the session cookie does not have the
	// form of a token. The database is not queried.
	ErrMalformedCookie = errors.New("session: malformed session cookie")

	// ErrUnknownSession is reported when no session has this token: it was
	// logged out, revoked or purged, or never existed.
	ErrUnknownSession = store.ErrUnknownSession

	// ErrExpired is reported when the session was idle for longer than
	// Config.MaxAge, or is older than Config.MaxLifetime.
	ErrExpired = errors.New("session: expired session")

	// ErrFingerprintMismatch is reported when the session belongs to another
	// browser according to Config.Fingerprint.
	ErrFingerprintMismatch = errors.New("session: session belongs to another browser")

	// ErrUserNotFound is reported when the user is not in the users table.
	// LoginAs returns it too.
	ErrUserNotFound = errors.New("session: no such user")

	// ErrAccountChanged is reported when the user's password, or another
	// column that Config.AccountColumns names, has changed since the login.
	ErrAccountChanged = errors.New("session: account changed since login")

	// ErrNoMiddleware is reported when the request did not pass through this
	// Manager's Middleware, Require, Guest, Switch or Authenticate.
	ErrNoMiddleware = errors.New("session: request did not pass through the Manager's Middleware")
)

// The errors that the methods of a Manager return.
var (
	// ErrInvalidCredentials is returned when no user has these credentials. It
	// does not reveal which part was wrong (OWASP Authentication Cheat Sheet,
	// "Authentication and Error Messages").
	ErrInvalidCredentials = errors.New("session: invalid credentials")

	// ErrTooManyAttempts is returned when too many logins failed from this
	// network, for this identifier from there, or for this account from
	// everywhere. The error is a [*TooManyAttemptsError], which says how long to
	// wait. Respond with 429 Too Many Requests and Retry-After. It also matches
	// ErrInvalidCredentials, so check for ErrTooManyAttempts first.
	ErrTooManyAttempts = errors.New("session: too many attempts")

	// ErrNotLoggedIn is returned when a method needs a logged-in request.
	ErrNotLoggedIn = errors.New("session: not logged in")

	// ErrReauthRequired is returned when the login was too long ago for the
	// requested change.
	ErrReauthRequired = errors.New("session: login too long ago")

	// ErrSessionNotFound is returned when the user has no session with the ID.
	ErrSessionNotFound = errors.New("session: no such session")

	// ErrDuplicate is returned when another user already has a value that the
	// users table allows once. The error is a [*DuplicateError].
	ErrDuplicate = store.ErrDuplicate

	// ErrPasswordTooLong is returned when a password is longer than the 72
	// bytes that bcrypt reads.
	ErrPasswordTooLong = errors.New("session: password longer than 72 bytes")

	// ErrUnavailable is returned when the database did not answer, or answered
	// with an error that says nothing about the session. It also wraps the
	// driver's error: errors.As finds a *mysql.MySQLError.
	ErrUnavailable = store.ErrUnavailable

	// ErrBusy is returned when too many passwords are being hashed: the call
	// would not get its turn within Config.Timeout. Respond with 503 Service
	// Unavailable and Retry-After. ErrBusy does not match ErrUnavailable.
	ErrBusy = errors.New("session: too busy to hash a password")

	// ErrClosed is returned when the Manager was closed.
	ErrClosed = store.ErrClosed

	// ErrConfig is returned when the Config, its file or environment, the tables
	// or the connections cannot serve. The text names the field, its value and
	// the allowed values, or the statement that mends the table.
	ErrConfig = store.ErrConfig

	// ErrInvalidArgument is returned when a call is wrong: because of a mistake
	// in the program, or of values that it passes on unchecked.
	ErrInvalidArgument = store.ErrInvalidArgument
)

// A DuplicateError names the columns whose values another user already has: its
// field Columns holds those of the unique index that rejected the user, and is
// nil if the index is not known. errors.Is finds [ErrDuplicate] in it.
type DuplicateError = store.DuplicateError
