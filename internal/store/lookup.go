package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/jmoiron/sqlx"
)

// MaxKeys is the largest number of keys that Read takes.
const (
	maxKeysLog2 = 6
	MaxKeys     = 1 << maxKeysLog2
)

// A LookupColumn is a column that chooses sessions.
type LookupColumn string

// The columns that lookups use.
const (
	BySelector LookupColumn = "token_x"
	ByID       LookupColumn = "id"
)

// A Lookup reads sessions with their users by one column, with prepared
// statements.
type Lookup[U any] struct {
	store      *Store
	db         *sqlx.DB // the primary or a replica
	mapper     *Mapper[U]
	column     LookupColumn
	causal     bool
	statements [maxKeysLog2 + 1]atomic.Pointer[statement] // by log2 of the number of keys
	closed     atomic.Bool
	scanners   sync.Pool // of *scanner[U]
}

// A statement is prepared for the columns that the users table had then.
type statement struct {
	*sql.Stmt
	size      int // how many keys it takes
	users     *Users
	selection selection
}

// NewLookup returns a Lookup by a column. With causal it sees all writes that
// were acknowledged before.
func NewLookup[U any](s *Store, db *sqlx.DB, mapper *Mapper[U], column LookupColumn, causal bool) *Lookup[U] {
	return &Lookup[U]{store: s, db: db, mapper: mapper, column: column, causal: causal}
}

// Read runs one statement for at most MaxKeys keys. ctx must have a deadline,
// unless the driver ends statements.
func (l *Lookup[U]) Read(ctx context.Context, keys []any) (rows []SessionRow[U], err error) {
	err = l.store.retry.doWithin(ctx, func(ctx context.Context, _ bool) error {
		rows, err = l.query(ctx, keys)
		if isMySQLError(err, erBadField) {
			l.forget()
		}
		if isMySQLError(err, erNoSuchTable) && l.db == l.store.cfg.Replica {
			rows, err = nil, nil // the table has not been replicated yet
		}
		return err
	})
	if err != nil {
		return nil, l.store.Wrap("look up the session", err)
	}
	return rows, nil
}

func (l *Lookup[U]) query(ctx context.Context, keys []any) ([]SessionRow[U], error) {
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
		l.store.reconcile(&row.Record)
		list = append(list, row)
	}
	l.scanners.Put(scan)
	return list, errors.Join(rows.Err(), rows.Close())
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

// SQL returns the statement for n keys.
func (l *Lookup[U]) SQL(ctx context.Context, n int) (string, error) {
	return l.describe(ctx, &statement{size: n})
}

// Prepared returns the numbers of keys for which there are statements.
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
