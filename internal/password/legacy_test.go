package password

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

const (
	scrypt = "scrypt:32768:8:1$salt$0011"
	argon  = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsg"
)

// The sample is read until it succeeds. A hash for which Legacy panics does not
// fail a login.
func TestLearn(t *testing.T) {
	t.Parallel()
	fails := true
	h := New(Options{
		Cost: 4,
		Legacy: func(stored, _ string) bool {
			if stored == "panics" {
				panic(stored)
			}
			return false
		},
		Sample: func(context.Context) ([][]byte, error) {
			if fails {
				return nil, errors.New("no database")
			}
			return [][]byte{[]byte("panics"), []byte(argon), nil, dummy(6)}, nil
		},
	})
	h.learn(t.Context())
	if h.learned.Load() {
		t.Error("a failure was taken for a sample")
	}
	fails = false
	h.learn(t.Context())
	if !h.learned.Load() || h.maxSeenCost.Load() != 6 {
		t.Errorf("learned %v, and cost %d", h.learned.Load(), h.maxSeenCost.Load())
	}
}

func TestSlowestLegacyHash(t *testing.T) {
	t.Parallel()
	h := New(Options{Cost: 4, Legacy: func(stored, _ string) bool {
		for start := time.Now(); stored == scrypt && time.Since(start) < 5*time.Millisecond; {
		}
		return false
	}})
	// A hash of another kind that takes longer is recorded when it is seen.
	h.slowest.Store(&legacyHash{strings.Repeat("0", 32), time.Nanosecond})
	h.perRound.Store(int64(time.Second))
	h.matches([]byte(scrypt), "wrong")
	if h.slowest.Load().text != scrypt {
		t.Error("the slower hash was not recorded")
	}
	// One beyond the limit is not.
	h.perRound.Store(int64(initialPerRound))
	h.slowest.Store(nil)
	h.noteLegacy(argon, 2*h.durationOf(maxEqualizedCost))
	if h.slowest.Load() != nil {
		t.Error("a hash beyond the limit slows down every failure")
	}
}

func TestLegacyKind(t *testing.T) {
	t.Parallel()
	for a, b := range map[string]string{
		"$argon2id$v=19$m=65536,t=3,p=4$YQ$Yg": "$argon2id$v=19$m=65536,t=3,p=4$Yg$YQ", "$6$ab$cd": "$6$ef$gh", "pbkdf2_sha256$600000$x$y": "pbkdf2_sha256$600000$z$y",
		"{SSHA}abcd": "{SSHA}efgh", strings.Repeat("0", 32): strings.Repeat("1", 32),
	} {
		if legacyKind(a) != legacyKind(b) || legacyKind(a) == legacyKind("$argon2id$v=19$m=65536,t=4,p=4$YQ$Yg") {
			t.Errorf("%s and %s: %q and %q", a, b, legacyKind(a), legacyKind(b))
		}
	}
}
