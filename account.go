package session

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
)

// Fields are a new user's values, by column of the users table: text, numbers, truth values, times, nil, or what is a
// driver.Valuer. That of the password column is the password itself, as text.
type Fields map[string]any

// RegisterOptions say what Register may do with the fields.
type RegisterOptions struct {
	// Columns are those that the fields may set, besides that of the password. So a form that is passed on as it came
	// cannot make anyone an administrator (OWASP Mass Assignment Cheat Sheet).
	Columns []string

	// NoLogin leaves the new user logged out, for example until the e-mail address is confirmed.
	NoLogin bool
}

// Register adds a user, with the bcrypt hash of the password, and logs in as [Manager.Login] does. The user is what the
// table then holds, with its defaults.
//
//	user, err := auth.Register(w, r, session.Fields{"email": email, "password": password}, session.RegisterOptions{Columns: []string{"email"}})
//
// Whether a value is free is for the unique indexes of the users table to say: if one of them refuses, the error is a
// [*TakenError], an [ErrTaken] that names the field. That tells everyone who has an account; where it must not, answer
// both cases alike and send a mail. A value that is taken is found before the
// password is hashed, so the time tells it too: then call Register after the
// answer. A client whose fields are often taken has to wait, an
// [ErrTooManyAttempts], and does not get its turn where too many others of its
// network wait, an [ErrBusy].
//
// A password beyond 72 bytes is an [ErrPasswordTooLong]. An [ErrUsage] is a field that is not listed or not a column, an
// empty password, a key that the database does not count up and the fields do not hold, and a value that does not fit:
// too long, out of range, missing. Nothing is cut or left out. If the user was added but logging in failed, the error is
// that of the login, and the user is returned with it.
func (m *Manager[U]) Register(w http.ResponseWriter, r *http.Request, fields Fields, options RegisterOptions) (U, error) {
	var none U
	columns, args, password, err := m.registration(r.Context(), fields, options)
	if err != nil {
		return none, err
	}
	attempt, err := m.attemptToRegister(r)
	if err != nil {
		return none, err
	}
	defer attempt.canceled(r.Context()) // unless a value is taken
	user, err := m.register(r.Context(), columns, args, password)
	if errors.Is(err, ErrTaken) {
		attempt.failed(r.Context())
	}
	if err != nil {
		return none, err
	}
	m.tell(r, EventRegistered, &record{owner: user.key}, nil)
	if !options.NoLogin {
		_, err = m.start(w, r, user, methodPassword, nil)
	}
	return m.plan.copy(user.user), err
}

// register adds a user. It looks for values that are taken before it hashes the
// password, so that a flood of them costs little. If two registrations come
// together, the unique indexes decide.
func (m *Manager[U]) register(ctx context.Context, columns []column, args []any, password string) (user account[U], err error) {
	if field, err := m.store.taken(ctx, columns, args); err == nil && field != "" {
		return user, &TakenError{Field: field}
	}
	hash, err := m.passwords.hash(ctx, password)
	if err != nil {
		return user, err
	}
	return m.addUser(steadfast(ctx), append(columns, column{name: m.cfg.Password}), append(args, hash))
}

// registration checks the fields, and returns the password apart.
func (m *Manager[U]) registration(ctx context.Context, fields Fields, options RegisterOptions) (columns []column, args []any, password string, err error) {
	refuse := func(format string, of ...any) ([]column, []any, string, error) {
		return nil, nil, "", fmt.Errorf("%w: Register: "+format, append([]any{ErrUsage}, of...)...)
	}
	password, ok := fields[m.cfg.Password].(string)
	if !ok || password == "" {
		return refuse("the fields have no %q; it must be the password, as a string that is not empty", m.cfg.Password)
	}
	table, err := m.store.usersTable(ctx)
	if err != nil {
		return nil, nil, "", err
	}
	hasKey := false
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if name == m.cfg.Password {
			continue
		}
		c, known := table.column(name)
		switch {
		case !slices.Contains(options.Columns, name):
			return refuse("the field %q is not among RegisterOptions.Columns, %q", name, options.Columns)
		case !known:
			m.store.table.Store(nil) // it may be new; the next call will see
			return refuse("the users table has no column %q", name)
		}
		value := fields[name]
		if c.name == table.key.name {
			hasKey = true
			var possible bool
			if value, possible, err = c.arg(value); err != nil {
				return nil, nil, "", fmt.Errorf("Register: %w", err)
			} else if !possible || table.key.counts && (value == int64(0) || value == uint64(0)) {
				return refuse("the field %q can't be the key, which is %s", name, c.definition)
			}
		} else if _, err := driver.DefaultParameterConverter.ConvertValue(value); err != nil {
			return refuse("the field %q is a %T, which is no value for a column", name, value)
		}
		columns, args = append(columns, c), append(args, value)
	}
	if !hasKey && !table.key.counts {
		return refuse("the users table does not count up its key, %s; set the field %q", table.key.definition, table.key.name)
	}
	return columns, args, password, nil
}

// addUser writes a user and reads it back.
func (m *Manager[U]) addUser(ctx context.Context, columns []column, args []any) (user account[U], err error) {
	table, err := m.store.usersTable(ctx)
	if err != nil {
		return user, err
	}
	if _, err := m.store.tokenTable(ctx); err != nil {
		return user, err
	}
	var lost error
	add := func(tx *sqlx.Tx) error {
		id, err := m.store.insertUser(ctx, tx, columns, args)
		if err != nil {
			return err
		}
		key := condition{table.key, id}
		if i := slices.IndexFunc(columns, func(c column) bool { return c.name == table.key.name }); i >= 0 {
			key.arg = args[i]
		}
		accounts, err := m.selectAccounts(ctx, tx, []condition{key})
		if err == nil && len(accounts) != 1 {
			err = fmt.Errorf("session: %w: the user that was added is not found by its key %v", ErrUnavailable, key.arg)
		}
		if err != nil {
			return err
		}
		user = accounts[0]
		// Sessions of an earlier user with this key must not become this user's.
		ids, err := m.store.idsOf(ctx, tx, user.key)
		if err != nil || len(ids) == 0 {
			return err
		}
		defer m.store.changed(ids...)
		_, err = m.store.deleteWith(ctx, tx, ids, "")
		return err
	}
	err = m.store.runner.run(ctx, func(ctx context.Context, again bool) error {
		if again { // nothing tells whose a user is that is there already
			return fmt.Errorf("the user may have been added, or not: %v", lost)
		}
		lost = m.store.inTransactionAt(ctx, sql.LevelDefault, add)
		return lost
	})
	if err != nil {
		return user, m.store.explainUser(ctx, err, columns, args)
	}
	return user, nil
}

// recentLogin is how long after its login a session may set a password without
// giving the old one, where that is allowed at all.
const recentLogin = 10 * time.Minute

// SetPassword replaces the password of the request's user, ends all other
// sessions of that user, and gives this one a new token, in one transaction (OWASP
// ASVS 5.0 V7.4.3). Call it before writing the body.
//
// The old password must be right (V6.2.3): otherwise SetPassword returns
// [ErrInvalidCredentials], and after too many [ErrTooManyAttempts]. Only a user
// without a usable password, one of a single sign-on for example, gives an empty
// one, no more than ten minutes after the login: later SetPassword returns
// [ErrNotFresh]. A user who has forgotten the password needs [Manager.ResetPassword].
//
// Without a session it returns [ErrNotLoggedIn], for an empty new password
// [ErrUsage], for one longer than 72 bytes [ErrPasswordTooLong]. How good a
// password must be is the app's decision. If it returns [ErrUnavailable], nothing
// has changed, unless the answer of the server to the commit was lost.
func (m *Manager[U]) SetPassword(w http.ResponseWriter, r *http.Request, old, password string) error {
	v, err := m.passwordChange(r, "SetPassword", password)
	if err != nil {
		return err
	}
	user, err := m.accountOf(r.Context(), v.record.owner)
	if err != nil {
		return err
	}
	if m.passwords.usable(user.hash) {
		if old == "" {
			return ErrInvalidCredentials
		}
		attempt, err := m.attempt(r, nil, user.key)
		if err != nil {
			return err
		}
		if err := m.verifyPassword(r, attempt, user, old); err != nil {
			return err
		}
	} else if !v.fresh(recentLogin) {
		return ErrNotFresh
	}
	return m.changePassword(w, r, v, user, password)
}

// ResetPassword replaces a forgotten password: it is [Manager.SetPassword] without
// the old one. The request's session must have begun by [Manager.LoginAs], after
// the app has proved who the user is by a link sent by email for example, no more
// than ten minutes ago. Otherwise it returns [ErrNotFresh]. It works once per
// login.
//
// It needs columns that the token table of an older version or of CandyPack lacks:
// without them it returns an error matching [ErrConfig] with the statement to run.
func (m *Manager[U]) ResetPassword(w http.ResponseWriter, r *http.Request, password string) error {
	v, err := m.passwordChange(r, "ResetPassword", password)
	if err != nil {
		return err
	}
	method, age, err := m.store.recentMethod(r.Context(), &v.record)
	if err != nil {
		return err
	}
	if method != methodApp || age < -clockError || age > seconds(recentLogin) {
		return ErrNotFresh
	}
	user, err := m.accountOf(r.Context(), v.record.owner)
	if err != nil {
		return err
	}
	return m.changePassword(w, r, v, user, password)
}

// passwordChange returns the state of a request that is to change a password.
func (m *Manager[U]) passwordChange(r *http.Request, call, password string) (*verdict[U], error) {
	v, err := m.certain(r)
	switch {
	case err != nil:
		return nil, err
	case v.err != nil:
		return nil, ErrNotLoggedIn
	case password == "":
		return nil, fmt.Errorf("%w: %s: the new password is empty", ErrUsage, call)
	}
	return v, nil
}

// changePassword replaces the password that was read, and keeps of the user's
// sessions only the request's.
func (m *Manager[U]) changePassword(w http.ResponseWriter, r *http.Request, v *verdict[U], user account[U], password string) error {
	hash, err := m.passwords.hash(r.Context(), password)
	if err != nil {
		return err
	}
	token, tokenHash, err := m.newToken()
	if err != nil {
		return err
	}
	kept := v.record
	kept.owner = user.key
	var ended int64
	replaced, err := m.store.replacePassword(steadfast(r.Context()), user.key, user.hash, hash, func(ctx context.Context, tx *sqlx.Tx, stamp []byte) (err error) {
		ended, err = m.store.keepOnly(ctx, tx, &kept, token.selector, tokenHash, stamp)
		return err
	})
	switch {
	case errors.Is(err, errRowGone): // ended concurrently; the password stays
		m.remember(r, &verdict[U]{err: ErrUnknown})
		return ErrNotLoggedIn
	case err != nil:
		return err
	case !replaced: // changed concurrently
		return ErrInvalidCredentials
	}
	m.forgetUser(r.Context(), user.key)
	renewed := *v
	renewed.token = token
	renewed.record.selector, renewed.record.hash = token.selector, tokenHash
	m.cookies.write(w, token)
	m.remember(r, &renewed)
	m.tell(r, EventPassword, &renewed.record, nil)
	m.tell(r, EventRenewed, &renewed.record, nil)
	m.revoked(r.Context(), user.key, ended)
	return nil
}

// accountOf reads the user with this key, to the letter. It returns ErrUserGone if
// there is none, and an error matching ErrUsage if there can be none.
func (m *Manager[U]) accountOf(ctx context.Context, key any) (user account[U], err error) {
	table, err := m.store.usersTable(ctx)
	if err != nil {
		return user, err
	}
	arg, err := m.store.userArg(ctx, key)
	if err != nil {
		return user, err
	}
	accounts, err := m.findAccounts(ctx, []condition{{table.key, arg}})
	if err == nil && (len(accounts) != 1 || !sameKey(accounts[0].key, arg)) {
		err = ErrUserGone
	}
	if err != nil {
		return user, err
	}
	return accounts[0], nil
}

// verifyPassword ends an attempt: the password is that of the user, who is nobody if there is none.
func (m *Manager[U]) verifyPassword(r *http.Request, attempt *attempt, user account[U], password string) error {
	defer attempt.failed(r.Context()) // unless it ends in another way below
	ok, err := m.passwords.verify(r.Context(), user.hash, password)
	switch {
	case err != nil: // nothing was compared
		attempt.canceled(r.Context())
		return m.store.explain("verify the password", err)
	case !ok:
		m.tell(r, EventFailed, &record{owner: user.key}, nil)
		return ErrInvalidCredentials
	}
	attempt.succeeded(r.Context())
	return nil
}

// confirm verifies the password once more if it was changed since it was verified:
// the change may have ended all sessions that it saw, and not have seen this one.
func (m *Manager[U]) confirm(r *http.Request, id uint64, verified account[U], password string) error {
	user, err := m.accountOf(steadfast(r.Context()), verified.key)
	if err != nil && err != ErrUserGone { // without a user there is no hash
		return err
	}
	if bytes.Equal(user.hash, verified.hash) {
		return nil
	}
	if err := m.verifyPassword(r, nil, user, password); err != nil {
		return err
	}
	return m.store.setStamp(steadfast(r.Context()), id, user.stamp)
}

// String tells the columns, and no values: one is a password.
func (f Fields) String() string {
	return "session.Fields{" + strings.Join(slices.Sorted(maps.Keys(f)), " ") + "}"
}

// GoString is String.
func (f Fields) GoString() string { return f.String() }

// LogValue is String, for slog.
func (f Fields) LogValue() slog.Value { return slog.StringValue(f.String()) }
