package session

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/internal/token"
)

// 200 goroutines log in, check, renew, log out, revoke and purge against one
// table. Each worker has its own sessions, so it knows the state of each: valid
// from login to logout, and rejected after that.
//
// The test takes two seconds, or the duration in SESSION_TEST_STRESS.
func TestStress(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "loses concurrent writes")
	const workers, users = 200, 200
	length := 2 * time.Second
	asked := os.Getenv("SESSION_TEST_STRESS")
	if asked != "" {
		var err error
		length, err = time.ParseDuration(asked)
		noError(t, err)
	}
	f := setup(t, Config{})
	for i := range users {
		mustExec(t, f.db, "INSERT INTO users (id, email, password) VALUES (?, ?, ?)", 1000+i, fmt.Sprint("user", i, "@example.com"), hashOf("the password"))
	}
	var counts [7]atomic.Int64
	const logins, checks, renewals, logouts, revokes, others, purges = 0, 1, 2, 3, 4, 5, 6
	failed := func(format string, args ...any) { t.Helper(); t.Errorf(format, args...) }

	worker := func(i int) {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		key := 1000 + i // each worker has its own user
		credentials := Credentials{"email": fmt.Sprint("user", i, "@example.com"), "password": "the password"}
		var valid, revoked []*browser
		markRevoked := func(b *browser) {
			revoked = append(revoked, b)
			if len(revoked) > 3 {
				revoked = revoked[1:]
			}
		}
		handle := func(b *browser, do func(w http.ResponseWriter, r *http.Request)) *http.Response {
			ran := false
			response := b.do(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { ran = true; do(w, r) })), "GET", "/")
			if !ran {
				failed("a request was not served: %s", response.Status)
			}
			return response
		}
		for end := time.Now().Add(length); time.Now().Before(end) && !t.Failed(); {
			n := -1
			if len(valid) > 0 {
				n = random.IntN(len(valid))
			}
			switch dice := random.IntN(100); {
			case n < 0 || dice < 10 && len(valid) < 4:
				b := newBrowser(chrome130)
				handle(b, func(w http.ResponseWriter, r *http.Request) {
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
				valid = append(valid, b)
				counts[logins].Add(1)
			case dice < 20: // makes its session idle, and renews it
				b := valid[n]
				if _, err := f.db.Exec("UPDATE user_tokens SET active = FROM_UNIXTIME(UNIX_TIMESTAMP() - ?) WHERE token_x = ?", 90000+random.IntN(2000000), selectorOf(b)); err != nil {
					failed("age: %v", err)
				}
				handle(b, func(w http.ResponseWriter, r *http.Request) {
					if time.Since(f.auth.Session(r).Active).Abs() > time.Hour {
						failed("a session past UpdateAge was not renewed")
					}
					if u, ok := f.auth.User(r); !ok || u.ID != int64(key) {
						failed("a session was lost: %v, user %d", f.auth.Err(r), u.ID)
					}
				})
				counts[renewals].Add(1)
			case dice < 27:
				b := valid[n]
				copied := newBrowser(chrome130)
				copied.cookies["__Host-session"] = b.cookies["__Host-session"]
				handle(b, func(w http.ResponseWriter, r *http.Request) {
					if err := f.auth.Logout(w, r); err != nil {
						failed("logout: %v", err)
					}
				})
				valid = append(valid[:n], valid[n+1:]...)
				markRevoked(copied)
				counts[logouts].Add(1)
			case dice < 32 && len(valid) > 1:
				victim, b := valid[n], valid[(n+1)%len(valid)]
				var id string
				handle(victim, func(w http.ResponseWriter, r *http.Request) { id = f.auth.Session(r).ID })
				handle(b, func(w http.ResponseWriter, r *http.Request) {
					if err := f.auth.Revoke(r.Context(), key, id); err != nil {
						failed("revoke: %v", err)
					}
				})
				valid = append(valid[:n], valid[n+1:]...)
				markRevoked(victim)
				counts[revokes].Add(1)
			case dice < 35:
				b := valid[n]
				handle(b, func(w http.ResponseWriter, r *http.Request) {
					if err := f.auth.LogoutOthers(w, r); err != nil {
						failed("log out others: %v", err)
					}
				})
				for k, other := range valid {
					if k != n {
						markRevoked(other)
					}
				}
				valid = []*browser{b}
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
				handle(valid[n], func(w http.ResponseWriter, r *http.Request) {
					if u, ok := f.auth.User(r); !ok || u.ID != int64(key) {
						failed("a session was lost: %v, user %d", f.auth.Err(r), u.ID)
					}
				})
				if len(revoked) > 0 {
					handle(revoked[random.IntN(len(revoked))], func(w http.ResponseWriter, r *http.Request) {
						if f.auth.Check(r) {
							failed("a revoked session was accepted")
						}
					})
				}
				counts[checks].Add(1)
			}
		}
		for _, b := range valid {
			handle(b, func(w http.ResponseWriter, r *http.Request) {
				if !f.auth.Check(r) {
					failed("at the end, a session was lost: %v", f.auth.Err(r))
				}
			})
		}
	}
	noError(t, errOnly(f.auth.Migrate(t.Context())))
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() { worker(i) })
	}
	// Other goroutines share a user, and revoke each other's sessions. Their
	// state is unknown, but no call may fail.
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
	var summary []string
	for i, name := range []string{"logins", "checks", "renewals", "logouts", "revokes", "log out others", "purges"} {
		summary = append(summary, fmt.Sprint(counts[i].Load(), " ", name))
		if counts[i].Load() == 0 && asked != "" {
			t.Errorf("no %s", name)
		}
	}
	t.Log(strings.Join(summary, ", "))
}
