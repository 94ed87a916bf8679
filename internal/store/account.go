package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/candysession/session/internal/retry"
	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
)

// An Account is a user with what a login needs.
type Account[U any] struct {
	Key   any    // as Column.Param returns it
	Hash  []byte // of the password; nil if there is none
	Stamp []byte
	Now   int64 // by the database's clock
	User  U
}

// Accounts reads and adds users.
type Accounts[U any] struct {
	Store  *Store
	Mapper *Mapper[U]
}

// Find returns the users that match every condition, two at most.
func (a Accounts[U]) Find(ctx context.Context, conditions []Condition) (accounts []Account[U], err error) {
	err = a.Store.do(ctx, "find the user", func(ctx context.Context) error {
		accounts, err = a.find(ctx, a.Store.db, conditions)
		return err
	})
	return accounts, err
}

// find runs one statement of Find, on the pool or in a transaction.
func (a Accounts[U]) find(ctx context.Context, on sqlx.QueryerContext, conditions []Condition) ([]Account[U], error) {
	table, err := a.Store.Users(ctx)
	if err != nil {
		return nil, err
	}
	query, args := a.Store.selectUsers(table, a.Mapper.columnNames(table), conditions)
	rows, err := on.QueryxContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var accounts []Account[U]
	for rows.Next() {
		var user Account[U]
		var values []any
		var extra []byte
		err := rows.Scan(append([]any{&user.Now, &user.Key, &user.Hash, &extra}, a.Mapper.destinations(&user.User, &values, table)...)...)
		if err != nil && user.Key != nil {
			err = unreadable(err)
		}
		if err != nil {
			return nil, err
		}
		if user.Key, _, err = table.Key.Param(user.Key); err != nil {
			return nil, err
		}
		user.Stamp = a.Store.stamp(user.Hash, extra)
		if a.Mapper.toRow != nil {
			user.User = a.Mapper.newRow(values, table)
		}
		accounts = append(accounts, user)
	}
	return accounts, rows.Err()
}

// Add adds a user, and returns it as the table then has it. Sessions of an
// earlier user with the same key end. It returns a *DuplicateError, or an error
// matching ErrInvalidArgument, if the table rejects a value.
func (a Accounts[U]) Add(ctx context.Context, columns []Column, values []any) (user Account[U], err error) {
	s := a.Store
	table, err := s.Users(ctx)
	if err != nil {
		return user, err
	}
	if _, err := s.tokenTable(ctx); err != nil {
		return user, err
	}
	add := func(tx *sqlx.Tx) error {
		id, err := s.insertUser(ctx, tx, columns, values)
		if err != nil {
			return err
		}
		key := Condition{table.Key, id}
		if i := slices.IndexFunc(columns, func(c Column) bool { return c.Name == table.Key.Name }); i >= 0 {
			key.Value = values[i]
		}
		accounts, err := a.find(ctx, tx, []Condition{key})
		if err == nil && len(accounts) != 1 {
			err = fmt.Errorf("session: %w: the user that was added is not found by its key %v", ErrUnavailable, key.Value)
		}
		if err != nil {
			return err
		}
		user = accounts[0]
		ids, err := s.idsOf(ctx, tx, user.Key)
		if err != nil || len(ids) == 0 {
			return err
		}
		defer s.cfg.Changed(ids...)
		_, err = s.deleteIn(ctx, tx, ids, "")
		return err
	}
	var lost error
	err = s.retryOnce(ctx, func(ctx context.Context, mayHaveRun bool) error {
		if mayHaveRun { // a row that is there already may be another call's
			return fmt.Errorf("outcome unknown, the user may have been created: %v", lost)
		}
		lost = s.inTransactionAt(ctx, sql.LevelDefault, add)
		return lost
	})
	if err != nil {
		return user, s.wrapInsertUser(ctx, err)
	}
	return user, nil
}

// insertUser adds a user, and returns the AUTO_INCREMENT key. It returns an
// error where a non-strict server would alter a value and warn.
func (s *Store) insertUser(ctx context.Context, tx *sqlx.Tx, columns []Column, values []any) (id int64, err error) {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = quoteColumn(c.Name)
	}
	result, err := tx.ExecContext(ctx, "INSERT INTO "+s.usersName+" ("+strings.Join(names, ", ")+") VALUES ("+placeholders(len(values))+")", values...)
	if err != nil {
		return 0, err
	}
	if id, err = result.LastInsertId(); err != nil {
		return 0, err
	}
	rows, err := tx.QueryContext(ctx, "SHOW WARNINGS")
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var level, message string
		var number uint16
		if err := rows.Scan(&level, &number, &message); err != nil {
			return 0, err
		}
		if level != "Note" {
			return 0, &mysql.MySQLError{Number: number, Message: message}
		}
	}
	return id, rows.Err()
}

// wrapInsertUser returns why a user was not added: a duplicate, an invalid
// value, or a failure of the database.
func (s *Store) wrapInsertUser(ctx context.Context, err error) error {
	switch {
	case retry.HasNumber(err, erDupEntry):
		columns, findErr := s.rejectingColumns(ctx, err)
		if findErr != nil {
			return findErr
		}
		return &DuplicateError{Columns: columns}
	case retry.HasNumber(err, invalidValueErrors...):
		return fmt.Errorf("%w: Register: invalid field value: %w", ErrInvalidArgument, err)
	}
	return s.Wrap("add the user", err)
}

// rejectingColumns returns the columns of the unique index that rejected a row,
// or nil if it is not the users table's. MariaDB's message ends with "for key
// 'email'", MySQL's with "for key 'users.email'".
func (s *Store) rejectingColumns(ctx context.Context, err error) (rejecting []string, findErr error) {
	var my *mysql.MySQLError
	errors.As(err, &my)
	_, name, _ := strings.Cut(my.Message, " for key '")
	name = strings.TrimSuffix(name, "'")
	var indexes map[string][]string
	findErr = s.do(ctx, "read the indexes of the users table", func(ctx context.Context) (err error) {
		indexes, err = s.uniqueIndexes(ctx)
		return err
	})
	for index, columns := range indexes {
		if strings.EqualFold(name, index) || strings.HasSuffix(strings.ToLower(name), "."+strings.ToLower(index)) {
			return columns, findErr
		}
	}
	return nil, findErr
}

// DuplicateColumns returns the columns of a unique index of which another user
// has these values, or nil if there is none.
func (s *Store) DuplicateColumns(ctx context.Context, columns []Column, values []any) (duplicate []string, err error) {
	users, err := s.Users(ctx)
	if err != nil {
		return nil, err
	}
	var indexes map[string][]string
	err = s.do(ctx, "read the indexes of the users table", func(ctx context.Context) (err error) {
		indexes, err = s.uniqueIndexes(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, index := range slices.Sorted(maps.Keys(indexes)) {
		conditions := conditionsOf(indexes[index], columns, values)
		if conditions == nil {
			continue
		}
		found := false
		query, args := s.selectUsers(users, nil, conditions)
		err := s.do(ctx, "find the user", func(ctx context.Context) error {
			rows, err := s.db.QueryContext(ctx, query, args...)
			if err != nil {
				return err
			}
			found = rows.Next()
			return errors.Join(rows.Err(), rows.Close())
		})
		if err != nil {
			return nil, err
		}
		if found {
			names := make([]string, len(conditions))
			for i, c := range conditions {
				names[i] = c.Column.Name
			}
			return names, nil
		}
	}
	return nil, nil
}

// conditionsOf returns the conditions that a user has these values in the
// columns of an index; nil if no user can: the values lack a column, which has
// a default or an expression, or hold one that the column cannot hold.
func conditionsOf(index []string, columns []Column, values []any) (conditions []Condition) {
	for _, name := range index {
		i := slices.IndexFunc(columns, func(c Column) bool { return strings.EqualFold(c.Name, name) })
		if i < 0 {
			return nil
		}
		param, ok, err := columns[i].Param(values[i])
		if err != nil || !ok {
			return nil
		}
		conditions = append(conditions, Condition{columns[i], param})
	}
	return conditions
}
