package session

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/candysession/session/internal/pool"
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
	store      *store
	db         *sqlx.DB // a replica, perhaps
	plan       userPlan[U]
	column     string
	certain    bool                                        // sees all that was acknowledged before
	statements [maxBatchBits + 1]atomic.Pointer[statement] // by the logarithm of how many keys they take
	patience   time.Duration                               // laneTimeout, or Config.Timeout if that is less
	prompt     bool                                        // the driver ends a statement by itself, in Config.Timeout
	closed     atomic.Bool
	scanners   sync.Pool // of *scanner[U]

	mu      sync.Mutex
	busy    int         // lanes with a statement under way
	present int         // requests that have a statement under way or wait for one
	peak    int         // the most that were present lately: it sinks by one with each request
	filling *batch[U]   // takes who must wait; nil if nobody does
	full    []*batch[U] // those that take nobody more, and wait for a lane
}

const (
	maxBatchBits = 6
	maxBatch     = 1 << maxBatchBits

	// Lanes that are opened for who comes: fewer in a crowd, as that makes larger batches, which cost less per request.
	// More are opened for batches that are full and so have nothing to wait for.
	lanes      = 4
	crowdLanes = 2
	crowd      = 5 // requests at once
	fullLanes  = 8

	// laneTimeout takes the lane from a request that has it for itself and gets no answer.
	laneTimeout = 5 * time.Second
)

// A statement is prepared for the columns of the users table as it was then, which a Row needs to know.
type statement struct {
	*sql.Stmt
	size  int // how many keys it takes
	table *usersTable
	what  selection
}

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
type matches[U any] map[string]*found[U]

func newMatches[U any](rows []found[U]) matches[U] {
	m := make(matches[U], len(rows))
	for i := range rows {
		row := &rows[i]
		if _, twice := m[row.selector]; twice {
			row = nil
		}
		m[rows[i].selector] = row
	}
	return m
}

func (m matches[U]) pick(selector string) (*found[U], error) {
	row := m[selector]
	if row == nil {
		return nil, ErrUnknownSession
	}
	return row, row.err
}

// found is a row of the token table with its user. It has an error if the user's columns do not fit into a U.
type found[U any] struct {
	record
	user    U
	changed bool // the account is not as it was at login
	err     error
}

// newLookup makes a lookup by this column.
func newLookup[U any](s *store, db *sqlx.DB, plan userPlan[U], column string) *lookup[U] {
	cfg := pool.Config(db)
	prompt := cfg != nil && cfg.ReadTimeout > 0 && cfg.ReadTimeout <= s.timeout
	return &lookup[U]{store: s, db: db, plan: plan, column: column, patience: min(laneTimeout, s.timeout), prompt: prompt}
}

// find reads the row with this key and selector: ErrUnknownSession if there is none.
func (l *lookup[U]) find(ctx context.Context, key any, selector string) (*found[U], error) {
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
		return nil, l.store.explain("look up the session", err)
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
func (l *lookup[U]) alone(ctx context.Context, key any, selector string) (*found[U], error) {
	if err := ctx.Err(); err != nil {
		l.free()
		return nil, l.store.explain("look up the session", err)
	}
	if _, ok := ctx.Deadline(); !ok {
		ctx = context.WithoutCancel(ctx)
	}
	if _, ok := ctx.Deadline(); ok || !l.prompt || !l.roomy() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.store.timeout)
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
	b.ctx, b.end = context.WithTimeout(context.Background(), l.store.timeout)
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
func (l *lookup[U]) read(ctx context.Context, keys []any) (rows matches[U], err error) {
	err = l.store.try(ctx, func(ctx context.Context, _ bool) error {
		rows, err = l.query(ctx, keys)
		if isError(err, erUnknownColumn) {
			l.forget()
		}
		if isError(err, erNoTable) && l.db == l.store.cfg.Replica {
			rows, err = nil, nil // it comes later, too
		}
		return err
	})
	if err != nil {
		return nil, l.store.explain("look up the session", err)
	}
	return rows, nil
}

func (l *lookup[U]) query(ctx context.Context, keys []any) (matches[U], error) {
	stmt, err := l.prepare(ctx, len(keys))
	if err != nil {
		return nil, err
	}
	args := make([]any, stmt.size)
	copy(args, keys) // and NULL, which is in no list, for the places that are left
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	scan, ok := l.scanners.Get().(*scanner[U])
	if !ok {
		scan = &scanner[U]{store: l.store, plan: l.plan}
	}
	list := make([]found[U], 0, len(keys))
	for rows.Next() {
		f, err := scan.scan(rows, stmt.what, stmt.table)
		if err != nil {
			return nil, fmt.Errorf("read the session: %w", err)
		}
		l.store.reconcile(&f.record)
		list = append(list, f)
	}
	l.scanners.Put(scan)
	return newMatches(list), errors.Join(rows.Err(), rows.Close())
}

// prepare finds or makes the statement for so many selectors. Those who come at once may each make one; they keep the
// first.
func (l *lookup[U]) prepare(ctx context.Context, n int) (*statement, error) {
	i := bits.Len(uint(n - 1))
	if stmt := l.statements[i].Load(); stmt != nil {
		return stmt, nil
	}
	if l.closed.Load() {
		return nil, ErrClosed
	}
	stmt := &statement{size: 1 << i}
	var err error
	if stmt.table, err = l.store.usersTable(ctx); err != nil {
		return nil, err
	}
	tokens, err := l.store.tokenTable(ctx)
	if err != nil {
		return nil, err
	}
	stmt.what = l.store.selectionOf(tokens, stmt.table)
	query := l.store.selectSessions(stmt.what, stmt.table, l.plan.names(stmt.table), l.column, stmt.size)
	if l.certain {
		causal, err := l.store.causal(ctx)
		if err != nil {
			return nil, err
		}
		query = causal + query
	}
	if stmt.Stmt, err = l.db.PrepareContext(ctx, query); err != nil {
		return nil, err
	}
	if !l.statements[i].CompareAndSwap(nil, stmt) {
		stmt.Close()
		return l.prepare(ctx, n)
	}
	if l.closed.Load() {
		l.forget()
		return nil, ErrClosed
	}
	return stmt, nil
}

// forget drops the statements: the next look-up prepares others.
func (l *lookup[U]) forget() error {
	var errs []error
	for i := range l.statements {
		if stmt := l.statements[i].Swap(nil); stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	return errors.Join(errs...)
}

func (l *lookup[U]) close() error {
	l.closed.Store(true)
	return l.forget()
}
