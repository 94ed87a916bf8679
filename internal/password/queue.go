package password

import (
	"context"
	"sync/atomic"
	"time"
)

// A queue limits the passwords that are hashed concurrently, and rejects a
// password that would wait too long.
type queue struct {
	slots   chan struct{} // limits concurrent bcrypts, leaving one CPU free
	timeout time.Duration // maximum wait; 0 waits forever
	work    atomic.Int64  // nanoseconds of work of the passwords that run or wait
}

// newQueue returns a queue with the given number of slots, all free.
func newQueue(slots int, timeout time.Duration) *queue {
	return &queue{slots: make(chan struct{}, slots), timeout: timeout}
}

// enter waits for a slot for a password with the given duration of work. It
// returns ErrBusy after the timeout, immediately if the passwords ahead have
// more work than that, or the context's error.
func (q *queue) enter(ctx context.Context, work time.Duration) (leave func(), err error) {
	ahead := time.Duration(q.work.Add(int64(work))) - work
	forget := func() { q.work.Add(-int64(work)) }
	var timedOut <-chan time.Time
	if q.timeout > 0 {
		if ahead/time.Duration(cap(q.slots)) > q.timeout {
			forget()
			return nil, ErrBusy
		}
		timer := time.NewTimer(q.timeout)
		defer timer.Stop()
		timedOut = timer.C
	}
	select {
	case q.slots <- struct{}{}:
		return func() { <-q.slots; forget() }, nil
	case <-timedOut:
		forget()
		return nil, ErrBusy
	case <-ctx.Done():
		forget()
		return nil, ctx.Err()
	}
}

// tryEnter takes a slot if one is free.
func (q *queue) tryEnter() (leave func(), ok bool) {
	select {
	case q.slots <- struct{}{}:
		return func() { <-q.slots }, true
	default:
		return nil, false
	}
}
