package session

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/candysession/session/internal/password"
	"github.com/candysession/session/internal/token"
	"golang.org/x/crypto/bcrypt"
)

// countRounds replaces the password hasher with one that counts the rounds of
// bcrypt.
func (f *fixture[U]) countRounds() *int {
	rounds := new(int)
	o := f.auth.passwordOptions()
	o.Compare = countingCompare(rounds)
	f.auth.passwords = password.New(o)
	return rounds
}

// countingCompare compares with bcrypt, and counts the rounds that were
// executed.
func countingCompare(rounds *int) func(hash, plain []byte) error {
	return func(hash, plain []byte) error {
		err := bcrypt.CompareHashAndPassword(hash, plain)
		if err == nil || err == bcrypt.ErrMismatchedHashAndPassword {
			cost, _ := bcrypt.Cost(hash)
			*rounds += 1 << cost
		}
		return err
	}
}

// holdPasswords replaces the password hasher with one whose only slot is taken
// until release is called.
func (f *fixture[U]) holdPasswords(timeout time.Duration) (release func()) {
	f.t.Helper()
	var once sync.Once
	held, released := make(chan struct{}), make(chan struct{})
	o := f.auth.passwordOptions()
	o.Slots, o.Timeout = 1, timeout
	o.Compare = func(hash, plain []byte) error {
		once.Do(func() {
			close(held)
			<-released
		})
		return bcrypt.CompareHashAndPassword(hash, plain)
	}
	passwords := password.New(o)
	f.auth.passwords = passwords
	var holder sync.WaitGroup
	holder.Go(func() {
		if ok, err := passwords.Verify(f.t.Context(), nil, "wrong"); ok || err != nil {
			f.t.Errorf("%v, %v", ok, err)
		}
	})
	<-held
	return func() {
		close(released)
		holder.Wait()
	}
}

// holdComparisons replaces the verifier with one whose only slot is taken until
// release is called.
func (f *fixture[U]) holdComparisons(timeout time.Duration) (release func()) {
	f.t.Helper()
	other := token.New()
	held, released := make(chan struct{}), make(chan struct{})
	verifier := token.NewVerifier(token.Options{Slots: 1, Timeout: timeout, Matches: func(t token.Token, selector, hash string) bool {
		if t == other {
			close(held)
			<-released
		}
		return t.Verifies(selector, hash)
	}})
	f.auth.verifier = verifier
	var holder sync.WaitGroup
	holder.Go(func() {
		if ok, err := verifier.Verify(f.t.Context(), other, token.Row{ID: 1, Selector: other.Selector}); ok || err != nil {
			f.t.Errorf("%v, %v", ok, err)
		}
	})
	<-held
	return func() {
		close(released)
		holder.Wait()
	}
}

// Clients that keep the processor busy with wrong verifiers wait for each other.
// Logins and known sessions do not wait for them.
func TestUnknownTokensDoNotBlockKnownOnes(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	release := f.holdComparisons(0)
	b := newBrowser("")
	f.login(b, alice)
	f.wantLoggedIn(b)
	f.login(newBrowser(""), bob)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	wrong := token.Token{Selector: selectorOf(b), Verifier: token.New().Verifier}
	if _, err := f.auth.verifier.Verify(canceled, wrong, token.Row{ID: 1, Selector: token.New().Selector}); err != nil {
		t.Error("another selector needs no bcrypt: ", err)
	}
	row, err := f.auth.bySelector.Find(t.Context(), selectorOf(b), selectorOf(b))
	noError(t, err)
	if _, err := f.auth.verifier.Verify(canceled, wrong, tokenRow(&row.Record)); !errors.Is(err, context.Canceled) {
		t.Errorf("a wrong verifier did not wait: %v", err)
	}
	release()
	f.wantRejected(forgeToken(b), ErrUnknownSession)
}

// waitUntil yields to other goroutines until done reports true.
func waitUntil(t testing.TB, done func() bool) {
	t.Helper()
	for !done() {
		if t.Context().Err() != nil {
			t.Fatal("the test ended before")
		}
		runtime.Gosched()
	}
}
