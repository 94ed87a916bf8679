package session

import (
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// The cases of password hashes, of bcrypt under load and of fingerprints.
var (
	passwordCasesB = []testCase{}
	passwordCasesC = []testCase{
		{"C7_texts_that_look_like_bcrypt", caseC7},
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
