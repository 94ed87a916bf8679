package session

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/candysession/session/internal/store"
)

// Fields holds a new user's values, keyed by column of the users table: strings,
// numbers, booleans, times, nil, or values that implement driver.Valuer.
//
// Name each field, as in the example of [Manager.Register]. A loop that copies a
// form into Fields lets its sender set every column (OWASP Mass Assignment Cheat
// Sheet); [Columns] prevents that.
type Fields map[string]any

// Register adds a user with the bcrypt hash of the password, and starts a
// session as [Manager.Login] does unless [NoLogin] is among the options. It
// returns the user as stored, including column defaults. Call it before writing
// the response body.
//
//	user, err := auth.Register(w, r, session.Fields{"email": email}, password)
//
// Uniqueness is enforced by the users table's unique indexes; Register returns a
// violation as a [*DuplicateError]. This reveals which accounts exist. To avoid
// that, respond identically in both cases and send an email, and call Register
// after the response: it looks for duplicates before it hashes the password, so
// its duration reveals them too. A client whose fields are often duplicates has
// to wait, and gets [ErrTooManyAttempts].
//
// It returns [ErrPasswordTooLong] for a password longer than 72 bytes, [ErrBusy]
// if too many passwords are being hashed, and [ErrInvalidArgument] for an empty
// password, an unknown field, a missing key that is not AUTO_INCREMENT, and a
// value that the column cannot hold. Values are never truncated. If the user was
// added but the session was not started, it returns both the user and the error.
func (m *Manager[U]) Register(w http.ResponseWriter, r *http.Request, fields Fields, password string, options ...RegisterOption) (U, error) {
	var none U
	o := registerOptionsOf(options)
	login, err := loginOptionsOf(o.login, &m.cfg)
	if err != nil {
		return none, err
	}
	if err := o.check(fields); err != nil {
		return none, err
	}
	columns, args, err := m.parseFields(r.Context(), "Register", fields, password)
	if err != nil {
		return none, err
	}
	attempt, err := m.attemptToRegister(r)
	if err != nil {
		return none, err
	}
	defer attempt.canceled(r.Context()) // unless a value is taken
	user, err := m.register(r.Context(), columns, args, password)
	if errors.Is(err, ErrDuplicate) {
		attempt.failed(r.Context())
	}
	if err != nil {
		return none, err
	}
	m.emit(r, EventRegistered, &store.Record{Owner: user.Key}, nil)
	if !o.noLogin {
		_, err = m.start(w, r, user, store.MethodPassword, nil, login)
	}
	return m.mapper.Clone(user.User), err
}

// CreateUser adds a user as [Manager.Register] does, without a request: it is
// not throttled and starts no session. It serves programs and pages of
// administrators.
func (m *Manager[U]) CreateUser(ctx context.Context, fields Fields, password string) (U, error) {
	columns, args, err := m.parseFields(ctx, "CreateUser", fields, password)
	if err != nil {
		var none U
		return none, err
	}
	user, err := m.register(ctx, columns, args, password)
	if err == nil {
		m.cfg.event(ctx, Event{Kind: EventRegistered, User: user.Key})
	}
	return m.mapper.Clone(user.User), err
}

// register adds a user. It looks for duplicates before it hashes the password,
// so that a flood of them costs little. Of concurrent registrations the unique
// indexes accept one.
func (m *Manager[U]) register(ctx context.Context, columns []store.Column, args []any, password string) (user store.Account[U], err error) {
	if duplicate, err := m.store.DuplicateColumns(ctx, columns, args); err == nil && duplicate != nil {
		return user, &DuplicateError{Columns: duplicate}
	}
	hash, err := m.HashPassword(ctx, password)
	if err != nil {
		return user, err
	}
	return m.accounts.Add(detach(ctx), append(columns, store.Column{Name: m.cfg.PasswordColumn}), append(args, hash))
}

// parseFields splits fields into columns and their values.
func (m *Manager[U]) parseFields(ctx context.Context, call string, fields Fields, password string) (columns []store.Column, args []any, err error) {
	invalid := func(format string, of ...any) ([]store.Column, []any, error) {
		return nil, nil, fmt.Errorf("%w: %s: "+format, append([]any{ErrInvalidArgument, call}, of...)...)
	}
	if password == "" {
		return invalid("the password is empty")
	}
	table, err := m.store.Users(ctx)
	if err != nil {
		return nil, nil, err
	}
	hasKey := false
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if strings.EqualFold(name, m.cfg.PasswordColumn) {
			return invalid("the fields hold the password column %q; the password is an argument of its own", name)
		}
		c, known := table.Column(name)
		if !known {
			m.store.ForgetUsers() // it may be new; the next call reads the table again
			return invalid("the users table has no column %q", name)
		}
		value := fields[name]
		if c.Name == table.Key.Name {
			hasKey = true
			var ok bool
			if value, ok, err = c.Param(value); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", call, err)
			} else if !ok || table.Key.AutoIncrement && (value == int64(0) || value == uint64(0)) {
				return invalid("the field %q can't be the key, which is %s", name, c.Definition)
			}
		} else if _, err := driver.DefaultParameterConverter.ConvertValue(value); err != nil {
			return invalid("the field %q is a %T, which no column can hold", name, value)
		}
		columns, args = append(columns, c), append(args, value)
	}
	if !hasKey && !table.Key.AutoIncrement {
		return invalid("the key of the users table, %s, is not AUTO_INCREMENT; set the field %q", table.Key.Definition, table.Key.Name)
	}
	return columns, args, nil
}

// recentLogin is the time after a login during which a session may set a
// password without the old one, if that is allowed at all.
const recentLogin = 10 * time.Minute

// SetPassword replaces the password of the request's user, revokes all other
// sessions of that user, and replaces this one's token, in one transaction (OWASP
// ASVS 5.0 V7.4.3). Call it before writing the response body.
//
// old must be the current password (V6.2.3); otherwise SetPassword returns
// [ErrInvalidCredentials], and after too many attempts [ErrTooManyAttempts]. A
// user without a usable password, for example of a single sign-on, passes an
// empty one within ten minutes of the login; later SetPassword returns
// [ErrReauthRequired]. For a forgotten password, use [Manager.ResetPassword].
//
// It returns [ErrNotLoggedIn] without a session, [ErrInvalidArgument] for an
// empty new password, and [ErrPasswordTooLong] for one longer than 72 bytes. It
// does not judge the strength of the new password. If it returns
// [ErrUnavailable], nothing has changed, unless the server's response to the
// commit was lost.
func (m *Manager[U]) SetPassword(w http.ResponseWriter, r *http.Request, old, password string) error {
	v, err := m.passwordChange(r, "SetPassword", password)
	if err != nil {
		return err
	}
	user, err := m.accountOf(r.Context(), v.record.Owner)
	if err != nil {
		return err
	}
	if m.passwords.Usable(user.Hash) {
		if old == "" {
			return ErrInvalidCredentials
		}
		attempt, err := m.attempt(r, nil, user.Key)
		if err != nil {
			return err
		}
		if err := m.verifyPassword(r, attempt, user, old); err != nil {
			return err
		}
	} else if !v.fresh(recentLogin) {
		return ErrReauthRequired
	}
	return m.changePassword(w, r, v, user, password)
}

// ResetPassword replaces a forgotten password: it is [Manager.SetPassword]
// without the old one. The request's session must have begun by
// [Manager.LoginAs] within the last ten minutes, after the app has identified
// the user, for example by an emailed link. Otherwise it returns
// [ErrReauthRequired]. It works once per login.
//
// It needs columns that a token table of an older version or of CandyPack lacks.
// Without them it returns an error matching [ErrConfig] with the statement to
// run.
func (m *Manager[U]) ResetPassword(w http.ResponseWriter, r *http.Request, password string) error {
	v, err := m.passwordChange(r, "ResetPassword", password)
	if err != nil {
		return err
	}
	method, age, err := m.store.LoginMethod(r.Context(), &v.record)
	if errors.Is(err, store.ErrSessionEnded) {
		return ErrNotLoggedIn
	}
	if err != nil {
		return err
	}
	if method != store.MethodApp || age < -store.ClockError || age > seconds(recentLogin) {
		return ErrReauthRequired
	}
	user, err := m.accountOf(r.Context(), v.record.Owner)
	if err != nil {
		return err
	}
	return m.changePassword(w, r, v, user, password)
}

// passwordChange returns the verdict on a request that is to change a password.
func (m *Manager[U]) passwordChange(r *http.Request, call, password string) (*verdict[U], error) {
	v, err := m.certainVerdict(r)
	switch {
	case err != nil:
		return nil, err
	case v.err != nil || v.given != nil:
		return nil, ErrNotLoggedIn
	case password == "":
		return nil, fmt.Errorf("%w: %s: the new password is empty", ErrInvalidArgument, call)
	}
	return v, nil
}

// changePassword replaces the password that was read, and deletes all of the
// user's sessions except the request's.
func (m *Manager[U]) changePassword(w http.ResponseWriter, r *http.Request, v *verdict[U], user store.Account[U], password string) error {
	hash, err := m.HashPassword(r.Context(), password)
	if err != nil {
		return err
	}
	token, tokenHash, err := m.newToken()
	if err != nil {
		return err
	}
	transient, err := m.isTransient(r.Context(), &v.record)
	if err != nil {
		return err
	}
	replaced, ended, err := m.store.SetPassword(detach(r.Context()), user.Key, user.Hash, hash, &v.record, token.Selector, tokenHash)
	switch {
	case errors.Is(err, store.ErrSessionEnded): // ended concurrently; the password stays
		m.setVerdict(r, &verdict[U]{err: ErrUnknownSession})
		return ErrNotLoggedIn
	case err != nil:
		return err
	case !replaced: // changed concurrently
		return ErrInvalidCredentials
	}
	m.forgetUser(r.Context(), user.Key)
	renewed := m.setToken(w, r, v, token, tokenHash, transient)
	m.emit(r, EventPasswordChanged, &renewed.record, nil)
	m.emit(r, EventRotated, &renewed.record, nil)
	m.emitRevoked(r.Context(), user.Key, ended)
	return nil
}

// accountOf returns the user with exactly this key. It returns ErrUserNotFound
// if there is none, and an error matching ErrInvalidArgument if the key column
// cannot hold the key.
func (m *Manager[U]) accountOf(ctx context.Context, key any) (user store.Account[U], err error) {
	table, err := m.store.Users(ctx)
	if err != nil {
		return user, err
	}
	arg, err := m.store.KeyParam(ctx, key)
	if err != nil {
		return user, err
	}
	accounts, err := m.accounts.Find(ctx, []store.Condition{{Column: table.Key, Value: arg}})
	if err == nil && (len(accounts) != 1 || !store.SameKey(accounts[0].Key, arg)) {
		err = ErrUserNotFound
	}
	if err != nil {
		return user, err
	}
	return accounts[0], nil
}

// verifyPassword checks the password and reports the result to the throttle. A
// user without a hash has no password.
func (m *Manager[U]) verifyPassword(r *http.Request, attempt *attempt, user store.Account[U], password string) error {
	defer attempt.failed(r.Context()) // unless canceled or succeeded below
	ok, err := m.matchesPassword(r.Context(), user.Hash, password)
	switch {
	case err != nil: // nothing was compared
		attempt.canceled(r.Context())
		return err
	case !ok:
		m.emit(r, EventLoginFailed, &store.Record{Owner: user.Key}, nil)
		return ErrInvalidCredentials
	}
	attempt.succeeded(r.Context())
	return nil
}

// confirm verifies the password again if it was changed after it was verified:
// the change may have ended the user's sessions before this one existed.
func (m *Manager[U]) confirm(r *http.Request, id uint64, verified store.Account[U], password string) error {
	user, err := m.accountOf(detach(r.Context()), verified.Key)
	if err != nil && err != ErrUserNotFound { // without a user there is no hash
		return err
	}
	if bytes.Equal(user.Hash, verified.Hash) {
		return nil
	}
	if err := m.verifyPassword(r, nil, user, password); err != nil {
		return err
	}
	return m.store.SetStamp(detach(r.Context()), id, user.Stamp)
}

// String lists the columns without their values.
func (f Fields) String() string {
	return "session.Fields{" + strings.Join(slices.Sorted(maps.Keys(f)), " ") + "}"
}

// GoString implements [fmt.GoStringer].
func (f Fields) GoString() string { return f.String() }

// LogValue implements [slog.LogValuer].
func (f Fields) LogValue() slog.Value { return slog.StringValue(f.String()) }

// check reports a field that the options do not allow.
func (o *registerOptions) check(fields Fields) error {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if o.columns != nil && !slices.Contains(o.columns, name) {
			return fmt.Errorf("%w: Register: the field %q is not among the Columns %q", ErrInvalidArgument, name, o.columns)
		}
	}
	return nil
}
