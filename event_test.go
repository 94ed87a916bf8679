package session

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/internal/token"
)

// listener keeps events as text.
type listener struct {
	mu     sync.Mutex
	events []string
}

func (l *listener) hear(_ context.Context, e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, fmt.Sprintf("%s %s %s %s %v %d", e.Kind, e.Session, plainText(e.User), e.ClientIP, e.Err, e.Count))
}

func plainText(user any) string { return fmt.Sprint(plainValue(user, textColumn)) }

// said takes what was heard since the last time.
func (l *listener) said() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	said := strings.Join(l.events, "\n")
	l.events = nil
	return said
}

func TestEvents(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "counts ids in another way")
	var heard listener
	f := setup(t, Config{OnEvent: heard.hear, MaxSessions: 3, Throttle: newMemoryThrottle()})
	const from = "192.0.2.1" // of httptest
	expect := func(what string, want ...string) {
		t.Helper()
		if got := heard.said(); got != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", what, got, strings.Join(want, "\n"))
		}
	}
	id := func(row uint64) string {
		_, err := f.auth.store.tokenTable(t.Context())
		noError(t, err)
		return f.auth.store.publicID(&record{id: row})
	}
	b, stolen := newBrowser(chrome130), newBrowser(firefox)
	f.isOut(b, ErrNoCookie)
	expect("no cookie")
	f.login(b, alice)
	expect("login", "login "+id(1)+" 1 "+from+" <nil> 0")
	f.isIn(b)
	expect("a check")
	_ = f.try(attacker, "alice@example.com", "wrong")
	expect("a wrong password", "login-failed  1 203.0.113.9 <nil> 0")
	_ = f.try(attacker, "nobody@example.com", "wrong")
	expect("an unknown user", "login-failed  <nil> 203.0.113.9 <nil> 0")
	for range 4 {
		_ = f.try(attacker, "alice@example.com", "wrong")
	}
	heard.said()
	_ = f.try(attacker, "alice@example.com", "wrong")
	expect("too many", "throttled  <nil> 203.0.113.9 <nil> 0")

	stolen.cookies["__Host-session"] = b.cookies["__Host-session"]
	f.isOut(stolen, ErrFingerprintMismatch)
	expect("another browser", "fingerprint-mismatch "+id(1)+" 1 "+from+" "+ErrFingerprintMismatch.Error()+" 0")
	guess := forger(b)
	f.isOut(guess, ErrUnknownSession)
	expect("a wrong verifier", "token-mismatch  <nil> "+from+" "+ErrUnknownSession.Error()+" 0")
	f.isOut(withToken(token.New()), ErrUnknownSession)
	expect("an unknown token", "rejected  <nil> "+from+" "+ErrUnknownSession.Error()+" 0")
	guess.cookies["__Host-session"] = "malformed"
	f.isOut(guess, ErrMalformedCookie)
	expect("no token", "rejected  <nil> "+from+" "+ErrMalformedCookie.Error()+" 0")

	f.age(25 * time.Hour)
	f.isIn(b)
	expect("a slide", "renewed "+id(1)+" 1 "+from+" <nil> 0")
	f.login(newBrowser(chrome130), bob)
	f.login(newBrowser(chrome130), alice)
	heard.said()
	f.inside(b, func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.LogoutOthers(w, r)) })
	expect("LogoutOthers", "rotated "+id(1)+" 1 "+from+" <nil> 0", "revoked  1  <nil> 1")
	other := newBrowser(chrome130)
	f.login(other, alice) // session 4
	heard.said()
	noError(t, f.auth.Revoke(t.Context(), 1, id(4)))
	expect("Revoke", "revoked "+id(4)+" 1  <nil> 1")
	f.isOut(other, ErrUnknownSession)
	expect("after it", "revoked-token-used  <nil> "+from+" "+ErrUnknownSession.Error()+" 0")
	f.isOut(other, ErrUnknownSession)
	expect("once more", "rejected  <nil> "+from+" "+ErrUnknownSession.Error()+" 0")
	for range 3 {
		f.login(newBrowser(chrome130), alice)
	}
	if said := heard.said(); !strings.HasSuffix(said, "login "+id(7)+" 1 "+from+" <nil> 0\nrevoked  1  <nil> 1") {
		t.Errorf("MaxSessions: %s", said)
	}
	f.login(b, alice)
	heard.said()
	f.inside(b, func(w http.ResponseWriter, r *http.Request) {
		noError(t, f.auth.SetPassword(w, r, alice["password"], "a new password"))
		noError(t, f.auth.Logout(w, r))
	})
	expect("SetPassword and Logout", "password-changed "+id(8)+" 1 "+from+" <nil> 0", "rotated "+id(8)+" 1 "+from+" <nil> 0", "revoked  1  <nil> 2", "logout "+id(8)+" 1 "+from+" <nil> 0")
	noError(t, f.register(Fields{"email": "x@example.com", "password": "a password"}, formOptions{Columns: []string{"email"}, NoLogin: true}))
	expect("Register", "registered  3 "+from+" <nil> 0")

	f.purged()
	f.age(40 * 24 * time.Hour)
	noError(t, second(f.auth.Purge(t.Context())))
	expect("Purge", "purged  <nil>  <nil> 1")

	f.login(b, bob)
	f.purged()
	heard.said()
	f.db.Close()
	b.do(f.auth.Middleware(http.NotFoundHandler()), "GET", "/")
	if said := heard.said(); !strings.HasPrefix(said, "unavailable  <nil> "+from+" session: ") {
		t.Errorf("the database is gone: %s", said)
	}
	// The log has what matters, and of all the rest nothing at this level.
	for _, kind := range []EventKind{EventThrottled, EventTokenMismatch, EventUnavailable} {
		if !strings.Contains(f.log.String(), "event="+string(kind)) {
			t.Errorf("the log says nothing of %s: %s", kind, f.log)
		}
	}
	if strings.Contains(f.log.String(), "event=login") {
		t.Errorf("the log tells of each login: %s", f.log)
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
	f.purged()
	// A slide does not make it fresh.
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
		t.Error("a request of nobody is fresh")
	}
}

// A browser with a session that follows a link of another site is asked to
// come again, from ours; nobody else, and never twice.
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
		"of nobody":                  {"GET", "", "", link, false},
		"by a script":                {"GET", "1", "", with("Sec-Fetch-Site", "same-site"), true},
		"by a service worker":        {"GET", "1", "", with("Sec-Fetch-Dest", "empty"), true},
		"in a frame":                 {"GET", "1", "", with("Sec-Fetch-Dest", "iframe"), false},
		"fetched":                    {"GET", "1", "", []string{"Accept", "text/html", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"}, false},
		"fetched by an old browser":  {"GET", "1", "", []string{"Accept", "text/html", "X-Requested-With", "XMLHttpRequest"}, false},
		"posted":                     {"POST", "1", "", link, false},
		"with a cookie that is old":  {"GET", "1", withToken(token.New()).cookies["__Host-session"], link, false},
		"an old browser":             {"GET", "1", "", []string{"Accept", "text/html"}, true},
		"a picture in an old one":    {"GET", "1", "", []string{"Accept", "image/*"}, false},
		"an old browser of nobody":   {"GET", "", "", []string{"Accept", "text/html"}, false},
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
		if again := b.do(page, test.method, "/account", test.header...); again.StatusCode == 200 {
			t.Errorf("%s: reloads twice", name)
		}
	}
}
