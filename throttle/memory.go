package throttle

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Memory is a [Throttle] that counts in this process. A restart forgets
// everything. It keeps the failures of the 100,000 keys that were used last,
// and as many remembered keys, in about 20 MB. Create one with [NewMemory].
type Memory struct {
	// Now returns the time. NewMemory sets it to time.Now. Tests can replace it
	// before the first use.
	Now func() time.Time

	mu         sync.Mutex
	counts     *simplelru.LRU[string, failures]
	remembered *simplelru.LRU[string, struct{}] // apart, so that failures cannot evict its keys
	pending    map[string]*pending
}

var _ Throttle = (*Memory)(nil)

// failures are those under a key.
type failures struct {
	count int
	last  time.Time
}

// pending are the attempts in progress under a key. changed is closed when one
// of them ends.
type pending struct {
	count   int
	changed chan struct{}
}

// An attacker at one address fills only a few entries before having to wait.
const memoryEntries = 100_000

// NewMemory creates a Memory.
func NewMemory() *Memory {
	counts, _ := simplelru.NewLRU[string, failures](memoryEntries, nil)
	remembered, _ := simplelru.NewLRU[string, struct{}](memoryEntries, nil)
	return &Memory{Now: time.Now, counts: counts, remembered: remembered, pending: map[string]*pending{}}
}

// Reserve implements [Throttle].
func (t *Memory) Reserve(ctx context.Context, key string, limit Limit) (time.Duration, error) {
	for {
		wait, changed := t.tryReserve(key, limit)
		if changed == nil {
			return wait, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, busy(ctx)
		}
	}
}

// tryReserve begins an attempt, or returns how long to wait. If attempts in
// progress have to end first, it returns a channel that is closed when one
// does.
func (t *Memory) tryReserve(key string, limit Limit) (wait time.Duration, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f, _ := t.counts.Get(key)
	since := t.Now().Sub(f.last)
	if since > limit.ResetAfter {
		f.count = 0
		t.counts.Remove(key)
	}
	if wait := limit.Delay(f.count) - since; wait > 0 {
		return wait, nil
	}
	p := t.pending[key]
	if p == nil {
		p = &pending{changed: make(chan struct{})}
		t.pending[key] = p
	}
	if p.count > 0 && f.count+p.count >= limit.FreeFailures {
		return 0, p.changed
	}
	p.count++
	return 0, nil
}

// Release implements [Throttle]. It returns no error.
func (t *Memory) Release(_ context.Context, key string, outcome Outcome) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch outcome {
	case Failed:
		f, _ := t.counts.Get(key)
		t.counts.Add(key, failures{f.count + 1, t.Now()})
	case Succeeded:
		t.counts.Remove(key)
	}
	p := t.pending[key]
	if p == nil {
		return nil
	}
	close(p.changed)
	p.changed = make(chan struct{})
	if p.count--; p.count == 0 {
		delete(t.pending, key)
	}
	return nil
}

// Remember implements [Throttle]. It returns no error.
func (t *Memory) Remember(_ context.Context, key string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remembered.Add(key, struct{}{})
	return nil
}

// Remembers implements [Throttle]. It returns no error.
func (t *Memory) Remembers(_ context.Context, key string) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.remembered.Get(key)
	return ok, nil
}
