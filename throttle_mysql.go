package session

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/candysession/session/internal/store"
)

// mysqlThrottle counts in a table.
type mysqlThrottle struct {
	store.Retrier
	db     *sqlx.DB
	table  string // quoted
	secret []byte
}

// NewMySQLThrottle returns a [Throttle] that counts in a table, such as
// "session_attempts" or "database.session_attempts", for app servers that share
// it. The table is created when it is first needed. Rows are deleted when their
// time has come. A name that no table can have is an [ErrConfig].
//
// The table holds hashes of addresses and identifiers. Whoever reads it can
// guess addresses and identifiers and compare. With a secret, the same on all
// app servers and not kept in the database, that is not possible. A new secret
// forgets all counts. Only one is allowed.
func NewMySQLThrottle(db *sqlx.DB, table string, secret ...[]byte) (Throttle, error) {
	if db == nil || !isTable(table) {
		return nil, fmt.Errorf("%w: NewMySQLThrottle: it needs a database, and a table's name of letters, digits, _, $ and -, not %q", ErrConfig, table)
	}
	t := &mysqlThrottle{db: db, table: store.Quote(table)}
	if len(secret) > 1 || len(secret) == 1 && len(secret[0]) < 16 {
		return nil, fmt.Errorf("%w: NewMySQLThrottle: secret must be one of at least 16 random bytes, or be left out", ErrConfig)
	}
	if len(secret) == 1 {
		t.secret = append(t.secret, secret[0]...)
	}
	t.Retrier = store.Retrier{Timeout: DefaultTimeout, Create: t.create}
	return t, nil
}

// name returns what a key is stored as.
func (t *mysqlThrottle) name(key string) string {
	if t.secret == nil {
		return key
	}
	h := hmac.New(sha256.New, t.secret)
	h.Write([]byte(key))
	return hex.EncodeToString(h.Sum(nil)[:throttleKeyLength/2])
}

const (
	// abandoned is how long an attempt may be in progress, in seconds. One
	// that is older counts as failed: its process may have ended.
	abandoned = 30

	// rememberedFor is how long a key is remembered after its last use.
	rememberedFor = 90 * 24 * time.Hour
)

// Reserve asks the table again and again while attempts in progress decide.
func (t *mysqlThrottle) Reserve(ctx context.Context, key string, limit Limit) (wait time.Duration, err error) {
	name := t.name(key)
	err = t.Do(ctx, func(ctx context.Context) error {
		for pause := time.Millisecond; ; pause = min(2*pause, 64*time.Millisecond) {
			var decided bool
			if wait, decided, err = t.try(ctx, name, limit); decided || err != nil {
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

// try reserves an attempt, or reports how long to wait, or that it is not
// decided yet. Each statement is a transaction of its own, on one row, so none
// waits for another in a circle.
func (t *mysqlThrottle) try(ctx context.Context, name string, limit Limit) (wait time.Duration, decided bool, err error) {
	const free = " SET pending = pending + 1, since = UNIX_TIMESTAMP() WHERE name = ? AND failed + pending < ? AND (pending = 0 OR since >= UNIX_TIMESTAMP() - ?) AND last >= FROM_UNIXTIME(UNIX_TIMESTAMP() - ?)"
	if decided, err := t.changes(ctx, "UPDATE "+t.table+free, name, limit.FreeFailures, abandoned, seconds(limit.ResetAfter)); decided || err != nil {
		return 0, decided, err
	}
	var failed, inProgress, reserved, last, now int64
	err = t.db.QueryRowContext(ctx, "SELECT failed, pending, since, UNIX_TIMESTAMP(last), UNIX_TIMESTAMP() FROM "+t.table+" WHERE name = ?", name).Scan(&failed, &inProgress, &reserved, &last, &now)
	if errors.Is(err, sql.ErrNoRows) {
		_, err := t.db.ExecContext(ctx, "INSERT INTO "+t.table+" (name, failed, pending, since, forget) VALUES (?, 0, 1, UNIX_TIMESTAMP(), ?)", name, seconds(limit.ResetAfter))
		if store.IsDuplicate(err) {
			return 0, false, nil
		}
		if err == nil {
			err = t.tidy(ctx, limit.ResetAfter)
		}
		return 0, true, err
	}
	if err != nil {
		return 0, false, err
	}
	count, current := failed, inProgress
	if now-reserved > abandoned { // or the clock was set back
		count, current = count+current, 0
	}
	since := now - last
	if since > seconds(limit.ResetAfter) {
		count = 0
	}
	if since < -60 { // the database's clock was set back, by more than servers of a cluster differ
		since = seconds(limit.MaxDelay)
	}
	if wait = limit.wait(int(count)) - time.Duration(since)*time.Second; wait > 0 {
		return wait, true, nil
	}
	if current > 0 && count+current >= int64(limit.FreeFailures) {
		return 0, false, nil
	}
	set := " SET failed = ?, pending = ?, since = UNIX_TIMESTAMP()"
	if count != failed || since < 0 || since > seconds(limit.ResetAfter) {
		set += ", last = DEFAULT"
	}
	decided, err = t.changes(ctx, "UPDATE "+t.table+set+" WHERE name = ? AND failed = ? AND pending = ? AND since = ? AND UNIX_TIMESTAMP(last) = ?",
		count, current+1, name, failed, inProgress, reserved, last)
	return 0, decided, err
}

// changes reports whether a statement has changed a row.
func (t *mysqlThrottle) changes(ctx context.Context, query string, args ...any) (bool, error) {
	result, err := t.db.ExecContext(ctx, query, args...)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// tidy deletes a few of the rows whose time has come, as a new one was added.
func (t *mysqlThrottle) tidy(ctx context.Context, forget time.Duration) error {
	var names []string
	old := " forget = ? AND last < FROM_UNIXTIME(UNIX_TIMESTAMP() - ?)"
	err := t.db.SelectContext(ctx, &names, "SELECT name FROM "+t.table+" WHERE"+old+" ORDER BY last LIMIT 3", seconds(forget), seconds(forget))
	for _, name := range names {
		if err == nil {
			_, err = t.db.ExecContext(ctx, "DELETE FROM "+t.table+" WHERE name = ? AND"+old, name, seconds(forget), seconds(forget))
		}
	}
	return err
}

func (t *mysqlThrottle) Release(ctx context.Context, key string, outcome Outcome) error {
	set := "pending = GREATEST(pending - 1, 0)"
	switch outcome {
	case AttemptFailed:
		set += ", failed = failed + 1, last = DEFAULT"
	case AttemptSucceeded:
		set += ", failed = 0"
	}
	return t.DoOnce(ctx, func(ctx context.Context, again bool) error {
		if again && outcome != AttemptFailed {
			return nil // it may be done; if not, it counts as failed
		}
		_, err := t.db.ExecContext(ctx, "UPDATE "+t.table+" SET "+set+" WHERE name = ?", t.name(key))
		return err
	})
}

func (t *mysqlThrottle) Remember(ctx context.Context, key string) error {
	return t.Do(ctx, func(ctx context.Context) error {
		name := t.name(key)
		result, err := t.db.ExecContext(ctx, "INSERT INTO "+t.table+" (name, failed, pending, since, forget) VALUES (?, 0, 0, 0, ?) ON DUPLICATE KEY UPDATE last = DEFAULT", name, seconds(rememberedFor))
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); n != 1 || err != nil {
			return err
		}
		return t.tidy(ctx, rememberedFor)
	})
}

func (t *mysqlThrottle) Remembers(ctx context.Context, key string) (remembers bool, err error) {
	err = t.Do(ctx, func(ctx context.Context) error {
		return t.db.QueryRowContext(ctx, "SELECT COUNT(*) > 0 FROM "+t.table+" WHERE name = ? AND last >= FROM_UNIXTIME(UNIX_TIMESTAMP() - ?)", t.name(key), seconds(rememberedFor)).Scan(&remembers)
	})
	return remembers, err
}

func (t *mysqlThrottle) create(ctx context.Context) error {
	_, err := t.db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+t.table+` (
  name CHAR(`+strconv.Itoa(throttleKeyLength)+`) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
  failed INT NOT NULL,
  pending INT NOT NULL,
  since BIGINT NOT NULL,
  forget INT NOT NULL,
  last TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  KEY last (forget, last)
) ENGINE=InnoDB`)
	return err
}
