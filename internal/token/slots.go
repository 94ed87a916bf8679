package token

import (
	"context"
	"slices"
	"sync"
	"time"
)

// slots limit the concurrent comparisons. A row takes one comparison at a time,
// so a client that sends wrong verifiers for a row waits only for itself. Rows
// that recently got a wrong verifier share half of the slots, so the
// comparisons of other rows need not wait for all of theirs.
type slots struct {
	all      chan struct{} // limits concurrent bcrypts, leaving one CPU free
	attacked chan struct{} // limits those of rows that got a wrong verifier
	timeout  time.Duration // maximum wait; 0 waits forever

	mu         sync.Mutex
	rows       map[string]*row // rows with a comparison, by hash
	mismatched recent          // hashes of rows that got a wrong verifier
}

// A row is compared with one verifier at a time.
type row struct {
	turn  chan struct{}
	count int // comparisons that run or wait
}

// newSlots returns slots for n concurrent comparisons, all free.
func newSlots(n int, timeout time.Duration) *slots {
	return &slots{
		all:      make(chan struct{}, n),
		attacked: make(chan struct{}, max(1, n/2)),
		timeout:  timeout,
		rows:     map[string]*row{},
	}
}

// acquire waits until the row with the given hash may be compared. It returns
// ErrBusy after the timeout, or the context's error.
func (s *slots) acquire(ctx context.Context, hash string) (release func(), err error) {
	var timedOut <-chan time.Time
	if s.timeout > 0 {
		timer := time.NewTimer(s.timeout)
		defer timer.Stop()
		timedOut = timer.C
	}
	r := s.enter(hash)
	var taken []chan struct{}
	release = func() {
		for _, limit := range slices.Backward(taken) {
			<-limit
		}
		s.leave(hash, r)
	}
	take := func(limit chan struct{}) bool {
		select {
		case limit <- struct{}{}:
			taken = append(taken, limit)
			return true
		case <-ctx.Done():
			err = ctx.Err()
		case <-timedOut:
			err = ErrBusy
		}
		return false
	}
	if !take(r.turn) || s.isAttacked(hash) && !take(s.attacked) || !take(s.all) {
		release()
		return nil, err
	}
	return release, nil
}

// enter counts a comparison in.
func (s *slots) enter(hash string) *row {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rows[hash]
	if r == nil {
		r = &row{turn: make(chan struct{}, 1)}
		s.rows[hash] = r
	}
	r.count++
	return r
}

// leave counts a comparison out.
func (s *slots) leave(hash string, r *row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.count--; r.count == 0 {
		delete(s.rows, hash)
	}
}

// isAttacked reports whether a row recently got a wrong verifier.
func (s *slots) isAttacked(hash string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mismatched.contains(hash)
}

// record notes the result of a comparison.
func (s *slots) record(hash string, matches bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if matches {
		s.mismatched.remove(hash)
	} else {
		s.mismatched.add(hash)
	}
}
