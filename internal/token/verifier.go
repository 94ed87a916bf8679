package token

import (
	"context"
	"errors"
	"runtime"
	"time"
)

// ErrBusy is returned when a comparison does not get its turn within the
// timeout.
var ErrBusy = errors.New("too busy to verify a token")

// A Row is the part of a row of the token table that a token is verified with.
type Row struct {
	ID       uint64
	Selector string
	Hash     string // of the verifier
}

// A Verifier verifies tokens against the hashes of their rows and remembers the
// tokens that matched, so that each process runs bcrypt once per session. The
// row is still read on every request, and a changed hash is verified again.
type Verifier struct {
	Memo
	calls   calls
	slots   *slots
	matches func(t Token, selector, hash string) bool
}

// Options configure a [Verifier].
type Options struct {
	// Slots is the number of concurrent comparisons. Zero means one for each
	// CPU, leaving one free.
	Slots int

	// Timeout is how long a comparison waits for its turn. Zero means forever.
	Timeout time.Duration

	// Matches compares a token with a row. Nil means [Token.Verifies]; tests
	// count or delay comparisons.
	Matches func(t Token, selector, hash string) bool
}

// NewVerifier returns a Verifier with an empty memo.
func NewVerifier(o Options) *Verifier {
	if o.Slots == 0 {
		o.Slots = max(1, runtime.GOMAXPROCS(0)-1)
	}
	if o.Matches == nil {
		o.Matches = Token.Verifies
	}
	return &Verifier{Memo: newMemo(), slots: newSlots(o.Slots, o.Timeout), matches: o.Matches}
}

// Verify reports whether t is the token of a row. It returns [ErrBusy] after
// the timeout, or the context's error.
func (v *Verifier) Verify(ctx context.Context, t Token, row Row) (bool, error) {
	if t.Selector != row.Selector {
		return false, nil
	}
	key := v.KeyFor(t)
	if v.Get(key).Matches(row) {
		return true, nil
	}
	return v.calls.do(ctx, callKey{key, row.Hash}, func() (bool, error) {
		return v.compare(ctx, key, t, row)
	})
}

// compare compares t with the hash of a row when it is the row's turn.
func (v *Verifier) compare(ctx context.Context, key Key, t Token, row Row) (bool, error) {
	if v.Get(key).Matches(row) {
		return true, nil // an earlier call has just ended
	}
	release, err := v.slots.acquire(ctx, row.Hash)
	if err != nil {
		return false, err
	}
	defer release()
	matches := v.matches(t, row.Selector, row.Hash)
	v.slots.record(row.Hash, matches)
	if matches {
		v.Put(key, row)
	}
	return matches, nil
}
