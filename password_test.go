package session

import (
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// Every refusal does the same work, counted in rounds of bcrypt: a missing user, a wrong password for hashes of any cost
// up to the highest that was seen, and what is no hash at all.
func TestRefusalsDoTheSameWork(t *testing.T) {
	t.Parallel()
	for _, legacy := range []func(string, string) bool{nil, md5Hex} {
		p := newPasswords(6, legacy)
		rounds := 0
		p.compare = func(hash, password []byte) error {
			cost, err := bcrypt.Cost(hash)
			noError(t, err)
			rounds += 1 << cost
			return bcrypt.CompareHashAndPassword(hash, password)
		}
		hash := func(cost int) string {
			h, err := bcrypt.GenerateFromPassword([]byte("right"), cost)
			noError(t, err)
			return string(h)
		}
		stored := map[string]string{
			"no user": "", "plain text": "plain", "md5": strings.Repeat("0", 32), "half a hash": hash(4)[:40],
			"a planted cost": "$2a$31$" + hash(4)[7:], "cost 4": hash(4), "cost 5": hash(5), "cost 6": hash(6), "2b": "$2b" + hash(5)[3:],
		}
		want := 1 << 6
		for _, highest := range []string{"", hash(8)} {
			if highest != "" {
				p.matches([]byte(highest), "wrong") // somebody has a hash of this cost
				want = 1 << 8
			}
			for name, hash := range stored {
				rounds = 0
				if p.matches([]byte(hash), "wrong") {
					t.Errorf("%s: the wrong password passes", name)
				}
				if rounds != want {
					t.Errorf("%s: refused after %d rounds, want %d", name, rounds, want)
				}
			}
		}
	}
}
