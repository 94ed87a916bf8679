package session

import (
	"context"
	"sync"
	"time"

	"github.com/candysession/session/internal/token"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Cache configures an in-process session cache. It reduces queries at the cost of
// seeing other processes' changes late. It is off unless Fresh or Stale is set.
type Cache struct {
	// Fresh is how long a cached session is used without a query. Changes made
	// through this Manager are seen immediately; other processes' changes, and
	// changes to the user, within Fresh.
	//
	// Defaults to 0: every request reads its session. JSON: "cacheFresh"
	// (milliseconds).
	Fresh time.Duration

	// Stale is how old a cached session may be to be accepted while the database
	// is unavailable. Session.Stale marks such requests. Logins still fail. It
	// must not be less than Fresh.
	//
	// Defaults to 0: Config.OnError responds to such requests. JSON:
	// "cacheStale" (milliseconds).
	Stale time.Duration

	// Entries is the maximum number of cached sessions; the least recently used
	// is evicted. An entry takes about a kilobyte.
	//
	// Defaults to 100000. JSON: "cacheEntries".
	Entries int
}

func (c Cache) on() bool { return c.Fresh > 0 || c.Stale > 0 }

// cache holds sessions whose token was verified. A nil cache holds nothing.
type cache[U any] struct {
	mu         sync.Mutex
	sessions   *simplelru.LRU[string, *cached[U]] // by selector
	selectors  map[uint64]string                  // by id
	generation uint64                             // counts changes
}

// A cached session, with the token key and the time of its reading.
type cached[U any] struct {
	found[U]
	key  token.Key // of the token
	read time.Time
}

func newCache[U any](c Cache) *cache[U] {
	if !c.on() {
		return nil
	}
	kept := &cache[U]{selectors: map[uint64]string{}}
	kept.sessions, _ = simplelru.NewLRU(c.Entries, func(_ string, gone *cached[U]) { delete(kept.selectors, gone.id) })
	return kept
}

// get returns a cached session and its age, or nil. The caller must not change
// the session.
func (c *cache[U]) get(selector string, now time.Time) (*cached[U], time.Duration) {
	c.mu.Lock()
	kept, ok := c.sessions.Get(selector)
	c.mu.Unlock()
	if !ok {
		return nil, 0
	}
	return kept, now.Sub(kept.read)
}

// begin returns the current generation.
func (c *cache[U]) begin() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

// put caches row unless anything has changed since generation, in which case row
// may be outdated.
func (c *cache[U]) put(generation uint64, row *found[U], key token.Key, read time.Time) {
	kept := &cached[U]{*row, key, read}
	c.mu.Lock()
	defer c.mu.Unlock()
	if generation == c.generation {
		if before, ok := c.selectors[row.id]; ok && before != row.selector {
			c.sessions.Remove(before) // its token was renewed elsewhere
		}
		c.sessions.Add(row.selector, kept)
		c.selectors[row.id] = row.selector
	}
}

// ids returns the cached sessions of a user. Sessions that are being read now are
// not cached afterwards, because they may have been revoked elsewhere.
func (c *cache[U]) ids(of func(owner any) bool) (ids []uint64) {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	c.generation++
	kept := c.sessions.Values()
	c.mu.Unlock()
	for _, k := range kept {
		if of(k.owner) {
			ids = append(ids, k.id)
		}
	}
	return ids
}

type uncached struct{}

// withoutCache returns a context whose lookups read the table.
func withoutCache(ctx context.Context) context.Context {
	return context.WithValue(ctx, uncached{}, true)
}

func isWithoutCache(ctx context.Context) bool { return ctx.Value(uncached{}) != nil }

// forget removes sessions that were changed or deleted.
func (c *cache[U]) forget(ids ...uint64) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	for _, id := range ids {
		if selector, ok := c.selectors[id]; ok {
			c.sessions.Remove(selector)
		}
	}
}
