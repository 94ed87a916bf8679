package password

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// A legacyHash is a stored hash for Options.Legacy, and the duration of a call
// with it.
type legacyHash struct {
	text     string
	duration time.Duration
}

// maxKinds bounds the kinds of legacy hashes that are measured.
const maxKinds = 16

// learn reads the sample of stored hashes once, so that the first failure takes
// as long as all others. After an error the next password tries again.
func (h *Hasher) learn(ctx context.Context) {
	if h.sample == nil || h.learned.Load() {
		return
	}
	h.learning.Lock()
	defer h.learning.Unlock()
	if h.learned.Load() {
		return
	}
	stored, err := h.sample(ctx)
	if err != nil {
		return
	}
	kinds := map[string]bool{}
	for _, hash := range stored {
		if !h.Usable(hash) {
			continue
		}
		if cost, isBcrypt := bcryptCost(unpadded(hash)); isBcrypt {
			h.noteCost(cost)
			continue
		}
		kind := legacyKind(string(hash))
		if kinds[kind] || len(kinds) == maxKinds {
			continue
		}
		if len(kinds) == 0 {
			h.perRound.Store(int64(fasterOfTwo(func() { bcrypt.CompareHashAndPassword(dummy(6), nil) }) >> 6))
		}
		kinds[kind] = true
		h.noteLegacy(string(hash), fasterOfTwo(func() {
			defer func() { recover() }() // the hash is another user's
			h.legacy(string(hash), "a password")
		}))
	}
	h.learned.Store(true)
}

// matchesLegacy reports whether Legacy accepts the password, first as typed. If
// not, it has taken as long as with the slowest hash.
func (h *Hasher) matchesLegacy(stored, password string, forms []string) bool {
	start := time.Now()
	if h.legacy(stored, password) {
		return true
	}
	for _, form := range forms {
		if form != password && h.legacy(stored, form) {
			return true
		}
	}
	duration := time.Since(start) / time.Duration(len(forms))
	slowest := h.slowest.Load()
	switch {
	case slowest == nil:
		h.noteLegacy(stored, duration)
	case legacyKind(stored) == legacyKind(slowest.text): // it was the same work
	case duration > slowest.duration+slowest.duration/4:
		start = time.Now() // the CPU may have been busy
		h.legacy(slowest.text, password)
		if duration > time.Since(start)*5/4 {
			h.noteLegacy(stored, duration)
		}
	case duration < slowest.duration/4:
		h.failLegacy(forms)
	default:
		time.Sleep((slowest.duration - duration) * time.Duration(len(forms)))
	}
	return false
}

// failLegacy takes as long as Legacy with the slowest hash.
func (h *Hasher) failLegacy(forms []string) {
	slowest := h.slowest.Load()
	if slowest == nil {
		return
	}
	start := time.Now()
	for _, form := range forms {
		h.legacy(slowest.text, form)
	}
	duration := time.Since(start) / time.Duration(len(forms))
	h.slowest.CompareAndSwap(slowest, &legacyHash{slowest.text, (3*slowest.duration + duration) / 4})
}

// noteLegacy records the duration of a call of Legacy with a stored hash. It
// ignores a hash that takes much longer than the highest equalized bcrypt.
func (h *Hasher) noteLegacy(stored string, duration time.Duration) {
	bound := h.durationOf(h.maxEqualized())
	slowest := h.slowest.Load()
	if duration <= bound+bound/2 && (slowest == nil || duration > slowest.duration) {
		h.slowest.CompareAndSwap(slowest, &legacyHash{stored, duration})
	}
}

// fasterOfTwo calls do twice and returns the shorter duration.
func fasterOfTwo(do func()) time.Duration {
	best := time.Duration(0)
	for try := range 2 {
		start := time.Now()
		do()
		if duration := time.Since(start); try == 0 || duration < best {
			best = duration
		}
	}
	return best
}

// legacyKind returns the part that hashes of one function with the same
// settings share: the text before the salt in $function$settings$salt$hash, a
// name in braces, or the length.
func legacyKind(stored string) string {
	if fields := strings.Split(stored, "$"); len(fields) > 2 {
		return strings.Join(fields[:len(fields)-2], "$")
	}
	name, _, _ := strings.Cut(stored, "}")
	if name == stored {
		name = ""
	}
	return fmt.Sprint(name, len(stored))
}
