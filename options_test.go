package session

import (
	"net/http"
	"testing"
	"time"
)

// A login can shorten the idle timeout of its session. An active user stays
// logged in, as the session is renewed after half of it.
func TestMaxAgeOfALogin(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{MaxAge: 30 * 24 * time.Hour})
	short, long := newBrowser(chrome130), newBrowser(chrome130)
	f.handle(short, func(w http.ResponseWriter, r *http.Request) {
		noError(t, errOnly(logIn(f.auth, w, r, alice, MaxAge(time.Hour))))
	})
	f.login(long, alice)
	f.age(40 * time.Minute)
	f.wantLoggedIn(short) // renews it
	f.age(40 * time.Minute)
	f.wantLoggedIn(short)
	f.age(2 * time.Hour)
	f.wantRejected(short, ErrExpired)
	f.wantLoggedIn(long)
	sessions, err := f.auth.Sessions(t.Context(), 1)
	noError(t, err)
	if len(sessions) != 1 {
		t.Errorf("%d sessions are listed, want the long one: %v", len(sessions), sessions)
	}

	f.handle(newBrowser(chrome130), func(w http.ResponseWriter, r *http.Request) {
		for _, d := range []time.Duration{-time.Second, 0, time.Millisecond, 31 * 24 * time.Hour} {
			wantError(t, errOnly(logIn(f.auth, w, r, alice, MaxAge(d))), ErrInvalidArgument)
			wantError(t, errOnly(f.auth.LoginAs(w, r, 1, MaxAge(d))), ErrInvalidArgument)
			wantError(t, errOnly(f.auth.Register(w, r, Fields{"email": "new@example.com"}, "a password", MaxAge(d))), ErrInvalidArgument)
		}
		noError(t, errOnly(f.auth.Register(w, r, Fields{"email": "new@example.com"}, "a password", nil, MaxAge(time.Hour), NoLogin())))
	})
}

// The cookie of a transient login ends with the browser, also after the token
// was replaced.
func TestTransientLogin(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b := newBrowser(chrome130)
	maxAge := func(response *http.Response) int {
		t.Helper()
		for _, c := range response.Cookies() {
			if c.Name == "__Host-session" {
				return c.MaxAge
			}
		}
		t.Fatal("no session cookie")
		return 0
	}
	for name, response := range map[string]func() *http.Response{
		"LoginAs": func() *http.Response {
			return f.handle(b, func(w http.ResponseWriter, r *http.Request) {
				noError(t, errOnly(f.auth.LoginAs(w, r, 1, Transient(), MaxAge(time.Hour))))
			})
		},
		"Login": func() *http.Response {
			return f.handle(b, func(w http.ResponseWriter, r *http.Request) {
				noError(t, errOnly(logIn(f.auth, w, r, alice, Transient())))
			})
		},
	} {
		if got := maxAge(response()); got != 0 {
			t.Errorf("%s: the cookie lasts %d s", name, got)
		}
	}
	for name, call := range map[string]func(http.ResponseWriter, *http.Request) error{
		"Rotate":       f.auth.Rotate,
		"LogoutOthers": f.auth.LogoutOthers,
	} {
		if got := maxAge(f.handle(b, func(w http.ResponseWriter, r *http.Request) { noError(t, call(w, r)) })); got != 0 {
			t.Errorf("%s: the cookie lasts %d s", name, got)
		}
	}
	response := f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		noError(t, f.auth.SetPassword(w, r, alice["password"], "another password"))
	})
	if got := maxAge(response); got != 0 {
		t.Errorf("SetPassword: the cookie lasts %d s", got)
	}
	f.wantLoggedIn(b)

	persistent := newBrowser(chrome130)
	f.login(persistent, bob)
	if got := maxAge(f.handle(persistent, func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.Rotate(w, r)) })); got != int(cookieAge/time.Second) {
		t.Errorf("Rotate: the cookie lasts %d s", got)
	}
}

// Without the columns of a login's options, such a login fails instead of
// getting other ages.
func TestOptionsOnAnOlderTable(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	noError(t, errOnly(f.auth.Migrate(t.Context())))
	mustExec(t, f.db, "ALTER TABLE user_tokens DROP COLUMN life")
	g := newManager[user](t, f.db, f.dsn, Config{})
	g.handle(newBrowser(chrome130), func(w http.ResponseWriter, r *http.Request) {
		wantError(t, errOnly(g.auth.LoginAs(w, r, 1, MaxAge(time.Hour))), ErrConfig)
		noError(t, errOnly(g.auth.LoginAs(w, r, 1)))
	})
	noError(t, errOnly(g.auth.Migrate(t.Context())))
	h := newManager[user](t, f.db, f.dsn, Config{})
	h.handle(newBrowser(chrome130), func(w http.ResponseWriter, r *http.Request) {
		noError(t, errOnly(h.auth.LoginAs(w, r, 1, MaxAge(time.Hour))))
	})
}
