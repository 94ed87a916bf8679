package session

import (
	"net/http"
	"testing"
	"time"

	"github.com/candysession/session/internal/store"
	"github.com/candysession/session/internal/token"
)

func TestCacheAnswersWithoutAQuery(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{Cache: Cache{Fresh: time.Hour}, MaxLifetime: 100 * time.Hour})
	b := newBrowser(chrome130)
	f.login(b, alice)
	f.wantLoggedIn(b) // read
	f.waitForPurge()
	mustExec(t, f.db, "RENAME TABLE users TO elsewhere")
	f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		if u, ok := f.auth.User(r); !ok || u.ID != 1 || f.auth.Session(r).Stale {
			t.Errorf("%+v, %v", u, f.auth.Err(r))
		}
	})
	// Invalid requests are rejected despite the cache.
	stolen := newBrowser(firefox)
	stolen.cookies["__Host-session"] = b.cookies["__Host-session"]
	f.wantRejected(stolen, ErrFingerprintMismatch)
	f.wantRejected(forgeToken(b), ErrUnknownSession)
	mustExec(t, f.db, "RENAME TABLE elsewhere TO users")
	f.wantRejected(forgeToken(b), ErrUnknownSession)
}

// age makes the cached entries older.
func (c *cache[U]) age(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, selector := range c.sessions.Keys() {
		kept, _ := c.sessions.Peek(selector)
		kept.read = kept.read.Add(-by)
	}
}

func TestCacheEndsAndExpires(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{MaxAge: time.Hour, UpdateAge: 30 * time.Minute, Cache: Cache{Fresh: 10 * time.Minute}})
	b := newBrowser("")
	f.login(b, alice)
	f.wantLoggedIn(b)
	f.waitForPurge()
	mustExec(t, f.db, "DELETE FROM user_tokens") // by another process
	f.wantLoggedIn(b)
	f.auth.cache.age(9 * time.Minute)
	f.wantLoggedIn(b)
	f.auth.cache.age(2 * time.Minute)
	f.wantRejected(b, ErrUnknownSession)

	// Cached sessions are renewed and expire.
	f.auth.cfg.Cache.Fresh = 100 * time.Hour
	f.login(b, alice)
	f.wantLoggedIn(b)
	f.auth.cache.age(31 * time.Minute)
	f.age(31 * time.Minute)
	f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		noError(t, f.auth.Err(r))
	})
	if !get[bool](t, f.db, "SELECT UNIX_TIMESTAMP() - UNIX_TIMESTAMP(active) < 60 FROM user_tokens") {
		t.Error("not renewed")
	}
	f.wantLoggedIn(b) // read again
	f.auth.cache.age(61 * time.Minute)
	f.wantRejected(b, ErrExpired)
}

// Changes through this Manager take effect immediately.
func TestCacheSeesOwnChanges(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{Cache: Cache{Fresh: time.Hour}})
	for name, end := range map[string]func(b *browser, id string){
		"logout": func(b *browser, id string) {
			f.handle(b, func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.Logout(w, r)) })
		},
		"revoke": func(b *browser, id string) { noError(t, f.auth.Revoke(t.Context(), 1, id)) },
		"logout all": func(b *browser, id string) {
			_, err := f.auth.LogoutAll(t.Context(), 1)
			noError(t, err)
		},
		"another login": func(b *browser, id string) { f.login(b, bob) },
		"logout others": func(b *browser, id string) {
			f.handle(b, func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.LogoutOthers(w, r)) })
		},
		"logout by another": func(b *browser, id string) {
			other := newBrowser("")
			f.login(other, alice)
			f.handle(other, func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.LogoutOthers(w, r)) })
		},
		"purge": func(b *browser, id string) {
			f.age(40 * 24 * time.Hour)
			_, err := f.auth.Purge(t.Context())
			noError(t, err)
		},
	} {
		b, copied := newBrowser(""), newBrowser("")
		f.login(b, alice)
		f.wantLoggedIn(b)
		copied.cookies["__Host-session"] = b.cookies["__Host-session"]
		var id string
		f.handle(b, func(w http.ResponseWriter, r *http.Request) { id = f.auth.Session(r).ID })
		end(b, id)
		if err := f.errOf(copied); err != ErrUnknownSession {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(f.auth.cache.selectors); n != f.auth.cache.sessions.Len() {
		t.Errorf("%d ids of %d sessions", n, f.auth.cache.sessions.Len())
	}
}

// A lookup that started before a logout does not put the session back into the
// cache.
func TestCacheKeepsNothingOlderThanAChange(t *testing.T) {
	t.Parallel()
	c := newCache[user](Cache{Fresh: time.Hour, Entries: 2})
	row := &store.SessionRow[user]{Record: store.Record{ID: 7, Selector: "x"}}
	began := c.begin()
	c.forget(7)
	c.put(began, row, token.Key{}, time.Now())
	if kept, _ := c.get("x", time.Now()); kept != nil {
		t.Error("an old reading was kept")
	}
	for i := range 5 {
		c.put(c.begin(), &store.SessionRow[user]{Record: store.Record{ID: uint64(i), Selector: string(rune('a' + i))}}, token.Key{}, time.Now())
	}
	if len(c.selectors) != 2 || c.sessions.Len() != 2 {
		t.Errorf("%d sessions and %d ids are kept", c.sessions.Len(), len(c.selectors))
	}
}

func TestStaleSessionsPassWhileTheDatabaseFails(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{Cache: Cache{Stale: time.Hour}})
	b, stranger := newBrowser(""), withToken(token.New())
	f.login(b, alice)
	f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		if f.auth.Session(r).Stale {
			t.Error("stale, while the database answers")
		}
	})
	f.age(25 * time.Hour) // a renewal would be due
	f.auth.cache.age(59 * time.Minute)
	mustExec(t, f.db, "RENAME TABLE users TO elsewhere")
	response := f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		if u, ok := f.auth.User(r); !ok || u.ID != 1 || !f.auth.Session(r).Stale {
			t.Errorf("%+v, %v, %+v", u, f.auth.Err(r), f.auth.Session(r))
		}
		_, err := logIn(f.auth, w, r, bob)
		wantError(t, err, ErrUnavailable)
	})
	if len(response.Cookies()) != 0 {
		t.Error("a cookie changed")
	}
	if response := stranger.do(f.auth.Middleware(http.NotFoundHandler()), "GET", "/"); response.StatusCode != http.StatusServiceUnavailable {
		t.Error(response.Status)
	}
	f.auth.cache.age(2 * time.Minute)
	if response := b.do(f.auth.Middleware(http.NotFoundHandler()), "GET", "/"); response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("older than Stale: %s", response.Status)
	}
	mustExec(t, f.db, "RENAME TABLE elsewhere TO users")
	f.wantLoggedIn(b)
}
