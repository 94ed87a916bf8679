package session

import (
	"context"
	"database/sql"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/jmoiron/sqlx/reflectx"
)

// A Row is a user as a map from column to value, for programs without a user struct: every column of the users table
// but the password. Text is string, integers are int64 or uint64, binary columns []byte, NULL is nil; dates are
// time.Time where the DSN has parseTime, as that of Open has, and otherwise string.
type Row map[string]any

// A userPlan knows the columns that make a U, and reads one from a result.
type userPlan[U any] struct {
	columns []string // of a struct; a Row takes what the table has
	fields  [][]int  // the struct field of each column
}

// planUser finds the columns of U, once per Manager.
func planUser[U any](mapper *reflectx.Mapper, password string) (userPlan[U], error) {
	var plan userPlan[U]
	t := reflect.TypeFor[U]()
	if t == reflect.TypeFor[Row]() {
		return plan, nil
	}
	if t.Kind() != reflect.Struct {
		return plan, fmt.Errorf("%w: New[%v]: the user must be a struct with db tags, or session.Row", ErrConfig, t)
	}
	for name, field := range mapper.TypeMap(t).Names {
		if strings.Contains(name, ".") {
			continue // inside a field that is a column itself, such as sql.NullString
		}
		if strings.EqualFold(name, password) {
			return plan, fmt.Errorf("%w: New[%v]: field %s is the password column, which is never read into a user; remove it or tag it db:\"-\"", ErrConfig, t, field.Field.Name)
		}
		plan.columns = append(plan.columns, name)
	}
	if len(plan.columns) == 0 {
		return plan, fmt.Errorf("%w: New[%v]: no exported field names a column", ErrConfig, t)
	}
	slices.Sort(plan.columns)
	for _, name := range plan.columns {
		plan.fields = append(plan.fields, mapper.TypeMap(t).GetByPath(name).Index)
	}
	return plan, nil
}

// isRow reports whether U is Row, and so its columns are only known from the table.
func (p userPlan[U]) isRow() bool { return p.columns == nil }

// scan reads the current row of a result: the columns of head into their places, those behind them into a U. Where
// the scan of head leaves *known false there is no user, its columns are all NULL, and U is its zero value.
func (p userPlan[U]) scan(rows *sqlx.Rows, table *usersTable, head []any, known *bool) (user U, err error) {
	v := reflect.ValueOf(&user).Elem()
	targets := slices.Clone(head)
	var values []any
	if p.isRow() {
		values = make([]any, len(table.columns))
		for i := range values {
			targets = append(targets, &values[i])
		}
	}
	for _, index := range p.fields {
		targets = append(targets, reflectx.FieldByIndexes(v, index).Addr().Interface())
	}
	err = rows.Scan(targets...)
	if err != nil && !*known {
		// NULL fits into few fields; without a user they are not wanted.
		for i := len(head); i < len(targets); i++ {
			targets[i] = new(sql.RawBytes)
		}
		err = rows.Scan(targets...)
	}
	if err == nil && p.isRow() && *known {
		row := make(Row, len(values))
		for i, column := range table.columns {
			if text, ok := values[i].([]byte); ok && column.kind != binaryColumn {
				values[i] = string(text)
			}
			row[column.name] = values[i]
		}
		v.Set(reflect.ValueOf(row))
	}
	return user, err
}

// An account is what a login needs of a user.
type account[U any] struct {
	key  any    // as the driver gave it
	hash []byte // of the password; nil if it was not asked for
	now  int64  // by the database's clock
	user U
}

// findAccounts reads the users that match every condition, two at the most.
func (m *Manager[U]) findAccounts(ctx context.Context, conditions []condition, withPassword bool) ([]account[U], error) {
	table, err := m.store.usersTable(ctx)
	if err != nil {
		return nil, err
	}
	query, args := m.store.selectUsers(m.plan.names(table), conditions, withPassword)
	rows, err := m.store.db.QueryxContext(ctx, query, args...)
	if isError(err, erMixedCollations, erCannotConvert) {
		return nil, nil // an identifier has characters that the column's character set lacks
	}
	if err != nil {
		return nil, m.store.explain("find the user", err)
	}
	defer rows.Close()
	var accounts []account[U]
	for rows.Next() {
		var a account[U]
		known := true
		if a.user, err = m.plan.scan(rows, table, []any{&a.now, &a.key, &a.hash}, &known); err != nil {
			return nil, fmt.Errorf("session: read the user: %w", err)
		}
		accounts = append(accounts, a)
	}
	if err := rows.Err(); err != nil {
		return nil, m.store.explain("find the user", err)
	}
	return accounts, nil
}

// names are the columns of the users table that make a U.
func (p userPlan[U]) names(table *usersTable) []string {
	if !p.isRow() {
		return p.columns
	}
	names := make([]string, len(table.columns))
	for i, c := range table.columns {
		names[i] = c.name
	}
	return names
}
