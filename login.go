package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/candysession/session/internal/token"
	"github.com/jmoiron/sqlx"
)

// Credentials holds what identifies a user at a login, keyed by column of the
// users table: one identifier or more, all of which must match.
//
//	session.Credentials{"email": email}
//	session.Credentials{"tenant": "7", "name": name}
type Credentials map[string]string

// Login authenticates a user by password and starts a session. Exactly one user
// must match all identifiers, compared by the columns' collation, and have a
// hash that matches the password. Login sets the session cookie, so call it
// before writing the response body. It replaces the request's current session,
// if any. Behind Middleware, [Manager.Check] and [Manager.User] then report the
// new user.
//
// It returns [ErrTooManyAttempts] without checking the password while
// Config.Throttle requires a wait, and [ErrInvalidCredentials] if no user, or
// more than one, matches; unknown users take as long as wrong passwords. It
// returns [ErrInvalidArgument] if the credentials name no column, the column of
// the password or an unknown one, [ErrBusy] if too many passwords are being
// checked, and [ErrUnavailable] if the database fails, in which case nothing has
// changed.
func (m *Manager[U]) Login(w http.ResponseWriter, r *http.Request, credentials Credentials, password string, options ...LoginOption) (U, error) {
	defer m.twins.begin(r)()
	user, err := m.checkCredentials(r, "Login", credentials, password)
	if err != nil {
		return user.user, err
	}
	confirm := func(id uint64) error { return m.confirm(r, id, user, password) }
	return m.start(w, r, user, methodPassword, confirm, options)
}

// CheckPassword authenticates a user by password as [Manager.Login] does, with
// the same throttling, the same timing and the same errors, and starts no
// session. It serves the first of two factors, confirmations, and APIs that
// issue their own tokens.
func (m *Manager[U]) CheckPassword(r *http.Request, credentials Credentials, password string) (U, error) {
	user, err := m.checkCredentials(r, "CheckPassword", credentials, password)
	return m.plan.copy(user.user), err
}

// checkCredentials returns the user whose identifiers and password these are.
func (m *Manager[U]) checkCredentials(r *http.Request, call string, credentials Credentials, password string) (user account[U], err error) {
	conditions, matchable, err := m.parseCredentials(r.Context(), call, credentials)
	if err != nil {
		return user, err
	}
	var accounts []account[U]
	if matchable {
		accounts, err = m.findAccounts(r.Context(), conditions)
		if isError(err, unwritable...) {
			err = nil // no user has an identifier that cannot be written
		}
		if err != nil {
			return user, err
		}
	}
	if len(accounts) > 1 {
		m.cfg.Logger.WarnContext(r.Context(), "session: login rejected, as more than one user has these identifiers", "columns", credentials.columns())
	}
	if len(accounts) == 1 {
		user = accounts[0]
	}
	attempt, err := m.attempt(r, conditions, user.key)
	if err != nil {
		return account[U]{}, err
	}
	if err := m.verifyPassword(r, attempt, user, password); err != nil {
		return account[U]{}, err
	}
	m.upgrade(r.Context(), &user, password)
	return user, nil
}

// parseCredentials splits credentials into conditions. matchable is false if
// some column cannot hold the given value.
func (m *Manager[U]) parseCredentials(ctx context.Context, call string, credentials Credentials) (conditions []condition, matchable bool, err error) {
	columns := credentials.columns()
	if len(columns) == 0 {
		return nil, false, fmt.Errorf("%w: %s: the credentials are empty; name a column that identifies the user", ErrInvalidArgument, call)
	}
	if slices.ContainsFunc(columns, func(name string) bool { return strings.EqualFold(name, m.cfg.PasswordColumn) }) {
		return nil, false, fmt.Errorf("%w: %s: the credentials hold the password column %q; the password is an argument of its own", ErrInvalidArgument, call, m.cfg.PasswordColumn)
	}
	table, err := m.store.usersTable(ctx)
	if err != nil {
		return nil, false, err
	}
	if !table.hasPassword { // it may be new
		m.store.table.Store(nil)
		if table, err = m.store.usersTable(ctx); err != nil {
			return nil, false, err
		}
	}
	if !table.hasPassword {
		return nil, false, fmt.Errorf("%w: %s: the users table %s has no column %s; set Config.PasswordColumn to its column of bcrypt hashes, or GRANT SELECT ON %s to this database user", ErrConfig, call, m.store.users, m.store.password, m.store.users)
	}
	matchable = true
	for _, name := range columns {
		column, ok := table.column(name)
		if !ok { // it may be new
			m.store.table.Store(nil)
			if table, err = m.store.usersTable(ctx); err != nil {
				return nil, false, err
			}
			column, ok = table.column(name)
		}
		if !ok {
			return nil, false, fmt.Errorf("%w: %s: the users table has no column %q to identify a user by", ErrInvalidArgument, call, name)
		}
		arg, holds, err := column.arg(credentials[name])
		if err != nil {
			return nil, false, err
		}
		if matchable = matchable && holds; !holds {
			arg = credentials[name] // for the throttle
		}
		conditions = append(conditions, condition{column, arg})
	}
	return conditions, matchable, nil
}

// String lists the columns without their values.
func (c Credentials) String() string { return "session.Credentials" + fmt.Sprint(c.columns()) }

// GoString implements [fmt.GoStringer].
func (c Credentials) GoString() string { return c.String() }

// LogValue implements [slog.LogValuer].
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// columns returns the identifiers' names, in order.
func (c Credentials) columns() []string { return slices.Sorted(maps.Keys(c)) }

// upgrade replaces a password hash that is not bcrypt's, or costs less than
// Config.PasswordCost. The user's sessions remain valid. Errors are only logged;
// the next login tries again.
func (m *Manager[U]) upgrade(ctx context.Context, user *account[U], password string) {
	hash, err := m.passwords.Upgraded(user.hash, password)
	if hash != "" && err == nil {
		var replaced bool
		var renewed []byte
		replaced, err = m.store.replacePassword(steadfast(ctx), user.key, user.hash, hash, func(ctx context.Context, tx *sqlx.Tx, stamp []byte) error {
			renewed = stamp
			return m.store.restamp(ctx, tx, user.key, user.stamp, stamp)
		})
		if replaced && err == nil && renewed != nil {
			user.hash, user.stamp = []byte(hash), renewed
		}
	}
	if err != nil && ctx.Err() == nil {
		m.cfg.Logger.WarnContext(ctx, "session: password hash not upgraded", "error", err)
	}
}

// LoginAs starts a session for the user with the given key, whom the app has
// authenticated by other means, such as OAuth, a passkey or an emailed link. It
// otherwise behaves like [Manager.Login]. It returns [ErrUserNotFound] if there
// is no such user.
//
// The key is an integer, a string, or for a binary column []byte or a byte
// array.
//
// Browsers do not send a SameSite=Strict cookie with a navigation that another
// site has started, or with the redirects that follow it. A redirect from an
// OAuth callback to a page behind Middleware works, as that page reloads itself
// once.
func (m *Manager[U]) LoginAs(w http.ResponseWriter, r *http.Request, key any, options ...LoginOption) (U, error) {
	defer m.twins.begin(r)()
	user, err := m.accountOf(r.Context(), key)
	if err != nil {
		return user.user, err
	}
	return m.start(w, r, user, methodApp, nil, options)
}

// start creates a session for user and replaces the request's current one. If
// confirm is not nil, it runs after the insert; if it fails, the session is
// deleted again.
func (m *Manager[U]) start(w http.ResponseWriter, r *http.Request, user account[U], method loginMethod, confirm func(id uint64) error, options []LoginOption) (U, error) {
	var none U
	before, err := m.withUserOrNot(r)
	if err != nil {
		return none, err
	}
	shared, first, err := m.meetTwin(r, user, before)
	if err != nil {
		return none, err
	}
	defer m.leaveTwin(r, shared, first)
	if !first {
		return m.join(w, r, user, shared, confirm)
	}
	token, hash, err := m.newToken()
	if err != nil {
		return none, err
	}
	v := &verdict[U]{token: token, user: user.user, record: record{
		owner:    user.key,
		selector: token.Selector,
		hash:     hash,
		stamp:    user.stamp,
		method:   method,
		browser:  m.browser(r),
		ip:       m.ip(r),
		created:  user.now,
		active:   user.now,
		now:      user.now,
	}}
	if err := r.Context().Err(); err != nil { // the client is gone
		return none, m.store.explain("save the session", err)
	}
	var ended int64
	if v.record.id, ended, err = m.store.insert(steadfast(r.Context()), &v.record, before.record.id); err != nil {
		return none, err
	}
	if confirm != nil {
		if err := confirm(v.record.id); err != nil {
			m.store.delete(steadfast(r.Context()), v.record.id) // best effort; no client has this token
			return none, err
		}
	}
	m.verifier.Put(m.verifier.KeyFor(token), v.record.tokenRow())
	m.twins.save(shared, token, v.record)
	m.cookies.write(w, token)
	m.setVerdict(r, v)
	m.emit(r, EventLogin, &v.record, nil)
	m.rememberClient(r, user.key)
	m.emitRevoked(r.Context(), user.key, ended)
	m.purge.after(r.Context())
	return m.plan.copy(user.user), nil
}

// meetTwin returns the session that another login of this browser created while
// this one was in progress, or reports that this one is the first.
func (m *Manager[U]) meetTwin(r *http.Request, user account[U], before *verdict[U]) (shared *twin, first bool, err error) {
	if m.twins == nil {
		return nil, true, nil
	}
	came := before.token.Selector
	if came == "" { // another login may have ended that session already
		sent, _ := m.cookies.read(r)
		came = sent.Selector
	}
	key := twinKey{string(keyBytes(user.key)), came, m.browser(r), m.ip(r)}
	shared, first, err = m.twins.meet(r.Context(), r, m.stateOf(r), key, func(other *twin) (bool, error) {
		row, err := m.certainly.find(r.Context(), other.token.Selector, other.token.Selector)
		if errors.Is(err, ErrUnknownSession) {
			return false, nil
		}
		return err == nil && row.id == other.record.id, err
	})
	if err != nil {
		err = m.store.explain("wait for another login of this browser", err)
	}
	return shared, first, err
}

func (m *Manager[U]) leaveTwin(r *http.Request, shared *twin, first bool) {
	m.twins.leave(shared, first, m.stateOf(r))
}

// join gives a login the session that another login of its browser created.
func (m *Manager[U]) join(w http.ResponseWriter, r *http.Request, user account[U], shared *twin, confirm func(id uint64) error) (none U, err error) {
	if confirm != nil {
		if err := confirm(shared.record.id); err != nil {
			return none, err
		}
	}
	v := &verdict[U]{token: shared.token, user: user.user, record: shared.record}
	m.cookies.write(w, v.token)
	m.setVerdict(r, v)
	m.emit(r, EventLogin, &v.record, nil)
	return m.plan.copy(user.user), nil
}

// Logout deletes the request's session and its cookie, even if the session was
// rejected for its age or fingerprint. If the request carries several session
// cookies, Logout deletes the session of each. It does nothing if there is no
// session. Call it before writing the response body.
//
// If it returns [ErrUnavailable], the session may still exist and the cookie is
// kept, so Logout can be retried.
func (m *Manager[U]) Logout(w http.ResponseWriter, r *http.Request) error {
	v, err := m.withUserOrNot(r.WithContext(steadfast(r.Context())))
	if err != nil {
		return err
	}
	if v.record.id != 0 {
		if _, err := m.store.delete(steadfast(r.Context()), v.record.id); err != nil {
			return err
		}
		m.emit(r, EventLogout, &v.record, nil)
	}
	further, err := m.logoutOthersOf(r, v)
	if err != nil {
		return err
	}
	if v.err != ErrNoCookie || further {
		m.cookies.clear(w)
	}
	m.setVerdict(r, &verdict[U]{err: ErrNoCookie})
	return nil
}

// logoutOthersOf deletes the sessions of a request's cookies except that of the
// verdict, and reports whether there was such a cookie.
func (m *Manager[U]) logoutOthersOf(r *http.Request, v *verdict[U]) (found bool, err error) {
	for _, t := range m.cookies.all(r) {
		if t == v.token {
			continue
		}
		found = true
		var other verdict[U]
		_, err := m.judge(r, t, &other)
		if errors.Is(err, ErrConfig) {
			err = m.judgeAlone(r, t, &other)
		}
		if err != nil {
			return found, err
		}
		if id := other.record.id; id != 0 && id != v.record.id {
			if _, err := m.store.delete(steadfast(r.Context()), id); err != nil {
				return found, err
			}
			m.emit(r, EventLogout, &other.record, nil)
		}
	}
	return found, nil
}

// newToken returns a new token and the hash to store.
func (m *Manager[U]) newToken() (t token.Token, hash string, err error) {
	t = token.New()
	if hash, err = t.Hash(m.cfg.TokenCost); err != nil {
		return t, "", fmt.Errorf("session: hash the token: %w", err)
	}
	return t, hash, nil
}

// Rotate replaces the token of the request's session. Call it when the user's
// privileges change (OWASP Session Management Cheat Sheet, "Renew the Session ID
// After Any Privilege Level Change"), before writing the response body. Login,
// LogoutOthers and SetPassword already do. It returns [ErrNotLoggedIn] without a
// session.
func (m *Manager[U]) Rotate(w http.ResponseWriter, r *http.Request) error {
	_, err := m.rotate(w, r)
	return err
}

func (m *Manager[U]) rotate(w http.ResponseWriter, r *http.Request) (*verdict[U], error) {
	v, err := m.verdictOn(r)
	if err != nil {
		return nil, err
	}
	if v.err != nil {
		return nil, ErrNotLoggedIn
	}
	token, hash, err := m.newToken()
	if err != nil {
		return nil, err
	}
	found, err := m.store.retoken(steadfast(r.Context()), &v.record, token.Selector, hash)
	if err != nil {
		return nil, err
	}
	if !found { // ended concurrently
		m.setVerdict(r, &verdict[U]{err: ErrUnknownSession})
		return nil, ErrNotLoggedIn
	}
	renewed := *v
	renewed.token, renewed.cached = token, false
	renewed.record.selector, renewed.record.hash = token.Selector, hash
	m.cookies.write(w, token)
	m.setVerdict(r, &renewed)
	m.emit(r, EventRotated, &renewed.record, nil)
	return &renewed, nil
}
