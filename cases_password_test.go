package session

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/text/unicode/norm"
)

// The cases of password hashes, of bcrypt under load and of fingerprints.
var (
	passwordCasesB = []testCase{
		{"B10_forms_of_a_password", caseB10},
	}
	passwordCasesC = []testCase{
		{"C6_a_turn_within_the_timeout", caseC6},
		{"C7_texts_that_look_like_bcrypt", caseC7},
		{"C10_hashes_of_another_library", caseC10},
		{"C10_bcrypt_of_other_costs", caseC10Costs},
	}
)

// counted counts the rounds of bcrypt that were really done.
func (p *passwords) counted(rounds *int) {
	p.compare = func(hash, password []byte) error {
		err := bcrypt.CompareHashAndPassword(hash, password)
		if err == nil || err == bcrypt.ErrMismatchedHashAndPassword {
			cost, _ := bcrypt.Cost(hash)
			*rounds += 1 << cost
		}
		return err
	}
}

// Whatever stands in the password column, a wrong password costs the same
// rounds of bcrypt as that of nobody.
func caseC7(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{PasswordCost: 5})
	var rounds int
	f.auth.passwords.counted(&rounds)
	good := hashOf("right")
	mustExec(t, f.db, "ALTER TABLE users MODIFY password VARBINARY(255)")
	try := func(stored, password string, want error) {
		t.Helper()
		mustExec(t, f.db, "UPDATE users SET password = ? WHERE id = 1", []byte(stored))
		rounds = 0
		if err := f.try(owner, "alice@example.com", password); err != want {
			t.Errorf("%q: %v, want %v", stored, err, want)
		}
		if want != nil && rounds != 1<<5 {
			t.Errorf("%q: %d rounds, want %d", stored, rounds, 1<<5)
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
		f.purged()
	}
	for stored, want := range map[string][2]bool{
		good: {true, true}, good + " ": {true, true}, "": {}, "  ": {}, "$2a$17$" + good[7:]: {}, "$2a$10$*DISABLED*": {false, true}, "plain": {false, true},
	} {
		for i, legacy := range []func(string, string) bool{nil, md5Hex} {
			if got := newPasswords(4, legacy).usable([]byte(stored)); got != want[i] {
				t.Errorf("%q, with VerifyPassword %v: usable %v", stored, legacy != nil, got)
			}
		}
	}
}

// However a keyboard composes a password, it is the same one. Hashes that other
// programs made of another form are good, and are replaced.
func caseB10(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{PasswordCost: 4})
	var rounds int
	f.auth.passwords.counted(&rounds)
	stored := func() string { return get[string](t, f.db, "SELECT password FROM users WHERE id = 1") }
	store := func(hash string) { mustExec(t, f.db, "UPDATE users SET password = ? WHERE id = 1", hash) }
	try := func(password string, want error) {
		t.Helper()
		if err := f.try(owner, "alice@example.com", password); err != want {
			t.Errorf("%+q: %v, want %v", password, err, want)
		}
		f.purged()
	}
	for _, forms := range [][]string{
		{"caf\u00e9", "cafe\u0301"}, // e with acute
		{"\uac00", "\u1100\u1161"},  // Hangul
		{"\u00c5ngstr\u00f6m", "A\u030angstro\u0308m", "\u212bngstr\u00f6m", "\u212bngstro\u0308m"}, // the sign for angstrom
		{"q\u0323\u0307", "q\u0307\u0323"}, // the order of marks
		{"\u304c", "\u304b\u3099"},         // kana with a voice mark
	} {
		for _, first := range forms {
			hash, err := f.auth.HashPassword(first)
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
		for _, before := range []string{nfc, nfd} { // hashes of before
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
	// What was typed counts too, and no more is taken for equal than is.
	store(hashOf("\u212bngstr\u00f6m"))
	try("\u212bngstr\u00f6m", nil)
	store(hashOf("\xffcafe\u0301"))
	try("\xffcaf\u00e9", ErrInvalidCredentials)
	try("\xffcafe\u0301", nil)
	store(hashOf("fine"))
	try("\ufb01ne", ErrInvalidCredentials)
	try("\uff46ine", ErrInvalidCredentials)

	// The limit counts what is hashed.
	_, err := f.auth.HashPassword(strings.Repeat("e\u0301", 36))
	noError(t, err)
	_, err = f.auth.HashPassword(strings.Repeat("e\u0301", 37))
	wantError(t, err, ErrPasswordTooLong)

	// A refusal's work depends on what was typed, and not on the account.
	for _, typed := range []string{"cafe", "caf\u00e9", "cafe\u0301", "\u212bo\u0308"} {
		rounds = 0
		wantError(t, f.try(owner, "nobody@example.com", typed), ErrInvalidCredentials)
		want := rounds
		if want != len(formsOf(typed))<<4 {
			t.Errorf("%+q: %d rounds for nobody", typed, want)
		}
		for _, hash := range []string{hashOf("another"), "", "md5"} {
			store(hash)
			rounds = 0
			try(typed, ErrInvalidCredentials)
			if rounds != want {
				t.Errorf("%+q: %d rounds, want %d", typed, rounds, want)
			}
		}
	}

	// Register and SetPassword hash the same form, and VerifyPassword gets
	// what was typed first.
	b := newBrowser("")
	f.login(b, bob)
	f.inside(b, func(w http.ResponseWriter, r *http.Request) {
		noError(t, f.auth.SetPassword(w, r, bob["password"], "cafe\u0301"))
		_, err := f.auth.Register(w, r, Fields{"email": "carol@example.com", "password": "cafe\u0301"}, RegisterOptions{Columns: []string{"email"}, NoLogin: true})
		noError(t, err)
	})
	for _, id := range []int{2, 3} {
		hash := get[string](t, f.db, "SELECT password FROM users WHERE id = ?", id)
		noError(t, bcrypt.CompareHashAndPassword([]byte(hash), []byte("caf\u00e9")))
	}
	var asked []string
	p := newPasswords(4, func(_, password string) bool { asked = append(asked, password); return false })
	p.matches([]byte("legacy"), "cafe\u0301")
	if !slices.Equal(asked, []string{"cafe\u0301", "caf\u00e9"}) {
		t.Errorf("VerifyPassword was asked for %+q", asked)
	}
}

// A password whose turn does not come within Config.Timeout is refused, and
// costs nothing.
func caseC6(t *testing.T) {
	t.Parallel()
	var heard listener
	f := setup(t, Config{Timeout: time.Minute, OnEvent: heard.hear})
	b := newBrowser("")
	f.login(b, bob)
	p := f.auth.passwords
	calls := map[string]func() error{
		"Login":        func() error { return f.try(owner, "alice@example.com", right) },
		"HashPassword": func() error { _, err := f.auth.HashPassword("a password"); return err },
		"Register": func() (err error) {
			_, err = f.auth.Register(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil), Fields{"email": "carol@example.com", "password": "a password"}, RegisterOptions{Columns: []string{"email"}})
			return err
		},
		"SetPassword": func() (err error) {
			f.inside(b, func(w http.ResponseWriter, r *http.Request) {
				err = f.auth.SetPassword(w, r, bob["password"], "a password")
			})
			return err
		},
	}
	refused := func(what string) {
		t.Helper()
		for name, call := range calls {
			heard.said()
			if err := call(); !errors.Is(err, ErrBusy) || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrInvalidCredentials) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
			if said := heard.said(); !strings.HasPrefix(said, "busy ") {
				t.Errorf("%s, %s: %q", name, what, said)
			}
		}
	}
	p.compare = func(_, _ []byte) error { t.Error("it was compared"); return errors.New("no") }
	long := int64(time.Minute+time.Second) * int64(cap(p.slots))
	p.queued.Add(long)
	refused("with too much work before it")
	p.queued.Add(-long)

	for range cap(p.slots) {
		p.slots <- struct{}{}
	}
	p.timeout = time.Millisecond
	p.queued.Store(-int64(time.Hour)) // an estimate that was too low
	refused("with a turn that does not come")
	p.queued.Store(0)
	for range cap(p.slots) {
		<-p.slots
	}
	p.timeout, p.compare = time.Minute, bcrypt.CompareHashAndPassword
	for _, name := range []string{"Login", "HashPassword", "Register", "SetPassword"} {
		noError(t, calls[name]())
	}
	if n := p.queued.Load(); n != 0 {
		t.Errorf("%d ns of work are left", n)
	}
	// The estimate follows what passwords took.
	before := p.perRound.Load()
	p.compare = func(_, _ []byte) error { p.perRound.Store(before); return nil }
	p.compared(nil, 16, "")
	if p.perRound.Load() >= before {
		t.Error("a quick comparison did not lower the estimate")
	}
}

// Where VerifyPassword knows other hashes, a refusal is the same work whatever
// the account has: from the first on.
func caseC10(t *testing.T) {
	t.Parallel()
	const scrypt, argon = "scrypt:32768:8:1$salt$0011", "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsg"
	f := setup(t, Config{VerifyPassword: md5Hex})
	for email, stored := range map[string]string{"old": scrypt, "older": argon, "oldest": strings.Repeat("0", 32), "broken": "$2a$10$*DISABLED*", "none": ""} {
		mustExec(t, f.db, "INSERT INTO users (email, password) VALUES (?, ?)", email+"@example.com", stored)
	}
	again := manage[user](t, f.db, f.dsn, Config{VerifyPassword: md5Hex})
	for _, f := range []*fixture[user]{f, again} {
		p := f.auth.passwords
		var rounds, argons int
		p.counted(&rounds)
		p.perRound.Store(int64(time.Second)) // so that the limit is no matter
		p.legacy = func(stored, password string) bool {
			begun := time.Now()
			wait := map[string]time.Duration{argon: 40 * time.Millisecond}[stored]
			for time.Since(begun) < wait { // works
			}
			if stored == argon {
				argons++
			}
			return stored == scrypt && password == "right"
		}
		first := true
		for _, email := range []string{"nobody", "alice", "bob", "old", "older", "oldest", "broken", "none"} {
			for range 2 {
				rounds, argons = 0, 0
				if err := f.try(owner, email+"@example.com", "wrong"); err != ErrInvalidCredentials {
					t.Errorf("%s: %v", email, err)
				}
				if first {
					argons -= 2 // which the sample costs
					first = false
				}
				if rounds != 1<<4 || argons != 1 {
					t.Errorf("%s: %d rounds of bcrypt and %d of the slowest, want 16 and 1", email, rounds, argons)
				}
			}
		}
		noError(t, f.try(owner, "old@example.com", "right"))
		f.purged()
		mustExec(t, f.db, "UPDATE users SET password = ? WHERE email = 'old@example.com'", scrypt)
	}

	// Beyond the limit a text slows nobody, and one that panics harms nobody.
	p := newPasswords(4, func(stored, _ string) bool {
		if stored == "panics" {
			panic(stored)
		}
		return false
	})
	failing := true
	p.sample = func(context.Context) ([][]byte, error) {
		if failing {
			return nil, errors.New("no database")
		}
		return [][]byte{[]byte("panics"), []byte(argon), nil, []byte("$2a$06$" + strings.Repeat(".", 53))}, nil
	}
	p.learn(t.Context())
	if p.learned.Load() {
		t.Error("it has learned from a failure")
	}
	failing = false
	p.learn(t.Context())
	if !p.learned.Load() || p.highest.Load() != 6 {
		t.Errorf("it has learned %v, and cost %d", p.learned.Load(), p.highest.Load())
	}
	p.slowest.Store(nil)
	p.sawLegacy(argon, 2*p.takes(maxEqualized))
	if p.slowest.Load() != nil {
		t.Error("a text beyond the limit slows everyone")
	}
	for a, b := range map[string]string{
		"$argon2id$v=19$m=65536,t=3,p=4$YQ$Yg": "$argon2id$v=19$m=65536,t=3,p=4$Yg$YQ", "$6$ab$cd": "$6$ef$gh", "pbkdf2_sha256$600000$x$y": "pbkdf2_sha256$600000$z$y",
		"{SSHA}abcd": "{SSHA}efgh", strings.Repeat("0", 32): strings.Repeat("1", 32),
	} {
		if legacyKind(a) != legacyKind(b) || legacyKind(a) == legacyKind("$argon2id$v=19$m=65536,t=4,p=4$YQ$Yg") {
			t.Errorf("%s and %s: %q and %q", a, b, legacyKind(a), legacyKind(b))
		}
	}
}

// A user of another cost is not told by the first wrong password either.
func caseC10Costs(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{PasswordCost: 4})
	costs := map[string]int{"alice": 4, "nobody": 0, "carol": 5, "dave": 7, "erin": 14, "old": 15}
	for name, cost := range costs {
		if cost > 4 {
			mustExec(t, f.db, "INSERT INTO users (email, password) VALUES (?, ?)", name+"@example.com", string(dummy(cost)))
		}
	}
	for highest, names := range map[int][]string{7: {"alice", "nobody", "carol", "dave"}, maxEqualized: {"alice", "nobody", "carol", "dave"}} {
		if highest == 7 {
			mustExec(t, f.db, "UPDATE users SET password = NULL WHERE email IN ('erin@example.com', 'old@example.com')")
		} else {
			mustExec(t, f.db, "UPDATE users SET password = ? WHERE email = 'erin@example.com'", string(dummy(14)))
		}
		for _, name := range names {
			after := manage[user](t, f.db, f.dsn, Config{PasswordCost: 4}) // a start
			rounds := 0
			after.auth.passwords.compare = func(hash, _ []byte) error {
				cost, _ := bcrypt.Cost(hash)
				rounds += 1 << cost
				return bcrypt.ErrMismatchedHashAndPassword
			}
			if err := after.try(owner, name+"@example.com", "wrong"); err != ErrInvalidCredentials || rounds != 1<<highest {
				t.Errorf("%s: %v after %d rounds, want %d", name, err, rounds, 1<<highest)
			}
		}
	}
	if limit := newPasswords(14, nil).limit(); limit != 14 {
		t.Errorf("PasswordCost 14: the limit is %d", limit)
	}
}
