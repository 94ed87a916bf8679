package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/candysession/session/internal/batch"
	"github.com/candysession/session/internal/pool"
	"github.com/candysession/session/internal/retry"
	"github.com/jmoiron/sqlx"
)

// A LookupColumn is a column that chooses sessions.
type LookupColumn string

// The columns that lookups use.
const (
	BySelector LookupColumn = "token_x"
	ByID       LookupColumn = "id"
)

// A Lookup loads sessions and their users by one column, and batches concurrent
// lookups into one statement. A row is only returned to a caller that has its
// selector.
type Lookup[U any] struct {
	Loader batch.Loader[any, Rows[U]] // exported for tests

	store      *Store
	db         *sqlx.DB // primary or replica
	mapper     *Mapper[U]
	column     LookupColumn
	causal     bool
	statements [batch.MaxKeysLog2 + 1]atomic.Pointer[statement] // by log2 of the number of keys
	closed     atomic.Bool
	scanners   sync.Pool // of *scanner[U]
}

// slotTimeout frees the slot of a query that gets no answer.
const slotTimeout = 5 * time.Second

// A statement and the definition of the users table that it was prepared for.
type statement struct {
	*sql.Stmt
	size      int // the number of keys
	users     *Users
	selection selection
}

// Rows maps selectors, compared exactly even if the table's collation is not,
// to rows. A duplicate selector, which is possible without the unique index,
// maps to nil.
type Rows[U any] map[string]*SessionRow[U]

// newRows returns Rows with the rows of a list.
func newRows[U any](list []SessionRow[U]) Rows[U] {
	rows := make(Rows[U], len(list))
	for i := range list {
		row := &list[i]
		if _, duplicate := rows[row.Selector]; duplicate {
			row = nil
		}
		rows[list[i].Selector] = row
	}
	return rows
}

// Row returns the row with this selector, or ErrUnknownSession.
func (rows Rows[U]) Row(selector string) (*SessionRow[U], error) {
	row := rows[selector]
	if row == nil {
		return nil, ErrUnknownSession
	}
	return row, row.Err
}

// NewLookup returns a Lookup by a column. With causal it sees all writes that
// were acknowledged before.
func NewLookup[U any](s *Store, db *sqlx.DB, mapper *Mapper[U], column LookupColumn, causal bool) *Lookup[U] {
	l := &Lookup[U]{store: s, db: db, mapper: mapper, column: column, causal: causal}
	l.Loader.Fetch = l.Read
	l.Loader.Timeout, l.Loader.SlotTimeout = s.cfg.Timeout, min(slotTimeout, s.cfg.Timeout)
	if cfg := pool.Config(db); cfg != nil {
		if limit := cfg.ReadTimeout; limit > 0 && limit <= s.cfg.Timeout {
			l.Loader.TimesOut = l.poolHasRoom
		}
	}
	return l
}

// Find returns the row with this key and selector, or ErrUnknownSession.
func (l *Lookup[U]) Find(ctx context.Context, key any, selector string) (*SessionRow[U], error) {
	rows, err := l.Loader.Load(ctx, key)
	if err != nil {
		return nil, l.wrap(err)
	}
	return rows.Row(selector)
}

// wrap adds the operation to an error of the Loader. A panic does not mean that
// the database is unavailable.
func (l *Lookup[U]) wrap(err error) error {
	var panicked *batch.PanicError
	if errors.As(err, &panicked) {
		return fmt.Errorf("session: look up the session: %w", err)
	}
	return l.store.Wrap("look up the session", err)
}

// poolHasRoom reports whether a query gets a connection without waiting. Then
// the driver's readTimeout is all the timeout that it needs.
func (l *Lookup[U]) poolHasRoom() bool {
	pool := l.db.Stats()
	return pool.MaxOpenConnections == 0 || pool.InUse+batch.MaxConcurrent < pool.MaxOpenConnections
}

// Read runs one statement for at most batch.MaxKeys keys. ctx must have a
// deadline, unless the driver times out.
func (l *Lookup[U]) Read(ctx context.Context, keys []any) (rows Rows[U], err error) {
	err = l.store.retryWithin(ctx, func(ctx context.Context, _ bool) error {
		rows, err = l.query(ctx, keys)
		if retry.HasNumber(err, erBadField) {
			l.forget()
		}
		if retry.HasNumber(err, erNoSuchTable) && l.db == l.store.cfg.Replica {
			rows, err = nil, nil // the table has not been replicated yet
		}
		return err
	})
	if err != nil {
		return nil, l.store.Wrap("look up the session", err)
	}
	return rows, nil
}

// query runs the prepared statement for the number of keys once.
func (l *Lookup[U]) query(ctx context.Context, keys []any) (Rows[U], error) {
	stmt, err := l.prepare(ctx, len(keys))
	if err != nil {
		return nil, err
	}
	args := make([]any, stmt.size)
	copy(args, keys) // pad with NULL, which matches nothing
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	scan, ok := l.scanners.Get().(*scanner[U])
	if !ok {
		scan = &scanner[U]{store: l.store, mapper: l.mapper}
	}
	list := make([]SessionRow[U], 0, len(keys))
	for rows.Next() {
		row, err := scan.scan(rows, stmt.selection, stmt.users)
		if err != nil {
			return nil, fmt.Errorf("read the session: %w", err)
		}
		list = append(list, row)
		l.store.reconcile(&list[len(list)-1].Record)
	}
	l.scanners.Put(scan)
	return newRows(list), errors.Join(rows.Err(), rows.Close())
}

// prepare returns the statement for n keys. Concurrent callers may each prepare
// one, and keep the first.
func (l *Lookup[U]) prepare(ctx context.Context, n int) (*statement, error) {
	i := bits.Len(uint(n - 1))
	if stmt := l.statements[i].Load(); stmt != nil {
		return stmt, nil
	}
	if l.closed.Load() {
		return nil, ErrClosed
	}
	stmt := &statement{size: 1 << i}
	query, err := l.describe(ctx, stmt)
	if err != nil {
		return nil, err
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

// describe sets what a statement selects, and returns its SQL.
func (l *Lookup[U]) describe(ctx context.Context, stmt *statement) (query string, err error) {
	if stmt.users, err = l.store.Users(ctx); err != nil {
		return "", err
	}
	tokens, err := l.store.tokenTable(ctx)
	if err != nil {
		return "", err
	}
	prefix := ""
	if l.causal {
		if prefix, err = l.store.causalPrefix(ctx); err != nil {
			return "", err
		}
	}
	stmt.selection = l.store.selectionOf(tokens, stmt.users)
	return prefix + l.store.selectSessions(stmt.selection, stmt.users, l.mapper.columnNames(stmt.users), l.column, stmt.size), nil
}

// SQL returns the statement for n keys. Tests explain it.
func (l *Lookup[U]) SQL(ctx context.Context, n int) (string, error) {
	return l.describe(ctx, &statement{size: n})
}

// Prepared returns the numbers of keys for which there are statements. Tests
// use it.
func (l *Lookup[U]) Prepared() (sizes []int) {
	for i := range l.statements {
		if l.statements[i].Load() != nil {
			sizes = append(sizes, 1<<i)
		}
	}
	return sizes
}

// forget closes the statements. The next lookup prepares others.
func (l *Lookup[U]) forget() error {
	var errs []error
	for i := range l.statements {
		if stmt := l.statements[i].Swap(nil); stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	return errors.Join(errs...)
}

// Close closes the statements. Read then returns ErrClosed.
func (l *Lookup[U]) Close() error {
	l.closed.Store(true)
	return l.forget()
}
