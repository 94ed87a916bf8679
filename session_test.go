package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/internal/token"
	"github.com/go-sql-driver/mysql"
	"golang.org/x/crypto/bcrypt"
)

func TestLoginCheckUserLogout(t *testing.T) {
	t.Parallel()
	for _, layout := range []CandyPackMode{CandyPackOff, CandyPackShare, CandyPackSwitch} {
		f := setup(t, Config{CandyPack: layout, TokenTable: "user_tokens"})
		b := newBrowser(chrome130)
		f.wantRejected(b, ErrNoCookie)

		f.handle(b, func(w http.ResponseWriter, r *http.Request) {
			u, err := logIn(f.auth, w, r, alice)
			noError(t, err)
			if u.ID != 1 || u.Email != "alice@example.com" || u.Name.Valid {
				t.Errorf("Login returned %+v", u)
			}
			if current, ok := f.auth.User(r); !f.auth.Check(r) || !ok || current != u {
				t.Error("the login's own request is not logged in")
			}
			if s := f.auth.Session(r); s.ID == "" || !s.Current || s.Browser != chrome130 || time.Since(s.Created).Abs() > time.Minute || s.Active != s.Created {
				t.Errorf("Session is %+v", s)
			}
		})
		if n := f.rows(); n != 1 {
			t.Fatalf("%d rows after one login", n)
		}
		f.handle(b, func(w http.ResponseWriter, r *http.Request) {
			u, ok := f.auth.User(r)
			if !ok || u.ID != 1 || !f.auth.Check(r) || f.auth.Err(r) != nil || f.auth.Session(r).ID == "" {
				t.Errorf("the next request: %+v, %v, %v", u, ok, f.auth.Err(r))
			}
			noError(t, f.auth.Logout(w, r))
			if _, ok := f.auth.User(r); ok || f.auth.Check(r) || f.auth.Err(r) != ErrNoCookie || f.auth.Session(r) != (Session{}) {
				t.Error("the logout's own request is still logged in")
			}
		})
		if len(b.cookies) != 0 || f.rows() != 0 {
			t.Errorf("after logout: cookies %v, %d rows", b.cookies, f.rows())
		}
		f.wantRejected(b, ErrNoCookie)
		f.handle(b, func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.Logout(w, r)) })
	}
}

func TestLogoutRevokesToken(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b := newBrowser(chrome130)
	f.login(b, alice)
	stolen := newBrowser(chrome130)
	stolen.cookies["__Host-session"] = b.cookies["__Host-session"]
	f.wantLoggedIn(stolen)
	f.handle(b, func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.Logout(w, r)) })
	f.wantRejected(stolen, ErrUnknownSession)
}

func TestWorksWithoutMiddleware(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b := newBrowser(chrome130)
	login := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := logIn(f.auth, w, r, alice); err != nil {
			t.Error(err)
		}
		if f.auth.Check(r) || f.auth.Err(r) != ErrNoMiddleware {
			t.Error("without Middleware nothing can be known of the request")
		}
	})
	b.do(login, "POST", "/login")
	f.wantLoggedIn(b)
	b.do(login, "POST", "/login")
	if f.rows() != 1 {
		t.Errorf("%d rows: a login without Middleware left the old session behind", f.rows())
	}
	b.do(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := f.auth.LogoutOthers(w, r); err != nil {
			t.Error(err)
		}
	}), "POST", "/")
	f.wantLoggedIn(b)
	b.do(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := f.auth.Logout(w, r); err != nil {
			t.Error(err)
		}
	}), "POST", "/logout")
	if f.rows() != 0 || len(b.cookies) != 0 {
		t.Error("logout without Middleware did nothing")
	}
}

func TestInvalidCredentials(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	mustExec(t, f.db, "INSERT INTO users (email, password) VALUES ('null@example.com', NULL), ('plain@example.com', 'plain'), ('costly@example.com', ?)",
		"$2a$31$"+hashOf("x")[7:])
	mustExec(t, f.db, "ALTER TABLE users MODIFY email VARCHAR(255) CHARACTER SET latin1 NOT NULL")
	for name, c := range map[string]Credentials{
		"wrong password":           {"email": "alice@example.com", "password": "bob's password"},
		"empty password":           {"email": "alice@example.com", "password": ""},
		"unknown user":             {"email": "carol@example.com", "password": "alice's password"},
		"identifiers are ANDed":    {"email": "alice@example.com", "id": "2", "password": "alice's password"},
		"a hash is no password":    {"email": "alice@example.com", "password": hashOf("alice's password")},
		"no hash":                  {"email": "null@example.com", "password": ""},
		"a plain text column":      {"email": "plain@example.com", "password": "plain"},
		"a planted costly hash":    {"email": "costly@example.com", "password": "x"},
		"two users":                {"tenant": "1", "password": "alice's password"},
		"zero is not every text":   {"email": "0", "password": "alice's password"},
		"1x is not 1":              {"id": "1x", "password": "alice's password"},
		"01 is not 1":              {"id": "01", "password": "alice's password"},
		"1.0 is not 1":             {"id": "1.0", "password": "alice's password"},
		"larger than any integer":  {"id": "99999999999999999999", "password": "alice's password"},
		"SQL":                      {"email": "' OR 1=1 -- ", "password": "alice's password"},
		"invalid UTF-8":            {"email": "alice@example.com\xff", "password": "alice's password"},
		"outside of the collation": {"email": "alice@example.com😀", "password": "alice's password"},
		"a NUL":                    {"email": "alice@example.com\x00", "password": "alice's password"},
	} {
		b := newBrowser(chrome130)
		f.handle(b, func(w http.ResponseWriter, r *http.Request) {
			_, err := logIn(f.auth, w, r, c)
			if !errors.Is(err, ErrInvalidCredentials) || err.Error() != ErrInvalidCredentials.Error() {
				t.Errorf("%s: %v", name, err)
			}
			if f.auth.Check(r) {
				t.Errorf("%s: logged in", name)
			}
		})
		if len(b.cookies) != 0 {
			t.Errorf("%s: got cookies", name)
		}
	}
	if !strings.Contains(f.log.String(), "more than one user") {
		t.Error("two users with the same identifiers were not logged")
	}
	// If there are several identifiers, all must match.
	f.login(newBrowser(""), Credentials{"email": "alice@example.com", "id": "1", "tenant": "1", "password": "alice's password"})
}

func TestCollationDecides(t *testing.T) {
	t.Parallel()
	for collation, want := range map[string]error{"utf8mb4_general_ci": nil, "utf8mb4_bin": ErrInvalidCredentials} {
		f := setup(t, Config{})
		mustExec(t, f.db, "ALTER TABLE users MODIFY email VARCHAR(255) CHARACTER SET utf8mb4 COLLATE "+collation+" NOT NULL")
		f.handle(newBrowser(""), func(w http.ResponseWriter, r *http.Request) {
			_, err := logIn(f.auth, w, r, Credentials{"email": "ALICE@example.com", "password": "alice's password"})
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", collation, err, want)
			}
		})
	}
}

func TestWrongUseOfLogin(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	f.handle(newBrowser(""), func(w http.ResponseWriter, r *http.Request) {
		for says, c := range map[string]Credentials{
			`the credentials are empty;`:     {"password": "alice's password"},
			`no column "mail"`:               {"mail": "alice@example.com", "password": "alice's password"},
			`the password column "password"`: {"email": "alice@example.com", "Password": hashOf("alice's password"), "password": "alice's password"},
			`no column "email = '' OR`:       {"email = '' OR `email`": "alice@example.com", "password": "alice's password"},
			`the credentials are empty`:      nil,
		} {
			_, err := logIn(f.auth, w, r, c)
			wantError(t, err, ErrInvalidArgument)
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%v: error is %q, want %q in it", c, err, says)
			}
		}
		for _, key := range []any{nil, 1.5, true, []int{1}, struct{}{}} {
			_, err := f.auth.LoginAs(w, r, key)
			wantError(t, err, ErrInvalidArgument)
		}
		if f.auth.Check(r) {
			t.Error("logged in")
		}
	})
}

func TestLoginAs(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	for _, key := range []any{1, int64(1), uint8(1), uint64(1), "1", []byte("1")} {
		b := newBrowser("")
		f.handle(b, func(w http.ResponseWriter, r *http.Request) {
			u, err := f.auth.LoginAs(w, r, key)
			if err != nil || u.ID != 1 || !f.auth.Check(r) {
				t.Errorf("LoginAs(%T): %+v, %v", key, u, err)
			}
		})
		f.wantLoggedIn(b)
	}
	f.handle(newBrowser(""), func(w http.ResponseWriter, r *http.Request) {
		for _, key := range []any{99, -1, "99"} {
			_, err := f.auth.LoginAs(w, r, key)
			wantError(t, err, ErrUserNotFound)
		}
		for _, key := range []any{"1x", "", "alice", "01", " 1", 1 << 31, uint64(1 << 63)} {
			_, err := f.auth.LoginAs(w, r, key)
			wantError(t, err, ErrInvalidArgument)
		}
	})
}

// An app without passwords has no password column at all.
func TestLoginAsNeedsNoPasswordColumn(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	mustExec(t, f.db, "ALTER TABLE users DROP COLUMN password")
	b := newBrowser("")
	f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		_, err := f.auth.LoginAs(w, r, 1)
		noError(t, err)
	})
	f.wantLoggedIn(b)
	f.handle(newBrowser(""), func(w http.ResponseWriter, r *http.Request) {
		_, err := logIn(f.auth, w, r, alice)
		wantError(t, err, ErrConfig)
	})
}

func TestLoginReplacesTheSessionOfTheBrowser(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b, other := newBrowser(chrome130), newBrowser(chrome130)
	f.login(other, alice)
	f.login(b, alice)
	before := newBrowser(chrome130)
	before.cookies["__Host-session"] = b.cookies["__Host-session"]
	response := f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		_, err := logIn(f.auth, w, r, bob)
		noError(t, err)
		_, err = logIn(f.auth, w, r, alice)
		noError(t, err)
		if u, _ := f.auth.User(r); u.ID != 1 {
			t.Errorf("logged in as %d", u.ID)
		}
	})
	if n := len(response.Header["Set-Cookie"]); n != 2 {
		t.Errorf("%d Set-Cookie fields for a cookie and its hint", n)
	}
	f.wantRejected(before, ErrUnknownSession)
	f.wantLoggedIn(b)
	f.wantLoggedIn(other)
	if f.rows() != 2 {
		t.Errorf("%d rows, want 2", f.rows())
	}
}

// A login also replaces a session that was rejected, if the token is valid.
func TestLoginReplacesARejectedSession(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{Fingerprint: FingerprintExact})
	b := newBrowser(chrome130)
	f.login(b, alice)
	b.userAgent = chrome131
	f.wantRejected(b, ErrFingerprintMismatch)
	f.login(b, alice)
	f.wantLoggedIn(b)
	if f.rows() != 1 {
		t.Errorf("%d rows: the rejected session is still there", f.rows())
	}
}

// A failed login leaves the session as it was.
func TestFailedLoginChangesNothing(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b := newBrowser(chrome130)
	f.login(b, alice)
	f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		_, err := logIn(f.auth, w, r, Credentials{"email": "bob@example.com", "password": "wrong"})
		wantError(t, err, ErrInvalidCredentials)
		if u, ok := f.auth.User(r); !ok || u.ID != 1 {
			t.Error("a failed login changed the user")
		}
	})
	f.wantLoggedIn(b)
}

func TestRejections(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{MaxAge: time.Hour, UpdateAge: 10 * time.Minute})
	b := newBrowser(chrome130)
	f.login(b, alice)
	cookie := b.cookies["__Host-session"]
	selector, verifier, _ := strings.Cut(cookie, ".")
	other := func(s string) string { return map[bool]string{true: "B", false: "A"}[s[0] == 'A'] + s[1:] }

	for _, test := range []struct {
		cookie, userAgent string
		want              error
	}{
		{cookie, chrome130, nil},
		{cookie, chrome131, nil},
		{cookie, firefox, ErrFingerprintMismatch},
		{cookie, "", ErrFingerprintMismatch},
		{selector + "." + other(verifier), chrome130, ErrUnknownSession},
		{other(selector) + "." + verifier, chrome130, ErrUnknownSession},
		{selector + "." + verifier[:42] + flipLast(verifier), chrome130, ErrUnknownSession},
		{strings.ToUpper(selector) + "." + verifier, chrome130, ErrUnknownSession},
		{selector, chrome130, ErrMalformedCookie},
		{selector + ".", chrome130, ErrMalformedCookie},
		{"." + verifier, chrome130, ErrMalformedCookie},
		{cookie + ".x", chrome130, ErrMalformedCookie},
		{`"` + cookie + `"`, chrome130, ErrMalformedCookie},
		{"%41" + cookie[3:], chrome130, ErrMalformedCookie},
		{strings.Repeat("a", 65) + "." + verifier, chrome130, ErrMalformedCookie},
		{selector + "." + strings.Repeat("a", 73), chrome130, ErrMalformedCookie},
		{"x", chrome130, ErrMalformedCookie},
		{"", chrome130, ErrNoCookie},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", "a=b; __Host-session="+test.cookie+"; __Host-session=second")
		r.Header.Set("User-Agent", test.userAgent)
		w := httptest.NewRecorder()
		f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, ok := f.auth.User(r)
			if err := f.auth.Err(r); err != test.want || ok != (test.want == nil) || f.auth.Check(r) != ok {
				t.Errorf("%q, %q: %v, want %v", test.cookie, test.userAgent, err, test.want)
			}
		})).ServeHTTP(w, r)
		if len(w.Header()["Set-Cookie"]) != 0 {
			t.Errorf("%q: a cookie changed", test.cookie)
		}
	}

	// A selector that is not derived from its verifier, such as CandyPack's, is
	// verified with bcrypt.
	theirs := token.Token{Selector: strings.Repeat("0a", 16), Verifier: strings.Repeat("1b", 16)}
	hash, err := theirs.Hash(bcrypt.MinCost)
	noError(t, err)
	mustExec(t, f.db, "UPDATE user_tokens SET token_x = ?, token_y = ?", theirs.Selector, hash)
	f.wantRejected(withToken(token.Token{Selector: theirs.Selector, Verifier: verifier}), ErrUnknownSession)
	b.cookies["__Host-session"] = theirs.Selector + "." + theirs.Verifier
	f.wantLoggedIn(b)

	mustExec(t, f.db, "DELETE FROM users WHERE id = 1")
	f.wantRejected(b, ErrUserNotFound)
}

// A forged token is rejected without a lookup or a bcrypt. Each is an event, and
// the log has a few warnings per second.
func TestForgedTokens(t *testing.T) {
	t.Parallel()
	kinds := map[EventKind]int{}
	f := setup(t, Config{OnEvent: func(_ context.Context, e Event) {
		kinds[e.Kind]++
		if e.Kind == EventTokenMismatch && (e.Session != "" || e.User != nil) {
			t.Errorf("%+v", e)
		}
	}})
	b := newBrowser("")
	f.login(b, alice)
	warnings := func() int { return strings.Count(f.log.String(), "event="+string(EventTokenMismatch)) }
	f.auth.forgeries.since = time.Now().Add(time.Hour) // the current second does not end
	for range 2 * maxWarnings {
		f.wantRejected(forgeToken(b), ErrUnknownSession)
	}
	if kinds[EventTokenMismatch] != 2*maxWarnings || warnings() != maxWarnings {
		t.Errorf("%v, %d warnings", kinds, warnings())
	}
	f.auth.forgeries.since = time.Now().Add(-time.Second)
	f.wantRejected(forgeToken(b), ErrUnknownSession)
	if warnings() != maxWarnings+1 {
		t.Errorf("%d warnings in the next second", warnings()-maxWarnings)
	}
	// The selector is unknown, too.
	f.wantRejected(withToken(token.Token{Selector: token.New().Selector, Verifier: token.New().Verifier}), ErrUnknownSession)
	forged := token.Token{Selector: selectorOf(b), Verifier: token.New().Verifier}
	hash, err := forged.Hash(bcrypt.MinCost)
	noError(t, err)
	mustExec(t, f.db, "UPDATE user_tokens SET token_y = ?", hash)
	f.wantRejected(withToken(forged), ErrUnknownSession) // although the hash matches
	f.waitForPurge()
	mustExec(t, f.db, "RENAME TABLE users TO elsewhere")
	f.wantRejected(forgeToken(b), ErrUnknownSession) // a lookup would fail
	if kinds[EventTokenMismatch] != 2*maxWarnings+4 || kinds[EventRejected] != 0 || kinds[EventUnavailable] != 0 {
		t.Errorf("%v", kinds)
	}
}

// flipLast changes a bit of the verifier's last character that base64 ignores.
// Only the exact string may pass.
func flipLast(verifier string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i := strings.IndexByte(alphabet, verifier[42])
	return string(alphabet[i^1])
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		cfg      Config
		idle     time.Duration
		steps    int // how often the session is idle for a step, and then used
		want     error
		renewals int
	}{
		{"within UpdateAge", Config{}, 23 * time.Hour, 1, nil, 0},
		{"past UpdateAge", Config{}, 25 * time.Hour, 1, nil, 1},
		{"just within MaxAge", Config{}, 30*24*time.Hour - time.Minute, 1, nil, 1},
		{"past MaxAge", Config{}, 30*24*time.Hour + time.Minute, 1, ErrExpired, 0},
		{"active for half a year", Config{}, 20 * 24 * time.Hour, 9, nil, 9},
		{"banking, active", Config{MaxAge: 15 * time.Minute, UpdateAge: 5 * time.Minute}, 10 * time.Minute, 5, nil, 5},
		{"banking, idle", Config{MaxAge: 15 * time.Minute, UpdateAge: 5 * time.Minute}, 16 * time.Minute, 1, ErrExpired, 0},
		{"within MaxLifetime", Config{MaxLifetime: 12 * time.Hour, MaxAge: time.Hour}, 50 * time.Minute, 14, nil, 14},
		{"past MaxLifetime", Config{MaxLifetime: 12 * time.Hour, MaxAge: time.Hour}, 50 * time.Minute, 15, ErrExpired, 14},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, test.cfg)
			b := newBrowser(chrome130)
			f.login(b, alice)
			renewals := 0
			var err error
			for range test.steps {
				f.age(test.idle)
				response := f.handle(b, func(w http.ResponseWriter, r *http.Request) { err = f.auth.Err(r) })
				if len(response.Cookies()) != 0 {
					t.Errorf("a renewal wrote a cookie: %v", response.Header)
				}
				if get[bool](t, f.db, "SELECT UNIX_TIMESTAMP() - UNIX_TIMESTAMP(active) < 60 FROM user_tokens") {
					renewals++
				}
			}
			if err != test.want || renewals != test.renewals {
				t.Errorf("Err %v after %d renewals, want %v after %d", err, renewals, test.want, test.renewals)
			}
		})
	}
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b := newBrowser(chrome130)
	f.login(b, alice)
	f.age(25 * time.Hour)
	updated := newBrowser(chrome131)
	updated.cookies = b.cookies

	// The row and the stored browser are renewed before the handler runs, and
	// no cookie is written.
	f.handle(updated, func(w http.ResponseWriter, r *http.Request) {
		if len(w.Header()["Set-Cookie"]) != 0 || w.Header().Get("Cache-Control") != "private" || w.Header().Get("Vary") != "Cookie" {
			t.Errorf("headers in the handler: %v", w.Header())
		}
		if time.Since(f.auth.Session(r).Active) > time.Minute {
			t.Error("Session returns an old time")
		}
		if idle := get[int](t, f.db, "SELECT UNIX_TIMESTAMP() - UNIX_TIMESTAMP(active) FROM user_tokens"); idle > 60 {
			t.Errorf("the row is still idle for %d s", idle)
		}
	})
	if got := get[string](t, f.db, "SELECT browser FROM user_tokens"); got != chrome131 {
		t.Errorf("stored browser is %q", got)
	}
	if got := get[int](t, f.db, "SELECT UNIX_TIMESTAMP() - UNIX_TIMESTAMP(date) FROM user_tokens"); got < 25*3600 {
		t.Error("a renewal moved the login's date")
	}

	// One of many concurrent requests renews the session, also if the driver
	// counts matched instead of changed rows.
	found := newManager[user](t, openRaw(t, f.dsn, "clientFoundRows=true"), f.dsn, Config{})
	f.wantLoggedIn(b) // just renewed
	if won, err := found.auth.store.Renew(t.Context(), get[uint64](t, f.db, "SELECT id FROM user_tokens"), chrome130, 24*time.Hour); won || err != nil {
		t.Errorf("renewed before its time: %v, %v", won, err)
	}
	f.age(25 * time.Hour)
	var events eventLog
	f.auth.cfg.OnEvent = events.add
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			mine := newBrowser(chrome130)
			mine.cookies["__Host-session"] = b.cookies["__Host-session"]
			f.serve(mine, func(w http.ResponseWriter, r *http.Request) {
				if !f.auth.Check(r) {
					t.Error("logged out while another request renewed")
				}
			})
		})
	}
	wg.Wait()
	if renewed := strings.Count(events.take(), string(EventRenewed)); renewed != 1 {
		t.Errorf("%d of 20 requests renewed the session", renewed)
	}
}

func TestRenewalNeverRevivesARow(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	f.login(newBrowser(""), alice)
	f.age(25 * time.Hour)
	id := get[uint64](t, f.db, "SELECT id FROM user_tokens")
	noError(t, errOnly(f.auth.store.Delete(t.Context(), id)))
	won, err := f.auth.store.Renew(t.Context(), id, "", time.Hour)
	if won || err != nil || f.rows() != 0 {
		t.Errorf("won %v, %v, %d rows", won, err, f.rows())
	}
}

func TestFailedRenewalFailsNoRequest(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	testdb.SkipEmbedded(t, "has no triggers that fail an update")
	b := newBrowser(chrome130)
	f.login(b, alice)
	f.age(25 * time.Hour)
	mustExec(t, f.db, "CREATE TRIGGER no_update BEFORE UPDATE ON user_tokens FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'read only'")
	response := f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		if !f.auth.Check(r) {
			t.Error("a failed renewal logged the user out")
		}
	})
	if len(response.Cookies()) != 0 {
		t.Error("the cookie was renewed without the row")
	}
	if !strings.Contains(f.log.String(), "not renewed") {
		t.Error("the failure was not logged")
	}
}

// A database failure is not reported as "not logged in".
func TestDatabaseFailure(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b := newBrowser(chrome130)
	f.login(b, alice)
	ran := false
	handler := f.auth.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran = true }))
	mustExec(t, f.db, "RENAME TABLE users TO elsewhere")

	response := b.do(handler, "GET", "/")
	if ran || response.StatusCode != http.StatusServiceUnavailable || len(response.Cookies()) != 0 || response.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("ran %v, %s, %v", ran, response.Status, response.Header)
	}
	if !strings.Contains(f.log.String(), "session: unavailable") {
		t.Error("the failure was not logged")
	}
	if b.do(handler, "GET", "/"); ran {
		t.Error("the handler ran")
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("User-Agent", chrome130)
	r.AddCookie(&http.Cookie{Name: "__Host-session", Value: b.cookies["__Host-session"]})
	for name, err := range map[string]error{
		"Login":        errOnly(logIn(f.auth, httptest.NewRecorder(), r, alice)),
		"LoginAs":      errOnly(f.auth.LoginAs(httptest.NewRecorder(), r, 1)),
		"Logout":       f.auth.Logout(httptest.NewRecorder(), r),
		"LogoutOthers": f.auth.LogoutOthers(httptest.NewRecorder(), r),
	} {
		var my *mysql.MySQLError
		if !errors.Is(err, ErrUnavailable) || !errors.As(err, &my) || strings.Count(err.Error(), ErrUnavailable.Error()) != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A request without a cookie is served.
	newBrowser("").do(handler, "GET", "/")
	if !ran {
		t.Error("a request without a cookie was not served")
	}
	mustExec(t, f.db, "RENAME TABLE elsewhere TO users")
	f.wantLoggedIn(b)
}

func TestOnError(t *testing.T) {
	t.Parallel()
	var got error
	f := setup(t, Config{OnError: func(w http.ResponseWriter, r *http.Request, err error) {
		got = err
		w.WriteHeader(http.StatusTeapot)
	}})
	b := newBrowser("")
	f.login(b, alice)
	f.waitForPurge()
	f.db.Close()
	if response := b.do(f.auth.Require(http.NotFoundHandler()), "GET", "/"); response.StatusCode != http.StatusTeapot {
		t.Error(response.Status)
	}
	wantError(t, got, ErrUnavailable)

	// A canceled request is not logged as a database failure. OnError is called
	// all the same.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	logged := f.log.String()
	r := httptest.NewRequestWithContext(ctx, "GET", "/", nil)
	r.AddCookie(&http.Cookie{Name: "__Host-session", Value: b.cookies["__Host-session"]})
	w := httptest.NewRecorder()
	f.auth.Middleware(http.NotFoundHandler()).ServeHTTP(w, r)
	if w.Code != http.StatusTeapot || f.log.String() != logged {
		t.Errorf("%d, log grew by %q", w.Code, strings.TrimPrefix(f.log.String(), logged))
	}
}

func TestSessionsAndRevoke(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{ClientIP: func(*http.Request) string { return "203.0.113.7" }})
	phone, laptop, bobs := newBrowser("phone/1"), newBrowser("laptop/1"), newBrowser("bob/1")
	f.login(phone, alice)
	f.age(time.Hour)
	f.login(laptop, alice)
	f.login(bobs, bob)
	mustExec(t, f.db, "INSERT INTO user_tokens (user, token_x, token_y, active) VALUES (1, 'expired', '', FROM_UNIXTIME(UNIX_TIMESTAMP() - 2592060))")

	var phoneID string
	f.handle(laptop, func(w http.ResponseWriter, r *http.Request) {
		sessions, err := f.auth.Sessions(r.Context(), 1)
		noError(t, err)
		if len(sessions) != 2 || sessions[0].Browser != "laptop/1" || sessions[1].Browser != "phone/1" {
			t.Fatalf("sessions: %+v", sessions)
		}
		if s := sessions[0]; !s.Current || s.IP != "203.0.113.7" || time.Since(s.Active).Abs() > time.Minute || s != f.auth.Session(r) {
			t.Errorf("the current one: %+v, Session says %+v", s, f.auth.Session(r))
		}
		if s := sessions[1]; s.Current || time.Since(s.Created) < 59*time.Minute {
			t.Errorf("the other one: %+v", s)
		}
		phoneID = sessions[1].ID
		for _, b := range []*browser{phone, laptop} {
			if strings.Contains(fmt.Sprint(sessions), selectorOf(b)) {
				t.Error("the list gives away a token")
			}
		}
		for _, id := range []string{"", "x", "-1", "0", "0" + phoneID, "99999", phoneID + " ", "1e3", "99999999999999999999"} {
			wantError(t, f.auth.Revoke(r.Context(), 1, id), ErrSessionNotFound)
		}
		wantError(t, f.auth.Revoke(r.Context(), 2, phoneID), ErrSessionNotFound)
		wantError(t, f.auth.Revoke(r.Context(), "1x", phoneID), ErrInvalidArgument)
	})
	f.wantLoggedIn(phone)
	noError(t, f.auth.Revoke(t.Context(), 1, phoneID))
	f.wantRejected(phone, ErrUnknownSession)
	f.wantLoggedIn(laptop)
	f.wantLoggedIn(bobs)

	// Revoking the current session takes effect in the same request.
	f.handle(laptop, func(w http.ResponseWriter, r *http.Request) {
		noError(t, f.auth.Revoke(r.Context(), 1, f.auth.Session(r).ID))
		if f.auth.Check(r) {
			t.Error("still logged in")
		}
	})
	f.wantRejected(laptop, ErrUnknownSession)
	sessions, err := f.auth.Sessions(t.Context(), 99)
	if err != nil || len(sessions) != 0 {
		t.Errorf("%v, %v", sessions, err)
	}
}

func TestLogoutOthersAndAll(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "keeps no table comments, so the ID of a session changes with its token")
	f := setup(t, Config{})
	phone, laptop, bobs := newBrowser("phone/1"), newBrowser("laptop/1"), newBrowser("bob/1")
	f.login(phone, alice)
	f.login(laptop, alice)
	f.login(bobs, bob)
	stolen := newBrowser("laptop/1")
	stolen.cookies["__Host-session"] = laptop.cookies["__Host-session"]
	f.handle(laptop, func(w http.ResponseWriter, r *http.Request) {
		id := f.auth.Session(r).ID
		noError(t, f.auth.LogoutOthers(w, r))
		if !f.auth.Check(r) || f.auth.Session(r).ID != id {
			t.Error("this session did not stay")
		}
	})
	f.wantRejected(phone, ErrUnknownSession)
	f.wantRejected(stolen, ErrUnknownSession) // a copy of the old token is another session
	f.wantLoggedIn(laptop)
	f.wantLoggedIn(bobs)

	f.login(phone, alice)
	f.handle(laptop, func(w http.ResponseWriter, r *http.Request) {
		n, err := f.auth.LogoutAll(r.Context(), 2)
		if n != 1 || err != nil || !f.auth.Check(r) {
			t.Errorf("logging out bob: %d, %v, alice in: %v", n, err, f.auth.Check(r))
		}
		n, err = f.auth.LogoutAll(r.Context(), 1)
		if n != 2 || err != nil || f.auth.Check(r) {
			t.Errorf("logging out alice: %d, %v, alice in: %v", n, err, f.auth.Check(r))
		}
		wantError(t, f.auth.LogoutOthers(w, r), ErrNotLoggedIn)
	})
	for _, b := range []*browser{phone, laptop, bobs} {
		f.wantRejected(b, ErrUnknownSession)
	}
	_, err := f.auth.LogoutAll(t.Context(), "1x")
	wantError(t, err, ErrInvalidArgument)
	n, err := f.auth.LogoutAll(t.Context(), 99)
	if n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// A request that was started with the old token can't get a new one after
// LogoutOthers.
func TestLogoutOthersWithAnOldToken(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b, thief := newBrowser(chrome130), newBrowser(chrome130)
	f.login(b, alice)
	thief.cookies["__Host-session"] = b.cookies["__Host-session"]
	f.handle(thief, func(w http.ResponseWriter, r *http.Request) {
		f.handle(b, func(w http.ResponseWriter, r *http.Request) {
			noError(t, f.auth.LogoutOthers(w, r))
			noError(t, f.auth.LogoutOthers(w, r)) // a second call in a request is allowed
		})
		wantError(t, f.auth.LogoutOthers(w, r), ErrNotLoggedIn)
	})
	f.wantLoggedIn(b)
	f.wantRejected(thief, ErrUnknownSession)
}

// A session that is revoked elsewhere during the request is not restored.
func TestLogoutOthersOfARevokedSession(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b := newBrowser("")
	f.login(b, alice)
	f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		mustExec(t, f.db, "DELETE FROM user_tokens")
		wantError(t, f.auth.LogoutOthers(w, r), ErrNotLoggedIn)
		if f.auth.Check(r) {
			t.Error("still logged in")
		}
	})
	if f.rows() != 0 {
		t.Error("the session came back")
	}
}

// A client with the right token may end the session, even if the session is
// rejected for another reason.
func TestLogoutOfARejectedSession(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b := newBrowser(chrome130)
	f.login(b, alice)
	b.userAgent = firefox
	f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		wantError(t, f.auth.Err(r), ErrFingerprintMismatch)
		noError(t, f.auth.Logout(w, r))
	})
	if f.rows() != 0 || len(b.cookies) != 0 {
		t.Error("the session or its cookie is left")
	}
	// A client with a wrong verifier may not.
	f.login(b, alice)
	f.handle(forgeToken(b), func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.Logout(w, r)) })
	f.wantLoggedIn(b)
}

func TestManagersAreIndependent(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	staff := newManager[user](t, f.db, f.dsn, Config{TokenTable: "staff_tokens", Cookie: Cookie{Name: "staff"}})
	b := newBrowser("")
	f.login(b, alice)
	h := f.auth.Middleware(staff.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !f.auth.Check(r) || staff.auth.Check(r) || staff.auth.Err(r) != ErrNoCookie {
			t.Errorf("app: %v, staff: %v", f.auth.Err(r), staff.auth.Err(r))
		}
	})))
	b.do(h, "GET", "/")
	staff.login(b, bob)
	f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		if staff.auth.Err(r) != ErrNoMiddleware {
			t.Error("one Manager's Middleware answered for the other")
		}
	})
	f.wantLoggedIn(b)
	staff.wantLoggedIn(b)
}

func TestRow(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	mustExec(t, f.db, "ALTER TABLE users ADD COLUMN born DATE NULL, ADD COLUMN photo BLOB NULL, ADD COLUMN balance DECIMAL(10,2) NOT NULL DEFAULT 1.50")
	mustExec(t, f.db, "UPDATE users SET name = 'Alice', born = '1990-05-01', photo = ? WHERE id = 1", []byte{0xff, 0})
	rows := newManager[Row](t, f.db, f.dsn, Config{})
	b := newBrowser("")
	check := func(u Row, ok bool) {
		t.Helper()
		if !ok || len(u) != 7 || u["id"] != int64(1) || u["email"] != "alice@example.com" || u["name"] != "Alice" || u["tenant"] != int64(1) || u["balance"] != "1.50" {
			t.Errorf("%#v", u)
		}
		if photo, _ := u["photo"].([]byte); !bytes.Equal(photo, []byte{0xff, 0}) {
			t.Errorf("photo is %#v", u["photo"])
		}
		if born, _ := u["born"].(time.Time); !born.Equal(time.Date(1990, 5, 1, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("born is %#v", u["born"])
		}
		if strings.Contains(fmt.Sprint(u), "$2a$") {
			t.Error("the password hash got out")
		}
	}
	rows.handle(b, func(w http.ResponseWriter, r *http.Request) {
		u, err := logIn(rows.auth, w, r, alice)
		noError(t, err)
		check(u, true)
	})
	rows.handle(b, func(w http.ResponseWriter, r *http.Request) { check(rows.auth.User(r)) })
	mustExec(t, f.db, "DELETE FROM users WHERE id = 1")
	rows.wantRejected(b, ErrUserNotFound)
}

// A login and a check return the same user, in value and type. Callers do not
// share a Row.
func TestRowsAreAlike(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	mustExec(t, f.db, "ALTER TABLE users ADD COLUMN tall BIGINT UNSIGNED NOT NULL DEFAULT 7")
	mustExec(t, f.db, "ALTER TABLE users ADD COLUMN digits VARCHAR(10) NOT NULL DEFAULT '7'")
	mustExec(t, f.db, "ALTER TABLE users ADD COLUMN huge BIGINT UNSIGNED NULL")
	mustExec(t, f.db, "UPDATE users SET huge = 18446744073709551615")
	for _, params := range []string{"interpolateParams=true", "interpolateParams=false"} {
		rows := newManager[Row](t, openRaw(t, f.dsn, params), f.dsn, Config{})
		b := newBrowser("")
		var fromLogin Row
		rows.handle(b, func(w http.ResponseWriter, r *http.Request) {
			var err error
			fromLogin, err = logIn(rows.auth, w, r, alice)
			noError(t, err)
		})
		rows.handle(b, func(w http.ResponseWriter, r *http.Request) {
			u, _ := rows.auth.User(r)
			if !reflect.DeepEqual(u, fromLogin) || u["id"] != int64(1) || u["tall"] != int64(7) || u["huge"] != uint64(math.MaxUint64) || u["digits"] != "7" {
				t.Errorf("%s:\n%#v from Login\n%#v from User", params, fromLogin, u)
			}
			u["id"] = 99
			if unchanged, _ := rows.auth.User(r); unchanged["id"] != int64(1) {
				t.Error("a handler changed another's Row")
			}
		})
	}
}

// A failure that concerns another column does not invalidate prepared
// statements.
func TestRowAfterTheTableIsReloaded(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	rows := newManager[Row](t, f.db, f.dsn, Config{})
	b := newBrowser("")
	rows.login(b, alice)
	rows.wantLoggedIn(b)
	mustExec(t, f.db, "ALTER TABLE users RENAME COLUMN password TO hash")
	rows.handle(newBrowser(""), func(w http.ResponseWriter, r *http.Request) {
		if _, err := logIn(rows.auth, w, r, alice); err == nil {
			t.Error("logged in without a password column")
		}
	})
	mustExec(t, f.db, "ALTER TABLE users RENAME COLUMN hash TO password")
	rows.wantLoggedIn(b)
	rows.login(b, alice)
	mustExec(t, f.db, "ALTER TABLE users ADD COLUMN nick VARCHAR(20) NOT NULL DEFAULT 'al'")
	rows.login(b, Credentials{"nick": "al", "id": "1", "password": alice["password"]})
}

// A Row follows the table when a column is dropped.
func TestRowAfterAColumnIsDropped(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	rows := newManager[Row](t, f.db, f.dsn, Config{})
	b := newBrowser("")
	rows.login(b, alice)
	rows.wantLoggedIn(b)
	mustExec(t, f.db, "ALTER TABLE users DROP COLUMN tenant")
	testdb.SkipEmbedded(t, "has no error number for an unknown column")
	b.do(rows.auth.Middleware(http.NotFoundHandler()), "GET", "/") // one response is 503
	rows.wantLoggedIn(b)
}

func TestUserStruct(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	type Base struct {
		ID int32 `db:"id"`
	}
	type full struct {
		*Base
		Email []byte
	}
	whole := newManager[full](t, f.db, f.dsn, Config{})
	b := newBrowser("")
	whole.login(b, alice)
	whole.handle(b, func(w http.ResponseWriter, r *http.Request) {
		if u, ok := whole.auth.User(r); !ok || u.ID != 1 || string(u.Email) != "alice@example.com" {
			t.Errorf("%+v", u)
		}
	})
	for name, err := range map[string]error{
		"a pointer":    errOnly(New[*user](f.db, Config{})),
		"a map":        errOnly(New[map[string]any](f.db, Config{})),
		"no columns":   errOnly(New[struct{ name string }](f.db, Config{})),
		"the password": errOnly(New[struct{ Password string }](f.db, Config{})),
		"by its tag": errOnly(New[struct {
			P string `db:"PASSWORD"`
		}](f.db, Config{})),
		"another name":  errOnly(New[struct{ Hash string }](f.db, Config{PasswordColumn: "hash"})),
		"no database":   errOnly(New[user](nil, Config{})),
		"a wrong table": errOnly(New[user](f.db, Config{UsersTable: "users; DROP TABLE users"})),
	} {
		if !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	type unknown struct {
		ID int64 `db:"id"`
		X  string
	}
	bad := newManager[unknown](t, f.db, f.dsn, Config{})
	bad.handle(newBrowser(""), func(w http.ResponseWriter, r *http.Request) {
		if _, err := logIn(bad.auth, w, r, alice); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "x") {
			t.Error(err)
		}
	})
}

func TestPasswordsAreUpgraded(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{PasswordCost: 5})
	long := strings.Repeat("p", 80)
	cut, _ := bcrypt.GenerateFromPassword([]byte(long[:72]), bcrypt.MinCost)
	mustExec(t, f.db, "UPDATE users SET password = ? WHERE id = 2", cut)
	f.login(newBrowser(""), alice)
	hash := get[string](t, f.db, "SELECT password FROM users WHERE id = 1")
	if cost, _ := bcrypt.Cost([]byte(hash)); cost != 5 {
		t.Errorf("the hash has cost %d", cost)
	}
	f.login(newBrowser(""), alice)
	if get[string](t, f.db, "SELECT password FROM users WHERE id = 1") != hash {
		t.Error("a hash of the right cost was replaced")
	}
	// A password that another program truncated to 72 bytes still works. Its
	// hash is kept, because it can't be made again.
	f.login(newBrowser(""), Credentials{"email": "bob@example.com", "password": long})
	if get[string](t, f.db, "SELECT password FROM users WHERE id = 2") != string(cut) {
		t.Error("the hash was replaced")
	}
	// The character set of the key does not matter.
	mustExec(t, f.db, "CREATE TABLE people (id VARCHAR(20) CHARACTER SET latin1 NOT NULL PRIMARY KEY, email VARCHAR(255), password VARCHAR(60))")
	mustExec(t, f.db, "INSERT INTO people VALUES ('zoë', 'zoe@example.com', ?)", hashOf("zoe's password"))
	people := newManager[Row](t, f.db, f.dsn, Config{UsersTable: "people", TokenTable: "people_tokens", PasswordCost: 5})
	zoe := newBrowser("")
	people.login(zoe, Credentials{"email": "zoe@example.com", "password": "zoe's password"})
	people.wantLoggedIn(zoe)
	if cost, _ := bcrypt.Cost([]byte(get[string](t, f.db, "SELECT password FROM people"))); cost != 5 {
		t.Errorf("the hash of zoë has cost %d", cost)
	}
	// A hash that can't be stored does not fail the login.
	testdb.SkipEmbedded(t, "has no triggers that fail an update")
	mustExec(t, f.db, "UPDATE users SET password = ? WHERE id = 1", hashOf(alice["password"]))
	mustExec(t, f.db, "CREATE TRIGGER no_update BEFORE UPDATE ON users FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'read only'")
	f.login(newBrowser(""), alice)
	if !strings.Contains(f.log.String(), "not upgraded") {
		t.Error("the failure was not logged")
	}
}

func TestHashPassword(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{PasswordCost: 5})
	hash, err := f.auth.HashPassword(t.Context(), strings.Repeat("p", 72))
	noError(t, err)
	if cost, _ := bcrypt.Cost([]byte(hash)); cost != 5 {
		t.Errorf("cost %d", cost)
	}
	_, err = f.auth.HashPassword(t.Context(), strings.Repeat("é", 37))
	wantError(t, err, ErrPasswordTooLong)
}

func TestClose(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b := newBrowser("")
	f.login(b, alice)
	f.wantLoggedIn(b)
	noError(t, f.auth.Close())
	noError(t, f.auth.Close())
	r := httptest.NewRequest("GET", "/", nil)
	r.AddCookie(&http.Cookie{Name: "__Host-session", Value: b.cookies["__Host-session"]})
	v := &verdict[user]{}
	err := f.auth.authenticate(r, v)
	wantError(t, err, ErrClosed)
	f.auth.purge.start() // does nothing
}

// Values that an app may print or log contain no secrets.
func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	secret := token.New()
	cfg, dsn, err := LoadConfig(writeConfig(t, `{"auth": {}, "mysql": {"user": "app", "password": "hunter2", "database": "app"}}`))
	noError(t, err)
	if !strings.Contains(dsn, "hunter2") {
		t.Errorf("the DSN is %q", dsn)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "token", secret, "config", cfg)
	printed := fmt.Sprintf("%v %+v %#v %s %q", secret, secret, secret, secret, secret) + fmt.Sprintf("%v %+v %#v %s", cfg, cfg, cfg, cfg) + log.String()
	for _, s := range []string{secret.Selector, secret.Verifier, "hunter2"} {
		if strings.Contains(printed, s) {
			t.Errorf("%q is printed in %s", s, printed)
		}
	}
	for _, dsn := range []string{"app:hunter2@tcp(localhost/app", "root:hunter2/db", "app:hun/hunter2%zz@tcp(localhost:3306)"} {
		if _, err := Open(dsn); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error is %v", err)
		}
	}
	db, err := Open("app:hunter2@tcp(localhost)/app")
	noError(t, err)
	defer db.Close()
	auth, err := New[user](db, cfg)
	noError(t, err)
	credentials := Credentials{"email": "x", "password": "hunter2"}
	printed = fmt.Sprintf("%v %+v %v %+v %#v %s", auth.cfg, auth.cfg, credentials, credentials, credentials, []Credentials{credentials})
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "credentials", credentials)
	if strings.Contains(printed+log.String(), "hunter2") {
		t.Errorf("a password is printed in %s", printed)
	}
}
