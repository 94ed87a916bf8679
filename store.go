package session

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
)

// store speaks SQL. Every age is computed by the database from its own clock, in seconds since the epoch: so nothing
// depends on the time zones of app, driver and connection, or on the app's clock.
//
// A time is written as the column's DEFAULT, never as CURRENT_TIMESTAMP: MySQL stores the latter by way of local time,
// and so an hour off in the hour that a time zone repeats in autumn.
type store struct {
	runner
	db       *sqlx.DB
	cfg      *Config
	tokens   string // quoted names
	users    string
	key      string
	password string
	idle     string // true of a row that rested for more than so many seconds
	resting  string // true of those that may have, by the index active
	table    atomic.Pointer[usersTable]
	checked  atomic.Pointer[tokenTable] // the token table, once it was found to be good
	galera   atomic.Pointer[bool]       // nil until it is known
	skewed   atomic.Bool                // times of another time zone were seen, and a warning given
	sound    atomic.Bool                // the pools were found to keep what is written
	fits     func(*usersTable) (times string, err error)
	changed  func(ids ...uint64) // called with the ids of sessions that were, or may have been, changed or deleted
}

func newStore(db *sqlx.DB, cfg *Config) *store {
	s := &store{
		db:       db,
		cfg:      cfg,
		tokens:   quote(cfg.TokenTable),
		users:    quote(cfg.UsersTable),
		key:      quote(cfg.KeyColumn),
		password: quote(cfg.PasswordColumn),
		// Sums, as a difference of unsigned times must not fall below zero.
		idle:    "(UNIX_TIMESTAMP(active) + ? < UNIX_TIMESTAMP())",
		resting: "active < FROM_UNIXTIME(UNIX_TIMESTAMP() - ?)",
		changed: func(...uint64) {},
	}
	s.runner = runner{cfg.Timeout, func(ctx context.Context) error {
		_, err := s.createTable(ctx, db)
		return err
	}, s.forgetTables}
	if cfg.CandyPack != CandyPackOff { // as record.seen
		skew := strconv.Itoa(maxSkew)
		s.idle = "(IF(UNIX_TIMESTAMP(active) > UNIX_TIMESTAMP() + " + skew + ", UNIX_TIMESTAMP(date), GREATEST(UNIX_TIMESTAMP(active), UNIX_TIMESTAMP(date))) + ? < UNIX_TIMESTAMP())"
		s.resting = "(" + s.resting + " OR active > FROM_UNIXTIME(UNIX_TIMESTAMP() + " + skew + "))"
	}
	return s
}

// quote makes a name, or database.name, an SQL identifier. The Config was validated: there is no backtick in it.
func quote(name string) string { return "`" + strings.ReplaceAll(name, ".", "`.`") + "`" }

// MySQL and MariaDB error numbers.
const (
	erDatabaseDenied  = 1044
	erShutdown        = 1053
	erUnknownColumn   = 1054
	erDuplicateColumn = 1060
	erDuplicateIndex  = 1061
	erDuplicate       = 1062
	erKeyTooLong      = 1071
	erTableDenied     = 1142
	erColumnDenied    = 1143
	erNoTable         = 1146
	erLockWait        = 1205
	erDeadlock        = 1213
	erInterrupted     = 1317
	erRoutineDenied   = 1370
	erIndexTooLong    = 1709
	erKilled          = 1927 // MariaDB
)

func isError(err error, numbers ...uint16) bool {
	var my *mysql.MySQLError
	return errors.As(err, &my) && slices.Contains(numbers, my.Number)
}

// explain wraps a driver's error: what was being done, that the database is to blame, and the error itself.
func (s *store) explain(doing string, err error) error {
	if errors.Is(err, ErrUnavailable) || errors.Is(err, ErrConfig) || errors.Is(err, ErrInvalidArgument) || errors.Is(err, ErrClosed) || errors.Is(err, ErrBusy) {
		return err
	}
	if isError(err, erUnknownColumn) {
		s.table.Store(nil) // the table may have changed since it was read
		return fmt.Errorf("%w: %s: add the column to the table %s, or tag the field of the user struct db:\"-\": %w", ErrConfig, doing, s.users, err)
	}
	if isError(err, unwritable...) {
		return fmt.Errorf("%w: %s: the value has characters that the column or the connection lacks: %w", ErrInvalidArgument, doing, err)
	}
	if isError(err, denied...) {
		return fmt.Errorf("%w: %s: %s: %w", ErrConfig, doing, s.missingGrant(err), err)
	}
	return fmt.Errorf("session: %s: %w: %w", doing, ErrUnavailable, err)
}

// forgetTables has the tables read anew: one of them has changed.
func (s *store) forgetTables() {
	s.table.Store(nil)
	s.checked.Store(nil)
}

// runOnTokens is run for statements on the token table, which must be good.
func (s *store) runOnTokens(ctx context.Context, doing string, do func(ctx context.Context, again bool) error) error {
	if _, err := s.tokenTable(ctx); err != nil {
		return s.explain(doing, err)
	}
	return s.run(ctx, doing, do)
}

// run does what may need the token table, as runner.run does.
func (s *store) run(ctx context.Context, doing string, do func(ctx context.Context, again bool) error) error {
	if err := s.runner.run(ctx, do); err != nil {
		return s.explain(doing, err)
	}
	return nil
}

// causal is what makes a SELECT see all that was acknowledged before, by whichever server: nothing where that is so
// anyway. The servers of a Galera cluster have a write of another one a moment later.
func (s *store) causal(ctx context.Context) (prefix string, err error) {
	galera, err := s.isGalera(ctx)
	if !galera {
		return "", err
	}
	return "SET STATEMENT wsrep_sync_wait = 1 FOR ", nil
}

// isGalera asks once whether the database is a MariaDB Galera cluster.
func (s *store) isGalera(ctx context.Context) (bool, error) {
	if known := s.galera.Load(); known != nil {
		return *known, nil
	}
	var variables []pair
	err := s.run(ctx, "read the server's variables", func(ctx context.Context, _ bool) (err error) {
		variables, err = selectPairs(ctx, s.db, "SHOW VARIABLES WHERE Variable_name = 'version' OR Variable_name = 'wsrep_on'")
		return err
	})
	if err != nil {
		return false, err
	}
	on, mariaDB := false, false
	for _, v := range variables {
		on = on || strings.EqualFold(v.name, "wsrep_on") && strings.EqualFold(v.value, "ON")
		mariaDB = mariaDB || strings.Contains(v.value, "MariaDB")
	}
	galera := on && mariaDB
	s.galera.Store(&galera)
	return galera, nil
}

// The users table.

type columnKind int

const (
	otherColumn columnKind = iota
	textColumn
	integerColumn
	binaryColumn
)

// A column is one of the users table.
type column struct {
	name       string
	kind       columnKind
	definition string // its type, for a column that refers to it
	dataType   string // lower case, such as int or binary
	charset    string // of text
	width      int64  // of text in characters, of a binary column in bytes; 0 if it has no limit
	counts     bool   // the database counts it up
	collation  string
	nullable   bool
}

type usersTable struct {
	database      string // as the server spells it
	name          string
	columns       []column // all but the password
	key           column
	fits          atomic.Bool // its columns were found to fit U
	primary       bool        // the key is in the primary key
	view          bool        // not a table, so it has no indexes, and less is known of NULL
	hasPassword   bool
	passwordWidth int64  // in characters; 0 if there is no such column, or it has no limit
	account       string // an SQL expression of the columns that Config.AccountColumns names; "" if it names none
}

// column finds one by its name, as the database would.
func (t *usersTable) column(name string) (column, bool) {
	for _, c := range t.columns {
		if strings.EqualFold(c.name, name) {
			return c, true
		}
	}
	return column{}, false
}

// usersTable returns the definition of the users table, which must fit U. It is
// read on first use.
func (s *store) usersTable(ctx context.Context) (*usersTable, error) {
	t, err := s.definition(ctx)
	if err != nil || t.fits.Load() {
		return t, err
	}
	err = s.run(ctx, "read the users table", func(ctx context.Context, _ bool) error { return s.checkUsers(ctx, t) })
	if err != nil {
		s.table.Store(nil) // it may fit the next time
		return nil, err
	}
	t.fits.Store(true)
	return t, nil
}

// definition is usersTable for calls that need no user: a session can end
// whatever its user's columns are.
func (s *store) definition(ctx context.Context) (*usersTable, error) {
	if t := s.table.Load(); t != nil {
		return t, nil
	}
	if err := s.checkPool(ctx); err != nil {
		return nil, err
	}
	var t *usersTable
	err := s.run(ctx, "read the users table", func(ctx context.Context, _ bool) (err error) {
		t, err = s.readUsersTable(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.table.Store(t)
	return t, nil
}

func (s *store) readUsersTable(ctx context.Context) (*usersTable, error) {
	database, table := splitName(s.cfg.UsersTable)
	rows, err := s.db.QueryxContext(ctx, "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME, CHARACTER_MAXIMUM_LENGTH, EXTRA, IS_NULLABLE, COLUMN_KEY"+
		" FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION", database, table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	t := &usersTable{}
	exists := false
	for rows.Next() {
		exists = true
		var c column
		var charset, collation, extra, nullable, index sql.NullString
		var width sql.NullInt64
		if err := rows.Scan(&t.database, &t.name, &c.name, &c.dataType, &c.definition, &charset, &collation, &width, &extra, &nullable, &index); err != nil {
			return nil, err
		}
		c.dataType, c.charset, c.width = strings.ToLower(c.dataType), charset.String, width.Int64
		switch c.dataType {
		case "tinyint", "smallint", "mediumint", "int", "bigint":
			c.kind = integerColumn
		case "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob":
			c.kind = binaryColumn
		case "uuid":
			c.kind = textColumn
		}
		c.definition = definitionOf(c.definition, charset, collation)
		if charset.Valid {
			c.kind = textColumn
			c.collation = collation.String
		}
		c.counts = strings.Contains(strings.ToLower(extra.String), "auto_increment")
		// MariaDB can't declare a generated column NOT NULL.
		generated := strings.Contains(extra.String, "VIRTUAL") || strings.Contains(extra.String, "STORED")
		c.nullable = strings.EqualFold(nullable.String, "YES") && !generated
		if strings.EqualFold(c.name, s.cfg.KeyColumn) {
			t.key = c
			t.primary = strings.EqualFold(index.String, "PRI")
		}
		if strings.EqualFold(c.name, s.cfg.PasswordColumn) {
			t.hasPassword, t.passwordWidth = true, width.Int64
		} else {
			t.columns = append(t.columns, c)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	switch {
	case !exists:
		return nil, fmt.Errorf("%w: there is no users table %s; create it, or set Config.UsersTable, or GRANT this database user SELECT on it", ErrConfig, s.users)
	case t.key.name == "":
		return nil, fmt.Errorf("%w: the users table %s has no column %s; set Config.KeyColumn to its primary key", ErrConfig, s.users, s.key)
	case t.key.kind == otherColumn:
		return nil, fmt.Errorf("%w: the key %s of the users table is %s; it must be an integer, text or binary column", ErrConfig, s.key, t.key.definition)
	}
	kinds, err := selectPairs(ctx, s.db, "SELECT TABLE_TYPE, NULL FROM information_schema.TABLES WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ?", database, table)
	if err != nil {
		return nil, err
	}
	t.view = len(kinds) == 1 && strings.Contains(strings.ToUpper(kinds[0].name), "VIEW")
	t.account, err = t.accountExpression(s.cfg.AccountColumns)
	return t, err
}

// splitName takes database.name apart; without a database it is nil.
func splitName(name string) (database any, table string) {
	if database, table, ok := strings.Cut(name, "."); ok {
		return database, table
	}
	return nil, name
}

// arg converts a value to a parameter that the column can only equal exactly:
// MySQL takes the text '1x' for equal to the number 1, and the number 0 for
// equal to every text that is no number. It reports false for a value that the
// column cannot hold.
func (c column) arg(value any) (arg any, possible bool, err error) {
	converted, ok := c.plain(value)
	if !ok || c.kind == otherColumn {
		return nil, false, fmt.Errorf("%w: column %s is %s and cannot be matched with a %T; give text or an integer for a text, integer or binary column", ErrInvalidArgument, quote(c.name), c.definition, value)
	}
	switch c.kind {
	case binaryColumn:
		raw := []byte(converted)
		if c.dataType == "binary" { // what is shorter is padded, and then another key
			return raw, int64(len(raw)) == c.width, nil
		}
		return raw, c.width == 0 || int64(len(raw)) <= c.width, nil
	case textColumn:
		if c.dataType == "uuid" {
			converted, possible = canonicalUUID(converted)
			return converted, possible, nil
		}
		possible = utf8.ValidString(converted) && (c.width == 0 || int64(utf8.RuneCountInString(converted)) <= c.width) && inCharset(converted, c.charset)
		return converted, possible, nil
	}
	if n, err := strconv.ParseInt(converted, 10, 64); err == nil && strconv.FormatInt(n, 10) == converted {
		return n, c.holds(n), nil
	}
	n, err := strconv.ParseUint(converted, 10, 64)
	possible = err == nil && strconv.FormatUint(n, 10) == converted && (c.dataType == "bigint" && c.unsigned() || c.dataType == "")
	return n, possible, nil
}

// plain returns a value as text or bytes. It reports false for a value of a type
// that no key column has.
func (c column) plain(value any) (text string, ok bool) {
	if n, ok := value.(uint64); ok {
		return strconv.FormatUint(n, 10), true
	}
	converted, err := driver.DefaultParameterConverter.ConvertValue(value)
	_, valuer := value.(driver.Valuer)
	raw, isBytes := converted.([]byte)
	if v := reflect.ValueOf(value); c.kind == binaryColumn && v.Kind() == reflect.Array && v.Type().Elem().Kind() == reflect.Uint8 && (!valuer || !isBytes) {
		raw := make([]byte, v.Len()) // a UUID type; its Value method would give text
		reflect.Copy(reflect.ValueOf(raw), v)
		return string(raw), true
	}
	switch v := converted.(type) {
	case int64:
		return strconv.FormatInt(v, 10), err == nil
	case string:
		return v, err == nil
	}
	return string(raw), err == nil && isBytes
}

func (c column) unsigned() bool { return strings.Contains(strings.ToLower(c.definition), "unsigned") }

// holds reports whether an integer is in the column's range.
func (c column) holds(n int64) bool {
	bits, ok := map[string]int{"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}[c.dataType]
	switch {
	case !ok:
		return true
	case c.unsigned():
		return n >= 0 && (bits == 64 || n < 1<<bits)
	}
	return n >= -1<<(bits-1) && n <= 1<<(bits-1)-1
}

// inCharset reports whether a column of the character set can hold the text. It
// reports true for character sets that it does not know.
func inCharset(text, charset string) bool {
	limit := rune(utf8.MaxRune)
	switch charset {
	case "ascii":
		limit = 0x7f
	case "utf8", "utf8mb3", "ucs2":
		limit = 0xffff
	}
	return !strings.ContainsFunc(text, func(r rune) bool { return r > limit })
}

// canonicalUUID returns a UUID as the server's type uuid writes it.
func canonicalUUID(text string) (string, bool) {
	digits := strings.ToLower(strings.ReplaceAll(text, "-", ""))
	if raw, err := hex.DecodeString(digits); err != nil || len(raw) != 16 {
		return text, false
	}
	return digits[:8] + "-" + digits[8:12] + "-" + digits[12:16] + "-" + digits[16:20] + "-" + digits[20:], true
}

// userArg converts a user's key, as the app or the driver has it, to a
// parameter for the column user. It returns an error matching ErrInvalidArgument for a
// value that the key column cannot hold.
func (s *store) userArg(ctx context.Context, key any) (any, error) {
	table, err := s.definition(ctx)
	if err != nil {
		return nil, err
	}
	arg, possible, err := table.key.arg(key)
	if err == nil && !possible {
		err = fmt.Errorf("%w: the key column %s of %s is %s, which cannot hold this %T; give the key as the users table has it", ErrInvalidArgument, s.key, s.users, table.key.definition, key)
	}
	return arg, err
}

// A condition says which value a column of the users table must have.
type condition struct {
	column column
	arg    any
}

// selectUsers reads the database's time, the key, what the stamp is made of, and
// the given columns. The app must index the columns that its conditions name.
func (s *store) selectUsers(table *usersTable, columns []string, conditions []condition) (query string, args []any) {
	var b strings.Builder
	password, account := table.stampColumns(s, "")
	b.WriteString("SELECT UNIX_TIMESTAMP(), " + s.key + ", " + password + ", " + account)
	for _, name := range columns {
		b.WriteString(", " + quoteColumn(name))
	}
	b.WriteString(" FROM " + s.users)
	for i, c := range conditions {
		b.WriteString([]string{" WHERE ", " AND "}[min(i, 1)] + quoteColumn(c.column.name) + " = ?")
		args = append(args, c.arg)
	}
	b.WriteString(" LIMIT 2")
	return b.String(), args
}

// quoteColumn quotes a name that comes from a struct tag or the table itself, and so may have any character.
func quoteColumn(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// samplePasswords reads the password hashes of some users, of the first and of
// the last by key.
func (s *store) samplePasswords(ctx context.Context) (hashes [][]byte, err error) {
	half := "SELECT " + s.password + " FROM " + s.users + " ORDER BY " + s.key
	for _, order := range []string{"", " DESC"} {
		var some [][]byte
		err = s.run(ctx, "read a sample of the passwords", func(ctx context.Context, _ bool) error {
			some = nil
			return s.db.SelectContext(ctx, &some, half+order+" LIMIT 500")
		})
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, some...)
	}
	return hashes, nil
}

// replacePassword replaces the hash of a user's password if it is still the old
// one. In the same transaction it calls then with the user's new stamp. It
// returns an error if the column is too narrow, because a non-strict server
// would truncate the hash.
func (s *store) replacePassword(ctx context.Context, key any, old []byte, hash string, then func(ctx context.Context, tx *sqlx.Tx, stamp []byte) error) (replaced bool, err error) {
	table, err := s.usersTable(ctx)
	if err != nil {
		return false, err
	}
	if table.passwordWidth != 0 && table.passwordWidth < int64(len(hash)) {
		s.table.Store(nil) // it may be widened before the next time
		return false, fmt.Errorf("session: the column %s of %s has %d characters, and a bcrypt hash %d; make it VARCHAR(255)", s.password, s.users, table.passwordWidth, len(hash))
	}
	var was any // NULL, or nothing but the same bytes
	if old != nil {
		was = string(old)
	}
	err = s.runOnTokens(ctx, "replace the password", func(ctx context.Context, again bool) error {
		return s.inTransaction(ctx, func(tx *sqlx.Tx) error {
			result, err := tx.ExecContext(ctx, "UPDATE "+s.users+" SET "+s.password+" = ? WHERE "+s.key+" = ? AND "+s.password+" <=> ?", hash, key, was)
			if err != nil {
				return err
			}
			n, err := result.RowsAffected()
			if n == 0 && again { // the transaction may have been committed before
				return tx.QueryRowContext(ctx, "SELECT COUNT(*) = 1 FROM "+s.users+" WHERE "+s.key+" = ? AND "+s.password+" = ?", key, hash).Scan(&replaced)
			}
			if replaced = n == 1; err != nil || !replaced {
				return err
			}
			stamp, err := s.stampOf(ctx, tx, key)
			if err != nil {
				return err
			}
			return then(ctx, tx, stamp)
		})
	})
	return replaced && err == nil, err
}

// insertUser adds a user and returns the key that the database has counted up. Where the server would rather change a
// value than refuse it, it warns, and that is an error here.
func (s *store) insertUser(ctx context.Context, tx *sqlx.Tx, columns []column, args []any) (id int64, err error) {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = quoteColumn(c.name)
	}
	result, err := tx.ExecContext(ctx, "INSERT INTO "+s.users+" ("+strings.Join(names, ", ")+") VALUES (?"+strings.Repeat(", ?", len(args)-1)+")", args...)
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

// Refusals of a value, not failures of the database.
var refusals = []uint16{
	1048, // may not be NULL
	1110, // a column twice
	1264, // out of range
	1265, // truncated
	1292, // incorrect value
	1364, // has no default
	1366, // incorrect value
	1406, // too long
	1452, // foreign key
	1644, // a trigger's SIGNAL
	1906, // a generated column, in MariaDB
	3105, // a generated column, in MySQL
	3140, // no JSON
	3819, // CHECK, in MySQL
	4025, // CHECK, in MariaDB
	1300, // ill-formed in the character set of the connection
	3854, // characters that the column's lacks
	3988, // or the connection's
}

// explainUser says why a user was not added: a field that is taken, a value that does not fit, or a database that fails.
func (s *store) explainUser(ctx context.Context, err error, columns []column, args []any) error {
	var my *mysql.MySQLError
	switch {
	case isError(err, erDuplicate):
		field, findErr := s.taken(ctx, columns, args)
		if findErr != nil {
			return findErr
		}
		return &DuplicateError{Columns: strings.Split(field, ", ")}
	case errors.As(err, &my) && slices.Contains(refusals, my.Number):
		return fmt.Errorf("%w: Register: the users table refuses the fields: %w", ErrInvalidArgument, err)
	}
	return s.explain("add the user", err)
}

// taken finds the unique index of which another user has the values, and names its columns.
func (s *store) taken(ctx context.Context, columns []column, args []any) (field string, err error) {
	users, err := s.usersTable(ctx)
	if err != nil {
		return "", err
	}
	database, table := splitName(s.cfg.UsersTable)
	var parts []pair
	err = s.run(ctx, "read the indexes of the users table", func(ctx context.Context, _ bool) (err error) {
		parts, err = selectPairs(ctx, s.db, "SELECT INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ? AND NON_UNIQUE = 0 ORDER BY INDEX_NAME, SEQ_IN_INDEX", database, table)
		return err
	})
	if err != nil {
		return "", err
	}
	for len(parts) > 0 {
		n := 1
		for n < len(parts) && parts[n].name == parts[0].name {
			n++
		}
		var names []string
		var conditions []condition
		for _, part := range parts[:n] {
			i := slices.IndexFunc(columns, func(c column) bool { return strings.EqualFold(c.name, part.value) })
			if i < 0 {
				break // a default, or an expression
			}
			arg, possible, err := columns[i].arg(args[i])
			if err != nil || !possible {
				break // no value that could be there already
			}
			names = append(names, columns[i].name)
			conditions = append(conditions, condition{columns[i], arg})
		}
		parts = parts[n:]
		if len(conditions) < n {
			continue
		}
		found := false
		query, args := s.selectUsers(users, nil, conditions)
		err := s.run(ctx, "find the user", func(ctx context.Context, _ bool) error {
			rows, err := s.db.QueryContext(ctx, query, args...)
			if err != nil {
				return err
			}
			found = rows.Next()
			return errors.Join(rows.Err(), rows.Close())
		})
		if err != nil {
			return "", err
		}
		if found {
			return strings.Join(names, ", "), nil
		}
	}
	return "", nil
}

// The token table.

// A record is a row of the token table.
type record struct {
	id       uint64
	owner    any // the user's key, as the driver gave it; nil if there is no such user
	selector string
	hash     string      // of the verifier
	stamp    []byte      // of the account at login; nil if it is not compared
	method   loginMethod // only of a session that begins
	browser  string
	ip       string
	created  int64 // all times in seconds since the epoch, by the database's clock
	active   int64
	now      int64
}

// The columns that the check goes by.
const (
	selectorColumn = "t.token_x"
	idColumn       = "t.id"
)

// A selection says which columns a lookup reads to bind a session to its
// account, beside those of the session itself. What a table does not need costs
// its lookups nothing.
type selection struct {
	text    bool // the keys as bytes, since a connection's character set may make two strings one
	stamp   bool // the stamp and the password hash
	account bool // Config.AccountColumns
}

func (s *store) selectionOf(tokens *tokenTable, users *usersTable) selection {
	stamped := tokens.stamped && s.cfg.comparesStamps()
	return selection{
		text:    users.key.kind == textColumn,
		stamp:   stamped && (users.hasPassword || users.account != ""),
		account: stamped && users.account != "",
	}
}

// selectSessions returns the lookup statement: n sessions, chosen by a column,
// with their users. For each it reads one entry of the index token_x, if it goes
// by that, and one of each primary key. scanner.scan reads the columns.
func (s *store) selectSessions(what selection, users *usersTable, columns []string, by string, n int) string {
	var b strings.Builder
	b.WriteString("SELECT t.token_x, t.token_y, u." + s.key + ", t.id, t.browser, t.ip, UNIX_TIMESTAMP(t.date), UNIX_TIMESTAMP(t.active), UNIX_TIMESTAMP()")
	if what.text {
		b.WriteString(", CAST(t.user AS BINARY), CAST(u." + s.key + " AS BINARY)")
	} else {
		b.WriteString(", t.user")
	}
	password, account := users.stampColumns(s, "u.")
	if what.stamp {
		b.WriteString(", t.stamp, " + password)
	}
	if what.account {
		b.WriteString(", " + account)
	}
	for _, name := range columns {
		b.WriteString(", u." + quoteColumn(name))
	}
	b.WriteString(" FROM " + s.tokens + " t LEFT JOIN " + s.users + " u ON u." + s.key + " = t.user WHERE " + by)
	if n == 1 {
		b.WriteString(" = ?")
	} else {
		b.WriteString(" IN (?" + strings.Repeat(", ?", n-1) + ")")
	}
	return b.String()
}

// insert adds a session and, in one transaction, takes away the one that it
// replaces, if that is not 0. The deletion goes first: a transaction that waits
// for a lock must not hold one on a new row, for which others may come to wait.
// Then it ends the sessions that are too many.
func (s *store) insert(ctx context.Context, r *record, replaced uint64) (id uint64, ended int64, err error) {
	if replaced != 0 {
		defer s.changed(replaced)
	}
	save := func(ctx context.Context) error {
		if replaced == 0 {
			id, err = s.insertWith(ctx, s.db, r)
			return err
		}
		return s.inTransaction(ctx, func(tx *sqlx.Tx) error {
			if _, err := s.deleteWith(ctx, tx, []uint64{replaced}, ""); err != nil {
				return err
			}
			id, err = s.insertWith(ctx, tx, r)
			return err
		})
	}
	err = s.runOnTokens(ctx, "save the session", func(ctx context.Context, again bool) error {
		if !again {
			return save(ctx)
		}
		// The selector tells whether it was saved. If the server is still at it, the unique index has this one wait.
		if id, err = s.saved(ctx, r.selector); id != 0 || err != nil {
			return err
		}
		err := save(ctx)
		if isError(err, erDuplicate) {
			id, err = s.saved(ctx, r.selector)
		}
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	if s.cfg.MaxSessions > 0 {
		if ended, err = s.trim(ctx, r.owner); err != nil {
			s.delete(context.WithoutCancel(ctx), id) // or not: nobody has its token
			return 0, 0, err
		}
	}
	return id, ended, nil
}

// saved finds a session that may have been saved by its selector, where an index keeps that from standing twice.
func (s *store) saved(ctx context.Context, selector string) (id uint64, err error) {
	database, table := splitName(s.cfg.TokenTable)
	var unique bool
	err = s.db.GetContext(ctx, &unique, "SELECT COUNT(*) > 0 FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ? AND COLUMN_NAME = 'token_x' AND SEQ_IN_INDEX = 1 AND NON_UNIQUE = 0", database, table)
	if err != nil {
		return 0, err
	}
	if !unique {
		return 0, errors.New("the connection was lost, and as token_x has no unique index it can't be tried again; let Migrate add that")
	}
	causal, err := s.causal(ctx)
	if err != nil {
		return 0, err
	}
	err = s.db.GetContext(ctx, &id, causal+"SELECT id FROM "+s.tokens+" WHERE token_x = ?", selector)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return id, err
}

// trim deletes all sessions of a user but the latest, and returns how many. It
// locks nothing: each login trims when its own session is saved, so the last
// login sees all of them.
func (s *store) trim(ctx context.Context, user any) (ended int64, err error) {
	records, err := s.sessionsOf(ctx, user)
	if err != nil || len(records) <= s.cfg.MaxSessions {
		return 0, err
	}
	ids := make([]uint64, len(records))
	for i, r := range records {
		ids[i] = r.id
	}
	slices.SortFunc(ids, func(a, b uint64) int { return cmp.Compare(b, a) })
	return s.deleteIDs(ctx, ids[s.cfg.MaxSessions:], "")
}

func (s *store) insertWith(ctx context.Context, on sqlx.ExecerContext, r *record) (uint64, error) {
	table, err := s.tokenTable(ctx)
	if err != nil {
		return 0, err
	}
	columns, args := "user, token_x, token_y, browser, ip", []any{r.owner, r.selector, r.hash, r.browser, r.ip}
	if table.stamped {
		columns, args = columns+", stamp, method", append(args, r.stamp, r.method)
	}
	result, err := on.ExecContext(ctx, "INSERT INTO "+s.tokens+" ("+columns+") VALUES (?"+strings.Repeat(", ?", len(args)-1)+")", args...)
	if err != nil {
		return 0, err
	}
	id, err := result.LastInsertId()
	return uint64(id), err
}

// inTransaction runs under READ COMMITTED, where deleting a row that is not there locks no gap.
func (s *store) inTransaction(ctx context.Context, do func(*sqlx.Tx) error) error {
	return s.inTransactionAt(ctx, sql.LevelReadCommitted, do)
}

func (s *store) inTransactionAt(ctx context.Context, isolation sql.IsolationLevel, do func(*sqlx.Tx) error) error {
	tx, err := s.db.BeginTxx(ctx, &sql.TxOptions{Isolation: isolation})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// slide renews a session that was idle for more than the age. Of those who try at once one wins; who can't know whether
// it did counts as a winner too. A row that was deleted meanwhile stays so.
func (s *store) slide(ctx context.Context, id uint64, browser string, age time.Duration) (won bool, err error) {
	defer s.changed(id)
	n, again, err := s.exec(ctx, "renew the session", "UPDATE "+s.tokens+" SET active = DEFAULT, browser = ? WHERE id = ? AND "+s.idle, browser, id, seconds(age))
	return n == 1 || again || uncertain(err), err
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// exec runs one statement on the token table and tells how many rows it changed; again if these may have been more, as
// the answer to a try before was lost.
func (s *store) exec(ctx context.Context, doing, query string, args ...any) (n int64, again bool, err error) {
	err = s.runOnTokens(ctx, doing, func(ctx context.Context, lost bool) error {
		again = lost
		result, err := s.db.ExecContext(ctx, query, args...)
		if err != nil {
			return err
		}
		n, err = result.RowsAffected()
		return err
	})
	return n, again, err
}

// retoken replaces a session's token, if it still has the one that its holder
// knows, and sets its stamp to that of the account as it is now. The condition on
// token_x is written so that no index serves it: going by token_x first would
// take locks in another order than a delete by id, and could deadlock.
func (s *store) retoken(ctx context.Context, old *record, selector, hash string) (found bool, err error) {
	defer s.changed(old.id)
	table, err := s.tokenTable(ctx)
	if err != nil {
		return false, s.explain("renew the token", err)
	}
	set, args := "token_x = ?, token_y = ?", []any{selector, hash}
	if table.stamped {
		var stamp []byte
		err := s.run(ctx, "read the account", func(ctx context.Context, _ bool) (err error) {
			stamp, err = s.stampOf(ctx, s.db, old.owner)
			return err
		})
		if err != nil {
			return false, err
		}
		set, args = set+", stamp = ?", append(args, stamp)
	}
	n, again, err := s.exec(ctx, "renew the token", "UPDATE "+s.tokens+" SET "+set+" WHERE id = ? AND CONCAT(token_x, '') = ?", append(args, old.id, old.selector)...)
	if n == 0 && again && err == nil {
		err = s.run(ctx, "find the new token", func(ctx context.Context, _ bool) error {
			return s.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+s.tokens+" WHERE id = ? AND CONCAT(token_x, '') = ?", old.id, selector).Scan(&n)
		})
	}
	return n == 1, err
}

// deleteExpired ends one session, if it is still expired.
func (s *store) deleteExpired(ctx context.Context, id uint64) error {
	defer s.changed(id)
	lifetime := s.cfg.MaxLifetime
	if lifetime == 0 {
		lifetime = 2 * maxDuration
	}
	_, _, err := s.exec(ctx, "end the expired session", "DELETE FROM "+s.tokens+" WHERE id = ? AND ("+s.idle+" OR UNIX_TIMESTAMP(date) + ? < UNIX_TIMESTAMP())", id, seconds(s.cfg.MaxAge), seconds(lifetime))
	return err
}

// delete ends one session.
func (s *store) delete(ctx context.Context, id uint64) (found bool, err error) {
	defer s.changed(id)
	n, again, err := s.exec(ctx, "end the session", "DELETE FROM "+s.tokens+" WHERE id = ?", id)
	return n == 1 || again, err
}

// Whose a session is never changes, and no id comes twice. So rows are found by user with plain reads, and deleted by
// id and nothing else: with the user in the condition MariaDB would go by that index, take its locks in another order
// than a delete by id, and the two could deadlock.

// deleteAllOf deletes every session of a user except one.
func (s *store) deleteAllOf(ctx context.Context, user any, except uint64) (n int64, err error) {
	records, err := s.recordsOf(ctx, user, "", nil)
	var ids []uint64
	for _, r := range records {
		if r.id != except {
			ids = append(ids, r.id)
		}
	}
	for len(ids) > 0 && err == nil {
		chunk := ids[:min(len(ids), purgeChunk)]
		ids = ids[len(chunk):]
		var deleted int64
		deleted, err = s.deleteIDs(ctx, chunk, "")
		n += deleted
	}
	return n, err
}

// deleteIDs deletes rows by primary key, in its order, where a further condition still holds.
func (s *store) deleteIDs(ctx context.Context, ids []uint64, condition string, conditionArgs ...any) (n int64, err error) {
	defer s.changed(ids...)
	err = s.runOnTokens(ctx, "delete sessions", func(ctx context.Context, _ bool) error {
		return s.inTransaction(ctx, func(tx *sqlx.Tx) error {
			n, err = s.deleteWith(ctx, tx, ids, condition, conditionArgs...)
			return err
		})
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// deleteWith is deleteIDs in a transaction that is open. It sorts the ids, so that all take their locks in one order.
func (s *store) deleteWith(ctx context.Context, tx *sqlx.Tx, ids []uint64, condition string, conditionArgs ...any) (n int64, err error) {
	slices.Sort(ids)
	args := make([]any, len(ids), len(ids)+len(conditionArgs))
	for i, id := range ids {
		args[i] = id
	}
	args = append(args, conditionArgs...)
	result, err := tx.ExecContext(ctx, "DELETE FROM "+s.tokens+" WHERE id IN (?"+strings.Repeat(", ?", len(ids)-1)+")"+condition, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// deleteIdle deletes the rows that rested longest, if for more than the age, and no more than the limit. The index
// active finds them; its range is in local time, which repeats an hour in autumn, so the epoch has the last word.
func (s *store) deleteIdle(ctx context.Context, age time.Duration, limit int) (found int, deleted int64, err error) {
	if err := s.checkPool(ctx); err != nil {
		return 0, 0, err
	}
	var ids []uint64
	err = s.runOnTokens(ctx, "find idle sessions", func(ctx context.Context, _ bool) error {
		ids = nil
		return s.db.SelectContext(ctx, &ids, "SELECT id FROM "+s.tokens+" WHERE "+s.resting+" AND "+s.idle+
			" ORDER BY active LIMIT ?", seconds(age), seconds(age), limit)
	})
	if err != nil || len(ids) == 0 {
		return 0, 0, err
	}
	deleted, err = s.deleteIDs(ctx, ids, " AND "+s.idle, seconds(age))
	return len(ids), deleted, err
}

// sessionsOf reads a user's sessions that have not expired, the most recently
// renewed first.
func (s *store) sessionsOf(ctx context.Context, user any) (records []record, err error) {
	condition, args := " AND NOT "+s.idle, []any{seconds(s.cfg.MaxAge)}
	if s.cfg.MaxLifetime > 0 {
		condition += " AND UNIX_TIMESTAMP(date) + ? >= UNIX_TIMESTAMP()"
		args = append(args, seconds(s.cfg.MaxLifetime))
	}
	return s.recordsOf(ctx, user, condition, args)
}

// recordsOf reads the sessions of a user, including those that another server of
// a cluster has just added. It compares the key to the letter: the collation of
// the column may take the key of another user for equal.
func (s *store) recordsOf(ctx context.Context, user any, condition string, args []any) (records []record, err error) {
	causal, err := s.causal(ctx)
	if err != nil {
		return nil, err
	}
	users, err := s.definition(ctx)
	if err != nil {
		return nil, err
	}
	query := causal + "SELECT id, user, token_y, browser, ip, UNIX_TIMESTAMP(date), UNIX_TIMESTAMP(active), UNIX_TIMESTAMP() FROM " + s.tokens + " WHERE user = ?" + condition + " ORDER BY active DESC, id DESC"
	err = s.runOnTokens(ctx, "list the user's sessions", func(ctx context.Context, _ bool) error {
		records = nil
		rows, err := s.db.QueryxContext(ctx, query, append([]any{user}, args...)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r record
			if err := rows.Scan(&r.id, &r.owner, &r.hash, &r.browser, &r.ip, &r.created, &r.active, &r.now); err != nil {
				return err
			}
			if owner, _, err := users.key.arg(r.owner); err != nil || !sameKey(owner, user) {
				continue
			}
			s.reconcile(&r)
			records = append(records, r)
		}
		return rows.Err()
	})
	return records, err
}

// stats counts the whole table.
func (s *store) stats(ctx context.Context) (stats Stats, err error) {
	var oldest sql.NullInt64
	var expired sql.NullFloat64 // a sum of truth values is a DECIMAL
	if _, err := s.tokenTable(ctx); err != nil {
		return Stats{}, s.explain("count the sessions", err)
	}
	db, done := patient(s.db)
	defer done()
	err = s.try(ctx, func(ctx context.Context, _ bool) error {
		query := "SELECT COUNT(*), SUM(" + s.idle + "), MIN(UNIX_TIMESTAMP(active)) FROM " + s.tokens
		return db.QueryRowxContext(ctx, query, seconds(s.cfg.MaxAge)).Scan(&stats.Rows, &expired, &oldest)
	})
	if err != nil {
		return Stats{}, s.explain("count the sessions", err)
	}
	stats.Expired = int64(expired.Float64)
	stats.Active = stats.Rows - stats.Expired
	if oldest.Valid {
		stats.Oldest = time.Unix(oldest.Int64, 0).UTC()
	}
	database, table := splitName(s.cfg.TokenTable)
	err = db.GetContext(ctx, &stats.Bytes, "SELECT COALESCE(SUM(DATA_LENGTH + INDEX_LENGTH), 0) AS bytes FROM information_schema.TABLES WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ?", database, table)
	if err != nil {
		return Stats{}, s.explain("measure the token table", err)
	}
	return stats, nil
}
