package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
)

// A verifier checks tokens against the hashes of their rows, and remembers which pairs matched, so that bcrypt is paid
// once per session and process. The row is still read each time: with another hash it is another pair.
type verifier struct {
	key   [32]byte      // so that what is remembered means nothing outside this process
	slots chan struct{} // one for each bcrypt at a time: strangers leave a processor to others
	sets  []atomic.Pointer[memoSet]

	mu      sync.Mutex
	flights map[memoKey]*flight
}

// A memoKey stands for a pair of verifier and hash: 128 bits of a keyed SHA-256.
type memoKey [16]byte

// A memoSet holds the pairs whose keys fall to it, the last used first. The one that was not used for longest gives
// way.
type memoSet struct {
	mu   sync.Mutex
	keys [memoWays]memoKey
}

// A full memo remembers about a million pairs in 19 MB. Sets are made when they are needed.
const (
	memoWays = 8
	memoSets = 1 << 17
)

// A flight is a comparison under way, which others with the same pair wait for.
type flight struct {
	done    chan struct{}
	matches bool
	gaveUp  bool // its request ended before it began
}

func newVerifier() *verifier {
	v := &verifier{
		slots:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)),
		sets:    make([]atomic.Pointer[memoSet], memoSets),
		flights: map[memoKey]*flight{},
	}
	rand.Read(v.key[:])
	return v
}

// verify reports whether the token is that of the row. The error is that of a context that ended first.
func (v *verifier) verify(ctx context.Context, t token, r *record) (bool, error) {
	if t.selector != r.selector {
		return false, nil
	}
	key := v.pair(t.verifier, r.hash)
	for {
		if v.remembers(key) {
			return true, nil
		}
		v.mu.Lock()
		f, underway := v.flights[key]
		if !underway {
			f = &flight{done: make(chan struct{})}
			v.flights[key] = f
		}
		v.mu.Unlock()
		if !underway {
			return v.fly(ctx, f, key, t, r)
		}
		select {
		case <-f.done:
			if !f.gaveUp {
				return f.matches, nil
			}
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// fly compares, when there is a slot for it.
func (v *verifier) fly(ctx context.Context, f *flight, key memoKey, t token, r *record) (bool, error) {
	defer func() {
		v.mu.Lock()
		delete(v.flights, key)
		v.mu.Unlock()
		close(f.done)
	}()
	select {
	case v.slots <- struct{}{}:
		defer func() { <-v.slots }()
	case <-ctx.Done():
		f.gaveUp = true
		return false, ctx.Err()
	}
	if f.matches = t.verifies(r); f.matches {
		v.remember(key)
	}
	return f.matches, nil
}

// pair is the key of a verifier and a hash. Nobody but this process ever sees it, so a keyed hash needs no HMAC.
func (v *verifier) pair(verifier, hash string) (key memoKey) {
	buffer := make([]byte, 0, 192)
	buffer = append(buffer, v.key[:]...)
	buffer = append(buffer, hash...)
	buffer = append(buffer, 0)
	buffer = append(buffer, verifier...)
	sum := sha256.Sum256(buffer)
	copy(key[:], sum[:])
	return key
}

func (v *verifier) set(key memoKey) *atomic.Pointer[memoSet] {
	return &v.sets[binary.LittleEndian.Uint64(key[:])%memoSets]
}

func (v *verifier) remembers(key memoKey) bool {
	set := v.set(key).Load()
	if set == nil {
		return false
	}
	set.mu.Lock()
	defer set.mu.Unlock()
	for i := range set.keys {
		if set.keys[i] == key {
			copy(set.keys[1:i+1], set.keys[:i])
			set.keys[0] = key
			return true
		}
	}
	return false
}

// remember adds a pair that is known to match.
func (v *verifier) remember(key memoKey) {
	at := v.set(key)
	set := at.Load()
	if set == nil {
		at.CompareAndSwap(nil, new(memoSet))
		set = at.Load()
	}
	set.mu.Lock()
	defer set.mu.Unlock()
	copy(set.keys[1:], set.keys[:])
	set.keys[0] = key
}
