// Package session provides login sessions for net/http apps, stored in a MySQL
// or MariaDB table.
//
// A [Manager] authenticates requests. [Manager.Middleware] loads the session
// before the handler runs; handlers then call [Manager.Check] and
// [Manager.User]. [Manager.Login] verifies a password against the app's own
// users table and issues a token, of which the database stores only a bcrypt
// hash. [Manager.Logout] revokes it. A session expires Config.MaxAge after its
// last renewal. Requests renew it at most once per Config.UpdateAge, so an
// active session costs at most one write in that period.
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
//		email := session.Credentials{"email": r.PostFormValue("email")}
//		user, err := auth.Login(w, r, email, r.PostFormValue("password"))
//		...
//	})
//	mux.Handle("/account", auth.Require(account))
//	http.ListenAndServe(":8080", auth.Middleware(mux))
//
// A database failure is never reported as "not logged in". The request fails
// with 503 Service Unavailable, and the session is valid again once the database
// recovers.
package session

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/candysession/session/internal/password"
	"github.com/candysession/session/internal/store"
	"github.com/candysession/session/internal/token"
	"github.com/jmoiron/sqlx"
)

// A Manager manages the login sessions of the users in one table. U is the app's
// user type: a struct whose fields map to columns by db tag, or by lower-cased
// name without one, or [Row].
//
// Create one with [New]. A Manager is safe for concurrent use. Managers are
// independent of each other.
type Manager[U any] struct {
	cfg        Config
	cookies    *cookies
	mapper     *store.Mapper[U]
	store      *store.Store
	accounts   store.Accounts[U]
	bySelector *store.Lookup[U]
	byID       *store.Lookup[U] // by primary key, for tokens in the memo
	primary    *store.Lookup[U] // causal reads, before rejecting where reads may lag
	cache      *cache[U]
	verifier   *token.Verifier
	forgeries  rateLimit // of the warnings about forged tokens
	twins      *twins
	passwords  *password.Hasher
	purge      *purger

	clientIPSet    bool
	warnNoClientIP sync.Once
	unreadIPs      loggedTexts // returned by Config.ClientIP, and not addresses
	places         places
}

// New returns a Manager that uses db, whose driver must be go-sql-driver/mysql.
// New does not connect: the token table is created on first use or by
// [Manager.Migrate]. The caller closes db after [Manager.Close].
//
// New returns an error matching [ErrConfig] if a setting is invalid, or if U is
// neither a struct nor Row, maps no column, or maps the password column.
func New[U any](db *sqlx.DB, cfg Config) (*Manager[U], error) {
	if db == nil {
		return nil, fmt.Errorf("%w: New: db is nil; open one with session.Open", ErrConfig)
	}
	clientIPSet := cfg.ClientIP != nil
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	mapper, err := newMapper[U](db, cfg.PasswordColumn)
	if err != nil {
		return nil, err
	}
	m := &Manager[U]{
		cfg:         cfg,
		clientIPSet: clientIPSet,
		cookies:     newCookies(cfg),
		mapper:      mapper,
		verifier:    token.NewVerifier(token.Options{Timeout: cfg.Timeout}),
		twins:       newTwins(cfg.MaxSessions),
		cache:       newCache[U](cfg.Cache),
	}
	storeConfig := cfg.storeConfig()
	storeConfig.CheckUser = mapper.Check
	storeConfig.Changed = m.cache.forget
	storeConfig.Skewed = cfg.skewWarning()
	m.store = store.New(db, storeConfig)
	m.accounts = store.Accounts[U]{Store: m.store, Mapper: mapper}
	m.passwords = password.New(m.passwordOptions())
	reads := db
	if cfg.Replica != nil {
		reads = cfg.Replica
	}
	m.bySelector = store.NewLookup(m.store, reads, mapper, store.BySelector, false)
	m.byID = store.NewLookup(m.store, reads, mapper, store.ByID, false)
	m.primary = store.NewLookup(m.store, db, mapper, store.BySelector, true)
	m.purge = newPurger(m.store, cfg)
	return m, nil
}

// Close stops the background purge and closes the prepared statements; it does
// not close the database. After Close, requests that carry a session cookie fail
// with [ErrClosed].
func (m *Manager[U]) Close() error {
	m.purge.close()
	return errors.Join(m.byID.Close(), m.bySelector.Close(), m.primary.Close())
}

// A Session describes a session to its user. It contains no credentials.
type Session struct {
	ID      string    // identifies the session to Revoke
	Created time.Time // time of login
	Active  time.Time // time of the last renewal, which may trail the last request by UpdateAge
	Browser string    // the User-Agent, or the text of Config.Fingerprint
	IP      string    // client address at login, by Config.ClientIP
	Current bool      // whether it is the calling request's session
	Stale   bool      // whether it was served from the cache because the database failed
}

// describe returns the Session of a row.
func (m *Manager[U]) describe(r *store.Record) Session {
	return Session{
		ID:      m.store.PublicID(r),
		Created: time.Unix(r.Created, 0).UTC(),
		Active:  time.Unix(r.Active, 0).UTC(),
		Browser: r.Browser,
		IP:      r.IP,
	}
}
