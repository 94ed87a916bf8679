package token

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// A Memo is a set-associative cache of verified tokens. It stores neither
// tokens nor whole hashes.
//
// A full memo holds about a million tokens in 48 MB; buckets are allocated
// lazily.
type Memo struct {
	secret  [32]byte // makes entries useless outside this process
	buckets []atomic.Pointer[bucket]
}

const (
	bucketSize  = 4
	bucketCount = 1 << 18
)

// A Key identifies a token in a [Memo]. It has 128 bits of a keyed SHA-256.
type Key [16]byte

// An Entry records the row that a token matched. The zero Entry matches no row.
type Entry struct {
	ID   uint64 // of the row; 0 if there is no entry
	key  Key
	hash [16]byte // the end of the row's hash: 96 bits of bcrypt's output
}

// Matches reports whether row is the recorded one, with an unchanged hash.
func (e Entry) Matches(row Row) bool {
	return e.ID != 0 && e.ID == row.ID && strings.HasSuffix(row.Hash, string(e.hash[:]))
}

// A bucket is one set of the cache, the most recently used entry first. The
// last entry is replaced by a new one.
type bucket struct {
	mu      sync.Mutex
	entries [bucketSize]Entry
}

// newMemo returns an empty Memo with a new secret.
func newMemo() Memo {
	m := Memo{buckets: make([]atomic.Pointer[bucket], bucketCount)}
	rand.Read(m.secret[:])
	return m
}

// KeyFor returns the cache key of t. The key never leaves the process, so
// prefix-keyed SHA-256 suffices.
func (m *Memo) KeyFor(t Token) (key Key) {
	buffer := make([]byte, 0, 192)
	buffer = append(buffer, m.secret[:]...)
	buffer = append(buffer, t.Selector...)
	buffer = append(buffer, '.')
	buffer = append(buffer, t.Verifier...)
	sum := sha256.Sum256(buffer)
	copy(key[:], sum[:])
	return key
}

// bucketFor returns the place of the key's bucket, which may be nil.
func (m *Memo) bucketFor(key Key) *atomic.Pointer[bucket] {
	return &m.buckets[binary.LittleEndian.Uint64(key[:])%bucketCount]
}

// Get returns the entry of a token, or the zero Entry.
func (m *Memo) Get(key Key) Entry {
	b := m.bucketFor(key).Load()
	if b == nil {
		return Entry{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, e := range b.entries {
		if e.key == key {
			b.moveToFront(i, e)
			return e
		}
	}
	return Entry{}
}

// Put records that a token matches a row.
func (m *Memo) Put(key Key, row Row) {
	e := Entry{ID: row.ID, key: key}
	if len(row.Hash) < len(e.hash) {
		return
	}
	copy(e.hash[:], row.Hash[len(row.Hash)-len(e.hash):])
	place := m.bucketFor(key)
	b := place.Load()
	if b == nil {
		place.CompareAndSwap(nil, new(bucket))
		b = place.Load()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.entries[:], func(e Entry) bool { return e.key == key })
	if i < 0 {
		i = bucketSize - 1
	}
	b.moveToFront(i, e)
}

// Delete removes the entry of a token.
func (m *Memo) Delete(key Key) {
	b := m.bucketFor(key).Load()
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.entries {
		if b.entries[i].key == key {
			copy(b.entries[i:], b.entries[i+1:])
			b.entries[bucketSize-1] = Entry{}
		}
	}
}

// moveToFront stores e first, in place of the entry at i.
func (b *bucket) moveToFront(i int, e Entry) {
	copy(b.entries[1:i+1], b.entries[:i])
	b.entries[0] = e
}
