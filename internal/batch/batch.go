// Package batch combines concurrent lookups of single keys into fetches of
// many keys. It knows neither SQL nor the kinds of keys and values.
package batch

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"
)

const (
	// MaxKeys is the largest number of keys in a fetch.
	MaxKeys     = 1 << MaxKeysLog2
	MaxKeysLog2 = 6

	// Slots for direct fetches. Under load fewer are used, because larger
	// batches cost less per call.
	maxDirect     = 4
	maxDirectBusy = 2
	busyThreshold = 5 // calls that run or wait concurrently

	// MaxConcurrent is the largest number of fetches that run at a time. Full
	// batches may use more slots than direct fetches, since waiting would not
	// make them larger.
	MaxConcurrent = 8
)

// A Loader loads values by key and limits how many fetches run at a time. While
// a slot is free, a call runs its own fetch. Otherwise it joins the pending
// batch, which the next free slot executes. There is no batching delay: batches
// form only while all slots are busy, and grow with load.
//
// A call never joins a fetch that has already begun, so its result is never
// older than the call.
//
// The fields must not be changed once the Loader is in use. A Loader is safe
// for concurrent use, and must not be copied.
type Loader[K, R any] struct {
	// Fetch fetches at least one key, and at most MaxKeys, which may repeat.
	// Its result goes to each caller whose key is among them. The callers share
	// it, and must not change it.
	Fetch func(ctx context.Context, keys []K) (R, error)

	// Timeout bounds each fetch. That of a batch counts from the call that
	// joined it first.
	Timeout time.Duration

	// SlotTimeout is how long a direct fetch without an answer keeps its slot.
	// The fetch itself goes on.
	SlotTimeout time.Duration

	// TimesOut reports whether a fetch that begins now ends within Timeout even
	// if its context has no deadline. It saves a direct fetch that deadline.
	// Nil means never.
	TimesOut func() bool

	mu         sync.Mutex
	onTimeout  func()         // release, allocated once
	busy       int            // slots with a fetch
	waiting    int            // calls that run or wait
	recentPeak int            // decaying maximum of waiting: it sinks by one with each call
	pending    *batch[K, R]   // the batch being filled, or nil
	queued     []*batch[K, R] // full batches waiting for a slot
}

// A PanicError is the error of a batch whose fetch panicked.
type PanicError struct {
	Value any // of the panic
}

// Error implements error.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// A batch is a fetch that several calls wait for. It has its own context, which
// expires Timeout after the first call joined. Once done is closed, nothing in
// the batch changes.
type batch[K, R any] struct {
	ctx    context.Context
	cancel context.CancelFunc
	keys   []K
	done   chan struct{}
	result R
	err    error
}

// newBatch returns a batch without keys, whose timeout begins.
func newBatch[K, R any](timeout time.Duration) *batch[K, R] {
	b := &batch[K, R]{keys: make([]K, 0, MaxKeys), done: make(chan struct{})}
	b.ctx, b.cancel = context.WithTimeout(context.Background(), timeout)
	return b
}

// wait waits for the answer or the end of a context: ctx, or the batch's, which
// also ends after the answer.
func (b *batch[K, R]) wait(ctx context.Context) error {
	select {
	case <-b.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-b.ctx.Done():
	}
	select {
	case <-b.done:
		return nil
	default:
		return b.ctx.Err()
	}
}

// Load returns the result of a fetch of key, or of a batch that includes it.
// Its error is that of the fetch, a [*PanicError], or that of a context which
// ended before the answer. A panic of a direct fetch passes through Load.
func (l *Loader[K, R]) Load(ctx context.Context, key K) (R, error) {
	l.mu.Lock()
	l.waiting++
	l.recentPeak = max(l.waiting, l.recentPeak-1)
	if l.busy < l.directLimit() {
		l.busy++
		if l.onTimeout == nil {
			l.onTimeout = l.release
		}
		l.mu.Unlock()
		return l.fetchDirect(ctx, key)
	}
	b := l.enqueue(key)
	l.mu.Unlock()

	if err := b.wait(ctx); err != nil {
		var none R
		return none, err
	}
	return b.result, b.err
}

// Stats returns the number of slots in use and the number of keys in batches
// that wait for a slot. Tests use it.
func (l *Loader[K, R]) Stats() (busy, queued int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.queued {
		queued += len(b.keys)
	}
	if l.pending != nil {
		queued += len(l.pending.keys)
	}
	return l.busy, queued
}

// directLimit returns how many slots direct fetches may use. The caller holds
// l.mu.
func (l *Loader[K, R]) directLimit() int {
	if l.recentPeak >= busyThreshold {
		return maxDirectBusy
	}
	return maxDirect
}

// fetchDirect runs one fetch in a slot of its own. It honours a deadline but
// not cancellation: watching for cancellation makes database/sql start a
// goroutine, about 10 % of the cost of a lookup, and the query is over before
// cancelling would help. For the same reason it sets no deadline where TimesOut
// has one.
func (l *Loader[K, R]) fetchDirect(ctx context.Context, key K) (result R, err error) {
	if err := ctx.Err(); err != nil {
		l.release()
		return result, err
	}
	_, hasDeadline := ctx.Deadline()
	if !hasDeadline {
		ctx = context.WithoutCancel(ctx)
	}
	if hasDeadline || l.TimesOut == nil || !l.TimesOut() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.Timeout)
		defer cancel()
	}
	lost := time.AfterFunc(l.SlotTimeout, l.onTimeout)
	result, err = l.Fetch(ctx, []K{key})
	if lost.Stop() {
		l.release()
	}
	return result, err
}

// release frees a direct slot.
func (l *Loader[K, R]) release() {
	if b := l.nextBatch(1); b != nil {
		go l.runBatches(b)
	}
}

// enqueue adds a key to the pending batch. The caller holds l.mu.
func (l *Loader[K, R]) enqueue(key K) *batch[K, R] {
	if l.pending == nil {
		l.pending = newBatch[K, R](l.Timeout)
	}
	b := l.pending
	b.keys = append(b.keys, key)
	if len(b.keys) == MaxKeys {
		l.pending = nil
		if l.busy < MaxConcurrent {
			l.busy++
			go l.runBatches(b)
		} else {
			l.queued = append(l.queued, b)
		}
	}
	return b
}

// nextBatch counts n calls as answered, and returns the batch that their slot
// runs next. It returns nil, and frees the slot, if there is none.
func (l *Loader[K, R]) nextBatch(n int) (b *batch[K, R]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting -= n
	switch {
	case len(l.queued) > 0:
		b, l.queued = l.queued[0], l.queued[1:]
	case l.pending != nil && l.busy <= l.directLimit():
		b, l.pending = l.pending, nil
	default:
		l.busy--
	}
	return b
}

// runBatches runs batches in one slot until none waits. It yields after each
// that was not full: goroutines that were just answered may join the next one.
func (l *Loader[K, R]) runBatches(b *batch[K, R]) {
	for b != nil {
		l.runBatch(b)
		if len(b.keys) < MaxKeys {
			runtime.Gosched()
		}
		b = l.nextBatch(len(b.keys))
	}
}

// runBatch fetches a batch. It recovers panics, as net/http would.
func (l *Loader[K, R]) runBatch(b *batch[K, R]) {
	defer b.cancel()
	defer close(b.done)
	defer func() {
		if v := recover(); v != nil {
			b.err = &PanicError{Value: v}
		}
	}()
	b.result, b.err = l.Fetch(b.ctx, b.keys)
}
