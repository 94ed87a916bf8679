package session

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
	"github.com/jmoiron/sqlx"
)

// lookup loads sessions and their users by one column, token_x or id, and
// batches concurrent lookups into one statement. A row is only returned to a
// caller that has its selector.
type lookup[U any] struct {
	store      *store
	db         *sqlx.DB // primary or replica
	plan       userPlan[U]
	column     string
	certain    bool                                             // causal reads
	statements [batch.MaxKeysLog2 + 1]atomic.Pointer[statement] // by log2 of the number of keys
	loader     batch.Loader[any, rowsBySelector[U]]
	closed     atomic.Bool
	scanners   sync.Pool // of *scanner[U]
}

// slotTimeout frees the slot of a query that gets no answer.
const slotTimeout = 5 * time.Second

// A statement and the definition of the users table that it was prepared for.
type statement struct {
	*sql.Stmt
	size  int // the number of keys
	table *usersTable
	what  selection
}

// rowsBySelector maps selectors, compared exactly even if the table's collation
// is not, to rows. A duplicate selector, which is possible without the unique
// index, maps to nil.
type rowsBySelector[U any] map[string]*found[U]

func newRowsBySelector[U any](rows []found[U]) rowsBySelector[U] {
	m := make(rowsBySelector[U], len(rows))
	for i := range rows {
		row := &rows[i]
		if _, duplicate := m[row.selector]; duplicate {
			row = nil
		}
		m[rows[i].selector] = row
	}
	return m
}

// row returns the row with this selector, or ErrUnknownSession.
func (m rowsBySelector[U]) row(selector string) (*found[U], error) {
	row := m[selector]
	if row == nil {
		return nil, ErrUnknownSession
	}
	return row, row.err
}

// A found is a row of the token table with its user. It has an error if
// the user's columns do not fit into a U.
type found[U any] struct {
	record
	user    U
	changed bool // the account is not as it was at login
	err     error
}

// newLookup creates a lookup by this column.
func newLookup[U any](s *store, db *sqlx.DB, plan userPlan[U], column string) *lookup[U] {
	l := &lookup[U]{store: s, db: db, plan: plan, column: column}
	l.loader.Fetch = l.read
	l.loader.Timeout, l.loader.SlotTimeout = s.timeout, min(slotTimeout, s.timeout)
	if of, ok := db.Driver().(tuned); ok && of.cfg.ReadTimeout > 0 && of.cfg.ReadTimeout <= s.timeout {
		l.loader.TimesOut = l.poolHasRoom
	}
	return l
}

// find returns the row with this key and selector, or ErrUnknownSession.
func (l *lookup[U]) find(ctx context.Context, key any, selector string) (*found[U], error) {
	rows, err := l.loader.Load(ctx, key)
	if err != nil {
		return nil, l.explain(err)
	}
	return rows.row(selector)
}

func (l *lookup[U]) explain(err error) error {
	var panicked *batch.PanicError
	if errors.As(err, &panicked) {
		return fmt.Errorf("session: look up the session: %w", err)
	}
	return l.store.explain("look up the session", err)
}

// poolHasRoom reports whether a query gets a connection without waiting. Then
// the driver's readTimeout is all the timeout that it needs.
func (l *lookup[U]) poolHasRoom() bool {
	pool := l.db.Stats()
	return pool.MaxOpenConnections == 0 || pool.InUse+batch.MaxConcurrent < pool.MaxOpenConnections
}

// read runs one statement.
func (l *lookup[U]) read(ctx context.Context, keys []any) (rows rowsBySelector[U], err error) {
	err = l.store.try(ctx, func(ctx context.Context, _ bool) error {
		rows, err = l.query(ctx, keys)
		if isError(err, erUnknownColumn) {
			l.forget()
		}
		if isError(err, erNoTable) && l.db == l.store.cfg.Replica {
			rows, err = nil, nil // the table has not been replicated yet
		}
		return err
	})
	if err != nil {
		return nil, l.store.explain("look up the session", err)
	}
	return rows, nil
}

func (l *lookup[U]) query(ctx context.Context, keys []any) (rowsBySelector[U], error) {
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
	return newRowsBySelector(list), errors.Join(rows.Err(), rows.Close())
}

// prepare returns the cached statement for n keys, preparing it if needed.
// Concurrent callers keep the first.
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

// forget closes the cached statements. The next lookup prepares new ones.
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
