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
		_, err = m.start(w, r, user, nil)
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
		accounts, err := m.selectAccounts(ctx, tx, []condition{key}, false)
		if err == nil && len(accounts) != 1 {
			err = fmt.Errorf("session: %w: the user that was added is not found by its key %v", ErrUnavailable, key.arg)
		}
		if err == nil {
			user = accounts[0]
		}
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

// freshLogin is how long after a login SetPassword asks for no password.
const freshLogin = 10 * time.Minute

// SetPassword gives the user of this request a new password, ends all their other sessions, and gives this one a new
// token (OWASP ASVS 5.0 V7.4.3). Call it before writing the body.
//
// The old password must be right: otherwise it is an [ErrInvalidCredentials], and after too many an
// [ErrTooManyAttempts]. Right after a login, which may have been by a link sent by mail, it may be empty; later than ten
// minutes after it that is an [ErrNotFresh]. Without a session it returns [ErrNotLoggedIn], for an empty new password
// [ErrUsage], for one beyond 72 bytes [ErrPasswordTooLong]; how good it must be is for the app to say.
//
// If the other sessions could not be ended, the error is an [ErrUnavailable] although the password is changed: call
// [Manager.LogoutOthers].
func (m *Manager[U]) SetPassword(w http.ResponseWriter, r *http.Request, old, password string) error {
	v, err := m.verdict(r)
	switch {
	case err != nil:
		return err
	case v.err != nil:
		return ErrNotLoggedIn
	case password == "":
		return fmt.Errorf("%w: SetPassword: the new password is empty", ErrUsage)
	case old == "" && !v.fresh(freshLogin):
		return ErrNotFresh
	}
	user, err := m.accountOf(r.Context(), v.record.owner, true)
	if err != nil {
		return err
	}
	if old != "" {
		attempt, err := m.attempt(r, nil, user.key)
		if err != nil {
			return err
		}
		if err := m.verifyPassword(r, attempt, user, old); err != nil {
			return err
		}
	}
	hash, err := m.passwords.hash(r.Context(), password)
	if err != nil {
		return err
	}
	replaced, err := m.store.replacePassword(steadfast(r.Context()), user.key, user.hash, hash)
	if err != nil {
		return err
	}
	if !replaced { // it was changed meanwhile
		return ErrInvalidCredentials
	}
	m.tell(r, EventPassword, &v.record, nil)
	return m.LogoutOthers(w, r)
}

// accountOf reads the user with this key: ErrUserGone if there is none.
func (m *Manager[U]) accountOf(ctx context.Context, key any, withPassword bool) (user account[U], err error) {
	table, err := m.store.usersTable(ctx)
	if err != nil {
		return user, err
	}
	arg, possible, err := table.key.arg(key)
	if err != nil {
		return user, err
	}
	if !possible {
		return user, ErrUserGone
	}
	accounts, err := m.findAccounts(ctx, []condition{{table.key, arg}}, withPassword)
	if err == nil && len(accounts) != 1 {
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

// confirm asks again whether the password is that of a user, now that the session is saved. If it was changed since it
// was verified, the change may have ended all sessions that it saw, and not have seen this one.
func (m *Manager[U]) confirm(r *http.Request, verified account[U], password string) error {
	user, err := m.accountOf(steadfast(r.Context()), verified.key, true)
	if err != nil && err != ErrUserGone { // who is gone has no hash
		return err
	}
	if bytes.Equal(user.hash, verified.hash) {
		return nil
	}
	return m.verifyPassword(r, nil, user, password)
}

// String tells the columns, and no values: one is a password.
func (f Fields) String() string {
	return "session.Fields{" + strings.Join(slices.Sorted(maps.Keys(f)), " ") + "}"
}

// GoString is String.
func (f Fields) GoString() string { return f.String() }

// LogValue is String, for slog.
func (f Fields) LogValue() slog.Value { return slog.StringValue(f.String()) }
