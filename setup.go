package session

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/candysession/session/internal/token"
	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
)

// checkPool reports an [ErrConfig] if what is written through a pool could be
// lost: its connections begin a transaction with each statement and never end
// it. It asks until the answer is good, and then never again.
func (s *store) checkPool(ctx context.Context) error {
	if s.sound.Load() {
		return nil
	}
	err := s.run(ctx, "read the variables of a connection", func(ctx context.Context, _ bool) error {
		for _, db := range s.pools() {
			if err := checkConnection(ctx, db); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		s.sound.Store(true)
	}
	return err
}

// pools are those that the Manager reads from.
func (s *store) pools() []*sqlx.DB {
	if s.cfg.Replica != nil && s.cfg.Replica != s.db {
		return []*sqlx.DB{s.db, s.cfg.Replica}
	}
	return []*sqlx.DB{s.db}
}

// checkConnection looks at one connection of a pool. A server that lacks a
// variable says nothing of it, and passes.
func checkConnection(ctx context.Context, db *sqlx.DB) error {
	variables, err := selectPairs(ctx, db, "SHOW VARIABLES WHERE Variable_name = 'autocommit' OR Variable_name = 'completion_type'")
	if err != nil {
		return err
	}
	for _, v := range variables {
		value := strings.ToUpper(v.value)
		switch {
		case strings.EqualFold(v.name, "autocommit") && (value == "OFF" || value == "0"):
			return fmt.Errorf("%w: connections of this pool have autocommit off, so logins are lost and ended sessions stay; add autocommit=1 to the DSN, or open the pool with session.Open", ErrConfig)
		case strings.EqualFold(v.name, "completion_type") && (strings.HasPrefix(value, "CHAIN") || strings.HasPrefix(value, "RELEASE") || value == "1" || value == "2"):
			return fmt.Errorf("%w: connections of this pool have completion_type %s, so what follows a transaction is lost; add completion_type=0 to the DSN, or open the pool with session.Open", ErrConfig, v.value)
		}
	}
	return nil
}

// A pair is a row of two columns of text; the second is empty if it is NULL.
type pair struct{ name, value string }

// selectPairs reads rows of two columns by their places. What a pool calls its
// columns, and how it maps them to structs, is the app's.
func selectPairs(ctx context.Context, db *sqlx.DB, query string, args ...any) (pairs []pair, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var p pair
		var value sql.NullString
		if err := rows.Scan(&p.name, &value); err != nil {
			return nil, err
		}
		p.value = value.String
		pairs = append(pairs, p)
	}
	return pairs, rows.Err()
}

// checkUsers reports an [ErrConfig] if the users table can't serve: its key
// stands for more than one user, or its columns don't fit into a U.
func (s *store) checkUsers(ctx context.Context, t *usersTable) error {
	database, table := splitName(s.cfg.UsersTable)
	if !t.view {
		parts, err := selectPairs(ctx, s.db, "SELECT INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ? AND NON_UNIQUE = 0", database, table)
		if err != nil {
			return err
		}
		columns := map[string]int{} // of each unique index
		for _, part := range parts {
			columns[part.name]++
		}
		// The embedded engine of the examples does not list primary keys.
		unique := t.primary && columns["PRIMARY"] == 0
		for _, part := range parts {
			unique = unique || columns[part.name] == 1 && strings.EqualFold(part.value, t.key.name)
		}
		if !unique {
			return fmt.Errorf("%w: the key %s of the users table %s has no unique index of its own, so two users could have one key; add one (ALTER TABLE %s ADD UNIQUE INDEX (%s)), or set Config.KeyColumn to the primary key", ErrConfig, s.key, s.users, s.users, s.key)
		}
	}
	if s.fits == nil {
		return nil
	}
	times, err := s.fits(t)
	if err != nil || times == "" {
		return err
	}
	for _, db := range s.pools() {
		var now any
		if err := db.QueryRowContext(ctx, "SELECT CURRENT_TIMESTAMP").Scan(&now); err != nil {
			return err
		}
		if _, parsed := now.(time.Time); !parsed {
			return fmt.Errorf("%w: field %s holds a time, but the DSN of this pool lacks parseTime; add parseTime=true, or open the pool with session.Open", ErrConfig, times)
		}
	}
	return nil
}

// fits reports an [ErrConfig] if a column of the users table can't be read
// into its field of U, or can't for a value that the table allows. Otherwise
// times names a field that needs times from the driver, if there is one.
func (p userPlan[U]) fits(t *usersTable) (times string, err error) {
	root := reflect.TypeFor[U]()
	for i, name := range p.columns {
		field := fieldAt(root, p.fields[i])
		at := -1
		for j, c := range t.columns {
			if strings.EqualFold(c.name, name) {
				at = j
			}
		}
		if at < 0 {
			return "", fmt.Errorf("%w: the users table has no column %s for field %s of %v; add the column, or tag the field db:\"-\"", ErrConfig, quoteColumn(name), field.Name, root)
		}
		c := t.columns[at]
		if says := misfit(c, field.Type); says != "" {
			return "", fmt.Errorf("%w: column %s of the users table is %s, but field %s of %v is %v: %s", ErrConfig, quoteColumn(c.name), c.definition, field.Name, root, field.Type, says)
		}
		if c.nullable && !t.view && !holdsNull(field.Type) {
			return "", fmt.Errorf("%w: column %s of the users table may be NULL, but field %s of %v is %v: make the column NOT NULL, or the field %s", ErrConfig, quoteColumn(c.name), field.Name, root, field.Type, nullableType(field.Type))
		}
		if holdsTime(field.Type) {
			times = field.Name
		}
	}
	return times, nil
}

// unreadable is the error of a row whose user does not fit into a U. It names
// the column.
func unreadable(err error) error { return fmt.Errorf("%w: read the user: %w", ErrConfig, err) }

// withUserOrNot is what ends a session needs to know of a request: also where
// the session's user can't be read.
func (m *Manager[U]) withUserOrNot(r *http.Request) (*verdict[U], error) {
	v, err := m.verdictOn(r)
	if !errors.Is(err, ErrConfig) {
		return v, err
	}
	first := &verdict[U]{}
	_, first.err = m.cookies.read(r)
	for i, t := range m.cookies.all(r) {
		one := &verdict[U]{}
		if err := m.judgeAlone(r, t, one); err != nil || one.record.id != 0 {
			return one, err
		}
		if i == 0 {
			first = one
		}
	}
	return first, nil
}

// judgeAlone judges a token without its user.
func (m *Manager[U]) judgeAlone(r *http.Request, t token.Token, v *verdict[U]) error {
	if err := m.store.checkPool(r.Context()); err != nil {
		return err
	}
	row, err := m.store.sessionAlone(r.Context(), t.Selector)
	if err != nil {
		return err
	}
	v.err = ErrUnknownSession
	if row.id != 0 {
		ok, err := m.verify(r.Context(), t, &row)
		if err != nil {
			return err
		}
		if ok {
			*v = verdict[U]{err: ErrUserNotFound, token: t, record: row}
		}
	}
	return nil
}

// sessionAlone reads a session without its user; its id is 0 if there is none.
func (s *store) sessionAlone(ctx context.Context, selector string) (record, error) {
	causal, err := s.causal(ctx)
	if err != nil {
		return record{}, err
	}
	var found []record // as newMatches: one, to the letter
	err = s.run(ctx, "look up the session", func(ctx context.Context, _ bool) error {
		found = nil
		rows, err := s.db.QueryContext(ctx, causal+"SELECT id, token_x, token_y, browser, ip, user FROM "+s.tokens+" WHERE token_x = ?", selector)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r record
			if err := rows.Scan(&r.id, &r.selector, &r.hash, &r.browser, &r.ip, &r.owner); err != nil {
				return err
			}
			if r.selector == selector {
				found = append(found, r)
			}
		}
		return rows.Err()
	})
	if err != nil || len(found) != 1 {
		return record{}, err
	}
	return found[0], nil
}

// Errors of a text whose characters are not in the character set of the column
// or the connection.
var unwritable = []uint16{
	1267, // mixed collations, of two
	1270, // of three
	1271, // or more
	1300, // ill-formed
	1366, // incorrect value
	3854, // cannot be converted, in MySQL
	3988, // as a parameter
}

// Errors of a database user who lacks a right.
var denied = []uint16{erDatabaseDenied, erTableDenied, erColumnDenied, erRoutineDenied}

// missingGrant says what the database user must be granted. The server names
// the right in front of "command denied", and the table behind.
func (s *store) missingGrant(err error) string {
	var my *mysql.MySQLError
	if !errors.As(err, &my) {
		return ""
	}
	right, rest, ok := strings.Cut(my.Message, " command denied")
	right = strings.Trim(strings.ToUpper(right), "'")
	table := s.tokens
	if _, users := splitName(s.cfg.UsersTable); strings.Contains(rest, "'"+users+"'") || strings.Contains(rest, "`"+users+"`") {
		table = s.users
	}
	switch {
	case my.Number == erRoutineDenied:
		return "this database user may not run a routine of the app's trigger or view; GRANT EXECUTE on it"
	case !ok || right == "":
		return "this database user lacks a right; GRANT SELECT, INSERT, UPDATE, DELETE ON " + s.tokens + " and SELECT, UPDATE ON " + s.users
	}
	return "this database user lacks a right; GRANT " + right + " ON " + table
}

// fieldAt is the field of a struct at a path, which may lead through pointers.
func fieldAt(t reflect.Type, path []int) (field reflect.StructField) {
	for _, i := range path {
		field = pointee(t).Field(i)
		t = field.Type
	}
	return field
}

// pointee is what values of a type point to, at the end of all pointers.
func pointee(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

var (
	scannerType = reflect.TypeFor[sql.Scanner]()
	bytesType   = reflect.TypeFor[[]byte]()
	timeType    = reflect.TypeFor[time.Time]()
)

// scans reports whether a field of this type has a Scan method.
func scans(t reflect.Type) bool { return reflect.PointerTo(t).Implements(scannerType) }

// holdsNull reports whether database/sql can scan NULL into a field.
func holdsNull(t reflect.Type) bool {
	return t.Kind() == reflect.Pointer || t.Kind() == reflect.Interface || t == bytesType || t == reflect.TypeFor[sql.RawBytes]() || scans(t)
}

// nullableType names types like this one that hold NULL.
func nullableType(t reflect.Type) string {
	switch {
	case t.Kind() == reflect.String:
		return "*" + t.String() + " or sql.NullString"
	case t.Kind() == reflect.Bool:
		return "*" + t.String() + " or sql.NullBool"
	case t == timeType:
		return "*time.Time or sql.NullTime"
	case t.Kind() == reflect.Int64:
		return "*" + t.String() + " or sql.NullInt64"
	}
	return "*" + t.String()
}

// plainType is what a field is for database/sql: the type behind a pointer, or
// inside of one of its own nullable types.
func plainType(t reflect.Type) reflect.Type {
	t = pointee(t)
	if t.Kind() == reflect.Struct && t.PkgPath() == "database/sql" && scans(t) { // NullString, Null[T]
		return t.Field(0).Type
	}
	return t
}

// holdsTime reports whether a field needs the driver to give it times.
func holdsTime(t reflect.Type) bool { return plainType(t) == timeType }

// misfit says what is wrong with a field for a column, and what to make of it;
// nothing if what the column usually holds can be read.
func misfit(c column, t reflect.Type) string {
	plain := plainType(t)
	if scans(plain) {
		return ""
	}
	number := false // or a truth value, which is read from one
	switch plain.Kind() {
	case reflect.Interface, reflect.String:
		return ""
	case reflect.Slice:
		if plain.Elem().Kind() == reflect.Uint8 {
			return ""
		}
		return "give the type a Scan method"
	case reflect.Struct:
		if plain != timeType {
			return "give the type a Scan method"
		}
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		number = true
	default:
		return "give the type a Scan method"
	}
	whole := number && plain.Kind() != reflect.Float32 && plain.Kind() != reflect.Float64
	switch c.dataType {
	case "date", "datetime", "timestamp":
		if number {
			return "make the field time.Time or string"
		}
		return ""
	case "enum", "set": // of digits, perhaps
		number = false
	case "bit":
		if number && !(plain.Kind() == reflect.Bool && strings.EqualFold(c.definition, "bit(1)")) {
			return "make the column an integer, or the field []byte"
		}
		number = false
	case "decimal":
		if whole && !strings.Contains(c.definition, ",0)") {
			return "make the field float64 or string"
		}
		number = false
	case "float", "double":
		if whole {
			return "make the field float64 or string"
		}
		number = false
	case "tinyint", "smallint", "mediumint", "int", "bigint", "year":
		number = false
	}
	switch {
	case plain == timeType:
		return "make the field string"
	case number:
		return "make the field string"
	}
	return ""
}

// A scanTarget stands for a field in Rows.Scan where the field has a Scan
// method of the app's, or is a truth value. What the method panics with is an
// error of that row: database/sql would hold a lock and the connection for
// ever. The bytes are the method's to keep.
type scanTarget struct{ field reflect.Value }

// guarded is the place for database/sql to scan a field to, given its address.
func guarded(field reflect.Value) any {
	t := field.Type().Elem()
	bottom := pointee(t)
	if scans(t) || scans(bottom) || bottom.Kind() == reflect.Bool {
		return &scanTarget{field.Elem()}
	}
	return field.Interface()
}

// Scan implements sql.Scanner.
func (s *scanTarget) Scan(source any) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	if b, ok := source.([]byte); ok {
		source = bytes.Clone(b)
	}
	return scanInto(s.field, source)
}

// scanInto does what database/sql does for a field that is a Scanner, a truth
// value, or a pointer to one of these. BIT(1) is a truth value too.
func scanInto(field reflect.Value, source any) error {
	if scanner, ok := field.Addr().Interface().(sql.Scanner); ok {
		if plainType(field.Type()).Kind() == reflect.Bool && field.Type().PkgPath() == "database/sql" {
			source = bit(source)
		}
		return scanner.Scan(source)
	}
	if field.Kind() == reflect.Pointer {
		if source == nil {
			field.SetZero()
			return nil
		}
		field.Set(reflect.New(field.Type().Elem()))
		return scanInto(field.Elem(), source)
	}
	var truth sql.Null[bool]
	if err := truth.Scan(bit(source)); err != nil {
		return err
	}
	if !truth.Valid {
		return fmt.Errorf("converting NULL to %v is unsupported", field.Type())
	}
	field.SetBool(truth.V)
	return nil
}

// bit makes the value of a BIT(1) a truth value.
func bit(source any) any {
	if b, ok := source.([]byte); ok && len(b) == 1 && b[0] <= 1 {
		return b[0] == 1
	}
	return source
}
