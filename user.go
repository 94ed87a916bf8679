package session

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/jmoiron/sqlx/reflectx"
)

// A Row is a user as a map from column to value, for programs without a user struct: every column of the users table
// but the password. Text is string, an integer is int64, or uint64 if it does not fit, binary columns are []byte, NULL
// is nil; dates are time.Time where the DSN has parseTime, as that of Open has, and otherwise string.
type Row map[string]any

// A userPlan knows the columns that make a U, and reads one from a result.
type userPlan[U any] struct {
	columns []string // of a struct; a Row takes what the table has
	fields  [][]int  // the struct field of each column
	nested  bool     // some of them are behind a pointer, which each U needs to itself
	shares  bool     // copies of a U share what can be changed
}

// planUser finds the columns of U, once per Manager.
func planUser[U any](mapper *reflectx.Mapper, password string) (userPlan[U], error) {
	t := reflect.TypeFor[U]()
	plan := userPlan[U]{shares: shares(t)}
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
		field := mapper.TypeMap(t).GetByPath(name)
		plan.fields = append(plan.fields, field.Index)
		for f := field.Parent; f != nil; f = f.Parent {
			plan.nested = plan.nested || f.Zero.Kind() == reflect.Pointer
		}
	}
	return plan, nil
}

// isRow reports whether U is Row, and so its columns are only known from the table.
func (p userPlan[U]) isRow() bool { return p.columns == nil }

// A scanner reads rows of sessions with their users, one after the other into the same place, of which it hands out
// copies: the places are found once, not per row. Use one at a time.
type scanner[U any] struct {
	store   *store
	plan    userPlan[U]
	row     found[U]
	texts   [8]sql.RawBytes // as the driver holds them: selector, hash, browser, ip, and the four below
	targets []any           // places of the columns of selectSessions
	what    selection       // of the targets
	account sql.RawBytes    // of the stamp
	values  []any           // of a Row
	buffer  []byte
}

// The texts that are compared, and not kept.
const (
	textUser = iota + 4 // the session's
	textKey             // the user's, if the key is text
	textStamp
	textPassword
)

// scan reads the current row of a result. What tells whose row it is comes first, and a column behind it that does not
// fit is that row's error alone.
func (s *scanner[U]) scan(rows *sql.Rows, what selection, table *usersTable) (found[U], error) {
	s.row = found[U]{}
	if s.targets == nil || what != s.what || s.plan.nested || s.plan.isRow() && len(s.values) != len(table.columns) {
		s.what, s.targets = what, s.places(what, table)
	}
	clear(s.values)
	clear(s.texts[:])
	err := rows.Scan(s.targets...)
	s.split(&s.row.selector, &s.row.hash, &s.row.browser, &s.row.ip)
	s.bind()
	if err != nil && s.row.hash == "" {
		return found[U]{}, err // it was not even a session
	}
	if s.row.owner == nil {
		// Without a user its columns are NULL, which fits into few fields and is not wanted in any.
		var none U
		s.row.user, err = none, nil
	}
	if err != nil {
		s.row.err = unreadable(err)
	}
	if err == nil && s.row.owner != nil && s.plan.isRow() {
		s.row.user = s.plan.row(s.values, table)
	}
	return s.row, nil
}

// places returns where the columns of selectSessions go.
func (s *scanner[U]) places(what selection, table *usersTable) []any {
	r := &s.row
	places := []any{&s.texts[0], &s.texts[1], &r.owner, &r.id, &s.texts[2], &s.texts[3], &r.created, &r.active, &r.now}
	places = append(places, &s.texts[textUser])
	if what.text {
		places = append(places, &s.texts[textKey])
	}
	if what.stamp {
		places = append(places, &s.texts[textStamp], &s.texts[textPassword])
	}
	if what.account {
		places = append(places, &s.account)
	}
	return append(places, s.plan.targets(&r.user, &s.values, table)...)
}

// bind compares what the row says of its account with the account that the
// database has found: the key to the letter, and the stamp.
func (s *scanner[U]) bind() {
	stamp := s.texts[textStamp]
	if len(stamp) == stampSize {
		s.row.stamp = bytes.Clone(stamp)
	}
	if s.row.owner == nil {
		return
	}
	key := []byte(s.texts[textKey])
	if key == nil {
		key = keyBytes(s.row.owner)
	}
	if !bytes.Equal(s.texts[textUser], key) {
		s.row.owner = nil // the column's collation or type took another key for equal
		return
	}
	if s.row.stamp != nil {
		s.row.changed = !bytes.Equal(stamp, s.store.stamp(s.texts[textPassword], s.account))
	}
}

// split makes the texts strings, which share one piece of memory.
func (s *scanner[U]) split(into ...*string) {
	s.buffer = s.buffer[:0]
	for _, text := range s.texts[:len(into)] {
		s.buffer = append(s.buffer, text...)
	}
	all := string(s.buffer)
	for i, text := range s.texts[:len(into)] {
		*into[i], all = all[:len(text)], all[len(text):]
	}
}

// targets are the places of the user's columns. Those of a Row are values.
func (p userPlan[U]) targets(user *U, values *[]any, table *usersTable) (targets []any) {
	if p.isRow() {
		*values = make([]any, len(table.columns))
		for i := range *values {
			targets = append(targets, &(*values)[i])
		}
	}
	v := reflect.ValueOf(user).Elem()
	for _, index := range p.fields {
		targets = append(targets, guarded(reflectx.FieldByIndexes(v, index).Addr()))
	}
	return targets
}

// copy is a user to hand out. Requests may share what was read, by a statement
// or the cache, and must not see each other's changes.
func (p userPlan[U]) copy(user U) U {
	if !p.shares {
		return user
	}
	mine := user // which alone is on the heap
	own(reflect.ValueOf(&mine).Elem(), map[reference]reflect.Value{})
	return mine
}

// A reference is a pointer or map that was copied already. Types differ where
// a struct and its first field have one address.
type reference struct {
	at any // unsafe.Pointer
	of reflect.Type
}

// own gives a value that was copied its own of all that it refers to. Only
// strings, functions, channels and what is never changed stay shared.
func own(v reflect.Value, seen map[reference]reflect.Value) {
	if !shares(v.Type()) {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		ref := reference{v.UnsafePointer(), v.Type()}
		copied, ok := seen[ref]
		if !ok {
			copied = reflect.New(v.Type().Elem())
			seen[ref] = copied
			copied.Elem().Set(v.Elem())
			own(copied.Elem(), seen)
		}
		v.Set(copied.Convert(v.Type()))
	case reflect.Map:
		if v.IsNil() {
			return
		}
		ref := reference{v.UnsafePointer(), v.Type()}
		copied, ok := seen[ref]
		if !ok {
			copied = reflect.MakeMapWithSize(v.Type(), v.Len())
			seen[ref] = copied
			for entries := v.MapRange(); entries.Next(); {
				value := reflect.New(v.Type().Elem()).Elem()
				value.Set(entries.Value())
				own(value, seen)
				copied.SetMapIndex(entries.Key(), value)
			}
		}
		v.Set(copied)
	case reflect.Slice:
		if v.IsNil() {
			return
		}
		copied := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(copied, v)
		v.Set(copied)
		ownAll(v, seen)
	case reflect.Array:
		ownAll(v, seen)
	case reflect.Interface:
		if v.IsNil() {
			return
		}
		copied := reflect.New(v.Elem().Type()).Elem()
		copied.Set(v.Elem())
		own(copied, seen)
		v.Set(copied)
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Field(i)
			if !field.CanSet() { // it is not exported
				field = reflect.NewAt(field.Type(), field.Addr().UnsafePointer()).Elem()
			}
			own(field, seen)
		}
	}
}

func ownAll(v reflect.Value, seen map[reference]reflect.Value) {
	if shares(v.Type().Elem()) {
		for i := range v.Len() {
			own(v.Index(i), seen)
		}
	}
}

// shares reports whether copies of a value of this type may refer to one thing
// that can be changed.
func shares(t reflect.Type) bool {
	switch t.PkgPath() {
	case "time", "net/netip", "unique", "reflect", "regexp": // never changed, or compared by their pointers
		return false
	}
	switch t.Kind() {
	case reflect.Pointer:
		return t != reflect.TypeFor[*time.Location]() && t != reflect.TypeFor[*regexp.Regexp]()
	case reflect.Map, reflect.Slice, reflect.Interface:
		return true
	case reflect.Array:
		return t.Len() > 0 && shares(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if shares(t.Field(i).Type) {
				return true
			}
		}
	}
	return false
}

// row makes the values that were read a Row, which U is.
func (p userPlan[U]) row(values []any, table *usersTable) U {
	row := make(Row, len(values))
	for i, column := range table.columns {
		row[column.name] = plainValue(values[i], column.kind)
	}
	return any(row).(U)
}

// plainValue is a column's value in one type, whatever the protocol of the statement made of it.
func plainValue(value any, kind columnKind) any {
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
			return plainValue(n, kind)
		}
	}
	return value
}

// An account is what a login needs of a user.
type account[U any] struct {
	key   any    // as column.arg makes it
	hash  []byte // of the password; nil if there is none
	stamp []byte
	now   int64 // by the database's clock
	user  U
}

// findAccounts reads the users that match every condition, two at the most.
func (m *Manager[U]) findAccounts(ctx context.Context, conditions []condition) (accounts []account[U], err error) {
	err = m.store.run(ctx, "find the user", func(ctx context.Context, _ bool) error {
		accounts, err = m.selectAccounts(ctx, m.store.db, conditions)
		return err
	})
	return accounts, err
}

func (m *Manager[U]) selectAccounts(ctx context.Context, on sqlx.QueryerContext, conditions []condition) ([]account[U], error) {
	table, err := m.store.usersTable(ctx)
	if err != nil {
		return nil, err
	}
	query, args := m.store.selectUsers(table, m.plan.names(table), conditions)
	rows, err := on.QueryxContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var accounts []account[U]
	for rows.Next() {
		var a account[U]
		var values []any
		var extra []byte
		err := rows.Scan(append([]any{&a.now, &a.key, &a.hash, &extra}, m.plan.targets(&a.user, &values, table)...)...)
		if err != nil && a.key != nil {
			err = unreadable(err)
		}
		if err != nil {
			return nil, err
		}
		if a.key, _, err = table.key.arg(a.key); err != nil {
			return nil, err
		}
		a.stamp = m.store.stamp(a.hash, extra)
		if m.plan.isRow() {
			a.user = m.plan.row(values, table)
		}
		accounts = append(accounts, a)
	}
	return accounts, rows.Err()
}

// isUser reports whether a row's owner is the user with this key.
func (m *Manager[U]) isUser(ctx context.Context, owner, key any) bool {
	own, err := m.store.userArg(ctx, owner)
	return err == nil && sameKey(own, key)
}

// forgetUser drops what the cache knows of a user whose sessions were ended:
// also of those whose rows were gone already, by another server.
func (m *Manager[U]) forgetUser(ctx context.Context, key any) {
	if m.cache != nil {
		m.cache.forget(m.cache.ids(func(owner any) bool { return m.isUser(ctx, owner, key) })...)
	}
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
