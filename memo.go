package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/candysession/session/internal/store"
)

// A verifier checks tokens against the hashes of their rows, and remembers those that matched, so that bcrypt is paid
// once per session and process. The row is still read each time, and with another hash it is compared again.
type verifier struct {
	key   [32]byte      // so that what is remembered means nothing outside this process
	slots chan struct{} // one for each bcrypt at a time: strangers leave a processor to others
	sets  []atomic.Pointer[memoSet]

	timeout time.Duration // how long a comparison waits for its turn; 0 for ever

	mu       sync.Mutex
	flights  map[flightKey]*flight
	rows     map[string]*row                  // those that comparisons are for
	attacked *simplelru.LRU[string, struct{}] // hashes that did not match lately
	lane     chan struct{}                    // one for each of their comparisons at a time
}

// A row takes one comparison at a time: whoever sends it wrong verifiers waits
// for himself.
type row struct {
	turn    chan struct{}
	waiting int // and at work
}

// maxAttacked is of how many rows it is remembered that a verifier was wrong.
const maxAttacked = 4096

// A memory is a token that matched: which row it was, and the end of that row's hash.
type memory struct {
	key  memoKey
	id   uint64   // 0 if there is no memory
	hash [16]byte // 96 bits of what bcrypt made
}

// A memoKey stands for a token: 128 bits of a keyed SHA-256.
type memoKey [16]byte

// of reports whether the row is the one that is remembered, and as it was then.
func (m memory) of(r *store.Record) bool {
	return m.id != 0 && m.id == r.ID && strings.HasSuffix(r.Hash, string(m.hash[:]))
}

// A memoSet holds the tokens whose keys fall to it, the last used first. The one that was not used for longest gives
// way.
type memoSet struct {
	mu       sync.Mutex
	memories [memoWays]memory
}

// A full memo remembers about a million tokens in 48 MB. Sets are made when they are needed.
const (
	memoWays = 4
	memoSets = 1 << 18
)

type flightKey struct {
	memoKey
	hash string
}

// A flight is a comparison under way, which others with the same token and row wait for.
type flight struct {
	done    chan struct{}
	matches bool
	gaveUp  bool // its request ended before it began
	busy    bool // its turn did not come
}

func newVerifier() *verifier {
	v := &verifier{
		slots:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)),
		sets:    make([]atomic.Pointer[memoSet], memoSets),
		flights: map[flightKey]*flight{},
		rows:    map[string]*row{},
	}
	v.lane = make(chan struct{}, max(1, cap(v.slots)/2))
	v.attacked, _ = simplelru.NewLRU[string, struct{}](maxAttacked, nil)
	rand.Read(v.key[:])
	return v
}

// verify reports whether the token is that of the row. The error is that of a
// context that ended first, or ErrBusy.
func (v *verifier) verify(ctx context.Context, t token, r *store.Record) (bool, error) {
	if t.selector != r.Selector {
		return false, nil
	}
	key := flightKey{v.of(t), r.Hash}
	for {
		if v.recall(key.memoKey).of(r) {
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
			if f.busy {
				return false, ErrBusy
			}
			if !f.gaveUp {
				return f.matches, nil
			}
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// fly compares, when it is its turn.
func (v *verifier) fly(ctx context.Context, f *flight, key flightKey, t token, r *store.Record) (bool, error) {
	defer func() {
		v.mu.Lock()
		delete(v.flights, key)
		v.mu.Unlock()
		close(f.done)
	}()
	leave, err := v.enter(ctx, r.Hash)
	if err != nil {
		f.gaveUp, f.busy = true, err == ErrBusy
		return false, err
	}
	defer leave()
	f.matches = t.verifies(r)
	v.mu.Lock()
	if f.matches {
		v.attacked.Remove(r.Hash)
	} else {
		v.attacked.Add(r.Hash, struct{}{})
	}
	v.mu.Unlock()
	if f.matches {
		v.remember(key.memoKey, r)
	}
	return f.matches, nil
}

// enter waits until a row may be compared with. Rows that got a wrong verifier
// have half of the slots at most, so that those of others need not wait for all
// of them.
func (v *verifier) enter(ctx context.Context, hash string) (leave func(), err error) {
	var late <-chan time.Time
	if v.timeout > 0 {
		timer := time.NewTimer(v.timeout)
		defer timer.Stop()
		late = timer.C
	}
	v.mu.Lock()
	at := v.rows[hash]
	if at == nil {
		at = &row{turn: make(chan struct{}, 1)}
		v.rows[hash] = at
	}
	at.waiting++
	v.mu.Unlock()
	var taken []chan struct{}
	leave = func() {
		for _, turn := range slices.Backward(taken) {
			<-turn
		}
		v.mu.Lock()
		if at.waiting--; at.waiting == 0 {
			delete(v.rows, hash)
		}
		v.mu.Unlock()
	}
	take := func(turn chan struct{}) bool {
		select {
		case turn <- struct{}{}:
			taken = append(taken, turn)
			return true
		case <-ctx.Done():
			err = ctx.Err()
		case <-late:
			err = ErrBusy
		}
		leave()
		return false
	}
	if !take(at.turn) {
		return nil, err
	}
	v.mu.Lock()
	attacked := v.attacked.Contains(hash)
	v.mu.Unlock()
	if attacked && !take(v.lane) || !take(v.slots) {
		return nil, err
	}
	return leave, nil
}

// of is the key of a token. Nobody but this process ever sees it, so a keyed hash needs no HMAC.
func (v *verifier) of(t token) (key memoKey) {
	buffer := make([]byte, 0, 192)
	buffer = append(buffer, v.key[:]...)
	buffer = append(buffer, t.selector...)
	buffer = append(buffer, '.')
	buffer = append(buffer, t.verifier...)
	sum := sha256.Sum256(buffer)
	copy(key[:], sum[:])
	return key
}

func (v *verifier) set(key memoKey) *atomic.Pointer[memoSet] {
	return &v.sets[binary.LittleEndian.Uint64(key[:])%memoSets]
}

// recall is what is remembered of a token, if anything.
func (v *verifier) recall(key memoKey) memory {
	set := v.set(key).Load()
	if set == nil {
		return memory{}
	}
	set.mu.Lock()
	defer set.mu.Unlock()
	for i, m := range set.memories {
		if m.key == key {
			set.first(i, m)
			return m
		}
	}
	return memory{}
}

// remember adds a token that is known to match a row.
func (v *verifier) remember(key memoKey, r *store.Record) {
	if len(r.Hash) < len(memory{}.hash) {
		return
	}
	m := memory{key: key, id: r.ID}
	copy(m.hash[:], r.Hash[len(r.Hash)-len(m.hash):])
	at := v.set(key)
	set := at.Load()
	if set == nil {
		at.CompareAndSwap(nil, new(memoSet))
		set = at.Load()
	}
	set.mu.Lock()
	defer set.mu.Unlock()
	i := slices.IndexFunc(set.memories[:], func(m memory) bool { return m.key == key })
	if i < 0 {
		i = memoWays - 1
	}
	set.first(i, m)
}

// forget drops what is remembered of a token.
func (v *verifier) forget(key memoKey) {
	if set := v.set(key).Load(); set != nil {
		set.mu.Lock()
		defer set.mu.Unlock()
		for i := range set.memories {
			if set.memories[i].key == key {
				copy(set.memories[i:], set.memories[i+1:])
				set.memories[memoWays-1] = memory{}
			}
		}
	}
}

// first moves the memories before a place by one, and puts one before them all.
func (s *memoSet) first(place int, m memory) {
	copy(s.memories[1:place+1], s.memories[:place])
	s.memories[0] = m
}
