package session

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/candysession/session/internal/password"
	"github.com/candysession/session/internal/token"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/text/unicode/norm"
)

// The cases of password hashes, of bcrypt under load and of fingerprints.
var (
	passwordCasesB = []testCase{
		{"B6_one_browser_in_other_words", caseB6},
		{"B6_media_players", caseB6Players},
		{"B10_forms_of_a_password", caseB10},
	}
	passwordCasesC = []testCase{
		{"C6_a_turn_within_the_timeout", caseC6},
		{"C8_too_many_at_one_time", caseC8Busy},
		{"C9_OnEvent_panics", caseC9},
		{"C7_texts_that_look_like_bcrypt", caseC7},
		{"C10_hashes_of_another_library", caseC10},
		{"C10_bcrypt_of_other_costs", caseC10Costs},
	}
)

// Whatever the password column contains, a wrong password costs the same rounds
// of bcrypt as for an unknown user.
func caseC7(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{PasswordCost: 5})
	rounds := f.countRounds()
	good := hashOf("right")
	mustExec(t, f.db, "ALTER TABLE users MODIFY password VARBINARY(255)")
	try := func(stored, password string, want error) {
		t.Helper()
		mustExec(t, f.db, "UPDATE users SET password = ? WHERE id = 1", []byte(stored))
		*rounds = 0
		if err := f.try(owner, "alice@example.com", password); err != want {
			t.Errorf("%q: %v, want %v", stored, err, want)
		}
		if want != nil && *rounds != 1<<5 {
			t.Errorf("%q: %d rounds, want %d", stored, *rounds, 1<<5)
		}
	}
	for _, stored := range []string{
		"", " ", "!", "*", "\x00", good, "!" + good, " " + good, good + "!", good + good, good[:59], good[:58],
		"$2a$10$*DISABLED*", "$2a$10$*DISABLED*" + strings.Repeat("x", 43), "$2a$10$" + strings.Repeat("*", 53),
		"$2a$05$" + strings.Repeat(".", 52) + "=", "$2a$05$é" + strings.Repeat(".", 51), "$2a$05$" + strings.Repeat("\n", 53),
		"$2a$99$" + good[7:], "$2a$00$" + good[7:], "$2a$03$" + good[7:], "$2a$31$" + good[7:], "$2a$+5$" + good[7:], "$2a$5$" + good[7:], "$2a$-5$" + good[7:],
		"$2a$04" + good[6:7] + "-" + good[8:], "$2x$" + good[4:], "$2z$" + good[4:], "$2$" + good[4:], "$1a$" + good[4:], "$3a$" + good[4:], "$2a$05#" + good[7:],
	} {
		try(stored, "wrong", ErrInvalidCredentials)
	}
	for _, stored := range []string{good + "!", good + good, "!" + good, good[:59]} {
		try(stored, "right", ErrInvalidCredentials)
	}
	for _, stored := range []string{good, good + "    ", good + "\x00\x00", good + "\n", "$2b" + good[3:], "$2y" + good[3:]} {
		try(stored, "right", nil)
		f.waitForPurge()
	}
}

// Passwords in different Unicode normalization forms are equal. Hashes that
// other programs made of another form are accepted, and replaced.
func caseB10(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{PasswordCost: 4})
	rounds := f.countRounds()
	stored := func() string { return get[string](t, f.db, "SELECT password FROM users WHERE id = 1") }
	store := func(hash string) { mustExec(t, f.db, "UPDATE users SET password = ? WHERE id = 1", hash) }
	try := func(password string, want error) {
		t.Helper()
		if err := f.try(owner, "alice@example.com", password); err != want {
			t.Errorf("%+q: %v, want %v", password, err, want)
		}
		f.waitForPurge()
	}
	for _, forms := range [][]string{
		{"caf\u00e9", "cafe\u0301"}, // e with an acute accent
		{"\uac00", "\u1100\u1161"},  // Hangul
		// The angstrom sign.
		{"\u00c5ngstr\u00f6m", "A\u030angstro\u0308m", "\u212bngstr\u00f6m", "\u212bngstro\u0308m"},
		{"q\u0323\u0307", "q\u0307\u0323"}, // marks in another order
		{"\u304c", "\u304b\u3099"},         // kana with a voicing mark
	} {
		for _, first := range forms {
			hash, err := f.auth.HashPassword(t.Context(), first)
			noError(t, err)
			store(hash)
			for _, typed := range forms {
				try(typed, nil)
			}
			if stored() != hash {
				t.Errorf("%+q: the hash was replaced", first)
			}
		}
		nfc, nfd := forms[0], norm.NFD.String(forms[0])
		for _, before := range []string{nfc, nfd} { // hashes from before normalization
			for _, typed := range forms {
				old := hashOf(before)
				store(old)
				try(typed, nil)
				if bcrypt.CompareHashAndPassword([]byte(stored()), []byte(nfc)) != nil || (stored() == old) != (before == nfc) {
					t.Errorf("%+q, hashed as %+q: replaced %v", typed, before, stored() != old)
				}
			}
		}
	}
	// The password as typed is accepted too. No other forms are equal.
	store(hashOf("\u212bngstr\u00f6m"))
	try("\u212bngstr\u00f6m", nil)
	store(hashOf("\xffcafe\u0301"))
	try("\xffcaf\u00e9", ErrInvalidCredentials)
	try("\xffcafe\u0301", nil)
	store(hashOf("fine"))
	try("\ufb01ne", ErrInvalidCredentials)
	try("\uff46ine", ErrInvalidCredentials)

	// The length limit applies to the normalized password.
	_, err := f.auth.HashPassword(t.Context(), strings.Repeat("e\u0301", 36))
	noError(t, err)
	_, err = f.auth.HashPassword(t.Context(), strings.Repeat("e\u0301", 37))
	wantError(t, err, ErrPasswordTooLong)

	// The work for a rejection depends on the password as typed, and not on the
	// account.
	for typed, forms := range map[string]int{"cafe": 1, "caf\u00e9": 2, "cafe\u0301": 2, "\u212bo\u0308": 3} {
		*rounds = 0
		wantError(t, f.try(owner, "nobody@example.com", typed), ErrInvalidCredentials)
		want := *rounds
		if want != forms<<4 {
			t.Errorf("%+q: %d rounds for an unknown user", typed, want)
		}
		for _, hash := range []string{hashOf("another"), "", "md5"} {
			store(hash)
			*rounds = 0
			try(typed, ErrInvalidCredentials)
			if *rounds != want {
				t.Errorf("%+q: %d rounds, want %d", typed, *rounds, want)
			}
		}
	}

	// Register and SetPassword hash the same form.
	b := newBrowser("")
	f.login(b, bob)
	f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		noError(t, f.auth.SetPassword(w, r, bob["password"], "cafe\u0301"))
		_, err := register(f.auth, w, r, Fields{"email": "carol@example.com", "password": "cafe\u0301"}, formOptions{Columns: []string{"email"}, NoLogin: true})
		noError(t, err)
	})
	for _, id := range []int{2, 3} {
		hash := get[string](t, f.db, "SELECT password FROM users WHERE id = ?", id)
		noError(t, bcrypt.CompareHashAndPassword([]byte(hash), []byte("caf\u00e9")))
	}
}

// A password that does not get a slot within Config.Timeout is rejected without
// work.
func caseC6(t *testing.T) {
	t.Parallel()
	var events eventLog
	f := setup(t, Config{Timeout: time.Minute, OnEvent: events.add})
	b := newBrowser("")
	f.login(b, bob)
	calls := map[string]func() error{
		"Login":        func() error { return f.try(owner, "alice@example.com", right) },
		"HashPassword": func() error { _, err := f.auth.HashPassword(t.Context(), "a password"); return err },
		"Register": func() (err error) {
			_, err = register(f.auth, httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil), Fields{"email": "carol@example.com", "password": "a password"}, formOptions{Columns: []string{"email"}})
			return err
		},
		"SetPassword": func() (err error) {
			f.handle(b, func(w http.ResponseWriter, r *http.Request) {
				err = f.auth.SetPassword(w, r, bob["password"], "a password")
			})
			return err
		},
	}
	wantBusy := func(what string) {
		t.Helper()
		for name, call := range calls {
			events.take()
			if err := call(); !errors.Is(err, ErrBusy) || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrInvalidCredentials) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
			if got := events.take(); !strings.HasPrefix(got, "busy ") {
				t.Errorf("%s, %s: %q", name, what, got)
			}
		}
	}
	passwords := f.auth.passwords
	release := f.holdPasswords(time.Millisecond)
	wantBusy("with too much work before it")
	release()
	release = f.holdPasswords(20 * time.Millisecond)
	wantBusy("with a turn that does not come")
	release()

	release = f.holdPasswords(time.Minute)
	canceled, cancel := context.WithCancel(t.Context())
	cancel() // the client disconnects
	for _, err := range []error{errOnly(f.auth.HashPassword(canceled, "a password")), errOnly(f.auth.matchesPassword(canceled, nil, "a password"))} {
		if !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrBusy) {
			t.Errorf("a canceled request: %v", err)
		}
	}
	release()

	f.auth.passwords = passwords
	for _, name := range []string{"Login", "HashPassword", "Register", "SetPassword"} {
		noError(t, calls[name]())
	}
}

// With VerifyPassword, a rejection costs the same work for every kind of hash,
// from the first login on.
func caseC10(t *testing.T) {
	t.Parallel()
	const scrypt, argon = "scrypt:32768:8:1$salt$0011", "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsg"
	f := setup(t, Config{VerifyPassword: md5Hex})
	for email, stored := range map[string]string{"old": scrypt, "older": argon, "oldest": strings.Repeat("0", 32), "broken": "$2a$10$*DISABLED*", "none": ""} {
		mustExec(t, f.db, "INSERT INTO users (email, password) VALUES (?, ?)", email+"@example.com", stored)
	}
	restarted := newManager[user](t, f.db, f.dsn, Config{VerifyPassword: md5Hex})
	for _, f := range []*fixture[user]{f, restarted} {
		var rounds, argons int
		o := f.auth.passwordOptions()
		o.Compare = countingCompare(&rounds)
		o.Legacy = func(stored, plain string) bool {
			begun := time.Now()
			wait := map[string]time.Duration{argon: 40 * time.Millisecond}[stored]
			for time.Since(begun) < wait { // busy
			}
			if stored == argon {
				argons++
			}
			return stored == scrypt && plain == "right"
		}
		f.auth.passwords = password.New(o)
		first := true
		for _, email := range []string{"nobody", "alice", "bob", "old", "older", "oldest", "broken", "none"} {
			for range 2 {
				rounds, argons = 0, 0
				if err := f.try(owner, email+"@example.com", "wrong"); err != ErrInvalidCredentials {
					t.Errorf("%s: %v", email, err)
				}
				if first {
					argons -= 2 // the cost of the sample
					first = false
				}
				if rounds != 1<<4 || argons != 1 {
					t.Errorf("%s: %d rounds of bcrypt and %d of the slowest, want 16 and 1", email, rounds, argons)
				}
			}
		}
		noError(t, f.try(owner, "old@example.com", "right"))
		f.waitForPurge()
		mustExec(t, f.db, "UPDATE users SET password = ? WHERE email = 'old@example.com'", scrypt)
	}
}

// The first wrong password does not reveal a user whose hash has another cost.
func caseC10Costs(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{PasswordCost: 4})
	costs := map[string]int{"alice": 4, "nobody": 0, "carol": 5, "dave": 7, "erin": 14, "old": 15}
	for name, cost := range costs {
		if cost > 4 {
			mustExec(t, f.db, "INSERT INTO users (email, password) VALUES (?, ?)", name+"@example.com", dummyHash(cost))
		}
	}
	const maxEqualizedCost = 12 // as in internal/password
	for highest, names := range map[int][]string{7: {"alice", "nobody", "carol", "dave"}, maxEqualizedCost: {"alice", "nobody", "carol", "dave"}} {
		if highest == 7 {
			mustExec(t, f.db, "UPDATE users SET password = NULL WHERE email IN ('erin@example.com', 'old@example.com')")
		} else {
			mustExec(t, f.db, "UPDATE users SET password = ? WHERE email = 'erin@example.com'", dummyHash(14))
		}
		for _, name := range names {
			after := newManager[user](t, f.db, f.dsn, Config{PasswordCost: 4}) // a restarted app
			rounds := 0
			o := after.auth.passwordOptions()
			o.Compare = func(hash, _ []byte) error {
				cost, _ := bcrypt.Cost(hash)
				rounds += 1 << cost
				return bcrypt.ErrMismatchedHashAndPassword
			}
			after.auth.passwords = password.New(o)
			if err := after.try(owner, name+"@example.com", "wrong"); err != ErrInvalidCredentials || rounds != 1<<highest {
				t.Errorf("%s: %v after %d rounds, want %d", name, err, rounds, 1<<highest)
			}
		}
	}
}

// dummyHash returns a bcrypt hash that no password matches.
func dummyHash(cost int) string { return fmt.Sprintf("$2a$%02d$%s", cost, strings.Repeat(".", 53)) }

// Changes of the User-Agent that keep the browser, and changes that do not.
func caseB6(t *testing.T) {
	t.Parallel()
	const (
		iphone   = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
		android  = "Mozilla/5.0 (Linux; Android 15; SM-S928B Build/AP3A.240905.015.A2; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/131.0.6778.39 Mobile Safari/537.36"
		wechat   = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 MicroMessenger/8.0.50(0x1800323c) NetType/WIFI Language/zh_CN"
		facebook = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 [FBAN/FBIOS;FBAV/485.1.0.45.110;FBBV/665337277;FBDV/iPhone15,2;FBMD/iPhone;FBSN/iOS;FBSV/18.5;FBSS/3;FBCR/T-Mobile US;FBID/phone;FBLC/en_US;FBOP/5]"
	)
	chrome := func(device, tail string) string {
		return "Mozilla/5.0 (" + device + ") AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 " + tail
	}
	firefoxOn := func(device string) string {
		return "Mozilla/5.0 (" + device + "; rv:128.0) Gecko/20100101 Firefox/128.0"
	}
	change := strings.NewReplacer("18_5", "19_0_1", "18.5", "19.0", "15E148", "17A200", "605.1.15", "620.2", "604.1", "620.2", "537.36", "540.1", "131.0.6778.39", "140.0.1.2", "131.0.0.0", "140.0.0.0",
		"128.0", "140.0", "Android 15", "Android 16", "AP3A.240905.015.A2", "BP1A.250505.005.B1", "8.0.50(0x1800323c)", "8.1.2(0x18010228)", "WIFI", "5G", "zh_CN", "en",
		"485.1.0.45.110", "501.0.0.60.108", "665337277", "70", "FBCR/T-Mobile US", "FBCR/Vodafone.de", "en_US", "de_DE", "FBOP/5", "FBOP/80", "130.0.2849.56", "140.0.1.2", "115.0.0.0", "120.0.0.0", "27.0", "28.1")
	browsers := []string{
		iphone, android, wechat, facebook,
		strings.Replace(iphone, "iPhone; CPU iPhone", "iPad; CPU", 1),
		strings.Replace(iphone, "Version/18.5", "CriOS/131.0.6778.39", 1), strings.Replace(iphone, "Version/18.5", "FxiOS/128.0", 1),
		strings.Replace(iphone, "Version/18.5", "EdgiOS/130.0.2849.56 Version/18.5", 1), strings.Replace(iphone, "Version/18.5", "GSA/317.0.634488990", 1),
		strings.Replace(facebook, "FBAN/FBIOS", "FBAN/MessengerForiOS", 1),
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
		chrome("Macintosh; Intel Mac OS X 10_15_7", "Safari/537.36"), chrome("Windows NT 10.0; Win64; x64", "Safari/537.36"), chrome("X11; Linux x86_64", "Safari/537.36"),
		chrome("X11; CrOS x86_64 14541.0.0", "Safari/537.36"), chrome("Windows NT 10.0; Win64; x64", "Safari/537.36 Edg/130.0.2849.56"), chrome("Windows NT 10.0; Win64; x64", "Safari/537.36 OPR/115.0.0.0"),
		chrome("Linux; Android 10; K", "Mobile Safari/537.36"), chrome("Linux; Android 10; K", "Safari/537.36"), chrome("Linux; Android 10; K", "Mobile Safari/537.36 EdgA/130.0.2849.56"),
		strings.Replace(chrome("Linux; Android 10; K", "Mobile Safari/537.36"), "Chrome/", "SamsungBrowser/27.0 Chrome/", 1),
		firefoxOn("Windows NT 10.0; Win64; x64"), firefoxOn("Macintosh; Intel Mac OS X 10.15"), firefoxOn("X11; Linux x86_64"), firefoxOn("Android 15; Mobile"),
		strings.Replace(android, "wv)", "wv)", 1) + " [FB_IAB/FB4A;FBAV/485.1.0.45.110;]",
		"Instagram 275.0.0.16.100 (iPhone13,2; iOS 18_5; en_US; en-US; scale=3.00; 1170x2532; 458229258)",
		"Instagram 275.0.0.27.98 Android (33/13; 420dpi; 1080x2148; samsung; SM-G991B; o1s; exynos2100; en_US; 458229237)",
	}
	for i, stored := range browsers {
		for k, current := range browsers {
			if got := FingerprintFamily.Match(fit(stored, maxBrowser), fit(change.Replace(current), maxBrowser)); got != (i == k) {
				t.Errorf("%s\n%s: %v", stored, change.Replace(current), got)
			}
		}
	}
	for _, same := range [][]string{
		{"MyApp v1.2.3", "MyApp v1.2.4", "MyApp v2", "MyApp v10.0.0-beta.4", "MyApp v3.0+77"},
		{"MyApp V1", "MyApp V2"},
		{"MyApp version 3", "MyApp version 3.1"},
		{"MyApp 1.2.3", "MyApp 1.2.3-beta.4", "MyApp 2"},
		{"MyApp/1.2.3 (build 77)", "MyApp/1.3 (build 78)"},
		{"MyApp (build:123)", "MyApp (build:1240)"},
		{"MyApp build#77", "MyApp build#78"}, {"MyApp build77", "MyApp build78"}, {"MyApp #77", "MyApp #78"},
		{"MyApp-1.2.3", "MyApp-1.10.0", "MyApp-2.0-rc1"}, {"MyApp1.2.3", "MyApp1.3"}, {"MyApp_v1.2.3", "MyApp_v1.2.4"},
		{"MyApp (1a2b3c4d)", "MyApp (f00dfeed0)"},
		{"MyApp/1 (version=1.2; os=ios 18)", "MyApp/1 (version=1.3; os=ios 19)"},
		{"MyApp/1 nt:WIFI", "MyApp/1 nt:4G", "MyApp/2 nt:LTE", "MyApp/2 nt:none", "MyApp/2 nt:EDGE"},
		{"MyApp/1 (nt: WIFI; iPhone)", "MyApp/1 (nt: 5G; iPhone)"},
		{"MyApp/1 NetType/WIFI", "MyApp/1 NetType/4G", "MyApp/1 NetType/NON_NETWORK"}, {"MyApp network=wifi", "MyApp network=cellular"},
		{"MyApp/1 (iPhone; WIFI)", "MyApp/1 (iPhone; 4G)", "MyApp/1 (iPhone; LTE)", "MyApp/1 (iPhone; Wi-Fi)"},
		{"MyApp/1 (carrier:T-Mobile US; iPhone)", "MyApp/1 (carrier:AT&T; iPhone)", "MyApp/1 (carrier:; iPhone)"},
		{"MyApp/1 (iPhone; iOS 18.5; en_US)", "MyApp/2 (iPhone; iOS 19; de-DE)"},
		{"MyApp/7 CFNetwork/1410.0.3 Darwin/22.6.0", "MyApp/8 CFNetwork/1568.100.1 Darwin/24.0.0"},
		{"Dalvik/2.1.0 (Linux; U; Android 13; Pixel 8 Build/TQ3A.230901.001)", "Dalvik/2.2.0 (Linux; U; Android 14; Pixel 8 Build/UP1A.231005.007)"},
		{chrome("Linux; Android 13; SM-G991B", "Mobile Safari/537.36"), chrome("Linux; Android 10; K", "Mobile Safari/537.36")},
	} {
		for _, a := range same {
			for _, b := range same {
				if !FingerprintFamily.Match(a, b) {
					t.Errorf("%q and %q: %q and %q", a, b, family(a), family(b))
				}
			}
		}
	}
	for _, other := range [][2]string{
		{"MyApp v1.2.3", "YourApp v1.2.3"}, {"MyApp v1.2.3", "MyApp"}, {"MyApp nt:WIFI", "YourApp nt:WIFI"}, {"MyApp (iPhone; WIFI)", "MyApp (iPad; WIFI)"},
		{chrome("Linux; Android 13; SM-G991B", "Mobile Safari/537.36"), chrome("Linux; Android 13; Pixel 8", "Mobile Safari/537.36")},
		{chrome("Linux; Android 13; SM-G991B", "Mobile Safari/537.36"), chrome("Linux; Android 10; K", "Safari/537.36")},
	} {
		if FingerprintFamily.Match(other[0], other[1]) || FingerprintFamily.Match(other[1], other[0]) {
			t.Errorf("%q is taken for %q", other[0], other[1])
		}
	}
}

// The media player of the browser's device is accepted with its cookies. The
// session keeps the browser.
func caseB6Players(t *testing.T) {
	t.Parallel()
	const (
		iphone  = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
		ipad    = "Mozilla/5.0 (iPad; CPU OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
		mac     = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15"
		macWith = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
		pixel   = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36"
	)
	onIPhone, onIPad, onMac := "AppleCoreMedia/1.0.0.22F76 (iPhone; U; CPU OS 18_5 like Mac OS X; en_us)", "AppleCoreMedia/1.0.0.22F76 (iPad; U; CPU OS 18_5 like Mac OS X; de_de)", "AppleCoreMedia/1.0.0.24F74 (Macintosh; U; Intel Mac OS X 10_15_7; en_us)"
	onAndroid := []string{"stagefright/1.2 (Linux;Android 10)", "ExoPlayerDemo/2.18 (Linux;Android 13) ExoPlayerLib/2.18.1", "MyApp/1.0 (Linux;Android 14) AndroidXMedia3/1.2.0"}
	f := setup(t, Config{})
	for _, test := range []struct {
		browser     string
		in, outside []string
	}{
		{iphone, []string{onIPhone, strings.Replace(onIPhone, "22F76", "23A100", 1)}, append([]string{onIPad, onMac, "AppleCoreMedia/1.0", "AppleCoreMedia/1.0.0.1 (Apple TV; U)"}, onAndroid...)},
		{strings.Replace(iphone, "Version/18.5", "CriOS/131.0.6778.39", 1), []string{onIPhone}, []string{onMac}},
		{ipad, []string{onIPad}, []string{onIPhone, onMac}},
		{mac, []string{onMac, onIPad}, append([]string{onIPhone}, onAndroid...)},
		{macWith, nil, []string{onMac, onIPhone}},
		{firefox, nil, append([]string{onMac, onIPhone}, onAndroid...)},
		{pixel, onAndroid, []string{onIPhone, onMac}},
		{onIPhone, nil, []string{iphone}},
	} {
		b := newBrowser(test.browser)
		f.login(b, alice)
		for _, player := range test.in {
			f.age(25 * time.Hour)
			b.userAgent = player
			f.wantLoggedIn(b)
		}
		for _, other := range test.outside {
			b.userAgent = other
			f.wantRejected(b, ErrFingerprintMismatch)
		}
		b.userAgent = test.browser
		f.wantLoggedIn(b)
		if stored := get[string](t, f.db, "SELECT browser FROM user_tokens WHERE token_x = ?", selectorOf(b)); stored != test.browser {
			t.Errorf("%q is stored of %q", stored, test.browser)
		}
		f.waitForPurge()
		mustExec(t, f.db, "DELETE FROM user_tokens")
	}
	// The other fingerprints are unchanged.
	if FingerprintExact.Match(iphone, onIPhone) || fingerprintCandyPack.Match(iphone, onIPhone) || !FingerprintOff.Match(iphone, onIPhone) {
		t.Error("exact is not exact, or off is not off")
	}
}

// newCandyToken returns a token like CandyPack's: only bcrypt can verify it.
func newCandyToken() token.Token {
	hexed := func() string { return hex.EncodeToString([]byte(rand.Text()[:16])) }
	return token.Token{Selector: hexed(), Verifier: hexed()}
}

// A token that gets no slot is not reported as unknown.
func caseC8Busy(t *testing.T) {
	t.Parallel()
	var events eventLog
	var failed error
	f := setup(t, Config{OnEvent: events.add, Fingerprint: FingerprintOff, OnError: func(w http.ResponseWriter, r *http.Request, err error) { failed = err }})
	f.login(newBrowser(""), alice)
	theirs := newCandyToken()
	hash, err := theirs.Hash(bcrypt.MinCost)
	noError(t, err)
	mustExec(t, f.db, "UPDATE user_tokens SET token_x = ?, token_y = ?", theirs.Selector, hash)
	release := f.holdComparisons(time.Millisecond)
	events.take()
	withToken(theirs).do(f.auth.Middleware(http.NotFoundHandler()), "GET", "/")
	if !errors.Is(failed, ErrBusy) || errors.Is(failed, ErrUnavailable) || errors.Is(failed, ErrUnknownSession) || !strings.HasPrefix(events.take(), "busy ") {
		t.Errorf("%v", failed)
	}
	release()
	f.auth.verifier = token.NewVerifier(token.Options{})
	f.wantLoggedIn(withToken(theirs))
}

// A panic in OnEvent is logged. It fails no call, and does not end the process
// in a background goroutine.
func caseC9(t *testing.T) {
	t.Parallel()
	panics := func(_ context.Context, e Event) {
		switch e.Kind {
		case EventPurged:
			panic("the alarm is broken")
		case EventLogin:
			panic(errors.New("the alarm is broken"))
		case EventRevoked:
			panic(nil)
		}
		var event *Event
		_ = event.Kind // a nil pointer
	}
	f := setup(t, Config{OnEvent: panics})
	expire := func() {
		mustExec(t, f.db, "UPDATE user_tokens SET active = FROM_UNIXTIME(UNIX_TIMESTAMP() - 31 * 86400)")
	}
	logged := func(kind EventKind) {
		t.Helper()
		if !strings.Contains(f.log.String(), "level=ERROR msg=\"session: Config.OnEvent panics\" event="+string(kind)) {
			t.Errorf("the panic at %s was not logged: %s", kind, f.log)
		}
	}
	b := newBrowser("")
	f.login(b, alice)
	logged(EventLogin)
	f.wantLoggedIn(b)
	f.waitForPurge()
	expire()
	f.auth.purge.start() // in the background
	f.waitForPurge()
	logged(EventPurged)
	if n := f.rows(); n != 0 {
		t.Errorf("%d rows after the purge", n)
	}
	f.login(b, alice)
	done := make(chan error)
	go func() { // as an app may start it
		_, err := f.auth.LogoutAll(context.Background(), 1)
		done <- err
	}()
	noError(t, <-done)
	logged(EventRevoked)
	wantError(t, f.try(owner, "alice@example.com", "wrong"), ErrInvalidCredentials)
	logged(EventLoginFailed)
	f.login(b, alice)
	f.waitForPurge()
	expire()
	if n, err := f.auth.Purge(t.Context()); n != 1 || err != nil {
		t.Errorf("Purge: %d, %v", n, err)
	}
}
