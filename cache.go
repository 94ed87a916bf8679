package session

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/candysession/session/internal/store"
)

// Cache keeps sessions in the memory of this process, for those who would rather ask the database less often than know
// at once what other processes do. It is off unless Fresh or Stale is set.
type Cache struct {
	// Fresh is how long a session that was read is taken as it was, without a query. Logouts, revocations and renewals
	// through this Manager are seen at once, those of other processes, and changes of the user, within Fresh. Key
	// "cacheFresh" in milliseconds, default 0: every request reads the session.
	Fresh time.Duration

	// Stale is how old what is known of a session may be to let it pass while the database fails; Session.Stale marks
	// such requests. Logins still fail. Not below Fresh. Key "cacheStale" in milliseconds, default 0: such requests get
	// Config.OnError.
	Stale time.Duration

	// Entries is how many sessions are kept; the one that was not used for longest gives way. One takes about a
	// kilobyte. Key "cacheEntries", default 100000.
	Entries int
}

func (c Cache) on() bool { return c.Fresh > 0 || c.Stale > 0 }

// cache holds sessions that were read with the right token. A nil cache holds nothing.
type cache[U any] struct {
	mu         sync.Mutex
	sessions   *simplelru.LRU[string, *cached[U]] // by selector
	selectors  map[uint64]string                  // by id
	generation uint64                             // counts what was changed
}

// A cached session was read with a verifier, when the database had this to say.
type cached[U any] struct {
	store.SessionRow[U]
	key  memoKey // of the token
	read time.Time
}

func newCache[U any](c Cache) *cache[U] {
	if !c.on() {
		return nil
	}
	kept := &cache[U]{selectors: map[uint64]string{}}
	kept.sessions, _ = simplelru.NewLRU(c.Entries, func(_ string, gone *cached[U]) { delete(kept.selectors, gone.ID) })
	return kept
}

// get finds a session and returns how long ago it was read; nil if it is not there. Nobody may change it.
func (c *cache[U]) get(selector string, now time.Time) (*cached[U], time.Duration) {
	c.mu.Lock()
	kept, ok := c.sessions.Get(selector)
	c.mu.Unlock()
	if !ok {
		return nil, 0
	}
	return kept, now.Sub(kept.read)
}

// begin tells the generation in which a look-up begins.
func (c *cache[U]) begin() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

// put keeps a session that was read since the generation began. If anything was changed meanwhile, it may have been
// this session, after it was read.
func (c *cache[U]) put(generation uint64, row *store.SessionRow[U], key memoKey, read time.Time) {
	kept := &cached[U]{*row, key, read}
	c.mu.Lock()
	defer c.mu.Unlock()
	if generation == c.generation {
		if before, ok := c.selectors[row.ID]; ok && before != row.Selector {
			c.sessions.Remove(before) // its token was renewed elsewhere
		}
		c.sessions.Add(row.Selector, kept)
		c.selectors[row.ID] = row.Selector
	}
}

// ids are the sessions that are kept of a user. What is being read meanwhile is
// not kept: a session of the user may have ended elsewhere since.
func (c *cache[U]) ids(of func(owner any) bool) (ids []uint64) {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	c.generation++
	kept := c.sessions.Values()
	c.mu.Unlock()
	for _, k := range kept {
		if of(k.Owner) {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

type uncached struct{}

// withoutCache is the context of a look-up that asks the table.
func withoutCache(ctx context.Context) context.Context {
	return context.WithValue(ctx, uncached{}, true)
}

func isWithoutCache(ctx context.Context) bool { return ctx.Value(uncached{}) != nil }

// forget drops sessions that were changed or ended.
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
