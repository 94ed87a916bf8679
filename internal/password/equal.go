package password

import (
	"fmt"
	"strings"
	"time"
)

// maxEqualizedCost bounds the cost to which failures are equalized: about a
// quarter of a second. One costly hash must not slow down every failed login.
const maxEqualizedCost = 12

// matches reports whether hash matches password. Every failure does the same
// work: a bcrypt of the highest cost and a Legacy call with the slowest hash,
// for each form of the password.
func (h *Hasher) matches(hash []byte, password string) bool {
	forms := formsOf(password)
	usable := h.Usable(hash)
	cost, isBcrypt := bcryptCost(unpadded(hash))
	if usable && !isBcrypt {
		if h.matchesLegacy(string(hash), password, forms) {
			return true // hashing it anew takes as long as a comparison
		}
	}
	if !usable || !isBcrypt {
		for _, form := range forms {
			h.fail(form)
		}
		if !usable {
			h.failLegacy(forms)
		}
		return false
	}
	h.noteCost(cost)
	for _, form := range forms {
		if h.matchesBcrypt(unpadded(hash), cost, form) {
			return true
		}
	}
	for _, form := range forms {
		h.equalize(cost, form)
	}
	h.failLegacy(forms)
	return false
}

// matchesBcrypt reports whether a bcrypt hash matches password, and measures
// the duration of a round.
func (h *Hasher) matchesBcrypt(hash []byte, cost int, password string) bool {
	start := time.Now()
	err := h.compare(hash, []byte(password))
	measured := int64(time.Since(start)) >> cost
	h.perRound.Store((3*h.perRound.Load() + max(1, measured)) / 4)
	return err == nil
}

// durationOf estimates the duration of a bcrypt of the given cost.
func (h *Hasher) durationOf(cost int) time.Duration {
	return time.Duration(h.perRound.Load()) << cost
}

// noteCost records that a user has a hash of this cost.
func (h *Hasher) noteCost(cost int) {
	equalized := int64(min(cost, h.maxEqualized()))
	for seen := h.maxSeenCost.Load(); equalized > seen && !h.maxSeenCost.CompareAndSwap(seen, equalized); {
		seen = h.maxSeenCost.Load()
	}
}

// maxEqualized returns the bcrypt cost up to which failures take the same time.
func (h *Hasher) maxEqualized() int { return max(maxEqualizedCost, h.cost) }

// fail takes as long as a comparison with a hash of the highest cost.
func (h *Hasher) fail(password string) {
	highest := int(h.maxSeenCost.Load())
	h.matchesBcrypt(dummy(highest), highest, password)
}

// equalize does the rest of the work after a comparison at a lower cost. Each
// cost step doubles the work, so one comparison at each cost from this one to
// the highest minus one adds up to it.
func (h *Hasher) equalize(cost int, password string) {
	for ; cost < int(h.maxSeenCost.Load()); cost++ {
		h.matchesBcrypt(dummy(cost), cost, password)
	}
}

// dummy returns a well-formed hash of the given cost that no password matches.
// A comparison takes the full time and fails. The salt and the digest are 53
// characters of bcrypt's base64.
func dummy(cost int) []byte {
	return fmt.Appendf(nil, "$2a$%02d$%s", cost, strings.Repeat(".", 53))
}
