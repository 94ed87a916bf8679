package session

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jmoiron/sqlx"
)

// mysqlThrottle counts in a table.
type mysqlThrottle struct {
	runner
	db    *sqlx.DB
	table string // quoted
}

// NewMySQLThrottle is a [Throttle] that counts in a table, such as "session_attempts" or "database.session_attempts",
// for app servers that share it; it makes the table on first need. It holds hashes of addresses and identifiers, and
// forgets them when their time has come. A name that no table can have is an [ErrConfig].
func NewMySQLThrottle(db *sqlx.DB, table string) (Throttle, error) {
	if db == nil || !isTable(table) {
		return nil, fmt.Errorf("%w: NewMySQLThrottle: it needs a database, and a table's name of letters, digits, _, $ and -, not %q", ErrConfig, table)
	}
	t := &mysqlThrottle{db: db, table: quote(table)}
	t.runner = runner{DefaultTimeout, t.create, nil}
	return t, nil
}

func (t *mysqlThrottle) Try(ctx context.Context, key string, limit Limit) (wait time.Duration, err error) {
	err = t.run(ctx, func(ctx context.Context, _ bool) error {
		for tried := false; !tried; {
			if wait, tried, err = t.try(ctx, key, limit); err != nil {
				return err
			}
		}
		return nil
	})
	return wait, err
}

// try counts an attempt if nobody else does it at the same time. Each statement is a transaction of its own, on one
// row, so none waits for another in a circle.
func (t *mysqlThrottle) try(ctx context.Context, key string, limit Limit) (wait time.Duration, tried bool, err error) {
	var failed, last, since int64
	err = t.db.QueryRowContext(ctx, "SELECT failed, UNIX_TIMESTAMP(last), UNIX_TIMESTAMP() - UNIX_TIMESTAMP(last) FROM "+t.table+" WHERE name = ?", key).Scan(&failed, &last, &since)
	if errors.Is(err, sql.ErrNoRows) {
		_, err := t.db.ExecContext(ctx, "INSERT INTO "+t.table+" (name, failed) VALUES (?, 1)", key)
		if isError(err, erDuplicate) {
			return 0, false, nil
		}
		if err == nil {
			err = t.tidy(ctx, limit)
		}
		return 0, true, err
	}
	if err != nil {
		return 0, false, err
	}
	count := failed
	if since > seconds(limit.Forget) {
		count = 0
	}
	if since < -60 { // the database's clock was set back, by more than servers of a cluster differ
		since = seconds(limit.Longest)
	}
	if wait = limit.wait(int(count)) - time.Duration(since)*time.Second; wait > 0 {
		return wait, true, nil
	}
	result, err := t.db.ExecContext(ctx, "UPDATE "+t.table+" SET failed = ?, last = DEFAULT WHERE name = ? AND failed = ? AND UNIX_TIMESTAMP(last) = ?", count+1, key, failed, last)
	if err != nil {
		return 0, false, err
	}
	n, err := result.RowsAffected()
	return 0, n == 1, err
}

// tidy deletes a few of the rows whose time has come, as a new one was added.
func (t *mysqlThrottle) tidy(ctx context.Context, limit Limit) error {
	var names []string
	old := " last < FROM_UNIXTIME(UNIX_TIMESTAMP() - ?)"
	err := t.db.SelectContext(ctx, &names, "SELECT name FROM "+t.table+" WHERE"+old+" ORDER BY last LIMIT 3", seconds(limit.Forget))
	for _, name := range names {
		if err == nil {
			_, err = t.db.ExecContext(ctx, "DELETE FROM "+t.table+" WHERE name = ? AND"+old, name, seconds(limit.Forget))
		}
	}
	return err
}

func (t *mysqlThrottle) Forgive(ctx context.Context, key string, everything bool) error {
	query := "UPDATE " + t.table + " SET failed = failed - 1 WHERE name = ? AND failed > 0"
	if everything {
		query = "DELETE FROM " + t.table + " WHERE name = ?"
	}
	return t.run(ctx, func(ctx context.Context, _ bool) error {
		_, err := t.db.ExecContext(ctx, query, key)
		return err
	})
}

func (t *mysqlThrottle) create(ctx context.Context) error {
	_, err := t.db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+t.table+` (
  name CHAR(`+strconv.Itoa(throttleKeyLength)+`) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
  failed INT NOT NULL,
  last TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  KEY last (last)
) ENGINE=InnoDB`)
	return err
}
