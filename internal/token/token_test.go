package token

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// rowOf returns a row for t, with an ID of 7.
func rowOf(tb testing.TB, t Token, cost int) Row {
	tb.Helper()
	hash, err := t.Hash(cost)
	if err != nil {
		tb.Fatal(err)
	}
	return Row{ID: 7, Selector: t.Selector, Hash: hash}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 100 {
		token := New()
		if len(token.Selector) != 24 || len(token.Verifier) != 43 || seen[token.Selector] || seen[token.Verifier] {
			t.Fatal("a token is short or appears twice")
		}
		seen[token.Selector], seen[token.Verifier] = true, true
		if parsed, ok := Parse(token.Selector, token.Verifier); !ok || parsed != token || token.IsForged() {
			t.Fatal("a token does not parse, or is reported as forged")
		}
		if !(Token{token.Selector, New().Verifier}).IsForged() {
			t.Fatal("a made-up verifier is not reported as forged")
		}
	}
	token := New()
	for _, cost := range []int{4, 6} {
		hash := rowOf(t, token, cost).Hash
		if !token.Verifies(token.Selector, hash) {
			t.Error("a token does not verify")
		}
		if New().Verifies(token.Selector, hash) || (Token{token.Selector, New().Verifier}).Verifies(token.Selector, hash) {
			t.Error("another token verifies")
		}
		if token.Verifies(strings.ToUpper(token.Selector), hash) {
			t.Error("another selector verifies")
		}
	}
	costly := "$2a$31$" + rowOf(t, token, bcrypt.MinCost).Hash[7:]
	for _, hash := range []string{"", "x", costly, strings.Repeat("$", 60)} {
		start := time.Now()
		if token.Verifies(token.Selector, hash) || time.Since(start) > 10*time.Second {
			t.Errorf("%q verifies, or was computed", hash)
		}
	}
}

func FuzzParse(f *testing.F) {
	token := New()
	f.Add(token.Selector, token.Verifier)
	f.Add("f64ae64d052c1ab92a4e57c5b106b208", "2a9fe3d1f99066f3da0d7eb2ba6c1462")
	f.Add("", "\x00")
	f.Fuzz(func(t *testing.T, selector, verifier string) {
		token, ok := Parse(selector, verifier)
		if ok != (token.Selector == selector && token.Verifier == verifier && selector != "") {
			t.Fatal("neither the token nor nothing")
		}
		isOther := func(r rune) bool { return r > '~' || strings.ContainsRune(". =;\"\\", r) }
		if ok && (len(selector) > 64 || len(verifier) > 72 || strings.ContainsFunc(selector+verifier, isOther)) {
			t.Fatalf("%q, %q are accepted", selector, verifier)
		}
	})
}
