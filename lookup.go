package session

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/jmoiron/sqlx"
)

// lookup finds a session and its user by selector, with a statement that is prepared once.
type lookup[U any] struct {
	store  *store
	plan   userPlan[U]
	stmt   atomic.Pointer[sqlx.Stmt]
	closed atomic.Bool
}

// found is a row of the token table with its user.
type found[U any] struct {
	record
	user U
}

// find reads the row with this selector: ErrUnknown if there is none, or if the table, which may have been made by
// another app and lack the unique index, holds it twice.
func (l *lookup[U]) find(ctx context.Context, selector string) (f found[U], err error) {
	var matches []found[U]
	err = l.store.withTable(ctx, "look up the session", func() error {
		matches, err = l.query(ctx, selector)
		return err
	})
	if isError(err, erUnknownColumn) {
		l.forget()
	}
	if err != nil {
		return f, err
	}
	if len(matches) != 1 {
		return f, ErrUnknown
	}
	return matches[0], nil
}

func (l *lookup[U]) query(ctx context.Context, selector string) ([]found[U], error) {
	table, err := l.table(ctx)
	if err != nil {
		return nil, err
	}
	stmt, err := l.prepare(ctx, table)
	if err != nil {
		return nil, err
	}
	rows, err := stmt.QueryxContext(ctx, selector)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var matches []found[U]
	for rows.Next() {
		var f found[U]
		if f.user, err = l.plan.scan(rows, table, f.targets(), &f.known); err != nil {
			return nil, fmt.Errorf("read the session: %w", err)
		}
		if f.selector == selector { // the collation of another app's table may be more generous
			matches = append(matches, f)
		}
	}
	return matches, rows.Err()
}

// table is the users table, which only a Row needs to know.
func (l *lookup[U]) table(ctx context.Context) (*usersTable, error) {
	if !l.plan.isRow() {
		return nil, nil
	}
	return l.store.usersTable(ctx)
}

// prepare makes the statement on first use. Those who come at once each make one, and keep the first.
func (l *lookup[U]) prepare(ctx context.Context, table *usersTable) (*sqlx.Stmt, error) {
	if l.closed.Load() {
		return nil, ErrClosed
	}
	if stmt := l.stmt.Load(); stmt != nil {
		return stmt, nil
	}
	stmt, err := l.store.db.PreparexContext(ctx, l.store.selectSession(l.plan.names(table)))
	if err != nil {
		return nil, err
	}
	if l.stmt.CompareAndSwap(nil, stmt) {
		return stmt, nil
	}
	stmt.Close()
	return l.prepare(ctx, table)
}

// forget drops the statement: the next look-up prepares another.
func (l *lookup[U]) forget() error {
	if stmt := l.stmt.Swap(nil); stmt != nil {
		return stmt.Close()
	}
	return nil
}

func (l *lookup[U]) close() error {
	l.closed.Store(true)
	return l.forget()
}
