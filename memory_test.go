package session

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/candysession/session/internal/store"
	"github.com/candysession/session/internal/token"
)

// BenchmarkMemory measures the memory of a cached session.
func BenchmarkMemory(b *testing.B) {
	type person struct {
		ID    int64  `db:"id"`
		About string `db:"about"`
	}
	heap := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	b.Run("cached", func(b *testing.B) {
		const n = 100_000
		for b.Loop() {
			before := heap()
			c := newCache[person](Cache{Fresh: time.Hour, Entries: n})
			for i := range n {
				text := token.New().Selector + strings.Repeat("h", 60) + chrome130 + "203.0.113.7"
				row := store.SessionRow[person]{Record: store.Record{ID: uint64(i), Owner: int64(i), Selector: text[:24], Hash: text[24:84], Browser: text[84 : 84+len(chrome130)], IP: text[84+len(chrome130):]},
					User: person{int64(i), strings.Repeat("u", 192)}}
				c.put(c.begin(), &row, token.Key{}, time.Now())
			}
			b.ReportMetric((heap()-before)/n, "B/entry")
			runtime.KeepAlive(c)
		}
	})
}
