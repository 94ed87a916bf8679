package throttle

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/candysession/session/internal/retry"
	"github.com/jmoiron/sqlx"
)

// MySQL is a [Throttle] that counts in a table of MySQL or MariaDB, which all
// app servers share. Create one with [NewMySQL].
type MySQL struct {
	db     *sqlx.DB
	table  string // quoted
	secret []byte
	swept  atomic.Int64 // the ResetAfter that deleteExpired has looked at last, in seconds
}

var _ Throttle = (*MySQL)(nil)

const (
	// timeout bounds each call, beside its context.
	timeout = 10 * time.Second

	// abandonedAfter is how long an attempt may be in progress, in seconds. An
	// older one counts as a failure, as its process may have ended.
	abandonedAfter = 30

	// rememberedFor is how long a key is remembered.
	rememberedFor = 90 * 24 * time.Hour

	// nameLength is the length of a stored key, in hex digits.
	nameLength = 32

	// minSecretLength is in bytes.
	minSecretLength = 16
)

// Error numbers of the server.
const (
	duplicateKey = 1062
	noSuchTable  = 1146
)

// A table is named as a Config of package session may name one.
var tableName = regexp.MustCompile(`^(?:[0-9A-Za-z_$\x{80}-\x{ffff}-]{1,64}\.)?[0-9A-Za-z_$\x{80}-\x{ffff}-]{1,64}$`)

// NewMySQL creates a MySQL throttle on a table, such as "session_attempts" or
// "database.session_attempts". It does not connect. The table is created when
// it is first needed, and expired rows are deleted as new ones are added.
//
// The table holds hashes of the keys, so a reader of the table can guess keys
// and compare. With a secret of at least 16 random bytes, the rows hold HMACs,
// and guesses are useless without it. All app servers need the same secret. It
// does not belong into the database. A new secret forgets everything. A nil
// secret is none.
//
// It returns an error if db is nil, the table cannot have this name, or the
// secret is neither nil nor long enough. The error names the allowed values. An
// empty secret is such an error, so that a missing environment variable does
// not go unnoticed.
func NewMySQL(db *sqlx.DB, table string, secret []byte) (*MySQL, error) {
	switch {
	case db == nil:
		return nil, errors.New("throttle: NewMySQL: db is nil; open one with session.Open")
	case !tableName.MatchString(table):
		return nil, fmt.Errorf("throttle: NewMySQL: table = %q: must be a name of letters, digits, _, $ and -, at most 64 characters, or database.name", table)
	case secret != nil && len(secret) < minSecretLength:
		return nil, fmt.Errorf("throttle: NewMySQL: the secret has %d bytes: must have at least %d, or be nil", len(secret), minSecretLength)
	}
	t := &MySQL{db: db, table: "`" + strings.ReplaceAll(table, ".", "`.`") + "`"}
	if secret != nil {
		t.secret = append(t.secret, secret...)
	}
	return t, nil
}

// name returns the stored form of a key.
func (t *MySQL) name(key string) string {
	h := sha256.New()
	if t.secret != nil {
		h = hmac.New(sha256.New, t.secret)
	}
	h.Write([]byte(key))
	return hex.EncodeToString(h.Sum(nil)[:nameLength/2])
}

// Reserve implements [Throttle]. It polls the table while attempts in progress
// have to end first.
func (t *MySQL) Reserve(ctx context.Context, key string, limit Limit) (wait time.Duration, err error) {
	name := t.name(key)
	err = t.run(ctx, func(ctx context.Context, _ bool) error {
		for pause := time.Millisecond; ; pause = min(2*pause, 64*time.Millisecond) {
			var decided bool
			if wait, decided, err = t.tryReserve(ctx, name, limit); decided || err != nil {
				return err
			}
			select {
			case <-time.After(pause/2 + rand.N(pause)):
			case <-ctx.Done():
				return busy(ctx)
			}
		}
	})
	return wait, err
}

// tryReserve begins an attempt, or returns how long to wait. decided is false
// if attempts in progress have to end first, or another server has changed the
// row meanwhile. Each statement is a transaction on one row, so deadlocks
// between them are impossible.
func (t *MySQL) tryReserve(ctx context.Context, name string, limit Limit) (wait time.Duration, decided bool, err error) {
	forget := seconds(limit.ResetAfter)
	const free = " SET pending = pending + 1, since = UNIX_TIMESTAMP(), forget = ? WHERE name = ? AND failed + pending < ? AND (pending = 0 OR since >= UNIX_TIMESTAMP() - ?) AND last >= FROM_UNIXTIME(UNIX_TIMESTAMP() - ?)"
	if decided, err := t.changes(ctx, "UPDATE "+t.table+free, forget, name, limit.FreeFailures, abandonedAfter, forget); decided || err != nil {
		return 0, decided, err
	}
	var failed, inProgress, reserved, last, now int64
	err = t.db.QueryRowContext(ctx, "SELECT failed, pending, since, UNIX_TIMESTAMP(last), UNIX_TIMESTAMP() FROM "+t.table+" WHERE name = ?", name).Scan(&failed, &inProgress, &reserved, &last, &now)
	if errors.Is(err, sql.ErrNoRows) {
		_, err := t.db.ExecContext(ctx, "INSERT INTO "+t.table+" (name, failed, pending, since, forget) VALUES (?, 0, 1, UNIX_TIMESTAMP(), ?)", name, forget)
		if retry.HasNumber(err, duplicateKey) {
			return 0, false, nil
		}
		if err == nil {
			err = t.deleteExpired(ctx)
		}
		return 0, true, err
	}
	if err != nil {
		return 0, false, err
	}
	count, current := failed, inProgress
	if now-reserved > abandonedAfter { // or the clock was set back
		count, current = count+current, 0
	}
	since := now - last
	if since > forget {
		count = 0
	}
	if since < -60 { // the server's clock was set back, by more than those of a cluster differ
		since = seconds(limit.MaxDelay)
	}
	if wait = limit.Delay(int(count)) - time.Duration(since)*time.Second; wait > 0 {
		return wait, true, nil
	}
	if current > 0 && count+current >= int64(limit.FreeFailures) {
		return 0, false, nil
	}
	set := " SET failed = ?, pending = ?, since = UNIX_TIMESTAMP(), forget = ?"
	if count != failed || since < 0 || since > forget {
		set += ", last = DEFAULT"
	}
	decided, err = t.changes(ctx, "UPDATE "+t.table+set+" WHERE name = ? AND failed = ? AND pending = ? AND since = ? AND UNIX_TIMESTAMP(last) = ?",
		count, current+1, forget, name, failed, inProgress, reserved, last)
	return 0, decided, err
}

// changes reports whether a statement has changed a row.
func (t *MySQL) changes(ctx context.Context, query string, args ...any) (bool, error) {
	result, err := t.db.ExecContext(ctx, query, args...)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// deleteExpired deletes a few expired rows, as a new one was added. Each call
// looks at the rows of the next ResetAfter that occurs in the table, so that
// those of former limits are deleted too.
func (t *MySQL) deleteExpired(ctx context.Context) error {
	var forget sql.NullInt64
	err := t.db.GetContext(ctx, &forget, "SELECT COALESCE((SELECT MIN(forget) FROM "+t.table+" WHERE forget > ?), (SELECT MIN(forget) FROM "+t.table+"))", t.swept.Load())
	if err != nil {
		return err
	}
	t.swept.Store(forget.Int64)
	const expired = " forget = ? AND last < FROM_UNIXTIME(UNIX_TIMESTAMP() - ?)"
	var names []string
	err = t.db.SelectContext(ctx, &names, "SELECT name FROM "+t.table+" WHERE"+expired+" ORDER BY last LIMIT 10", forget, forget)
	for _, name := range names {
		if err == nil {
			_, err = t.db.ExecContext(ctx, "DELETE FROM "+t.table+" WHERE name = ? AND"+expired, name, forget, forget)
		}
	}
	return err
}

// Release implements [Throttle].
func (t *MySQL) Release(ctx context.Context, key string, outcome Outcome) error {
	set := "pending = GREATEST(pending - 1, 0)"
	switch outcome {
	case Failed:
		set += ", failed = failed + 1, last = DEFAULT"
	case Succeeded:
		set += ", failed = 0"
	}
	return t.run(ctx, func(ctx context.Context, mayHaveRun bool) error {
		if mayHaveRun && outcome != Failed {
			return nil // if it has not run, the attempt counts as a failure
		}
		_, err := t.db.ExecContext(ctx, "UPDATE "+t.table+" SET "+set+" WHERE name = ?", t.name(key))
		return err
	})
}

// Remember implements [Throttle]. The key is remembered for 90 days.
func (t *MySQL) Remember(ctx context.Context, key string) error {
	return t.run(ctx, func(ctx context.Context, _ bool) error {
		result, err := t.db.ExecContext(ctx, "INSERT INTO "+t.table+" (name, failed, pending, since, forget) VALUES (?, 0, 0, 0, ?) ON DUPLICATE KEY UPDATE last = DEFAULT", t.name(key), seconds(rememberedFor))
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); n != 1 || err != nil {
			return err // 2 for a row that was there before
		}
		return t.deleteExpired(ctx)
	})
}

// Remembers implements [Throttle].
func (t *MySQL) Remembers(ctx context.Context, key string) (remembers bool, err error) {
	err = t.run(ctx, func(ctx context.Context, _ bool) error {
		return t.db.QueryRowContext(ctx, "SELECT COUNT(*) > 0 FROM "+t.table+" WHERE name = ? AND last >= FROM_UNIXTIME(UNIX_TIMESTAMP() - ?)", t.name(key), seconds(rememberedFor)).Scan(&remembers)
	})
	return remembers, err
}

// run runs op within the timeout, and retries failures that allow it, as
// package retry does, for half of it. It creates the table if that is missing.
func (t *MySQL) run(ctx context.Context, op func(ctx context.Context, mayHaveRun bool) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return retry.Do(ctx, timeout/2, func(ctx context.Context, mayHaveRun bool) error {
		err := op(ctx, mayHaveRun)
		if !retry.HasNumber(err, noSuchTable) {
			return err
		}
		if err := t.create(ctx); err != nil {
			return err
		}
		return op(ctx, mayHaveRun)
	})
}

// create creates the table. A time is written as the column's DEFAULT, because
// MySQL stores CURRENT_TIMESTAMP an hour off when a time zone leaves summer
// time.
func (t *MySQL) create(ctx context.Context) error {
	_, err := t.db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+t.table+` (
  name CHAR(`+strconv.Itoa(nameLength)+`) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
  failed INT NOT NULL,
  pending INT NOT NULL,
  since BIGINT NOT NULL,
  forget INT NOT NULL,
  last TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  KEY last (forget, last)
) ENGINE=InnoDB`)
	return err
}

// seconds returns a duration in whole seconds.
func seconds(d time.Duration) int64 { return int64(d / time.Second) }
