package session

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/internal/token"
)

// 200 goroutines log in, check, slide, log out, revoke and purge against one table. Each knows what must be true of
// its own sessions, as nobody else ends them: alive from login to logout, dead from then on. 20 seconds, 2 with -short.
func TestStress(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "loses concurrent writes")
	const workers, users = 200, 200
	length := 20 * time.Second
	if testing.Short() {
		length = 2 * time.Second
	}
	f := setup(t, Config{})
	for i := range users {
		mustExec(t, f.db, "INSERT INTO users (id, email, password) VALUES (?, ?, ?)", 1000+i, fmt.Sprint("user", i, "@example.com"), hashOf("the password"))
	}
	var counts [7]atomic.Int64
	const logins, checks, slides, logouts, revokes, others, purges = 0, 1, 2, 3, 4, 5, 6
	failed := func(format string, args ...any) { t.Helper(); t.Errorf(format, args...) }

	worker := func(i int) {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		key := 1000 + i // each worker is a user of its own
		credentials := Credentials{"email": fmt.Sprint("user", i, "@example.com"), "password": "the password"}
		var alive, dead []*browser
		kill := func(b *browser) {
			dead = append(dead, b)
			if len(dead) > 3 {
				dead = dead[1:]
			}
		}
		inside := func(b *browser, do func(w http.ResponseWriter, r *http.Request)) *http.Response {
			ran := false
			response := b.do(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { ran = true; do(w, r) })), "GET", "/")
			if !ran {
				failed("a request was not served: %s", response.Status)
			}
			return response
		}
		for end := time.Now().Add(length); time.Now().Before(end) && !t.Failed(); {
			n := -1
			if len(alive) > 0 {
				n = random.IntN(len(alive))
			}
			switch dice := random.IntN(100); {
			case n < 0 || dice < 10 && len(alive) < 4:
				b := newBrowser(chrome130)
				inside(b, func(w http.ResponseWriter, r *http.Request) {
					var err error
					if random.IntN(20) == 0 {
						_, err = logIn(f.auth, w, r, credentials)
					} else {
						_, err = f.auth.LoginAs(w, r, key)
					}
					if err != nil {
						failed("login: %v", err)
					}
				})
				alive = append(alive, b)
				counts[logins].Add(1)
			case dice < 20: // ages its own session, and comes back
				b := alive[n]
				if _, err := f.db.Exec("UPDATE user_tokens SET active = FROM_UNIXTIME(UNIX_TIMESTAMP() - ?) WHERE token_x = ?", 90000+random.IntN(2000000), selectorOf(b)); err != nil {
					failed("age: %v", err)
				}
				inside(b, func(w http.ResponseWriter, r *http.Request) {
					if time.Since(f.auth.Session(r).Active).Abs() > time.Hour {
						failed("a session past UpdateAge was not renewed")
					}
					if u, ok := f.auth.User(r); !ok || u.ID != int64(key) {
						failed("a session died before its time: %v, user %d", f.auth.Err(r), u.ID)
					}
				})
				counts[slides].Add(1)
			case dice < 27:
				b := alive[n]
				copied := newBrowser(chrome130)
				copied.cookies["__Host-session"] = b.cookies["__Host-session"]
				inside(b, func(w http.ResponseWriter, r *http.Request) {
					if err := f.auth.Logout(w, r); err != nil {
						failed("logout: %v", err)
					}
				})
				alive = append(alive[:n], alive[n+1:]...)
				kill(copied)
				counts[logouts].Add(1)
			case dice < 32 && len(alive) > 1:
				victim, b := alive[n], alive[(n+1)%len(alive)]
				var id string
				inside(victim, func(w http.ResponseWriter, r *http.Request) { id = f.auth.Session(r).ID })
				inside(b, func(w http.ResponseWriter, r *http.Request) {
					if err := f.auth.Revoke(r.Context(), key, id); err != nil {
						failed("revoke: %v", err)
					}
				})
				alive = append(alive[:n], alive[n+1:]...)
				kill(victim)
				counts[revokes].Add(1)
			case dice < 35:
				b := alive[n]
				inside(b, func(w http.ResponseWriter, r *http.Request) {
					if err := f.auth.LogoutOthers(w, r); err != nil {
						failed("log out others: %v", err)
					}
				})
				for k, other := range alive {
					if k != n {
						kill(other)
					}
				}
				alive = []*browser{b}
				counts[others].Add(1)
			case dice < 36:
				if _, err := f.db.Exec("INSERT INTO user_tokens (user, token_x, token_y, active) VALUES (0, ?, '', FROM_UNIXTIME(UNIX_TIMESTAMP() - 3000000))", token.New().Selector); err != nil {
					failed("insert: %v", err)
				}
				if _, err := f.auth.Purge(t.Context()); err != nil {
					failed("purge: %v", err)
				}
				counts[purges].Add(1)
			default:
				inside(alive[n], func(w http.ResponseWriter, r *http.Request) {
					if u, ok := f.auth.User(r); !ok || u.ID != int64(key) {
						failed("a session died before its time: %v, user %d", f.auth.Err(r), u.ID)
					}
				})
				if len(dead) > 0 {
					inside(dead[random.IntN(len(dead))], func(w http.ResponseWriter, r *http.Request) {
						if f.auth.Check(r) {
							failed("a session is alive after its end")
						}
					})
				}
				counts[checks].Add(1)
			}
		}
		for _, b := range alive {
			inside(b, func(w http.ResponseWriter, r *http.Request) {
				if !f.auth.Check(r) {
					failed("at the end, a session died before its time: %v", f.auth.Err(r))
				}
			})
		}
	}
	noError(t, errOnly(f.auth.Migrate(t.Context())))
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() { worker(i) })
	}
	// Some share a user, and end each other's sessions as they like: nothing is known of those but that no call fails.
	for i := range 12 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(2, uint64(i)))
			b := newBrowser(chrome130)
			for end := time.Now().Add(length); time.Now().Before(end) && !t.Failed(); {
				b.do(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					var err error
					switch sessions, listErr := f.auth.Sessions(r.Context(), 1); {
					case listErr != nil:
						err = listErr
					case !f.auth.Check(r) || random.IntN(4) == 0:
						_, err = f.auth.LoginAs(w, r, 1)
					case random.IntN(4) == 0:
						err = f.auth.Logout(w, r)
					case random.IntN(4) == 0:
						_, err = f.auth.LogoutAll(r.Context(), 1)
					case random.IntN(3) == 0:
						err = f.auth.LogoutOthers(w, r)
					case len(sessions) > 0:
						err = f.auth.Revoke(r.Context(), 1, sessions[random.IntN(len(sessions))].ID)
					}
					if err != nil && err != ErrSessionNotFound && err != ErrNotLoggedIn {
						failed("sharing a user: %v", err)
					}
				})), "GET", "/")
			}
		})
	}
	wg.Wait()
	f.waitForPurge()
	if log := f.log.String(); log != "" {
		t.Errorf("logged: %s", log[:min(len(log), 2000)])
	}
	var what []string
	for i, name := range []string{"logins", "checks", "slides", "logouts", "revokes", "log out others", "purges"} {
		what = append(what, fmt.Sprint(counts[i].Load(), " ", name))
		if counts[i].Load() == 0 && !testing.Short() {
			t.Errorf("no %s", name)
		}
	}
	t.Log(strings.Join(what, ", "))
}
