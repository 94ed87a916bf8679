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
//		user, err := auth.Login(w, r, session.Credentials{"email": r.PostFormValue("email")}, r.PostFormValue("password"))
//		...
//	})
//	mux.Handle("/account", auth.Require(account))
//	http.ListenAndServe(":8080", auth.Middleware(mux))
//
// A database that fails is never taken for a user who is not logged in: the request is answered with 503, and the
// next one after recovery is logged in as before.
package session

import (
	"errors"
	"fmt"
	"sync"

	"github.com/jmoiron/sqlx"

	"github.com/candysession/session/internal/store"
)

// A Manager keeps the sessions of one users table. U is what the app knows of a user: a struct whose fields are
// columns of that table by their db tags (by the lower-case field name without one), or [Row].
//
// Make one per program with [New]; it may be used by many goroutines at once. Managers do not see each other's state.
type Manager[U any] struct {
	cfg        Config
	cookies    *cookies
	mapper     *store.Mapper[U]
	store      *store.Store
	accounts   store.Accounts[U]
	bySelector *store.Lookup[U]
	byID       *store.Lookup[U] // for tokens that were verified before
	certainly  *store.Lookup[U] // for those that would be refused, where a read may be late
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
	mapper, err := newMapper[U](db, cfg.PasswordColumn)
	if err != nil {
		return nil, err
	}
	cfg.DSN = "" // it holds a password, which nothing here needs
	m := &Manager[U]{cfg: cfg, knowsClients: knowsClients, cookies: newCookies(cfg), mapper: mapper, verifier: newVerifier(), passwords: newPasswords(cfg.PasswordCost, cfg.VerifyPassword)}
	m.twins = newTwins(cfg.MaxSessions)
	m.cache = newCache[U](cfg.Cache)
	storeConfig := m.cfg.storeConfig()
	storeConfig.CheckUser = mapper.Check
	storeConfig.Changed = m.cache.forget
	storeConfig.Skewed = m.skewed()
	m.store = store.New(db, storeConfig)
	m.accounts = store.Accounts[U]{Store: m.store, Mapper: mapper}
	m.verifier.timeout = cfg.Timeout
	m.passwords.timeout, m.passwords.sample, m.passwords.told = cfg.Timeout, m.store.SamplePasswords, m.cfg.event
	reads := db
	if cfg.Replica != nil {
		reads = cfg.Replica
	}
	m.bySelector = store.NewLookup(m.store, reads, mapper, store.BySelector, false)
	m.byID = store.NewLookup(m.store, reads, mapper, store.ByID, false)
	m.certainly = store.NewLookup(m.store, db, mapper, store.BySelector, true)
	m.purge = newPurger(m.store, cfg)
	return m, nil
}

// Close ends the work in the background and frees the prepared statements; the database stays open. Requests that come
// with a session after it fail with [ErrClosed].
func (m *Manager[U]) Close() error {
	m.purge.close()
	return errors.Join(m.byID.Close(), m.bySelector.Close(), m.certainly.Close())
}
