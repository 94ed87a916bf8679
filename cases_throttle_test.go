package session

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/throttle"
)

// The cases of guessing passwords.
var (
	throttleCasesB = []testCase{
		{"B4_right_logins_at_once", caseRightLoginsAtOnce},
		{"B4_guesses_at_once_of_several_servers", caseGuessesOfSeveralServers},
		{"B4_attempts_that_end_otherwise", caseAttemptsThatEndOtherwise},
	}
	throttleCasesC = []testCase{
		{"C1_spellings_of_one_account", caseSpellings},
		{"C1_spellings_in_other_columns", caseOtherIdentifiers},
		{"C2_networks_of_IPv6", caseNetworks},
		{"C2_one_account_from_everywhere", caseEverywhere},
		{"C3_forms_of_an_address", caseForms},
		{"C3_unread_addresses", caseUnread},
		{"C4_colleague_of_a_guesser", caseColleague},
		{"C5_flood_of_registrations", caseRegistrations},
		{"C5_places_of_a_network", casePlaces},
	}
)

// forEachThrottle runs a test with the throttle in memory, and with the one in
// MySQL if the server supports it.
func forEachThrottle(t *testing.T, test func(t *testing.T, f *fixture[user], advance func(time.Duration))) {
	t.Parallel()
	for name, create := range throttles(t) {
		t.Run(name, func(t *testing.T) {
			if name == "MySQL" {
				testdb.SkipEmbedded(t, "loses concurrent writes, and ignores time zones")
			}
			f, advance := setupThrottle(t, create)
			test(t, f, advance)
		})
	}
}

// guesses counts how many of n wrong passwords are compared before the client
// has to wait.
func (f *fixture[U]) guesses(n int, address, email string) int {
	f.t.Helper()
	for i := range n {
		switch err := f.try(address, email, "wrong"); {
		case errors.Is(err, ErrTooManyAttempts):
			return i
		case !errors.Is(err, ErrInvalidCredentials):
			f.t.Fatal(err)
		}
	}
	return n
}

func caseRightLoginsAtOnce(t *testing.T) {
	forEachThrottle(t, func(t *testing.T, f *fixture[user], _ func(time.Duration)) {
		var wg sync.WaitGroup
		concurrently := func(n int, email func(i int) string) {
			t.Helper()
			for i := range n {
				wg.Go(func() {
					if err := f.try(attacker, email(i), right); err != nil {
						t.Errorf("%d of %d: %v", i, n, err)
					}
				})
			}
			wg.Wait()
		}
		concurrently(8, func(int) string { return "alice@example.com" })
		for i := range 80 {
			mustExec(t, f.db, "INSERT INTO users (email, password) VALUES (?, ?)", fmt.Sprintf("user%d@example.com", i), hashOf(right))
		}
		concurrently(80, func(i int) string { return fmt.Sprintf("user%d@example.com", i) })
		// The successful logins do not count.
		if n := f.guesses(10, "203.0.113.77:1", "user7@example.com"); n != 5 {
			t.Errorf("throttled after %d", n)
		}
	})
}

func caseGuessesOfSeveralServers(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "loses concurrent writes")
	f := setup(t, Config{})
	var tried atomic.Int64
	var wg sync.WaitGroup
	for range 3 {
		shared, err := throttle.NewMySQL(open(t, f.dsn, "timestamp=1795000000"), "session_attempts", nil)
		noError(t, err)
		server := newManager[user](t, f.db, f.dsn, Config{Throttle: shared})
		for range 10 {
			wg.Go(func() {
				switch err := server.try(attacker, "alice@example.com", "wrong"); {
				case errors.Is(err, ErrTooManyAttempts):
				case err == ErrInvalidCredentials:
					tried.Add(1)
				default:
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if n := tried.Load(); n != 5 {
		t.Errorf("%d of 30 guesses were tried", n)
	}
}

// A panic in the verification of a password ends the attempt, which counts as a
// failure. A password that was not verified, because the hasher was busy, does
// not count.
func caseAttemptsThatEndOtherwise(t *testing.T) {
	forEachThrottle(t, func(t *testing.T, f *fixture[user], _ func(time.Duration)) {
		mustExec(t, f.db, "UPDATE users SET password = 'legacy' WHERE id = 1")
		panics := newManager[user](t, f.db, f.dsn, Config{Throttle: f.auth.cfg.Throttle, VerifyPassword: func(string, string) bool { panic("hash") }})
		for range 5 {
			func() {
				defer func() { recover() }()
				panics.try(attacker, "alice@example.com", "wrong")
			}()
		}
		wantError(t, panics.try(attacker, "alice@example.com", "wrong"), ErrTooManyAttempts)

		release := f.holdPasswords(time.Millisecond)
		for range 10 {
			wantError(t, f.try(attacker, "bob@example.com", "wrong"), ErrBusy)
		}
		release()
		if n := f.guesses(10, attacker, "bob@example.com"); n != 5 {
			t.Errorf("%d guesses were tried after attempts that were not", n)
		}
	})
}

func caseSpellings(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "compares in another way")
	f := setup(t, Config{})
	base := []string{"victim@example.com", "VICTIM@example.com", "victim@example.com ", " victim@example.com\t"}
	accents := append([]string{"víctim@example.com", "vïctïm@êxample.com", "ＶＩＣＴＩＭ@example.com"}, base...)
	ignored := append([]string{"victim@example.com\u200b", "vic\u200btim@example.com", "\u200bvictim@example.com\u200b ", "victim@example.com\u00a0\u200b ", "victim@example.com \u034f", "v\u0001ictim@example.com"}, accents...)
	for _, test := range []struct {
		charset, collation string
		spellings          []string
	}{
		{"utf8mb4", "utf8mb4_general_ci", append(accents[:2:2], base...)},
		{"utf8mb4", "utf8mb4_unicode_ci", ignored},
		{"utf8mb4", "utf8mb4_unicode_520_ci", ignored},
		{"utf8mb4", "utf8mb4_0900_ai_ci", ignored},
		{"utf8mb4", "utf8mb4_0900_as_cs", []string{"victim@example.com", "victim@example.com\u200b", "vic\u200btim@example.com"}},
		{"utf8mb4", "utf8mb4_uca1400_ai_ci", ignored},
		{"utf8mb4", "utf8mb4_uca1400_as_cs", []string{"victim@example.com", "victim@example.com ", "vic\u200btim@example.com", "victim@example.com\u200b "}},
		{"utf8mb4", "utf8mb4_bin", []string{"victim@example.com", "victim@example.com ", "victim@example.com  "}},
		{"latin1", "latin1_swedish_ci", append(accents[:1:1], base...)},
		{"latin1", "latin1_german2_ci", append(accents[:1:1], base...)},
		{"utf8mb3", "utf8mb3_unicode_ci", ignored},
	} {
		if get[int](t, f.db, "SELECT COUNT(*) FROM information_schema.COLLATIONS WHERE COLLATION_NAME = ?", strings.TrimPrefix(test.collation, "utf8mb4_"))+
			get[int](t, f.db, "SELECT COUNT(*) FROM information_schema.COLLATIONS WHERE COLLATION_NAME = ?", test.collation) == 0 {
			continue
		}
		mustExec(t, f.db, "DELETE FROM users")
		mustExec(t, f.db, "ALTER TABLE users MODIFY email VARCHAR(255) CHARACTER SET "+test.charset+" COLLATE "+test.collation+" NOT NULL")
		for _, exists := range []bool{true, false} {
			if exists {
				mustExec(t, f.db, "INSERT INTO users (email, password) VALUES ('victim@example.com', ?)", hashOf(right))
			} else {
				mustExec(t, f.db, "DELETE FROM users")
			}
			// All spellings that the database considers equal.
			app := newManager[user](t, f.db, f.dsn, Config{Throttle: throttle.NewMemory()})
			tried, equal := 0, 0
			for i := range 50 {
				spelling := test.spellings[i%len(test.spellings)]
				if exists && get[int](t, f.db, "SELECT COUNT(*) FROM users WHERE email = ?", spelling) == 1 {
					equal++
				}
				tried += min(1, app.guesses(1, attacker, spelling))
			}
			if tried != 5 {
				t.Errorf("%s, exists %t: %d of 50 guesses were tried", test.collation, exists, tried)
			}
			if exists && equal < 20 {
				t.Errorf("%s: only %d of 50 are equal", test.collation, equal)
			}
			if n := app.guesses(10, attacker, "another@example.com"); n != 5 {
				t.Errorf("%s: another account has %d", test.collation, n)
			}
		}
	}
}

// Identifiers that are not strings, or that the column can't hold, are limited
// too. Each identifier of an account has its own count per network.
func caseOtherIdentifiers(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "compares in another way")
	f := setup(t, Config{})
	mustExec(t, f.db, "ALTER TABLE users ADD code VARBINARY(16) NULL, ADD nick VARCHAR(20) CHARACTER SET latin1 NULL, ADD kind ENUM('Staff', 'guest') NULL")
	mustExec(t, f.db, "UPDATE users SET code = 'c0de', nick = 'alice', kind = 'Staff' WHERE id = 1")
	for name, test := range map[string]struct {
		column    string
		spellings []string
	}{
		"integer":         {"id", []string{"1"}},
		"no integer":      {"id", []string{"one"}},
		"too large":       {"id", []string{"99999999999999999999"}},
		"binary":          {"code", []string{"c0de"}},
		"invalid":         {"email", []string{"alice\xff@example.com"}},
		"not of latin1":   {"nick", []string{"アリス", "アリス "}},
		"emoji in latin1": {"nick", []string{"a😀", "A😀"}},
		"enum":            {"kind", []string{"staff", "STAFF "}},
		"very long":       {"email", []string{strings.Repeat("x", 5000), strings.Repeat("y", 6000)}},
		"name of column":  {"nick", []string{"alice", "ALICE"}},
	} {
		app := newManager[user](t, f.db, f.dsn, Config{Throttle: throttle.NewMemory()})
		tried := 0
		for i := range 20 {
			column := test.column
			if name == "name of column" && i%2 == 1 {
				column = "NICK"
			}
			r := httptest.NewRequest("POST", "/", nil)
			_, err := logIn(app.auth, httptest.NewRecorder(), r, Credentials{column: test.spellings[i%len(test.spellings)], "password": "wrong"})
			if !errors.Is(err, ErrInvalidCredentials) {
				t.Fatalf("%s: %v", name, err)
			}
			if !errors.Is(err, ErrTooManyAttempts) {
				tried++
			}
		}
		if tried != 5 {
			t.Errorf("%s: %d of 20 guesses were tried", name, tried)
		}
		if n := app.guesses(10, "192.0.2.1:1", "alice@example.com"); n != 5 {
			t.Errorf("%s: the other identifier has %d", name, n)
		}
	}
}

func caseNetworks(t *testing.T) {
	forEachThrottle(t, func(t *testing.T, f *fixture[user], _ func(time.Duration)) {
		tried := func(n int, address func(i int) string, email func(i int) string) (tried int) {
			for i := range n {
				tried += f.guesses(1, "["+address(i)+"]:1", email(i))
			}
			return tried
		}
		victim := func(string) func(int) string { return func(int) string { return "alice@example.com" } }
		unknown := func(name string) func(int) string {
			return func(i int) string { return fmt.Sprint(name, i, "@example.com") }
		}
		if n := tried(60, func(i int) string { return fmt.Sprintf("2001:db8:1:ab%02x::1", i) }, victim("")); n != 20 {
			t.Errorf("one account from a /56: %d", n)
		}
		if n := tried(200, func(i int) string { return fmt.Sprintf("2001:db8:2:%02x00::%x", i, i) }, func(int) string { return "nobody@example.com" }); n != 50 {
			t.Errorf("one account that does not exist from a /48: %d", n)
		}
		if n := tried(300, func(i int) string { return fmt.Sprintf("2001:db8:3:ab%02x::1", i%256) }, unknown("a")); n != 200 {
			t.Errorf("many accounts from a /56: %d", n)
		}
		if n := tried(600, func(i int) string { return fmt.Sprintf("2001:db8:4:%02x00::1", i%256) }, unknown("b")); n != 500 {
			t.Errorf("many accounts from a /48: %d", n)
		}
		noError(t, f.try("[2001:db8:5::1]:1", "alice@example.com", right))
	})
}

func caseEverywhere(t *testing.T) {
	forEachThrottle(t, func(t *testing.T, f *fixture[user], advance func(time.Duration)) {
		away := newBrowser(chrome130)
		f.login(away, alice) // from 192.0.2.1, with a cookie
		noError(t, f.try(owner, "alice@example.com", right))
		mustExec(t, f.db, "UPDATE users SET name = 'alice' WHERE id = 1")
		guess := func(i int, identifier string) error {
			r := httptest.NewRequest("POST", "/", nil)
			r.RemoteAddr = fmt.Sprintf("203.0.113.%d:1", i)
			column := map[bool]string{true: "email", false: "name"}[strings.Contains(identifier, "@")]
			_, err := logIn(f.auth, httptest.NewRecorder(), r, Credentials{column: identifier, "password": "wrong"})
			return err
		}
		for _, identifiers := range [][]string{{"alice@example.com", "alice"}, {"nobody@example.com"}} {
			tried := 0
			for i := range 150 {
				if !errors.Is(guess(i, identifiers[i%len(identifiers)]), ErrTooManyAttempts) {
					tried++
				}
			}
			if tried != 100 {
				t.Errorf("%q: %d guesses from everywhere", identifiers, tried)
			}
		}
		// The owner can log in from a known network, or with a session of the
		// account.
		noError(t, f.try(owner, "alice@example.com", right))
		moves := 100
		moved := func(b *browser) error {
			r := httptest.NewRequest("POST", "/", nil)
			moves++
			r.RemoteAddr = fmt.Sprintf("198.51.100.%d:1", moves)
			r.Header.Set("User-Agent", b.userAgent)
			for name, value := range b.cookies {
				r.AddCookie(&http.Cookie{Name: name, Value: value})
			}
			_, err := logIn(f.auth, httptest.NewRecorder(), r, alice)
			return err
		}
		f.age(31 * 24 * time.Hour) // expired
		stolen := newBrowser(firefox)
		stolen.cookies = away.cookies
		wantError(t, moved(stolen), ErrTooManyAttempts)
		wantError(t, moved(newBrowser(chrome130)), ErrTooManyAttempts)
		noError(t, moved(away)) // and the purge after it deletes the session
		others := newBrowser(chrome130)
		f.login(others, bob)
		wantError(t, moved(others), ErrTooManyAttempts)
		// A new client can log in after a bounded wait.
		advance(time.Minute)
		noError(t, f.try("198.51.100.8:1", "alice@example.com", right))
	})
}

func caseForms(t *testing.T) {
	t.Parallel()
	const v4, v6 = "203.0.113.9", "2001:db8::7"
	for text, want := range map[string]string{
		v4: v4, " " + v4 + "\t": v4, v4 + ":51324": v4, "::ffff:" + v4: v4, "[::ffff:" + v4 + "]:80": v4, `"` + v4 + `:80"`: v4, "[" + v4 + "]": v4,
		"for=" + v4: v4, "For=\"" + v4 + ":4711\";proto=https": v4, "proto=http;for=" + v4 + ";by=10.0.0.1": v4, "by=10.0.0.1; for=" + v4: v4,
		"198.51.100.1, " + v4: v4, "198.51.100.1:2," + v4 + ":3": v4, "for=198.51.100.1, for=" + v4: v4, v4 + ", ": v4, "unknown, " + v4: v4, "64:ff9b::cb00:7109": v4, "::ffff:" + v4 + ":51324": v4, v4 + ":_port": v4,
		v6: v6, "[" + v6 + "]": v6, "[" + v6 + "]:443": v6, v6 + "%eth0": v6, "[" + v6 + "%eth0]:443": v6, "2001:DB8:0::7": v6, `"[` + v6 + `]:1"`: v6,
		`for="[` + v6 + `]:4711"`: v6, v4 + ", [" + v6 + "]:1": v6, " [ " + v6 + " ] ": v6,
		"": "", " ": "", "unknown": "", "_hidden": "", "for=_secret": "", v4 + ", unknown": "", v4 + " " + v6: "", "example.com": "", "[" + v6: "", "[" + v6 + "]x": "",
		"203.0.113.9.9": "", "2001:db8::7:x": "", "203.0.113.256": "", "0.0.0.0": "", "::": "", "@": "", ",": "",
	} {
		address, ok := parseClientIP(text)
		if got := map[bool]string{true: address.String()}[ok]; got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	var text atomic.Value
	var events eventLog
	f := setup(t, Config{Throttle: throttle.NewMemory(), OnEvent: events.add, ClientIP: func(*http.Request) string { return text.Load().(string) }})
	tried := 0
	for i, form := range []string{v6, "[" + v6 + "]:443", "1.2.3.4, " + v6, v6 + "%eth0", "5.6.7.8,[" + v6 + "]:1", "[2001:db8::8]", "2001:db8::9"} {
		text.Store(form)
		tried += f.guesses(1, "", "alice@example.com")
		if got := events.take(); i == 1 && !strings.Contains(got, " "+v6+" ") {
			t.Errorf("the event is %s", got)
		}
	}
	if tried != 5 {
		t.Errorf("%d of 7 guesses were tried", tried)
	}
	if f.log.String() != "" && strings.Contains(f.log.String(), "ClientIP") {
		t.Errorf("logged: %s", f.log)
	}
}

func caseUnread(t *testing.T) {
	forEachThrottle(t, func(t *testing.T, base *fixture[user], _ func(time.Duration)) {
		var text atomic.Value
		f := newManager[user](t, base.db, base.dsn, Config{Throttle: base.auth.cfg.Throttle, ClientIP: func(*http.Request) string { return text.Load().(string) }})
		tried := 0
		for _, form := range []string{"", "unknown", "_hidden", "garbage\n", "_hidden", "203.0.113.9, unknown", "unknown"} {
			text.Store(form)
			tried += f.guesses(1, "", "alice@example.com")
		}
		if tried != 5 {
			t.Errorf("%d of 7 guesses were tried", tried)
		}
		if n := strings.Count(f.log.String(), "_hidden"); n != 1 {
			t.Errorf("the text was logged %d times: %s", n, f.log)
		}
		for i := range 80 { // an attacker can't lock out all users
			f.guesses(1, "", fmt.Sprintf("nobody%d@example.com", i))
		}
		noError(t, f.try("", "bob@example.com", bob["password"]))
	})
}

func caseColleague(t *testing.T) {
	forEachThrottle(t, func(t *testing.T, f *fixture[user], advance func(time.Duration)) {
		noError(t, f.try(attacker, "alice@example.com", right)) // her network is now known
		bobs := newBrowser(chrome130)
		f.handle(bobs, func(w http.ResponseWriter, r *http.Request) {
			r.RemoteAddr = attacker
			if _, err := logIn(f.auth, w, r, bob); err != nil {
				t.Error(err)
			}
		})
		for i := range 60 {
			f.guesses(1, attacker, fmt.Sprintf("nobody%d@example.com", i))
		}
		wantError(t, f.try(attacker, "carol@example.com", "wrong"), ErrTooManyAttempts)
		noError(t, f.try(attacker, "alice@example.com", right))
		// Alice has no more attempts than others.
		if n := f.guesses(10, attacker, "alice@example.com"); n != 5 {
			t.Errorf("%d guesses", n)
		}
		// An attacker at Bob's address does not have his cookie.
		if n := f.guesses(10, attacker, "bob@example.com"); n != 5 {
			t.Errorf("%d guesses", n)
		}
		wantError(t, f.try(attacker, "bob@example.com", bob["password"]), ErrTooManyAttempts)
		f.handle(bobs, func(w http.ResponseWriter, r *http.Request) {
			r.RemoteAddr = attacker
			if _, err := logIn(f.auth, w, r, bob); err != nil {
				t.Error(err)
			}
		})
	})
}

func caseRegistrations(t *testing.T) {
	forEachThrottle(t, func(t *testing.T, f *fixture[user], _ func(time.Duration)) {
		release := f.holdPasswords(f.auth.cfg.Timeout) // no password can be hashed
		register := func(address, email string) error {
			r := httptest.NewRequest("POST", "/register", nil)
			r.RemoteAddr = address
			_, err := register(f.auth, httptest.NewRecorder(), r, Fields{"email": email, "password": "a password"}, formOptions{Columns: []string{"email"}})
			return err
		}
		var taken, throttled atomic.Int64
		var wg sync.WaitGroup
		for range 160 {
			wg.Go(func() {
				switch err := register(attacker, "alice@example.com"); {
				case errors.Is(err, ErrDuplicate):
					taken.Add(1)
				case errors.Is(err, ErrTooManyAttempts):
					throttled.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if taken.Load() != 50 || throttled.Load() != 110 {
			t.Errorf("%d taken, %d throttled", taken.Load(), throttled.Load())
		}
		release()
		for i := range 30 {
			noError(t, f.try(fmt.Sprintf("198.51.100.%d:1", i), "alice@example.com", right))
		}
		wantError(t, register(attacker, "new@example.com"), ErrTooManyAttempts)
		noError(t, register(owner, "new@example.com"))
	})
}

func casePlaces(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{Throttle: throttle.NewMemory(), Timeout: 5 * time.Second})
	release := f.holdPasswords(f.auth.cfg.Timeout)
	ctx, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	flood := func(i int, address string) {
		wg.Go(func() {
			r := httptest.NewRequestWithContext(ctx, "POST", "/", nil)
			r.RemoteAddr = address
			logIn(f.auth, httptest.NewRecorder(), r, Credentials{"email": fmt.Sprintf("nobody%d@example.com", i), "password": "wrong"})
		})
	}
	for i := range 100 {
		flood(i, fmt.Sprintf("[2001:db8:7:%x::1]:1", i))
	}
	present := func() int {
		f.auth.places.mu.Lock()
		defer f.auth.places.mu.Unlock()
		if n := f.auth.places.byNetwork["2001:db8:7::/48"]; n != nil {
			return n.present
		}
		return 0
	}
	waitUntil(t, func() bool { return present() == 100 })
	release()
	noError(t, f.try(owner, "alice@example.com", right))
	leave()
	wg.Wait()
	if n := present(); n != 0 {
		t.Errorf("%d have a place", n)
	}
	// Beyond the limit the network is busy, which is no database failure.
	var p places
	full, timeout := context.WithCancel(t.Context())
	timeout()
	for range 4 * max(1, runtime.GOMAXPROCS(0)-1) {
		noError(t, errOnly(p.enter(t.Context(), "net")))
	}
	wantError(t, errOnly(p.enter(full, "net")), context.Canceled)
	p.byNetwork["net"].present = maxPresent
	err := f.auth.notReserved(errOnly(p.enter(t.Context(), "net")))
	wantError(t, err, ErrBusy)
	if errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	noError(t, errOnly(p.enter(t.Context(), "other")))
}
