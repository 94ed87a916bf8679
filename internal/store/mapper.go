package store

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/jmoiron/sqlx/reflectx"
)

// A Mapper maps columns of the users table to the fields of a U, the app's user
// type, or to a map.
type Mapper[U any] struct {
	columns []string               // of a struct; a map has all columns of the table
	fields  [][]int                // the struct field of each column
	nested  bool                   // some fields are behind a pointer, new for each U
	shares  bool                   // copies of a U share values that can be changed
	toRow   func(map[string]any) U // nil if U is a struct
}

// NewMapper returns a Mapper for U, which is a struct unless there is a toRow
// that makes one of a map. password is the column that no user has.
func NewMapper[U any](mapper *reflectx.Mapper, password string, toRow func(map[string]any) U) (*Mapper[U], error) {
	t := reflect.TypeFor[U]()
	m := &Mapper[U]{shares: shares(t), toRow: toRow}
	if toRow != nil {
		return m, nil
	}
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("%w: New[%v]: the user must be a struct with db tags, or session.Row", ErrConfig, t)
	}
	for name, field := range mapper.TypeMap(t).Names {
		if strings.Contains(name, ".") {
			continue // inside a field that is a column itself, such as sql.NullString
		}
		if strings.EqualFold(name, password) {
			return nil, fmt.Errorf("%w: New[%v]: field %s is the password column, which is never read into a user; remove it or tag it db:\"-\"", ErrConfig, t, field.Field.Name)
		}
		m.columns = append(m.columns, name)
	}
	if len(m.columns) == 0 {
		return nil, fmt.Errorf("%w: New[%v]: no exported field names a column", ErrConfig, t)
	}
	slices.Sort(m.columns)
	for _, name := range m.columns {
		field := mapper.TypeMap(t).GetByPath(name)
		m.fields = append(m.fields, field.Index)
		for f := field.Parent; f != nil; f = f.Parent {
			m.nested = m.nested || f.Zero.Kind() == reflect.Pointer
		}
	}
	return m, nil
}

// columnNames returns the columns of the users table that a U has.
func (m *Mapper[U]) columnNames(users *Users) []string {
	if m.toRow == nil {
		return m.columns
	}
	names := make([]string, len(users.columns))
	for i, c := range users.columns {
		names[i] = c.Name
	}
	return names
}

// destinations returns where the user's columns are scanned to. Those of a map
// are scanned to values.
func (m *Mapper[U]) destinations(user *U, values *[]any, users *Users) (destinations []any) {
	if m.toRow != nil {
		*values = make([]any, len(users.columns))
		for i := range *values {
			destinations = append(destinations, &(*values)[i])
		}
		return destinations
	}
	v := reflect.ValueOf(user).Elem()
	for _, index := range m.fields {
		destinations = append(destinations, guarded(reflectx.FieldByIndexes(v, index).Addr()))
	}
	return destinations
}

// newRow returns a U that is a map of the values that were scanned.
func (m *Mapper[U]) newRow(values []any, users *Users) U {
	row := make(map[string]any, len(values))
	for i, column := range users.columns {
		row[column.Name] = normalize(values[i], column.kind)
	}
	return m.toRow(row)
}

// normalize returns a column's value in one type, whether the statement used
// the text or the binary protocol.
func normalize(value any, kind columnKind) any {
	if text, ok := value.([]byte); ok && kind != binaryColumn {
		value = string(text)
	}
	switch v := value.(type) {
	case uint64:
		if v <= math.MaxInt64 {
			return int64(v)
		}
	case string:
		if n, err := strconv.ParseUint(v, 10, 64); err == nil && kind == integerColumn {
			return normalize(n, kind)
		}
	}
	return value
}

// PlainKey returns a user's key as a log or an event may show it: text that the
// driver returned as bytes is a string.
func PlainKey(key any) any { return normalize(key, textColumn) }

// unreadable returns the error of a row whose user does not fit U. It names the
// column.
func unreadable(err error) error { return fmt.Errorf("%w: read the user: %w", ErrConfig, err) }
