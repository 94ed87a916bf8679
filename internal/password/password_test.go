package password

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// hashOf returns the bcrypt hash of a password.
func hashOf(t *testing.T, password string, cost int) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

// md5Hex verifies hashes of an old program.
func md5Hex(stored, password string) bool {
	sum := md5.Sum([]byte(password))
	return stored == hex.EncodeToString(sum[:])
}

// Every failure does the same work, counted in rounds of bcrypt: for an unknown
// user, a wrong password for hashes of any cost up to the highest seen, and
// texts that are no hashes.
func TestRejectedLoginsDoTheSameWork(t *testing.T) {
	t.Parallel()
	for _, legacy := range []func(string, string) bool{nil, md5Hex} {
		rounds := 0
		h := New(Options{Cost: 6, Legacy: legacy, Compare: func(hash, password []byte) error {
			cost, err := bcrypt.Cost(hash)
			if err != nil {
				t.Error(err)
			}
			rounds += 1 << cost
			return bcrypt.CompareHashAndPassword(hash, password)
		}})
		hash := func(cost int) string { return hashOf(t, "right", cost) }
		stored := map[string]string{
			"no user": "", "plain text": "plain", "md5": strings.Repeat("0", 32), "half a hash": hash(4)[:40],
			"a planted cost": "$2a$31$" + hash(4)[7:], "cost 4": hash(4), "cost 5": hash(5), "cost 6": hash(6), "2b": "$2b" + hash(5)[3:],
		}
		want := 1 << 6
		for _, highest := range []string{"", hash(8)} {
			if highest != "" {
				h.matches([]byte(highest), "wrong") // a user has a hash of this cost
				want = 1 << 8
			}
			for name, hash := range stored {
				rounds = 0
				if ok, err := h.Verify(t.Context(), []byte(hash), "wrong"); ok || err != nil {
					t.Errorf("%s: the wrong password: %v, %v", name, ok, err)
				}
				if rounds != want {
					t.Errorf("%s: rejected after %d rounds, want %d", name, rounds, want)
				}
			}
		}
	}
	if limit := New(Options{Cost: 14}).maxEqualized(); limit != 14 {
		t.Errorf("cost 14: failures are equalized up to %d", limit)
	}
}

func TestUsable(t *testing.T) {
	t.Parallel()
	good := hashOf(t, "right", 4)
	for stored, want := range map[string][2]bool{
		good: {true, true}, good + " ": {true, true}, "": {}, "  ": {}, "$2a$17$" + good[7:]: {}, "$2a$10$*DISABLED*": {false, true}, "plain": {false, true},
	} {
		for i, legacy := range []func(string, string) bool{nil, md5Hex} {
			if got := New(Options{Cost: 4, Legacy: legacy}).Usable([]byte(stored)); got != want[i] {
				t.Errorf("%q, with Legacy %v: usable %v", stored, legacy != nil, got)
			}
		}
	}
}

// Passwords are hashed in one form, and Legacy is called with the password as
// typed first.
func TestForms(t *testing.T) {
	t.Parallel()
	for typed, want := range map[string][]string{
		"cafe":               {"cafe"},
		"caf\u00e9":          {"caf\u00e9", "cafe\u0301"},
		"cafe\u0301":         {"caf\u00e9", "cafe\u0301"},
		"\u212bo\u0308":      {"\u00c5\u00f6", "\u212bo\u0308", "A\u030ao\u0308"},
		"\xffcafe\u0301":     {"\xffcafe\u0301"},
		"\ufb01ne \uff46ine": {"\ufb01ne \uff46ine"},
	} {
		if forms := formsOf(typed); !slices.Equal(forms, want) || normalized(typed) != want[0] {
			t.Errorf("%+q: %+q", typed, forms)
		}
	}
	var calls []string
	h := New(Options{Cost: 4, Legacy: func(_, password string) bool { calls = append(calls, password); return false }})
	if ok, err := h.Verify(t.Context(), []byte("legacy"), "cafe\u0301"); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if !slices.Equal(calls, []string{"cafe\u0301", "caf\u00e9"}) {
		t.Errorf("Legacy was called with %+q", calls)
	}
	hash, err := h.Hash(t.Context(), strings.Repeat("e\u0301", 36))
	if err != nil || bcrypt.CompareHashAndPassword([]byte(hash), []byte(strings.Repeat("\u00e9", 36))) != nil {
		t.Errorf("72 bytes in normalized form: %v", err)
	}
	if _, err := h.Hash(t.Context(), strings.Repeat("e\u0301", 37)); err != ErrTooLong {
		t.Errorf("74 bytes: %v", err)
	}
}

// Upgraded does not wait for other passwords.
func TestUpgraded(t *testing.T) {
	t.Parallel()
	h := New(Options{Cost: 5, Slots: 1})
	for name, test := range map[string]struct {
		stored, password string
		want             bool
	}{
		"a lower cost": {hashOf(t, "right", 4), "right", true}, "another hash": {"legacy", "right", true}, "another form": {hashOf(t, "cafe\u0301", 5), "cafe\u0301", true},
		"the same cost": {hashOf(t, "right", 5), "right", false}, "a higher cost": {hashOf(t, "right", 6), "right", false}, "the normalized form": {hashOf(t, "caf\u00e9", 5), "cafe\u0301", false},
		"too long": {"legacy", strings.Repeat("x", 73), false},
	} {
		hash, err := h.Upgraded([]byte(test.stored), test.password)
		if (hash != "") != test.want || err != nil {
			t.Errorf("%s: %q, %v", name, hash, err)
		}
		if test.want && bcrypt.CompareHashAndPassword([]byte(hash), []byte(normalized(test.password))) != nil {
			t.Errorf("%s: a hash of another password", name)
		}
	}
	release := h.fill()
	if hash, err := h.Upgraded([]byte("legacy"), "right"); hash != "" || err != nil {
		t.Errorf("while other passwords are hashed: %q, %v", hash, err)
	}
	release()
}

// fill takes all slots, and returns a function that releases them.
func (h *Hasher) fill() (release func()) {
	for range cap(h.queue.slots) {
		h.queue.slots <- struct{}{}
	}
	return func() {
		for range cap(h.queue.slots) {
			<-h.queue.slots
		}
	}
}

// A password that does not get its turn within the timeout is rejected without
// work.
func TestBusy(t *testing.T) {
	t.Parallel()
	comparisons := 0
	h := New(Options{Cost: 4, Timeout: time.Minute, Compare: func(hash, password []byte) error {
		comparisons++
		return bcrypt.CompareHashAndPassword(hash, password)
	}})
	stored := []byte(hashOf(t, "right", 4))
	wantBusy := func(when string) {
		t.Helper()
		if _, err := h.Hash(t.Context(), "a password"); err != ErrBusy {
			t.Errorf("Hash %s: %v", when, err)
		}
		if _, err := h.Verify(t.Context(), stored, "right"); err != ErrBusy {
			t.Errorf("Verify %s: %v", when, err)
		}
	}
	long := int64(time.Minute+time.Second) * int64(cap(h.queue.slots))
	h.queue.work.Add(long)
	wantBusy("with too much work ahead")
	h.queue.work.Add(-long)

	release := h.fill()
	h.queue.timeout = time.Millisecond
	h.queue.work.Store(-int64(time.Hour)) // an estimate that is too low
	wantBusy("after the timeout")
	h.queue.work.Store(0)
	release()
	if comparisons != 0 {
		t.Errorf("%d comparisons", comparisons)
	}
	h.queue.timeout = time.Minute
	if _, err := h.Hash(t.Context(), "a password"); err != nil {
		t.Error(err)
	}
	if ok, err := h.Verify(t.Context(), stored, "right"); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if n := h.queue.work.Load(); n != 0 {
		t.Errorf("%d ns of work are left", n)
	}
	// The estimate follows the measured duration.
	before := h.perRound.Load()
	h.compare = func(_, _ []byte) error { h.perRound.Store(before); return nil }
	h.matchesBcrypt(nil, 16, "")
	if h.perRound.Load() >= before {
		t.Error("a quick comparison did not lower the estimate")
	}
}

// Concurrent logins wait for each other. Logins that would not get a slot
// within the timeout are rejected immediately.
func TestLoginsAreBounded(t *testing.T) {
	t.Parallel()
	h := New(Options{Cost: 4, Timeout: 5 * time.Second})
	stored := []byte(hashOf(t, "right", 4))
	h.perRound.Store(int64(time.Second) >> 4) // one login per second
	release := h.fill()
	ctx, cancel := context.WithCancel(t.Context())
	waiting := 5*cap(h.queue.slots) + 1
	results := make(chan error, waiting)
	for range waiting {
		go func() {
			_, err := h.Verify(ctx, stored, "right")
			results <- err
		}()
	}
	work := int64(waiting) * int64(h.durationOf(4))
	for h.queue.work.Load() != work && t.Context().Err() == nil {
		runtime.Gosched()
	}
	if _, err := h.Verify(t.Context(), stored, "right"); err != ErrBusy {
		t.Errorf("with a full queue: %v", err)
	}
	cancel() // the clients disconnect
	for range waiting {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	release()
	if ok, err := h.Verify(t.Context(), stored, "right"); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if n := h.queue.work.Load(); n != 0 {
		t.Errorf("%d ns of work are left in the queue", n)
	}
}
