// Package session keeps people logged in to a net/http app, with a token table in MySQL or MariaDB.
//
// A [Manager] wraps the app's handlers. Its Middleware looks at each request once, before the handler runs, and the
// handler asks: [Manager.Check], [Manager.User]. [Manager.Login] checks a password against the users table that the
// app already has, and gives the browser a token of which the database keeps only a bcrypt hash; [Manager.Logout]
// takes it back. A session lives for [Config].MaxAge after its last renewal; those who come back stay in, at the cost
// of one write per [Config].UpdateAge.
//
//	type User struct {
//		ID    int64  `db:"id"`
//		Email string `db:"email"`
//	}
//
//	db, err := session.Open("app:password@tcp(localhost:3306)/app")
//	auth, err := session.New[User](db, session.Config{LoginURL: "/login"})
//
//	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
//		user, err := auth.Login(w, r, session.Credentials{"email": r.PostFormValue("email"), "password": r.PostFormValue("password")})
//		...
//	})
//	mux.Handle("/account", auth.Require(account))
//	http.ListenAndServe(":8080", auth.Middleware(mux))
//
// A database that fails is never taken for a user who is not logged in: the request is answered with 503, and the
// next one after recovery is logged in as before.
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
)

// A Manager keeps the sessions of one users table. U is what the app knows of a user: a struct whose fields are
// columns of that table by their db tags (by the lower-case field name without one), or [Row].
//
// Make one per program with [New]; it may be used by many goroutines at once. Managers do not see each other's state.
type Manager[U any] struct {
	cfg        Config
	cookies    *cookies
	plan       userPlan[U]
	store      *store
	bySelector *lookup[U]
	byID       *lookup[U] // for tokens that were verified before
	certainly  *lookup[U] // for those that would be refused, where a read may be late
	cache      *cache[U]
	verifier   *verifier
	forgeries  pace
	completed  completions
	twins      *twins
	passwords  *passwords
	purge      *purger

	knowsClients bool        // Config.ClientIP was set
	hidden       sync.Once   // said that clients cannot be told apart
	unread       unreadTexts // logged, as they are no addresses
	places       places
}

// New makes a Manager on a database, whose driver must be go-sql-driver/mysql. It does not connect: the token table
// is made when it is first needed, or by [Manager.Migrate]. The caller still closes db, after [Manager.Close].
//
// A setting that is wrong, or a U that is no struct, has no columns or would hold the password, is an [ErrConfig].
func New[U any](db *sqlx.DB, cfg Config) (*Manager[U], error) {
	if db == nil {
		return nil, fmt.Errorf("%w: New: db is nil; open one with session.Open", ErrConfig)
	}
	knowsClients := cfg.ClientIP != nil
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	plan, err := planUser[U](db.Mapper, cfg.Password)
	if err != nil {
		return nil, err
	}
	cfg.DSN = "" // it holds a password, which nothing here needs
	m := &Manager[U]{cfg: cfg, knowsClients: knowsClients, cookies: newCookies(cfg), plan: plan, verifier: newVerifier(), passwords: newPasswords(cfg.PasswordCost, cfg.VerifyPassword)}
	m.twins = newTwins(cfg.MaxSessions)
	m.store = newStore(db, &m.cfg)
	m.verifier.timeout = cfg.Timeout
	m.passwords.timeout, m.passwords.sample, m.passwords.told = cfg.Timeout, m.store.samplePasswords, m.cfg.event
	m.store.fits = plan.fits
	reads := db
	if cfg.Replica != nil {
		reads = cfg.Replica
	}
	m.bySelector = newLookup(m.store, reads, plan, selectorColumn)
	m.byID = newLookup(m.store, reads, plan, idColumn)
	m.certainly = newLookup(m.store, db, plan, selectorColumn)
	m.certainly.certain = true
	m.cache = newCache[U](cfg.Cache)
	m.store.changed = m.cache.forget
	m.purge = newPurger(m.store, cfg)
	return m, nil
}

// Close ends the work in the background and frees the prepared statements; the database stays open. Requests that come
// with a session after it fail with [ErrClosed].
func (m *Manager[U]) Close() error {
	m.purge.close()
	return errors.Join(m.byID.close(), m.bySelector.close(), m.certainly.close())
}

// A verdict is what is known of a request's session.
type verdict[U any] struct {
	err    error // why the request is not logged in; nil if it is
	token  token
	record record // its id is 0 unless the token is right, even if the session is refused for another reason
	user   U
	cached bool // this is what was known before
	stale  bool // and the database failed
}

// authenticate judges a request: its cookie, the session of that token, the ages, the user, the browser. Of several
// cookies the first that is a valid session counts; without one, the reason is the first cookie's. A request that is
// refused has a verdict; an error means that nothing is known, because the database failed.
func (m *Manager[U]) authenticate(r *http.Request, v *verdict[U]) error {
	t, reason := m.cookies.read(r)
	if reason == ErrNoCookie && m.cfg.CandyPack != CandyPackOff { // CandyPack may have logged out
		v.err = reason
		return nil
	}
	var why refused
	switch reason {
	case nil:
		var err error
		if why, err = m.judge(r, t, v); err != nil {
			return err
		}
		if v.err == nil && !m.cookies.incomplete(r, t) {
			return nil
		}
	case ErrMalformed:
		v.err, why = reason, refused{kind: EventRefused, reason: reason}
	default:
		v.err = reason
	}
	if why.alarming() {
		m.tell(r, why.kind, why.of, why.reason)
	}
	for _, t := range m.cookies.others(r) {
		var other verdict[U]
		why, err := m.judge(r, t, &other)
		if err != nil {
			*v = other
			return err
		}
		if other.err == nil && (v.err != nil || !sameUser(&v.record, &other.record)) {
			*v = other
			return nil
		}
		if why.alarming() {
			m.tell(r, why.kind, why.of, why.reason)
		}
	}
	if why.kind == EventRefused {
		m.tell(r, why.kind, why.of, why.reason)
	}
	return nil
}

// refused is the event of a token that is refused, if that is to be told.
type refused struct {
	kind   EventKind
	of     *record
	reason error
}

// alarming reports whether it may show a stolen cookie. Then it is told also
// where another cookie of the request is good.
func (r refused) alarming() bool { return r.kind != "" && r.kind != EventRefused }

func sameUser(a, b *record) bool { return sameKey(a.owner, b.owner) }

// judge judges one token of a request, as authenticate does.
func (m *Manager[U]) judge(r *http.Request, t token, v *verdict[U]) (why refused, err error) {
	row, age, err := m.find(r.Context(), t)
	if errors.Is(err, ErrUnknown) {
		why = refused{kind: refusal(err), reason: ErrUnknown}
		if row != nil { // it exists, but this is not its token
			why.of = &row.record
		}
		v.err = ErrUnknown
		return why, nil
	}
	v.token = t
	if err != nil {
		return why, err
	}
	v.record, v.cached, v.stale = row.record, age.known, age.stale
	v.record.now += seconds(age.since)
	switch {
	case m.expired(&v.record):
		v.err = ErrExpired
	case row.owner == nil:
		v.err = ErrUserGone
	case row.changed:
		v.err = ErrAccountChanged
	case !m.cfg.Fingerprint.Match(row.browser, m.browser(r)):
		v.err = ErrWrongBrowser
	default:
		v.user = row.user
		return why, nil
	}
	return refused{refusal(v.err), &row.record, v.err}, nil
}

// An age says of what was found whether it was read just now.
type age struct {
	known bool          // it was not: it comes from the cache
	since time.Duration // how long ago it was read
	stale bool          // and the database failed
}

// find finds the session of a token, in the cache if there is one and it knows, otherwise in the table. While the
// database fails, the cache may know what was so before: that is stale.
func (m *Manager[U]) find(ctx context.Context, t token) (*found[U], age, error) {
	key := m.verifier.of(t)
	if m.cache == nil {
		row, err := m.look(ctx, t, key)
		return row, age{}, err
	}
	now := time.Now()
	kept, since := m.cache.get(t.selector, now)
	if kept != nil && (kept.key != key || isWithoutCache(ctx)) {
		kept = nil // another verifier, or certainty is wanted: the table decides
	}
	if kept != nil && since <= m.cfg.Cache.Fresh {
		return &kept.found, age{known: true, since: since}, nil
	}
	generation := m.cache.begin()
	row, err := m.look(ctx, t, key)
	switch {
	case err == nil:
		m.cache.put(generation, row, key, now)
	case kept != nil && since <= m.cfg.Cache.Stale && errors.Is(err, ErrUnavailable) && ctx.Err() == nil:
		return &kept.found, age{known: true, since: since, stale: true}, nil
	}
	return row, age{}, err
}

// look reads the session of a token. Where a read may be late, a session that would be refused is read once more, by one
// that is not: it may have begun, or been renewed, just now and elsewhere.
func (m *Manager[U]) look(ctx context.Context, t token, key memoKey) (*found[U], error) {
	row, err := m.read(ctx, t, key)
	switch {
	case err == nil && row.owner != nil && !row.changed && !m.expired(&row.record):
		return row, nil
	case err != nil && err != ErrUnknown && err != errEnded:
		return row, err
	}
	if m.cfg.Replica == nil {
		galera, unknown := m.store.isGalera(ctx)
		if unknown != nil {
			return nil, unknown
		}
		if !galera {
			return row, err
		}
	}
	late, ended := row, err
	if row, err = m.certainly.find(ctx, t.selector, t.selector); err == nil {
		return m.verified(ctx, t, row)
	}
	if late == nil && err == ErrUnknown {
		return nil, ended
	}
	return nil, err
}

// read reads the session of a token from the table: the row that the selector selects, if the verifier matches its hash.
// Of a token that was verified before, the row is read by its id, which costs the database less. If that is not the row
// any more, the selector decides. The key is the verifier's, of the token. With errWrongVerifier comes the row that the
// token is not of, for the event.
func (m *Manager[U]) read(ctx context.Context, t token, key memoKey) (*found[U], error) {
	memory := m.verifier.recall(key)
	if memory.id != 0 {
		row, err := m.byID.find(ctx, memory.id, t.selector)
		if err == nil && memory.of(&row.record) || err != nil && !errors.Is(err, ErrUnknown) {
			return row, err
		}
		m.verifier.forget(key)
	} else if t.forged() {
		return m.forgery(ctx, t)
	}
	row, err := m.bySelector.find(ctx, t.selector, t.selector)
	if err == ErrUnknown && memory.id != 0 {
		return nil, errEnded
	}
	if err != nil {
		return nil, err
	}
	return m.verified(ctx, t, row)
}

// verified is the row of a token's selector, if its verifier matches the hash.
func (m *Manager[U]) verified(ctx context.Context, t token, row *found[U]) (*found[U], error) {
	ok, err := m.verifier.verify(ctx, t, &row.record)
	if err != nil {
		return nil, m.store.explain("verify the token", err)
	}
	if !ok {
		return row, errWrongVerifier
	}
	return row, nil
}

// forgery refuses a token whose verifier was made up. Whose session it is meant for is only of interest for the event,
// so a flood of them is looked up no more than maxForgeries times a second, and no failure of that matters.
func (m *Manager[U]) forgery(ctx context.Context, t token) (*found[U], error) {
	if m.forgeries.allows(time.Now()) {
		if row, err := m.bySelector.find(ctx, t.selector, t.selector); err == nil {
			return row, errWrongVerifier
		}
	}
	return nil, errForged
}

// expired: idle for more than MaxAge, or older than MaxLifetime. Ages are the database's, in whole seconds.
func (m *Manager[U]) expired(r *record) bool {
	return r.now-r.active > seconds(m.cfg.MaxAge) ||
		m.cfg.MaxLifetime > 0 && r.now-r.created > seconds(m.cfg.MaxLifetime)
}

func (m *Manager[U]) browser(r *http.Request) string {
	return fit(m.cfg.Fingerprint.Text(r), maxBrowser)
}

// slide renews the row of a session that rested for more than UpdateAge, and reports whether it did. Of the requests that
// come at once one does it. The session is valid either way, so a failure is only logged. The cookie stays as it is: it
// lasts longer than the row, and an answer that is late would put it in place of a newer one.
func (m *Manager[U]) slide(r *http.Request, v *verdict[U]) (renewed bool) {
	if v.err != nil || v.stale || v.record.now-v.record.active <= seconds(m.cfg.UpdateAge) || r.Context().Err() != nil {
		return false
	}
	browser := lasting(v.record.browser, m.browser(r))
	won, err := m.store.slide(steadfast(r.Context()), v.record.id, browser, m.cfg.UpdateAge)
	if err != nil {
		m.cfg.Logger.WarnContext(r.Context(), "session: not renewed", "session", m.store.publicID(&v.record), "error", err)
		return false
	}
	if won {
		v.record.active, v.record.browser = v.record.now, browser
		m.tell(r, EventRenewed, &v.record, nil)
	}
	return won
}

// end deletes the row of a session that was rejected for good: its account has
// changed or is gone. In CandyPack's modes it also deletes an expired session of
// this browser, as CandyPack does. Otherwise the purge deletes that.
func (m *Manager[U]) end(r *http.Request, v *verdict[U]) {
	ctx := steadfast(r.Context())
	var err error
	switch {
	case v.stale:
	case v.err == ErrUserGone && m.cfg.CandyPack != CandyPackOff && v.record.stamp == nil: // CandyPack's, which keeps it
	case v.err == ErrUserGone, v.err == ErrAccountChanged:
		err = m.store.deleteRejected(ctx, &v.record)
	case v.err == ErrExpired && m.cfg.CandyPack != CandyPackOff && m.cfg.Fingerprint.Match(v.record.browser, m.browser(r)):
		err = m.store.deleteExpired(ctx, v.record.id)
	}
	if err != nil {
		m.cfg.Logger.WarnContext(ctx, "session: rejected, but not deleted", "session", m.store.publicID(&v.record), "error", err)
	}
}

// Credentials are what a user gives to log in, by column of the users table: the password, and one identifier or more
// that must all match.
//
//	session.Credentials{"email": email, "password": password}
//	session.Credentials{"tenant": "7", "name": name, "password": password}
type Credentials map[string]string

// Login logs in the one user whose columns equal every identifier, as their collation compares them, and whose
// bcrypt hash is that of the password. It saves a session and adds its cookie to the response, so call it before
// writing the body. A session that the browser had before is replaced. Behind Middleware, this request is logged in
// from then on: [Manager.Check] says so.
//
// An [ErrInvalidCredentials] means that no user, or more than one, has these credentials; an unknown user takes as
// long as a wrong password. Who fails too often has to wait: an [ErrTooManyAttempts], which Config.Throttle decides
// before any password is looked at. Credentials without a password, without an identifier, or with a column that the users
// table lacks are an [ErrUsage]. A database failure is an [ErrUnavailable], and nobody is logged in or out.
func (m *Manager[U]) Login(w http.ResponseWriter, r *http.Request, credentials Credentials) (U, error) {
	defer m.twins.begin(r)()
	var none U
	conditions, password, possible, err := m.conditions(r.Context(), credentials)
	if err != nil {
		return none, err
	}
	var accounts []account[U]
	if possible {
		accounts, err = m.findAccounts(r.Context(), conditions)
		if isError(err, unwritable...) {
			err = nil // nobody has an identifier that can't be written
		}
		if err != nil {
			return none, err
		}
	}
	if len(accounts) > 1 {
		m.cfg.Logger.WarnContext(r.Context(), "session: login refused, as more than one user has these identifiers", "columns", credentials.columns(m.cfg.Password))
	}
	var user account[U]
	if len(accounts) == 1 {
		user = accounts[0]
	}
	attempt, err := m.attempt(r, conditions, user.key)
	if err != nil {
		return none, err
	}
	if err := m.verifyPassword(r, attempt, user, password); err != nil {
		return none, err
	}
	m.upgrade(r.Context(), &user, password)
	return m.start(w, r, user, methodPassword, func(id uint64) error { return m.confirm(r, id, user, password) })
}

// conditions takes credentials apart. It reports false if a column can't have the value, so no user does.
func (m *Manager[U]) conditions(ctx context.Context, credentials Credentials) (conditions []condition, password string, possible bool, err error) {
	password, ok := credentials[m.cfg.Password]
	if !ok {
		return nil, "", false, fmt.Errorf("%w: Login: the credentials have no %q; logging in without a password is LoginAs", ErrUsage, m.cfg.Password)
	}
	columns := credentials.columns(m.cfg.Password)
	if len(columns) == 0 {
		return nil, "", false, fmt.Errorf("%w: Login: the credentials have nothing but a password", ErrUsage)
	}
	table, err := m.store.usersTable(ctx)
	if err != nil {
		return nil, "", false, err
	}
	if !table.hasPassword { // it may have been added since
		m.store.table.Store(nil)
		if table, err = m.store.usersTable(ctx); err != nil {
			return nil, "", false, err
		}
	}
	if !table.hasPassword {
		return nil, "", false, fmt.Errorf("%w: Login: the users table %s has no column %s; set Config.Password to its column of bcrypt hashes, or GRANT SELECT ON %s to this database user", ErrConfig, m.store.users, m.store.password, m.store.users)
	}
	possible = true
	for _, name := range columns {
		column, ok := table.column(name)
		if !ok { // it may have been added since
			m.store.table.Store(nil)
			if table, err = m.store.usersTable(ctx); err != nil {
				return nil, "", false, err
			}
			column, ok = table.column(name)
		}
		if !ok {
			return nil, "", false, fmt.Errorf("%w: Login: the users table has no column %q to log in with", ErrUsage, name)
		}
		arg, holds, err := column.arg(credentials[name])
		if err != nil {
			return nil, "", false, err
		}
		if possible = possible && holds; !holds {
			arg = credentials[name] // for the throttle
		}
		conditions = append(conditions, condition{column, arg})
	}
	return conditions, password, possible, nil
}

// String tells the columns, and no values: one is a password.
func (c Credentials) String() string {
	return "session.Credentials" + fmt.Sprint(slices.Sorted(maps.Keys(c)))
}

// GoString is String.
func (c Credentials) GoString() string { return c.String() }

// LogValue is String, for slog.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// columns are the identifiers' names, in order.
func (c Credentials) columns(password string) []string {
	var names []string
	for name := range c {
		if name != password {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// upgrade replaces a password hash that is not bcrypt's, or costs less than
// Config.PasswordCost. The user's sessions stay good. A failure is only logged:
// the next login tries again.
func (m *Manager[U]) upgrade(ctx context.Context, user *account[U], password string) {
	hash, err := m.passwords.upgraded(user.hash, password)
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

// LoginAs logs in the user with this key, whom the app has verified itself: by OAuth, a passkey, a link sent by mail.
// Otherwise it is [Manager.Login]. Without such a user it returns [ErrUserGone].
//
// The key is an integer, text, or for a binary column []byte or a byte array.
//
// When a browser comes by a redirect or link from another site, it withholds the session cookie, which is strictly
// same-site, from the request and from those that it is redirected to. A redirect to a page behind Middleware works, as
// that reloads itself once.
func (m *Manager[U]) LoginAs(w http.ResponseWriter, r *http.Request, key any) (U, error) {
	defer m.twins.begin(r)()
	user, err := m.accountOf(r.Context(), key)
	if err != nil {
		return user.user, err
	}
	return m.start(w, r, user, methodApp, nil)
}

// start gives a user a session, in place of the one that the request came with, if what is asked once it is saved does
// not fail.
func (m *Manager[U]) start(w http.ResponseWriter, r *http.Request, user account[U], method loginMethod, confirm func(id uint64) error) (U, error) {
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
		selector: token.selector,
		hash:     hash,
		stamp:    user.stamp,
		method:   method,
		browser:  m.browser(r),
		ip:       m.ip(r),
		created:  user.now,
		active:   user.now,
		now:      user.now,
	}}
	if err := r.Context().Err(); err != nil { // nobody is there to take the cookie
		return none, m.store.explain("save the session", err)
	}
	var ended int64
	if v.record.id, ended, err = m.store.insert(steadfast(r.Context()), &v.record, before.record.id); err != nil {
		return none, err
	}
	if confirm != nil {
		if err := confirm(v.record.id); err != nil {
			m.store.delete(steadfast(r.Context()), v.record.id) // or not: nobody has its token
			return none, err
		}
	}
	m.verifier.remember(m.verifier.of(token), &v.record)
	m.twins.save(shared, token, v.record)
	m.cookies.write(w, token)
	m.remember(r, v)
	m.tell(r, EventLogin, &v.record, nil)
	m.rememberClient(r, user.key)
	m.revoked(r.Context(), user.key, ended)
	m.purge.after(r.Context())
	return m.plan.copy(user.user), nil
}

// meetTwin finds the session that a login of this browser made while this one
// was under way, or reports that this one is the first.
func (m *Manager[U]) meetTwin(r *http.Request, user account[U], before *verdict[U]) (shared *twin, first bool, err error) {
	if m.twins == nil {
		return nil, true, nil
	}
	came := before.token.selector
	if came == "" { // or another login has ended that session already
		sent, _ := m.cookies.read(r)
		came = sent.selector
	}
	key := twinKey{string(keyBytes(user.key)), came, m.browser(r), m.ip(r)}
	shared, first, err = m.twins.meet(r.Context(), r, m.stateOf(r), key, func(other *twin) (bool, error) {
		row, err := m.certainly.find(r.Context(), other.token.selector, other.token.selector)
		if errors.Is(err, ErrUnknown) {
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

// join gives a login the session that another login of its browser has made.
func (m *Manager[U]) join(w http.ResponseWriter, r *http.Request, user account[U], shared *twin, confirm func(id uint64) error) (none U, err error) {
	if confirm != nil {
		if err := confirm(shared.record.id); err != nil {
			return none, err
		}
	}
	v := &verdict[U]{token: shared.token, user: user.user, record: shared.record}
	m.cookies.write(w, v.token)
	m.remember(r, v)
	m.tell(r, EventLogin, &v.record, nil)
	return m.plan.copy(user.user), nil
}

// Logout ends the session of this request, in the table and in the browser, also where the session is refused because
// of its age or browser. If the request carries several session cookies, it ends the session of each. From then on this
// request is not logged in. Without a session it does nothing, and is no error. Call it before writing the body.
//
// After a database failure, an [ErrUnavailable], the session may live on; the cookie stays, so that trying again works.
func (m *Manager[U]) Logout(w http.ResponseWriter, r *http.Request) error {
	v, err := m.withUserOrNot(r.WithContext(steadfast(r.Context())))
	if err != nil {
		return err
	}
	if v.record.id != 0 {
		if _, err := m.store.delete(steadfast(r.Context()), v.record.id); err != nil {
			return err
		}
		m.tell(r, EventLogout, &v.record, nil)
	}
	further, err := m.logoutOthersOf(r, v)
	if err != nil {
		return err
	}
	if v.err != ErrNoCookie || further {
		m.cookies.clear(w)
	}
	m.remember(r, &verdict[U]{err: ErrNoCookie})
	return nil
}

// logoutOthersOf ends the sessions of a request's cookies that are not the one
// of the verdict, and reports whether there was such a cookie.
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
			m.tell(r, EventLogout, &other.record, nil)
		}
	}
	return found, nil
}

// newToken makes a token and the hash to store.
func (m *Manager[U]) newToken() (t token, hash string, err error) {
	t = newToken()
	if hash, err = t.hash(m.cfg.TokenCost); err != nil {
		return t, "", fmt.Errorf("session: hash the token: %w", err)
	}
	return t, hash, nil
}

// Rotate gives the session of this request a new token, and ends the old one everywhere: do it when the user gains
// rights (OWASP Session Management Cheat Sheet, "Renew the Session ID After Any Privilege Level Change"). Login,
// LogoutOthers and SetPassword do it by themselves. Call it before writing the body. Without a session it returns
// [ErrNotLoggedIn].
func (m *Manager[U]) Rotate(w http.ResponseWriter, r *http.Request) error {
	_, err := m.rotate(w, r)
	return err
}

func (m *Manager[U]) rotate(w http.ResponseWriter, r *http.Request) (*verdict[U], error) {
	v, err := m.verdict(r)
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
	found, err := m.store.retoken(steadfast(r.Context()), &v.record, token.selector, hash)
	if err != nil {
		return nil, err
	}
	if !found { // it was ended elsewhere meanwhile
		m.remember(r, &verdict[U]{err: ErrUnknown})
		return nil, ErrNotLoggedIn
	}
	renewed := *v
	renewed.token, renewed.cached = token, false
	renewed.record.selector, renewed.record.hash = token.selector, hash
	m.cookies.write(w, token)
	m.remember(r, &renewed)
	m.tell(r, EventRenewed, &renewed.record, nil)
	return &renewed, nil
}

// LogoutOthers ends every other session of this request's user, and gives this one a new token: who had copied the
// old one is out too. Call it before writing the body. Without a session it returns [ErrNotLoggedIn].
func (m *Manager[U]) LogoutOthers(w http.ResponseWriter, r *http.Request) error {
	v, err := m.rotate(w, r)
	if err != nil {
		return err
	}
	ctx := steadfast(r.Context())
	key, err := m.store.userArg(ctx, v.record.owner)
	if err != nil {
		return err
	}
	n, err := m.store.deleteAllOf(ctx, key, v.record.id)
	m.forgetUser(ctx, key)
	m.revoked(ctx, key, n)
	return err
}

// revoked is the event of sessions that were ended by another.
func (m *Manager[U]) revoked(ctx context.Context, user any, n int64) {
	if n > 0 {
		m.cfg.event(ctx, Event{Kind: EventRevoked, User: user, Count: n})
	}
}

// LogoutAll ends every session of a user, for example after a password was reset, and tells how many there were.
// A request that is logged in as this user and passes its context is logged out too.
func (m *Manager[U]) LogoutAll(ctx context.Context, userKey any) (n int64, err error) {
	ctx = steadfast(ctx)
	key, err := m.store.userArg(ctx, userKey)
	if err != nil {
		return 0, err
	}
	n, err = m.store.deleteAllOf(ctx, key, 0)
	m.forgetUser(ctx, key)
	m.revoked(ctx, key, n)
	if err == nil {
		m.forget(ctx, func(v *verdict[U]) bool { return m.isUser(ctx, v.record.owner, key) })
	}
	return n, err
}

// A Session tells of one session what its user may know. It holds nothing that gives access.
type Session struct {
	ID      string    // names it for Revoke
	Created time.Time // the login
	Active  time.Time // the last renewal: up to UpdateAge before the last request
	Browser string    // the User-Agent, or what Config.Fingerprint made of the request
	IP      string    // the address of the login
	Current bool      // it is the session of the request whose context was given
	Stale   bool      // the database failed, and this is what was known at most Config.Cache.Stale ago
}

// describe returns what a user may know of a session.
func (s *store) describe(r *record) Session {
	return Session{
		ID:      s.publicID(r),
		Created: time.Unix(r.created, 0).UTC(),
		Active:  time.Unix(r.active, 0).UTC(),
		Browser: r.browser,
		IP:      r.ip,
	}
}

// Sessions lists the sessions of a user that have not expired, the last used first. Give it the request's context to
// have the current one marked.
func (m *Manager[U]) Sessions(ctx context.Context, userKey any) ([]Session, error) {
	key, err := m.store.userArg(ctx, userKey)
	if err != nil {
		return nil, err
	}
	records, err := m.store.sessionsOf(ctx, key)
	if err != nil {
		return nil, err
	}
	current := m.known(ctx)
	sessions := make([]Session, len(records))
	for i := range records {
		sessions[i] = m.store.describe(&records[i])
		sessions[i].Current = current != nil && current.err == nil && current.record.id == records[i].id
	}
	return sessions, nil
}

// Revoke ends one session of a user, by the ID that [Manager.Sessions] tells. If the user has no such session, it
// returns [ErrNoSession]; so a user cannot end the sessions of another.
func (m *Manager[U]) Revoke(ctx context.Context, userKey any, id string) error {
	ctx = steadfast(ctx)
	key, err := m.store.userArg(ctx, userKey)
	if err != nil {
		return err
	}
	records, err := m.store.recordsOf(ctx, key, "", nil)
	if err != nil {
		return err
	}
	m.forgetUser(ctx, key) // the session may have ended on another server
	i := slices.IndexFunc(records, func(r record) bool { return m.store.publicID(&r) == id })
	if i < 0 {
		return ErrNoSession
	}
	found, err := m.store.delete(ctx, records[i].id)
	if err != nil {
		return err
	}
	if !found {
		return ErrNoSession
	}
	m.cfg.event(ctx, Event{Kind: EventRevoked, User: key, Session: id, Count: 1})
	m.forget(ctx, func(v *verdict[U]) bool { return v.record.id == records[i].id })
	return nil
}

// HashPassword makes the bcrypt hash to store for a password, at Config.PasswordCost. bcrypt reads no more than 72
// bytes, so a longer password is an [ErrPasswordTooLong] instead of being cut in silence. The password is normalized
// (NFC) before. If it does not get its turn within Config.Timeout, that is an [ErrBusy].
func (m *Manager[U]) HashPassword(password string) (string, error) {
	return m.passwords.hash(context.Background(), password)
}

// Migrate creates the token table, or adds the columns with defaults, the comment
// and the indexes that an existing one lacks. It gives the column user the type of
// the users' key if that changes no value. Migrate returns the statements it ran:
// none if the table is up to date. A table that cannot serve, and a U that does
// not fit the users table, is an error matching [ErrConfig].
func (m *Manager[U]) Migrate(ctx context.Context) (ran []string, err error) {
	return m.store.migrate(ctx)
}

// Schema is the statement that makes the token table, for those who keep their schema by hand. It asks the database,
// as the column user has the type of the users table's key.
func (m *Manager[U]) Schema(ctx context.Context) (string, error) {
	return m.store.schema(ctx)
}
