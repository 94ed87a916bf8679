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

	"github.com/candysession/session/internal/store"
	"github.com/candysession/session/internal/token"
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
	var none U
	o, err := loginOptionsOf(options, &m.cfg)
	if err != nil {
		return none, err
	}
	defer m.twins.begin(r)()
	user, err := m.checkCredentials(r, "Login", credentials, password)
	if err != nil {
		return none, err
	}
	confirm := func(id uint64) error { return m.confirm(r, id, user, password) }
	return m.start(w, r, user, store.MethodPassword, confirm, o)
}

// CheckPassword authenticates a user by password as [Manager.Login] does, with
// the same throttling, the same timing and the same errors, and starts no
// session. It serves the first of two factors, confirmations, and APIs that
// issue their own tokens.
func (m *Manager[U]) CheckPassword(r *http.Request, credentials Credentials, password string) (U, error) {
	user, err := m.checkCredentials(r, "CheckPassword", credentials, password)
	return m.mapper.Clone(user.User), err
}

// checkCredentials returns the user whose identifiers and password these are.
func (m *Manager[U]) checkCredentials(r *http.Request, call string, credentials Credentials, password string) (user store.Account[U], err error) {
	conditions, matchable, err := m.parseCredentials(r.Context(), call, credentials)
	if err != nil {
		return user, err
	}
	var accounts []store.Account[U]
	if matchable {
		accounts, err = m.accounts.Find(r.Context(), conditions)
		if store.IsUnwritable(err) {
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
	attempt, err := m.attempt(r, conditions, user.Key)
	if err != nil {
		return store.Account[U]{}, err
	}
	if err := m.verifyPassword(r, attempt, user, password); err != nil {
		return store.Account[U]{}, err
	}
	m.upgrade(r.Context(), &user, password)
	return user, nil
}

// parseCredentials splits credentials into conditions. matchable is false if
// some column cannot hold the given value.
func (m *Manager[U]) parseCredentials(ctx context.Context, call string, credentials Credentials) (conditions []store.Condition, matchable bool, err error) {
	columns := credentials.columns()
	if len(columns) == 0 {
		return nil, false, fmt.Errorf("%w: %s: the credentials are empty; name a column that identifies the user", ErrInvalidArgument, call)
	}
	if slices.ContainsFunc(columns, func(name string) bool { return strings.EqualFold(name, m.cfg.PasswordColumn) }) {
		return nil, false, fmt.Errorf("%w: %s: the credentials hold the password column %q; the password is an argument of its own", ErrInvalidArgument, call, m.cfg.PasswordColumn)
	}
	table, err := m.store.Users(ctx)
	if err != nil {
		return nil, false, err
	}
	if !table.HasPassword { // it may be new
		m.store.ForgetUsers()
		if table, err = m.store.Users(ctx); err != nil {
			return nil, false, err
		}
	}
	if !table.HasPassword {
		return nil, false, fmt.Errorf("%w: %s: the users table %s has no column %s; set Config.PasswordColumn to its column of bcrypt hashes, or GRANT SELECT ON %s to this database user", ErrConfig, call, store.Quote(m.cfg.UsersTable), store.Quote(m.cfg.PasswordColumn), store.Quote(m.cfg.UsersTable))
	}
	matchable = true
	for _, name := range columns {
		column, ok := table.Column(name)
		if !ok { // it may be new
			m.store.ForgetUsers()
			if table, err = m.store.Users(ctx); err != nil {
				return nil, false, err
			}
			column, ok = table.Column(name)
		}
		if !ok {
			return nil, false, fmt.Errorf("%w: %s: the users table has no column %q to identify a user by", ErrInvalidArgument, call, name)
		}
		arg, holds, err := column.Param(credentials[name])
		if err != nil {
			return nil, false, err
		}
		if matchable = matchable && holds; !holds {
			arg = credentials[name] // for the throttle
		}
		conditions = append(conditions, store.Condition{Column: column, Value: arg})
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
func (m *Manager[U]) upgrade(ctx context.Context, user *store.Account[U], password string) {
	hash, err := m.passwords.Upgraded(user.Hash, password)
	if hash != "" && err == nil {
		var stamp []byte
		stamp, err = m.store.UpgradePassword(detach(ctx), user.Key, user.Hash, hash, user.Stamp)
		if stamp != nil {
			user.Hash, user.Stamp = []byte(hash), stamp
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
	var none U
	o, err := loginOptionsOf(options, &m.cfg)
	if err != nil {
		return none, err
	}
	defer m.twins.begin(r)()
	user, err := m.accountOf(r.Context(), key)
	if err != nil {
		return none, err
	}
	return m.start(w, r, user, store.MethodApp, nil, o)
}

// start creates a session for user and replaces the request's current one. If
// confirm is not nil, it runs after the insert; if it fails, the session is
// deleted again.
func (m *Manager[U]) start(w http.ResponseWriter, r *http.Request, user store.Account[U], method store.Method, confirm func(id uint64) error, o loginOptions) (U, error) {
	var none U
	before, err := m.sessionToEnd(r)
	if err != nil {
		return none, err
	}
	shared, first, err := m.meetTwin(r, user, before, o)
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
	v := &verdict[U]{token: token, user: user.User, record: store.Record{
		Owner:    user.Key,
		Selector: token.Selector,
		Hash:     hash,
		Stamp:    user.Stamp,
		Method:   method,
		Browser:  m.browser(r),
		IP:       m.ip(r),
		Life:     seconds(o.maxAge),
		Created:  user.Now,
		Active:   user.Now,
		Now:      user.Now,

		Transient: o.transient,
	}}
	if err := r.Context().Err(); err != nil { // the client is gone
		return none, m.wrap("save the session", err)
	}
	var ended int64
	if v.record.ID, ended, err = m.store.Insert(detach(r.Context()), &v.record, before.record.ID); err != nil {
		return none, err
	}
	if confirm != nil {
		if err := confirm(v.record.ID); err != nil {
			// Best effort: no client has this token.
			m.store.Delete(detach(r.Context()), v.record.ID)
			return none, err
		}
	}
	m.verifier.Put(m.verifier.KeyFor(token), tokenRow(&v.record))
	m.twins.save(shared, token, v.record)
	m.cookies.write(w, token, o.transient)
	m.setVerdict(r, v)
	m.emit(r, EventLogin, &v.record, nil)
	m.rememberClient(r, user.Key)
	m.emitRevoked(r.Context(), user.Key, ended)
	m.purge.after(r.Context())
	return m.mapper.Clone(user.User), nil
}

// meetTwin returns the session that another login of this browser created while
// this one was in progress, or reports that this one is the first.
func (m *Manager[U]) meetTwin(r *http.Request, user store.Account[U], before *verdict[U], o loginOptions) (shared *twin, first bool, err error) {
	if m.twins == nil {
		return nil, true, nil
	}
	came := before.token.Selector
	if came == "" { // another login may have ended that session already
		sent, _ := m.cookies.read(r)
		came = sent.Selector
	}
	key := twinKey{string(store.KeyBytes(user.Key)), came, m.browser(r), m.ip(r), o}
	shared, first, err = m.twins.meet(r.Context(), r, m.stateOf(r), key, func(other *twin) (bool, error) {
		row, err := m.primary.Find(r.Context(), other.token.Selector, other.token.Selector)
		if errors.Is(err, ErrUnknownSession) {
			return false, nil
		}
		return err == nil && row.ID == other.record.ID, err
	})
	if err != nil {
		err = m.wrap("wait for another login of this browser", err)
	}
	return shared, first, err
}

func (m *Manager[U]) leaveTwin(r *http.Request, shared *twin, first bool) {
	m.twins.leave(shared, first, m.stateOf(r))
}

// join gives a login the session that another login of its browser created.
func (m *Manager[U]) join(w http.ResponseWriter, r *http.Request, user store.Account[U], shared *twin, confirm func(id uint64) error) (none U, err error) {
	if confirm != nil {
		if err := confirm(shared.record.ID); err != nil {
			return none, err
		}
	}
	v := &verdict[U]{token: shared.token, user: user.User, record: shared.record}
	m.cookies.write(w, v.token, v.record.Transient)
	m.setVerdict(r, v)
	m.emit(r, EventLogin, &v.record, nil)
	return m.mapper.Clone(user.User), nil
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
	if v.err != nil || v.given != nil {
		return nil, ErrNotLoggedIn
	}
	token, hash, err := m.newToken()
	if err != nil {
		return nil, err
	}
	transient, err := m.isTransient(r.Context(), &v.record)
	if err != nil {
		return nil, err
	}
	found, err := m.store.ReplaceToken(detach(r.Context()), &v.record, token.Selector, hash)
	if err != nil {
		return nil, err
	}
	if !found { // ended concurrently
		m.setVerdict(r, &verdict[U]{err: ErrUnknownSession})
		return nil, ErrNotLoggedIn
	}
	renewed := m.setToken(w, r, v, token, hash, transient)
	m.emit(r, EventRotated, &renewed.record, nil)
	return renewed, nil
}

// setToken gives the request and its browser the new token of a session, and
// returns the new verdict.
func (m *Manager[U]) setToken(w http.ResponseWriter, r *http.Request, v *verdict[U], t token.Token, hash string, transient bool) *verdict[U] {
	renewed := *v
	renewed.token, renewed.cached = t, false
	renewed.record.Selector, renewed.record.Hash = t.Selector, hash
	m.cookies.write(w, t, transient)
	m.setVerdict(r, &renewed)
	return &renewed
}
