// Package store runs every SQL statement about the token table and the users
// table. It knows neither requests nor cookies, verifies no token and no
// password, and decides nothing about a login.
//
// All ages are computed by the database from its own clock, in seconds since
// the epoch, so nothing depends on the time zones of app, driver and
// connection, or on the app's clock. Times are written as the column's DEFAULT,
// not as CURRENT_TIMESTAMP: MySQL converts the latter through local time, which
// is ambiguous in the hour that is repeated when daylight saving ends.
package store

import (
	"context"
	"database/sql"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
)

// Config configures a Store. Names are valid: they hold no backtick.
type Config struct {
	UsersTable     string // as name or database.name
	KeyColumn      string
	PasswordColumn string
	TokenTable     string   // as name or database.name
	AccountColumns []string // columns of the users table that are part of a stamp

	IgnorePasswordChanges bool // the password is not part of a stamp

	MaxAge      time.Duration
	MaxLifetime time.Duration // 0 for none
	MaxSessions int           // per user; 0 for any number

	Timeout time.Duration // of an operation
	Replica *sqlx.DB      // nil without one
	Logger  *slog.Logger

	// CheckUser reports an error matching ErrConfig if the columns of the users
	// table do not fit the app's user type. needsTime names a field that needs
	// the driver to parse times, if there is one.
	CheckUser func(*Users) (needsTime string, err error)

	// Changed is called with the ids of sessions that were, or may have been,
	// changed or deleted.
	Changed func(ids ...uint64)

	// Skewed is set if another app renews sessions of the table too, in its own
	// local time. It is called once, with the public ID of a session, when its
	// time zone is not the database's.
	Skewed func(session string, by time.Duration)
}

// A Store reads and writes the token table and the users table.
type Store struct {
	db  *sqlx.DB
	cfg Config

	// Quoted names.
	tokensName   string
	usersName    string
	keyName      string
	passwordName string

	// Conditions: a session has, or possibly has, been idle for more than ?
	// seconds. The second can use the index on active.
	idleSQL      string
	idleIndexSQL string

	users       atomic.Pointer[Users]
	tokens      atomic.Pointer[tokenTable] // nil until it was checked
	galera      atomic.Pointer[bool]       // nil until it was read
	poolChecked atomic.Bool
	warnedSkew  atomic.Bool
}

// New returns a Store. It does not connect.
func New(db *sqlx.DB, cfg Config) *Store {
	if cfg.Changed == nil {
		cfg.Changed = func(...uint64) {}
	}
	s := &Store{
		db:           db,
		cfg:          cfg,
		tokensName:   Quote(cfg.TokenTable),
		usersName:    Quote(cfg.UsersTable),
		keyName:      Quote(cfg.KeyColumn),
		passwordName: Quote(cfg.PasswordColumn),
		// Sums, because an unsigned difference could underflow.
		idleSQL:      "(UNIX_TIMESTAMP(active) + ? < UNIX_TIMESTAMP())",
		idleIndexSQL: "active < FROM_UNIXTIME(UNIX_TIMESTAMP() - ?)",
	}
	if cfg.Skewed != nil { // as Record.lastActive
		skew := strconv.Itoa(maxSkew)
		s.idleSQL = "(IF(UNIX_TIMESTAMP(active) > UNIX_TIMESTAMP() + " + skew + ", UNIX_TIMESTAMP(date), GREATEST(UNIX_TIMESTAMP(active), UNIX_TIMESTAMP(date))) + ? < UNIX_TIMESTAMP())"
		s.idleIndexSQL = "(" + s.idleIndexSQL + " OR active > FROM_UNIXTIME(UNIX_TIMESTAMP() + " + skew + "))"
	}
	return s
}

// Quote returns name or database.name as a quoted identifier.
func Quote(name string) string { return "`" + strings.ReplaceAll(name, ".", "`.`") + "`" }

// quoteColumn quotes a name that comes from a struct tag or from the table
// itself, and so may have any character.
func quoteColumn(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// ofTable is the condition for the rows of information_schema about a table.
// Its parameters are the results of SplitName.
const ofTable = " WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ?"

// SplitName splits database.name. database is nil if there is none.
func SplitName(name string) (database any, table string) {
	if database, table, ok := strings.Cut(name, "."); ok {
		return database, table
	}
	return nil, name
}

// forgetTables makes the next statements read the definitions of the tables
// again.
func (s *Store) forgetTables() {
	s.ForgetUsers()
	s.tokens.Store(nil)
}

// exec runs one statement on the token table, and returns how many rows it
// changed. retried reports that an earlier try may also have taken effect.
func (s *Store) exec(ctx context.Context, name, query string, args ...any) (n int64, retried bool, err error) {
	err = s.doOnceOnTokens(ctx, name, func(ctx context.Context, mayHaveRun bool) error {
		retried = mayHaveRun
		result, err := s.db.ExecContext(ctx, query, args...)
		if err != nil {
			return err
		}
		n, err = result.RowsAffected()
		return err
	})
	return n, retried, err
}

// inTransaction runs op at READ COMMITTED, where deleting a missing row takes
// no gap lock.
func (s *Store) inTransaction(ctx context.Context, op func(*sqlx.Tx) error) error {
	return s.inTransactionAt(ctx, sql.LevelReadCommitted, op)
}

// inTransactionAt runs op in a transaction at an isolation level, and commits
// it if op succeeds.
func (s *Store) inTransactionAt(ctx context.Context, isolation sql.IsolationLevel, op func(*sqlx.Tx) error) error {
	tx, err := s.db.BeginTxx(ctx, &sql.TxOptions{Isolation: isolation})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := op(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// A pair is a row of two text columns; the second is empty if it is NULL.
type pair struct{ name, value string }

// selectPairs reads rows of two columns by position. What a pool calls its
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

// placeholders returns n comma-separated question marks.
func placeholders(n int) string { return "?" + strings.Repeat(", ?", n-1) }

// seconds returns a duration in whole seconds.
func seconds(d time.Duration) int64 { return int64(d / time.Second) }
