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
//		user, err := auth.Login(w, r, session.Credentials{"email": r.PostFormValue("email")}, r.PostFormValue("password"))
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

	"github.com/candysession/session/internal/password"
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
	plan       userPlan[U]
	store      *store
	bySelector *lookup[U]
	byID       *lookup[U] // by primary key, for tokens in the memo
	certainly  *lookup[U] // causal reads, before rejecting where reads may lag
	cache      *cache[U]
	verifier   *token.Verifier
	forgeries  rateLimit // of the warnings about forged tokens
	twins      *twins
	passwords  *password.Hasher
	purge      *purger

	knowsClients bool        // Config.ClientIP was set
	hidden       sync.Once   // logs once that client IPs are unavailable
	unread       unreadTexts // logged, as they are no addresses
	places       places
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
	knowsClients := cfg.ClientIP != nil
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	plan, err := planUser[U](db.Mapper, cfg.PasswordColumn)
	if err != nil {
		return nil, err
	}
	cfg.DSN = "" // contains a password; not needed from here on
	m := &Manager[U]{cfg: cfg, knowsClients: knowsClients, cookies: newCookies(cfg), plan: plan, verifier: token.NewVerifier(token.Options{Timeout: cfg.Timeout})}
	m.twins = newTwins(cfg.MaxSessions)
	m.store = newStore(db, &m.cfg)
	m.passwords = password.New(m.passwordOptions())
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

// Close stops the background purge and closes the prepared statements; it does
// not close the database. After Close, requests that carry a session cookie fail
// with [ErrClosed].
func (m *Manager[U]) Close() error {
	m.purge.close()
	return errors.Join(m.byID.close(), m.bySelector.close(), m.certainly.close())
}
