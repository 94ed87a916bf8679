package session

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"log/slog"

	"golang.org/x/crypto/bcrypt"

	"github.com/candysession/session/internal/store"
)

// A token is what a browser holds of a session. The selector finds the row, in clear; the verifier proves the right
// to it, and only its bcrypt hash is stored: who reads the table cannot log in with it, and a look-up by selector
// gives no timing that helps to find the verifier.
//
// The selector is the beginning of the verifier's SHA-256. So a verifier that somebody makes up for a selector, which
// he may have from the table, is found out before anything is looked up or computed.
type token struct {
	selector string // 144 bits, in 24 characters
	verifier string // 256 random bits, in 43 characters
}

// What a token may look like. Ours are unpadded base64url; CandyPack's, 32 hex digits each, pass too. bcrypt reads no
// more than 72 bytes, so a longer verifier would be cut silently.
const (
	ownSelector              = 24 // characters, which only ours has
	minSelector, maxSelector = 22, 64
	minVerifier, maxVerifier = 32, 72
)

func newToken() token {
	random := make([]byte, 32)
	rand.Read(random) // never fails: it ends the program where the system has no randomness
	verifier := base64.RawURLEncoding.EncodeToString(random)
	return token{ownSelectorOf(verifier), verifier}
}

func ownSelectorOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])[:ownSelector]
}

// forged reports whether the verifier was made up: the selector is one of ours, and of another. Of CandyPack's tokens
// only bcrypt knows.
func (t token) forged() bool {
	return len(t.selector) == ownSelector && t.selector != ownSelectorOf(t.verifier)
}

// parseToken takes the two halves as a browser sent them.
func parseToken(selector, verifier string) (token, bool) {
	ok := len(selector) >= minSelector && len(selector) <= maxSelector && isBase64URL(selector) &&
		len(verifier) >= minVerifier && len(verifier) <= maxVerifier && isBase64URL(verifier)
	if !ok {
		return token{}, false
	}
	return token{selector, verifier}, true
}

func isBase64URL(s string) bool {
	for i := range len(s) {
		if !base64URL[s[i]] {
			return false
		}
	}
	return true
}

var base64URL = func() (is [256]bool) {
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
		is[c] = true
	}
	return is
}()

// hash is what the table keeps of the verifier.
func (t token) hash(cost int) (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(t.verifier), cost)
	return string(hash), err
}

// verifies reports whether the hash was made of this token's verifier. A row that no honest writer made (another
// selector, a broken hash, one of a cost that would burn a CPU) is no match.
func (t token) verifies(r *store.Record) bool {
	if subtle.ConstantTimeCompare([]byte(t.selector), []byte(r.Selector)) == 0 {
		return false // the column's collation took another text for equal
	}
	hash := []byte(r.Hash)
	cost, err := bcrypt.Cost(hash)
	return err == nil && cost <= maxTokenCost && bcrypt.CompareHashAndPassword(hash, []byte(t.verifier)) == nil
}

// A token is a secret: no format verb and no logger may show it.
func (token) String() string       { return "[session token]" }
func (token) GoString() string     { return "[session token]" }
func (token) LogValue() slog.Value { return slog.StringValue("[session token]") }
