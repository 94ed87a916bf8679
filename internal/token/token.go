// Package token creates, parses and verifies session tokens, and remembers the
// tokens that it has verified. It knows neither cookies nor the database.
package token

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"log/slog"

	"golang.org/x/crypto/bcrypt"
)

// A Token is a session credential. The selector identifies the row and is
// stored in plaintext; the verifier is the secret, of which only a bcrypt hash
// is stored. A leaked table therefore contains no usable token, and lookup
// timing reveals nothing about the verifier.
//
// The selector is a prefix of the verifier's SHA-256, so a made-up verifier for
// a known selector is rejected without a query or a bcrypt.
type Token struct {
	Selector string // 144 bits, in 24 characters
	Verifier string // 256 random bits, in 43 characters
}

// Accepted token sizes. Tokens of this library are unpadded base64url.
// CandyPack's selector and verifier have 32 hex digits each. bcrypt uses only
// the first 72 bytes of a verifier, so longer ones are not accepted.
const (
	selectorLen              = 24 // of this library's tokens, and of no other's
	minSelector, maxSelector = 22, 64
	minVerifier, maxVerifier = 32, 72
)

// MaxCost is the highest bcrypt cost of a hash that Verifies accepts.
const MaxCost = 14

// New creates a token.
func New() Token {
	random := make([]byte, 32)
	rand.Read(random) // never returns an error (crashes the program instead)
	verifier := base64.RawURLEncoding.EncodeToString(random)
	return Token{selectorFor(verifier), verifier}
}

// selectorFor returns the selector of a verifier.
func selectorFor(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])[:selectorLen]
}

// IsForged reports whether the verifier was made up: the selector has the form
// of this library's, and belongs to another verifier. CandyPack's selectors do
// not depend on their verifiers, so such a token is never reported.
func (t Token) IsForged() bool {
	return len(t.Selector) == selectorLen && t.Selector != selectorFor(t.Verifier)
}

// Parse returns the token with the given selector and verifier, as a client
// sent them, and reports whether they have the form of a token.
func Parse(selector, verifier string) (Token, bool) {
	ok := len(selector) >= minSelector && len(selector) <= maxSelector && isBase64URL(selector) &&
		len(verifier) >= minVerifier && len(verifier) <= maxVerifier && isBase64URL(verifier)
	if !ok {
		return Token{}, false
	}
	return Token{selector, verifier}, true
}

// isBase64URL reports whether s consists of characters of base64url.
func isBase64URL(s string) bool {
	for i := range len(s) {
		if !base64URL[s[i]] {
			return false
		}
	}
	return true
}

// base64URL reports, for each byte, whether it is a character of base64url.
var base64URL = func() (is [256]bool) {
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
		is[c] = true
	}
	return is
}()

// Hash returns the bcrypt hash of the verifier.
func (t Token) Hash(cost int) (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(t.Verifier), cost)
	return string(hash), err
}

// Verifies reports whether t has the selector and verifier of a row. Corrupt or
// planted rows (other selector, broken hash, excessive cost) do not match.
func (t Token) Verifies(selector, hash string) bool {
	if subtle.ConstantTimeCompare([]byte(t.Selector), []byte(selector)) == 0 {
		return false // the column's collation considers the two selectors equal
	}
	cost, err := bcrypt.Cost([]byte(hash))
	return err == nil && cost <= MaxCost && bcrypt.CompareHashAndPassword([]byte(hash), []byte(t.Verifier)) == nil
}

// String hides the token: it is a secret that no format verb may print.
func (Token) String() string { return "[session token]" }

// GoString implements [fmt.GoStringer].
func (Token) GoString() string { return "[session token]" }

// LogValue implements [slog.LogValuer].
func (Token) LogValue() slog.Value { return slog.StringValue("[session token]") }
