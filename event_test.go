package session

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/candysession/session/internal/store"
	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/internal/token"
	"github.com/candysession/session/throttle"
)

func TestEvents(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "counts ids in another way")
	var events eventLog
	f := setup(t, Config{OnEvent: events.add, MaxSessions: 3, Throttle: throttle.NewMemory()})
	const from = "192.0.2.1" // of httptest
	expect := func(what string, want ...string) {
		t.Helper()
		if got := events.take(); got != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", what, got, strings.Join(want, "\n"))
		}
	}
	id := func(row uint64) string {
		noError(t, errOnly(f.auth.Stats(t.Context())))
		return f.auth.store.PublicID(&store.Record{ID: row})
	}
	b, stolen := newBrowser(chrome130), newBrowser(firefox)
	f.wantRejected(b, ErrNoCookie)
	expect("no cookie")
	f.login(b, alice)
	expect("login", "login "+id(1)+" 1 "+from+" <nil> 0")
	f.wantLoggedIn(b)
	expect("a check")
	_ = f.try(attacker, "alice@example.com", "wrong")
	expect("a wrong password", "login-failed  1 203.0.113.9 <nil> 0")
	_ = f.try(attacker, "nobody@example.com", "wrong")
	expect("an unknown user", "login-failed  <nil> 203.0.113.9 <nil> 0")
	for range 4 {
		_ = f.try(attacker, "alice@example.com", "wrong")
	}
	events.take()
	_ = f.try(attacker, "alice@example.com", "wrong")
	expect("too many", "throttled  <nil> 203.0.113.9 <nil> 0")

	stolen.cookies["__Host-session"] = b.cookies["__Host-session"]
	f.wantRejected(stolen, ErrFingerprintMismatch)
	expect("another browser", "fingerprint-mismatch "+id(1)+" 1 "+from+" "+ErrFingerprintMismatch.Error()+" 0")
	guess := forgeToken(b)
	f.wantRejected(guess, ErrUnknownSession)
	expect("a wrong verifier", "token-mismatch  <nil> "+from+" "+ErrUnknownSession.Error()+" 0")
	f.wantRejected(withToken(token.New()), ErrUnknownSession)
	expect("an unknown token", "rejected  <nil> "+from+" "+ErrUnknownSession.Error()+" 0")
	guess.cookies["__Host-session"] = "malformed"
	f.wantRejected(guess, ErrMalformedCookie)
	expect("no token", "rejected  <nil> "+from+" "+ErrMalformedCookie.Error()+" 0")

	f.age(25 * time.Hour)
	f.wantLoggedIn(b)
	expect("a renewal", "renewed "+id(1)+" 1 "+from+" <nil> 0")
	f.login(newBrowser(chrome130), bob)
	f.login(newBrowser(chrome130), alice)
	events.take()
	f.handle(b, func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.LogoutOthers(w, r)) })
	expect("LogoutOthers", "rotated "+id(1)+" 1 "+from+" <nil> 0", "revoked  1  <nil> 1")
	other := newBrowser(chrome130)
	f.login(other, alice) // session 4
	events.take()
	noError(t, f.auth.Revoke(t.Context(), 1, id(4)))
	expect("Revoke", "revoked "+id(4)+" 1  <nil> 1")
	f.wantRejected(other, ErrUnknownSession)
	expect("after it", "revoked-token-used  <nil> "+from+" "+ErrUnknownSession.Error()+" 0")
	f.wantRejected(other, ErrUnknownSession)
	expect("once more", "rejected  <nil> "+from+" "+ErrUnknownSession.Error()+" 0")
	for range 3 {
		f.login(newBrowser(chrome130), alice)
	}
	if got := events.take(); !strings.HasSuffix(got, "login "+id(7)+" 1 "+from+" <nil> 0\nrevoked  1  <nil> 1") {
		t.Errorf("MaxSessions: %s", got)
	}
	f.login(b, alice)
	events.take()
	f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		noError(t, f.auth.SetPassword(w, r, alice["password"], "a new password"))
		noError(t, f.auth.Logout(w, r))
	})
	expect("SetPassword and Logout", "password-changed "+id(8)+" 1 "+from+" <nil> 0", "rotated "+id(8)+" 1 "+from+" <nil> 0", "revoked  1  <nil> 2", "logout "+id(8)+" 1 "+from+" <nil> 0")
	noError(t, f.register(Fields{"email": "x@example.com", "password": "a password"}, formOptions{Columns: []string{"email"}, NoLogin: true}))
	expect("Register", "registered  3 "+from+" <nil> 0")

	f.waitForPurge()
	f.age(40 * 24 * time.Hour)
	noError(t, errOnly(f.auth.Purge(t.Context())))
	expect("Purge", "purged  <nil>  <nil> 1")

	f.login(b, bob)
	f.waitForPurge()
	events.take()
	f.db.Close()
	b.do(f.auth.Middleware(http.NotFoundHandler()), "GET", "/")
	if got := events.take(); !strings.HasPrefix(got, "unavailable  <nil> "+from+" session: ") {
		t.Errorf("the database is gone: %s", got)
	}
	// The log contains the important events, and no others at this level.
	for _, kind := range []EventKind{EventThrottled, EventTokenMismatch, EventUnavailable} {
		if !strings.Contains(f.log.String(), "event="+string(kind)) {
			t.Errorf("the log says nothing of %s: %s", kind, f.log)
		}
	}
	if strings.Contains(f.log.String(), "event=login") {
		t.Errorf("the log has each login: %s", f.log)
	}
}

func TestFresh(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{ConfirmURL: "/confirm", LoginURL: "/login"})
	b := newBrowser(chrome130)
	page := f.auth.Middleware(f.auth.RequireFresh(5 * time.Minute)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !f.auth.Fresh(r, 5*time.Minute) || f.auth.Fresh(r, -time.Second) {
			t.Error("Fresh and RequireFresh differ")
		}
	})))
	get := func(method string, header ...string) (int, string) {
		response := b.do(page, method, "/danger?x=1", header...)
		return response.StatusCode, response.Header.Get("Location")
	}
	if status, to := get("GET", "Accept", "text/html"); status != 303 || to != "/login?next=%2Fdanger%3Fx%3D1" {
		t.Error(status, to)
	}
	f.login(b, alice)
	if status, to := get("GET", "Accept", "text/html"); status != 200 {
		t.Error(status, to)
	}
	f.waitForPurge()
	// A renewal does not make it fresh.
	mustExec(t, f.db, "UPDATE user_tokens SET date = FROM_UNIXTIME(UNIX_TIMESTAMP() - 25 * 3600), active = FROM_UNIXTIME(UNIX_TIMESTAMP() - 25 * 3600)")
	for range 2 {
		if status, to := get("GET", "Accept", "text/html"); status != 303 || to != "/confirm?next=%2Fdanger%3Fx%3D1" {
			t.Error(status, to)
		}
	}
	if status, to := get("POST", "Accept", "text/html"); status != 303 || to != "/confirm" {
		t.Error(status, to)
	}
	if status, _ := get("GET"); status != 403 {
		t.Error(status)
	}
	f.login(b, alice)
	if status, to := get("GET", "Accept", "text/html"); status != 200 {
		t.Error(status, to)
	}
	if f.auth.Fresh(&http.Request{}, time.Hour) {
		t.Error("an anonymous request is fresh")
	}
}

// A browser with a session that follows a link on another site gets a reload
// page once. No other browser gets one.
func TestLinksOfOtherSites(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{LoginURL: "/login"})
	page := f.auth.Middleware(f.auth.Require(http.NotFoundHandler()))
	link := []string{"Accept", "text/html", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	with := func(name, value string) []string {
		changed := append([]string(nil), link...)
		for i := 0; i < len(changed); i += 2 {
			if changed[i] == name {
				changed[i+1] = value
			}
		}
		return changed
	}
	for name, test := range map[string]struct {
		method, hint, cookie string
		header               []string
		reloads              bool
	}{
		"a link":                     {"GET", "1", "", link, true},
		"anonymous":                  {"GET", "", "", link, false},
		"by a script":                {"GET", "1", "", with("Sec-Fetch-Site", "same-site"), true},
		"by a service worker":        {"GET", "1", "", with("Sec-Fetch-Dest", "empty"), true},
		"in a frame":                 {"GET", "1", "", with("Sec-Fetch-Dest", "iframe"), false},
		"fetched":                    {"GET", "1", "", []string{"Accept", "text/html", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"}, false},
		"fetched by an old browser":  {"GET", "1", "", []string{"Accept", "text/html", "X-Requested-With", "XMLHttpRequest"}, false},
		"posted":                     {"POST", "1", "", link, false},
		"with a cookie that is old":  {"GET", "1", withToken(token.New()).cookies["__Host-session"], link, false},
		"an old browser":             {"GET", "1", "", []string{"Accept", "text/html"}, true},
		"a picture in an old one":    {"GET", "1", "", []string{"Accept", "image/*"}, false},
		"an old browser, anonymous":  {"GET", "", "", []string{"Accept", "text/html"}, false},
		"a hint that was taken away": {"GET", "", "", []string{"Accept", "text/html"}, false},
	} {
		b := newBrowser(chrome130)
		if test.cookie != "" {
			b.cookies["__Host-session"] = test.cookie
		}
		if test.hint != "" {
			b.cookies["__Host-session.hint"] = test.hint
		}
		response := b.do(page, test.method, "/account", test.header...)
		reloads := response.StatusCode == 200 && response.Header.Get("Location") == ""
		if reloads != test.reloads || response.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %s, %v", name, response.Status, response.Header)
		}
		if second := b.do(page, test.method, "/account", test.header...); second.StatusCode == 200 {
			t.Errorf("%s: reloads twice", name)
		}
	}
}
