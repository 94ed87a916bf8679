package session

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/candysession/session/internal/store"
)

// row is what the table would hold of a token.
func (t token) row(tb testing.TB, cost int) *store.Record {
	tb.Helper()
	hash, err := t.hash(cost)
	noError(tb, err)
	return &store.Record{ID: 7, Selector: t.selector, Hash: hash}
}

func TestVerifierRemembers(t *testing.T) {
	t.Parallel()
	v := newVerifier()
	secret, stranger := newToken(), newToken()
	row := secret.row(t, bcrypt.MinCost)
	verify := func(secret token, r *store.Record, want, remembered bool) {
		t.Helper()
		if v.recall(v.of(secret)).of(r) != remembered {
			t.Errorf("remembered beforehand: %v", !remembered)
		}
		if ok, err := v.verify(t.Context(), secret, r); ok != want || err != nil {
			t.Errorf("%v, %v", ok, err)
		}
	}
	verify(secret, row, true, false)
	verify(secret, row, true, true)
	verify(token{secret.selector, stranger.verifier}, row, false, false)
	verify(token{secret.selector, stranger.verifier}, row, false, false)
	verify(token{stranger.selector, secret.verifier}, row, false, false)
	verify(secret, stranger.row(t, bcrypt.MinCost), false, false) // another selector
	verify(secret, secret.row(t, bcrypt.MinCost), true, false)    // another hash of the same
	moved := *row
	moved.ID = 8
	verify(secret, &moved, true, false) // another row with the same token
	verify(token{secret.selector, secret.verifier + "x"}, row, false, false)
	row.Hash = stranger.row(t, bcrypt.MinCost).Hash // the row has a new token
	verify(secret, row, false, false)
	if len(v.flights) != 0 {
		t.Errorf("%d flights are left", len(v.flights))
	}
}

func TestMemoIsBoundedAndForgetsTheOldest(t *testing.T) {
	t.Parallel()
	v := newVerifier()
	row := newToken().row(t, bcrypt.MinCost)
	key := func(i byte) memoKey { return memoKey{8: i + 1} } // all of one set
	for i := range byte(memoWays) {
		v.remember(key(i), row)
	}
	v.recall(key(0)) // used
	v.remember(key(memoWays), row)
	v.remember(key(0), row) // again, which takes no other place
	for i := range byte(memoWays + 1) {
		if remembered := v.recall(key(i)).of(row); remembered != (i != 1) {
			t.Errorf("key %d: remembered %v", i, remembered)
		}
	}
	v.forget(key(2))
	if v.recall(key(2)).of(row) || !v.recall(key(3)).of(row) {
		t.Error("forgot another, or not")
	}
	if v.recall(memoKey{}).of(&store.Record{}) {
		t.Error("an empty place is taken for a memory")
	}
}

// A hundred first checks of one session are one bcrypt.
func TestFirstChecksShareOneBcrypt(t *testing.T) {
	t.Parallel()
	v := newVerifier()
	secret := newToken()
	row := secret.row(t, bcrypt.MinCost)
	for range cap(v.slots) {
		v.slots <- struct{}{} // nobody can compare yet
	}
	first, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := v.verify(first, secret, row)
		failed <- err
	}()
	waitUntil(t, func() bool { v.mu.Lock(); defer v.mu.Unlock(); return len(v.flights) == 1 })
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if ok, err := v.verify(t.Context(), secret, row); !ok || err != nil {
				t.Errorf("%v, %v", ok, err)
			}
		})
	}
	// The one that was first gives up; another takes its place, and nobody else fails.
	cancel()
	wantError(t, <-failed, context.Canceled)
	waiting, cancelWaiting := context.WithCancel(t.Context())
	cancelWaiting()
	if _, err := v.verify(waiting, secret, row); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	v.mu.Lock()
	if len(v.flights) > 1 {
		t.Errorf("%d comparisons of one pair wait", len(v.flights))
	}
	v.mu.Unlock()
	for range cap(v.slots) {
		<-v.slots
	}
	wg.Wait()
}

// Strangers who make the processor busy with wrong verifiers wait for each other, not logins and known sessions for them.
func TestStrangersHoldUpNobody(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b := newBrowser("")
	f.login(b, alice)
	for range cap(f.auth.verifier.slots) {
		f.auth.verifier.slots <- struct{}{}
	}
	f.isIn(b)
	f.login(newBrowser(""), bob)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.auth.verifier.verify(ctx, token{selectorOf(b), newToken().verifier}, newToken().row(t, bcrypt.MinCost)); err != nil {
		t.Error("another selector needs no bcrypt: ", err)
	}
	row, err := f.auth.bySelector.Find(t.Context(), selectorOf(b), selectorOf(b))
	noError(t, err)
	if _, err := f.auth.verifier.verify(ctx, token{selectorOf(b), newToken().verifier}, &row.Record); !errors.Is(err, context.Canceled) {
		t.Errorf("a stranger did not wait: %v", err)
	}
	for range cap(f.auth.verifier.slots) {
		<-f.auth.verifier.slots
	}
	f.isOut(forger(b), ErrUnknownSession)
}

// waitUntil yields to others until something has come about.
func waitUntil(t testing.TB, done func() bool) {
	t.Helper()
	for !done() {
		if t.Context().Err() != nil {
			t.Fatal("it never came about")
		}
		runtime.Gosched()
	}
}

func BenchmarkVerify(b *testing.B) {
	v := newVerifier()
	secret := newToken()
	row := secret.row(b, bcrypt.MinCost)
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			secret.verifies(row)
		}
	})
	b.Run("remembered", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if ok, _ := v.verify(b.Context(), secret, row); !ok {
				b.Fatal("refused")
			}
		}
	})
}
