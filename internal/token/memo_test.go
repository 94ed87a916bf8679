package token

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

func TestMemoEvictsTheLeastRecentlyUsed(t *testing.T) {
	t.Parallel()
	m := newMemo()
	row := rowOf(t, New(), bcrypt.MinCost)
	key := func(i byte) Key { return Key{8: i + 1} } // all of one bucket
	for i := range byte(bucketSize) {
		m.Put(key(i), row)
	}
	m.Get(key(0)) // used
	m.Put(key(bucketSize), row)
	m.Put(key(0), row) // replaces its own entry
	for i := range byte(bucketSize + 1) {
		if found := m.Get(key(i)).Matches(row); found != (i != 1) {
			t.Errorf("key %d: found %v", i, found)
		}
	}
	m.Delete(key(2))
	if m.Get(key(2)).Matches(row) || !m.Get(key(3)).Matches(row) {
		t.Error("Delete removed another entry, or none")
	}
	if m.Get(Key{}).Matches(Row{}) {
		t.Error("an empty place is returned as an entry")
	}
}

// Strings that were added last are in the set, and no more than maxRecent.
func TestRecentIsBounded(t *testing.T) {
	t.Parallel()
	var r recent
	for i := range maxRecent {
		r.add(fmt.Sprint(i))
	}
	r.add("0") // is the most recent one now
	for i := range 10 {
		r.add(fmt.Sprint("more ", i))
	}
	if len(r.elements) != maxRecent || r.order.Len() != maxRecent {
		t.Errorf("%d strings, %d in order", len(r.elements), r.order.Len())
	}
	for s, want := range map[string]bool{"0": true, "1": false, "10": false, "11": true, "more 9": true} {
		if r.contains(s) != want {
			t.Errorf("contains %s: %v", s, !want)
		}
	}
	r.remove("0")
	r.remove("1")
	if r.contains("0") || len(r.elements) != maxRecent-1 || r.order.Len() != maxRecent-1 {
		t.Error("remove removed another string, or none")
	}
}

// BenchmarkMemory measures the memory of a remembered token.
func BenchmarkMemory(b *testing.B) {
	heap := func() float64 {
		runtime.GC()
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return float64(stats.HeapAlloc)
	}
	for b.Loop() {
		for _, n := range []int{100_000, 1_000_000} {
			before := heap()
			m := newMemo()
			for i := range n {
				m.Put(m.KeyFor(Token{fmt.Sprint(i), "verifier"}), Row{ID: 1, Hash: strings.Repeat("h", 60)})
			}
			b.ReportMetric((heap()-before)/float64(n), fmt.Sprintf("B/entry-of-%d", n))
			runtime.KeepAlive(&m)
		}
	}
}
