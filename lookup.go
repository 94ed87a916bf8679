package session

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/candysession/session/internal/store"
)

// lookup finds sessions with their users by one column, token_x or id, and lets requests that come at once share a
// statement. Either way a row is only found by who knows its selector.
//
// A few statements at most are under way, each in a lane. A request that finds a lane free goes straight through, with
// a statement of its own. One that does not joins the batch of those who wait, and the lane that is free next takes the
// whole batch. So there is no timer and no delay while the server keeps up, and the more it has to do, the less it
// costs per request.
//
// What a request learns is never older than its question: it joins no statement that was sent before it came.
type lookup[U any] struct {
	store    *store.Store
	sessions *store.Lookup[U]
	db       *sqlx.DB      // a replica, perhaps
	timeout  time.Duration // Config.Timeout
	patience time.Duration // laneTimeout, or Config.Timeout if that is less
	prompt   bool          // the driver ends a statement by itself, in Config.Timeout

	mu      sync.Mutex
	busy    int         // lanes with a statement under way
	present int         // requests that have a statement under way or wait for one
	peak    int         // the most that were present lately: it sinks by one with each request
	filling *batch[U]   // takes who must wait; nil if nobody does
	full    []*batch[U] // those that take nobody more, and wait for a lane
}

const (
	maxBatch = store.MaxKeys

	// Lanes that are opened for who comes: fewer in a crowd, as that makes larger batches, which cost less per request.
	// More are opened for batches that are full and so have nothing to wait for.
	lanes      = 4
	crowdLanes = 2
	crowd      = 5 // requests at once
	fullLanes  = 8

	// laneTimeout takes the lane from a request that has it for itself and gets no answer.
	laneTimeout = 5 * time.Second
)

// A batch is a statement that several requests wait for. Once done is closed nothing of it changes. Its context is that
// of none of them, and ends Config.Timeout after the first has come.
type batch[U any] struct {
	ctx  context.Context
	end  context.CancelFunc
	keys []any
	done chan struct{}
	rows matches[U]
	err  error
}

// wait waits for the answer, or for the end of a context: of one's own, or the batch's, which also ends after the answer.
func (b *batch[U]) wait(ctx context.Context) error {
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

// matches are the rows that were found, by selector, to the letter: the collation of another app's table may be more
// generous. That table may lack the unique index, too; a selector that stands twice decides nothing, and so is nil.
type matches[U any] map[string]*store.SessionRow[U]

func newMatches[U any](rows []store.SessionRow[U]) matches[U] {
	m := make(matches[U], len(rows))
	for i := range rows {
		row := &rows[i]
		if _, twice := m[row.Selector]; twice {
			row = nil
		}
		m[rows[i].Selector] = row
	}
	return m
}

func (m matches[U]) pick(selector string) (*store.SessionRow[U], error) {
	row := m[selector]
	if row == nil {
		return nil, ErrUnknownSession
	}
	return row, row.Err
}

// newLookup makes a lookup by this column.
func newLookup[U any](s *store.Store, db *sqlx.DB, mapper *store.Mapper[U], column store.LookupColumn, timeout time.Duration, causal bool) *lookup[U] {
	of, ok := db.Driver().(tuned)
	prompt := ok && of.cfg.ReadTimeout > 0 && of.cfg.ReadTimeout <= timeout
	sessions := store.NewLookup(s, db, mapper, column, causal)
	return &lookup[U]{store: s, sessions: sessions, db: db, timeout: timeout, patience: min(laneTimeout, timeout), prompt: prompt}
}

// find reads the row with this key and selector: ErrUnknownSession if there is none.
func (l *lookup[U]) find(ctx context.Context, key any, selector string) (*store.SessionRow[U], error) {
	l.mu.Lock()
	l.present++
	l.peak = max(l.present, l.peak-1)
	if l.busy < l.open() {
		l.busy++
		l.mu.Unlock()
		return l.alone(ctx, key, selector)
	}
	b := l.join(key)
	l.mu.Unlock()

	if err := b.wait(ctx); err != nil {
		return nil, l.store.Wrap("look up the session", err)
	}
	if b.err != nil {
		return nil, b.err
	}
	return b.rows.pick(selector)
}

// open is how many lanes may be busy with who comes, with l.mu held.
func (l *lookup[U]) open() int {
	if l.peak >= crowd {
		return crowdLanes
	}
	return lanes
}

// alone is a look-up with a lane of its own. A deadline holds for it, but if the client just leaves, it goes on: it is
// over before anything could be gained, and to listen for that costs database/sql a goroutine, a tenth of the whole
// look-up. For the same reason Config.Timeout is left to the driver's readTimeout where that does, and there are
// connections enough to get one without waiting.
func (l *lookup[U]) alone(ctx context.Context, key any, selector string) (*store.SessionRow[U], error) {
	if err := ctx.Err(); err != nil {
		l.free()
		return nil, l.store.Wrap("look up the session", err)
	}
	if _, ok := ctx.Deadline(); !ok {
		ctx = context.WithoutCancel(ctx)
	}
	if _, ok := ctx.Deadline(); ok || !l.prompt || !l.roomy() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.timeout)
		defer cancel()
	}
	lost := time.AfterFunc(l.patience, l.free)
	rows, err := l.read(ctx, []any{key})
	if lost.Stop() {
		l.free()
	}
	if err != nil {
		return nil, err
	}
	return rows.pick(selector)
}

// roomy reports whether the pool has connections for all who may come at once.
func (l *lookup[U]) roomy() bool {
	pool := l.db.Stats()
	return pool.MaxOpenConnections == 0 || pool.InUse+fullLanes < pool.MaxOpenConnections
}

// join adds a key to the batch that waits, with l.mu held.
func (l *lookup[U]) join(key any) *batch[U] {
	if l.filling == nil {
		l.filling = l.newBatch()
	}
	b := l.filling
	b.keys = append(b.keys, key)
	if len(b.keys) == maxBatch {
		l.filling = nil
		if l.busy < fullLanes {
			l.busy++
			go l.run(b)
		} else {
			l.full = append(l.full, b)
		}
	}
	return b
}

func (l *lookup[U]) newBatch() *batch[U] {
	b := &batch[U]{keys: make([]any, 0, maxBatch), done: make(chan struct{})}
	b.ctx, b.end = context.WithTimeout(context.Background(), l.timeout)
	return b
}

// next is the batch for a lane that has answered so many requests. Without one, the lane is closed.
func (l *lookup[U]) next(answered int) (b *batch[U]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.present -= answered
	switch {
	case len(l.full) > 0:
		b, l.full = l.full[0], l.full[1:]
	case l.filling != nil && l.busy <= l.open():
		b, l.filling = l.filling, nil
	default:
		l.busy--
	}
	return b
}

// free passes on the lane of a request that had it for itself.
func (l *lookup[U]) free() {
	if b := l.next(1); b != nil {
		go l.run(b)
	}
}

// run reads batches until nobody waits. Those who wait do not depend on each other's contexts. Between two batches,
// those whom the first has answered get their turn: they may be back for the second, which is larger for it.
func (l *lookup[U]) run(b *batch[U]) {
	for b != nil {
		l.fill(b)
		if len(b.keys) < maxBatch {
			runtime.Gosched()
		}
		b = l.next(len(b.keys))
	}
}

func (l *lookup[U]) fill(b *batch[U]) {
	defer b.end()
	defer close(b.done)
	defer func() {
		// Without the batch the server would catch a panic for its request alone.
		if v := recover(); v != nil {
			b.err = fmt.Errorf("session: look up the session: panic: %v", v)
		}
	}()
	b.rows, b.err = l.read(b.ctx, b.keys)
}

// read is one statement, for a context that has its deadline.
func (l *lookup[U]) read(ctx context.Context, keys []any) (matches[U], error) {
	rows, err := l.sessions.Read(ctx, keys)
	if err != nil {
		return nil, err
	}
	return newMatches(rows), nil
}

func (l *lookup[U]) close() error { return l.sessions.Close() }
