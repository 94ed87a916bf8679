package token

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

func TestVerifierRemembers(t *testing.T) {
	t.Parallel()
	v := NewVerifier(Options{})
	token, other := New(), New()
	row := rowOf(t, token, bcrypt.MinCost)
	verify := func(token Token, row Row, want, remembered bool) {
		t.Helper()
		if v.Get(v.KeyFor(token)).Matches(row) != remembered {
			t.Errorf("remembered before: %v", !remembered)
		}
		if ok, err := v.Verify(t.Context(), token, row); ok != want || err != nil {
			t.Errorf("%v, %v", ok, err)
		}
	}
	verify(token, row, true, false)
	verify(token, row, true, true)
	verify(Token{token.Selector, other.Verifier}, row, false, false)
	verify(Token{token.Selector, other.Verifier}, row, false, false)
	verify(Token{other.Selector, token.Verifier}, row, false, false)
	verify(token, rowOf(t, other, bcrypt.MinCost), false, false) // another selector
	verify(token, rowOf(t, token, bcrypt.MinCost), true, false)  // the same verifier, another hash
	moved := row
	moved.ID = 8
	verify(token, moved, true, false) // another row with the same token
	verify(Token{token.Selector, token.Verifier + "x"}, row, false, false)
	row.Hash = rowOf(t, other, bcrypt.MinCost).Hash // the row has a new token
	verify(token, row, false, false)
	v.checkIdle(t)
}

// A hundred concurrent first checks of one session share one bcrypt comparison.
func TestFirstChecksShareOneBcrypt(t *testing.T) {
	t.Parallel()
	comparisons := 0
	v := NewVerifier(Options{Matches: func(t Token, selector, hash string) bool {
		comparisons++
		return t.Verifies(selector, hash)
	}})
	token := New()
	row := rowOf(t, token, bcrypt.MinCost)
	release := v.fill() // no comparison can run yet
	first, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := v.Verify(first, token, row)
		failed <- err
	}()
	inFlight := func() int {
		v.calls.mu.Lock()
		defer v.calls.mu.Unlock()
		return len(v.calls.inFlight)
	}
	waitUntil(t, func() bool { return inFlight() == 1 })
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if ok, err := v.Verify(t.Context(), token, row); !ok || err != nil {
				t.Errorf("%v, %v", ok, err)
			}
		})
	}
	// The first request is canceled. Another one makes the call, and none fails.
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	canceled, cancelNow := context.WithCancel(t.Context())
	cancelNow()
	if _, err := v.Verify(canceled, token, row); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := inFlight(); n > 1 {
		t.Errorf("%d comparisons of one token are in flight", n)
	}
	release()
	wg.Wait()
	if comparisons != 1 {
		t.Errorf("%d comparisons", comparisons)
	}
	v.checkIdle(t)
}

// A comparison that does not get its turn within the timeout is busy, and so
// are the requests that share it.
func TestVerifierIsBusy(t *testing.T) {
	t.Parallel()
	v := NewVerifier(Options{Slots: 1, Timeout: time.Millisecond})
	token := New()
	row := rowOf(t, token, bcrypt.MinCost)
	release := v.fill()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if ok, err := v.Verify(t.Context(), token, row); ok || err != ErrBusy {
				t.Errorf("%v, %v", ok, err)
			}
		})
	}
	wg.Wait()
	release()
	v.checkIdle(t)
}

// newCandyToken returns a token like CandyPack's: only bcrypt can verify it.
func newCandyToken() Token {
	digits := func() string { return hex.EncodeToString([]byte(rand.Text()[:16])) }
	return Token{digits(), digits()}
}

// While attackers send wrong verifiers for one session, other clients need not
// wait for them.
func TestWrongVerifiersForOneSession(t *testing.T) {
	t.Parallel()
	v := NewVerifier(Options{})
	theirs, ours := newCandyToken(), newCandyToken()
	attacked, own := rowOf(t, theirs, bcrypt.MinCost), rowOf(t, ours, bcrypt.MinCost)
	wrong := func(int) (Token, Row) { return Token{theirs.Selector, newCandyToken().Verifier}, attacked }
	if left := v.overtake(t, 200, wrong, ours, own); left < 150 {
		t.Errorf("of 200 attackers all but %d came first", left)
	}
	if ok, err := v.Verify(t.Context(), theirs, attacked); !ok || err != nil {
		t.Errorf("the token of the attacked session: %v, %v", ok, err)
	}
}

// Wrong verifiers for many sessions take half of the slots.
func TestWrongVerifiersForManySessions(t *testing.T) {
	t.Parallel()
	v := NewVerifier(Options{})
	ours := newCandyToken()
	own := rowOf(t, ours, bcrypt.MinCost)
	var tokens []Token
	var rows []Row
	for range 100 {
		theirs := newCandyToken()
		row := rowOf(t, theirs, bcrypt.MinCost)
		wrong := Token{theirs.Selector, newCandyToken().Verifier}
		if ok, err := v.Verify(t.Context(), wrong, row); ok || err != nil {
			t.Errorf("a wrong verifier: %v, %v", ok, err)
		}
		tokens, rows = append(tokens, wrong), append(rows, row)
	}
	wrong := func(i int) (Token, Row) { return tokens[i], rows[i] }
	if left := v.overtake(t, 100, wrong, ours, own); left < 60 {
		t.Errorf("of 100 attackers all but %d came first", left)
	}
	// A row that then gets its own verifier is not limited any more.
	v.slots.record(own.Hash, false)
	v.Delete(v.KeyFor(ours))
	if ok, err := v.Verify(t.Context(), ours, own); !ok || err != nil || v.slots.isAttacked(own.Hash) || !v.slots.isAttacked(rows[0].Hash) {
		t.Errorf("%v, %v", ok, err)
	}
}

// overtake lets n attackers wait, then a client with the right token. It returns
// the number of attackers that wait when the client's token is verified.
func (v *Verifier) overtake(t *testing.T, n int, wrong func(int) (Token, Row), ours Token, own Row) (left int) {
	t.Helper()
	waiting := func() (n int) {
		v.slots.mu.Lock()
		defer v.slots.mu.Unlock()
		for _, row := range v.slots.rows {
			n += row.count
		}
		return n
	}
	release := v.fill()
	var attackers, owner sync.WaitGroup
	for i := range n {
		attackers.Go(func() {
			token, row := wrong(i)
			if ok, err := v.Verify(t.Context(), token, row); ok || err != nil {
				t.Errorf("a wrong verifier: %v, %v", ok, err)
			}
		})
	}
	waitUntil(t, func() bool { return waiting() == n })
	owner.Go(func() {
		if ok, err := v.Verify(t.Context(), ours, own); !ok || err != nil {
			t.Errorf("the right verifier: %v, %v", ok, err)
		}
		left = waiting()
	})
	waitUntil(t, func() bool { return waiting() == n+1 })
	for range 1000 {
		runtime.Gosched() // until it waits for a slot
	}
	release()
	owner.Wait()
	attackers.Wait()
	v.checkIdle(t)
	return left
}

// fill takes all slots, and returns a function that releases them.
func (v *Verifier) fill() (release func()) {
	for range cap(v.slots.all) {
		v.slots.all <- struct{}{}
	}
	return func() {
		for range cap(v.slots.all) {
			<-v.slots.all
		}
	}
}

// checkIdle checks that no comparison is left.
func (v *Verifier) checkIdle(t *testing.T) {
	t.Helper()
	if s := v.slots; len(v.calls.inFlight) != 0 || len(s.rows) != 0 || len(s.all) != 0 || len(s.attacked) != 0 {
		t.Errorf("%d calls, %d rows, %d slots and %d slots of attacked rows are left", len(v.calls.inFlight), len(s.rows), len(s.all), len(s.attacked))
	}
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

func BenchmarkVerify(b *testing.B) {
	v := NewVerifier(Options{})
	token := New()
	row := rowOf(b, token, bcrypt.MinCost)
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			token.Verifies(row.Selector, row.Hash)
		}
	})
	b.Run("remembered", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if ok, _ := v.Verify(b.Context(), token, row); !ok {
				b.Fatal("rejected")
			}
		}
	})
}
