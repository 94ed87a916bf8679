package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/candysession/session/internal/retry"
	"github.com/jmoiron/sqlx"
)

// A Record is a row of the token table: a session.
type Record struct {
	ID       uint64
	Owner    any // the user's key, as the driver returned it; nil if there is no such user
	Selector string
	Hash     string // of the verifier
	Stamp    []byte // of the account at login; nil if it is not compared
	Method   Method
	Browser  string
	IP       string
	Life     int64 // the idle timeout of this session in seconds; 0 for MaxAge
	Created  int64 // all times in seconds since the epoch, by the database's clock
	Active   int64
	Now      int64

	Transient bool // the browser drops the cookie when it exits; lookups do not read it
}

// A Method is how a session began.
type Method uint8

// The methods, as the column method holds them.
const (
	_              Method = iota // unknown: an older row, or one of CandyPack's
	MethodPassword               // Login, Register, or a password set since
	MethodApp                    // LoginAs
)

// DeleteChunk is how many rows a statement deletes: few enough to hold their
// locks only briefly.
const DeleteChunk = 500

// never is an age that no session reaches.
const never = 100 * 365 * 24 * time.Hour

// sameToken is the condition that a session still has a token. CONCAT prevents
// the use of the index on token_x, which would take locks in another order than
// a delete by id, and could deadlock.
const sameToken = " WHERE id = ? AND CONCAT(token_x, '') = ?"

// Insert adds a session. In the same transaction it deletes the session that it
// replaces, if that is not 0. The deletion comes first, so that a transaction
// that waits for a lock holds none on a new row, for which others could wait.
// Then Insert deletes the user's oldest sessions beyond MaxSessions, and
// returns how many.
func (s *Store) Insert(ctx context.Context, r *Record, replaced uint64) (id uint64, ended int64, err error) {
	if replaced != 0 {
		defer s.cfg.Changed(replaced)
	}
	insert := func(ctx context.Context) error {
		if replaced == 0 {
			id, err = s.insertOn(ctx, s.db, r)
			return err
		}
		return s.inTransaction(ctx, func(tx *sqlx.Tx) error {
			if _, err := s.deleteIn(ctx, tx, []uint64{replaced}, ""); err != nil {
				return err
			}
			id, err = s.insertOn(ctx, tx, r)
			return err
		})
	}
	err = s.doOnceOnTokens(ctx, "save the session", func(ctx context.Context, mayHaveRun bool) error {
		if !mayHaveRun {
			return insert(ctx)
		}
		// If the first try is still running, the unique index makes this
		// insert wait.
		if id, err = s.findInserted(ctx, r.Selector); id != 0 || err != nil {
			return err
		}
		err := insert(ctx)
		if retry.HasNumber(err, erDupEntry) {
			id, err = s.findInserted(ctx, r.Selector)
		}
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	if s.cfg.MaxSessions > 0 {
		if ended, err = s.deleteExcess(ctx, r.Owner); err != nil {
			s.Delete(context.WithoutCancel(ctx), id) // if this fails too, nobody has its token
			return 0, 0, err
		}
	}
	return id, ended, nil
}

// insertOn adds a row, on the pool or in a transaction, and returns its id.
func (s *Store) insertOn(ctx context.Context, on sqlx.ExecerContext, r *Record) (uint64, error) {
	table, err := s.tokenTable(ctx)
	if err != nil {
		return 0, err
	}
	if !table.columns.has("life") && (r.Life != 0 || r.Transient) {
		return 0, s.missingColumns(table, "the options of a login")
	}
	var names []string
	var args []any
	for c := range table.columns.all() {
		if c.written {
			names = append(names, c.name)
			args = append(args, reflect.ValueOf(c.field(r)).Elem().Interface())
		}
	}
	result, err := on.ExecContext(ctx, "INSERT INTO "+s.tokensName+" ("+strings.Join(names, ", ")+") VALUES ("+placeholders(len(args))+")", args...)
	if err != nil {
		return 0, err
	}
	id, err := result.LastInsertId()
	return uint64(id), err
}

// findInserted looks for a session whose insert had an unknown outcome. It
// requires the unique index on token_x.
func (s *Store) findInserted(ctx context.Context, selector string) (id uint64, err error) {
	database, table := SplitName(s.cfg.TokenTable)
	var unique bool
	err = s.db.GetContext(ctx, &unique, "SELECT COUNT(*) > 0 FROM information_schema.STATISTICS"+ofTable+" AND COLUMN_NAME = 'token_x' AND SEQ_IN_INDEX = 1 AND NON_UNIQUE = 0", database, table)
	if err != nil {
		return 0, err
	}
	if !unique {
		return 0, errors.New("the connection was lost, and as token_x has no unique index it can't be tried again; let Migrate add that")
	}
	causal, err := s.causalPrefix(ctx)
	if err != nil {
		return 0, err
	}
	err = s.db.GetContext(ctx, &id, causal+"SELECT id FROM "+s.tokensName+" WHERE token_x = ?", selector)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return id, err
}

// deleteExcess deletes the oldest sessions of a user beyond MaxSessions, and
// returns how many. It locks nothing: each login calls it when its own session
// is saved, so the last login sees all of them.
func (s *Store) deleteExcess(ctx context.Context, user any) (ended int64, err error) {
	records, err := s.SessionsOf(ctx, user)
	if err != nil || len(records) <= s.cfg.MaxSessions {
		return 0, err
	}
	ids := make([]uint64, len(records))
	for i, r := range records {
		ids[i] = r.ID
	}
	slices.SortFunc(ids, func(a, b uint64) int { return cmp.Compare(b, a) })
	return s.deleteIDs(ctx, ids[s.cfg.MaxSessions:], "")
}

// Renew renews a session that has been idle for longer than age. Of concurrent
// callers one wins. won is also true if the outcome is unknown. A row that was
// deleted is not created again.
func (s *Store) Renew(ctx context.Context, id uint64, browser string, age time.Duration) (won bool, err error) {
	defer s.cfg.Changed(id)
	n, retried, err := s.exec(ctx, "renew the session", "UPDATE "+s.tokensName+" SET active = DEFAULT, browser = ? WHERE id = ? AND "+s.idleSQL, browser, id, seconds(age))
	return n == 1 || retried || unanswered(err), err
}

// ReplaceToken replaces the token of a session that still has the old one, and
// sets its stamp to that of the account as it is now.
func (s *Store) ReplaceToken(ctx context.Context, old *Record, selector, hash string) (found bool, err error) {
	defer s.cfg.Changed(old.ID)
	table, err := s.tokenTable(ctx)
	if err != nil {
		return false, s.Wrap("renew the token", err)
	}
	set, args := "token_x = ?, token_y = ?", []any{selector, hash}
	if table.columns.has("stamp") {
		var stamp []byte
		err := s.do(ctx, "read the account", func(ctx context.Context) (err error) {
			stamp, err = s.readStamp(ctx, s.db, old.Owner)
			return err
		})
		if err != nil {
			return false, err
		}
		set, args = set+", stamp = ?", append(args, stamp)
	}
	n, retried, err := s.exec(ctx, "renew the token", "UPDATE "+s.tokensName+" SET "+set+sameToken, append(args, old.ID, old.Selector)...)
	if n == 0 && retried && err == nil {
		err = s.do(ctx, "find the new token", func(ctx context.Context) error {
			return s.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+s.tokensName+sameToken, old.ID, selector).Scan(&n)
		})
	}
	return n == 1, err
}

// SetStamp gives a session the stamp of its account as it is now.
func (s *Store) SetStamp(ctx context.Context, id uint64, stamp []byte) error {
	table, err := s.tokenTable(ctx)
	if err != nil || !table.columns.has("stamp") {
		return err
	}
	_, _, err = s.exec(ctx, "stamp the session", "UPDATE "+s.tokensName+" SET stamp = ? WHERE id = ?", stamp, id)
	return err
}

// Delete deletes a session.
func (s *Store) Delete(ctx context.Context, id uint64) (found bool, err error) {
	defer s.cfg.Changed(id)
	n, retried, err := s.exec(ctx, "end the session", "DELETE FROM "+s.tokensName+" WHERE id = ?", id)
	return n == 1 || retried, err
}

// DeleteExpired deletes a session that is still expired.
func (s *Store) DeleteExpired(ctx context.Context, id uint64) error {
	defer s.cfg.Changed(id)
	lifetime := s.cfg.MaxLifetime
	if lifetime == 0 {
		lifetime = never
	}
	_, _, err := s.exec(ctx, "end the expired session", "DELETE FROM "+s.tokensName+" WHERE id = ? AND ("+s.idleSQL+" OR UNIX_TIMESTAMP(date) + ? < UNIX_TIMESTAMP())", id, seconds(s.cfg.MaxAge), seconds(lifetime))
	return err
}

// DeleteRejected deletes a session whose account has changed or is gone, unless
// the session was stamped again concurrently.
func (s *Store) DeleteRejected(ctx context.Context, r *Record) error {
	defer s.cfg.Changed(r.ID)
	condition, args := "", []any{r.ID}
	if r.Stamp != nil {
		condition, args = " AND stamp = ?", append(args, r.Stamp)
	}
	_, _, err := s.exec(ctx, "delete the session", "DELETE FROM "+s.tokensName+" WHERE id = ?"+condition, args...)
	return err
}

// A session's user never changes, and ids are not reused. So rows are found by
// user with non-locking reads, and deleted by id alone. With the user in the
// condition, MariaDB would use that index, lock in another order than a delete
// by id, and could deadlock.

// DeleteAllOf deletes all of a user's sessions except one.
func (s *Store) DeleteAllOf(ctx context.Context, user any, except uint64) (n int64, err error) {
	records, err := s.RecordsOf(ctx, user)
	var ids []uint64
	for _, r := range records {
		if r.ID != except {
			ids = append(ids, r.ID)
		}
	}
	for len(ids) > 0 && err == nil {
		chunk := ids[:min(len(ids), DeleteChunk)]
		ids = ids[len(chunk):]
		var deleted int64
		deleted, err = s.deleteIDs(ctx, chunk, "")
		n += deleted
	}
	return n, err
}

// deleteIDs deletes sessions by id where a further condition holds.
func (s *Store) deleteIDs(ctx context.Context, ids []uint64, condition string, args ...any) (n int64, err error) {
	defer s.cfg.Changed(ids...)
	err = s.doOnTokens(ctx, "delete sessions", func(ctx context.Context) error {
		return s.inTransaction(ctx, func(tx *sqlx.Tx) error {
			n, err = s.deleteIn(ctx, tx, ids, condition, args...)
			return err
		})
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// deleteIn does the same as deleteIDs in an open transaction. It sorts the ids,
// so that all transactions lock in the same order.
func (s *Store) deleteIn(ctx context.Context, tx *sqlx.Tx, ids []uint64, condition string, conditionArgs ...any) (n int64, err error) {
	slices.Sort(ids)
	args := make([]any, len(ids), len(ids)+len(conditionArgs))
	for i, id := range ids {
		args[i] = id
	}
	args = append(args, conditionArgs...)
	result, err := tx.ExecContext(ctx, "DELETE FROM "+s.tokensName+" WHERE id IN ("+placeholders(len(ids))+")"+condition, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// SessionsOf returns a user's unexpired sessions, the most recently renewed
// first.
func (s *Store) SessionsOf(ctx context.Context, user any) ([]Record, error) {
	condition, args := " AND NOT "+s.idleSQL, []any{seconds(s.cfg.MaxAge)}
	if s.cfg.MaxLifetime > 0 {
		condition += " AND UNIX_TIMESTAMP(date) + ? >= UNIX_TIMESTAMP()"
		args = append(args, seconds(s.cfg.MaxLifetime))
	}
	table, err := s.tokenTable(ctx)
	if err != nil {
		return nil, s.Wrap("list the user's sessions", err)
	}
	if table.columns.has("life") {
		condition += " AND (life = 0 OR UNIX_TIMESTAMP(active) + life >= UNIX_TIMESTAMP())"
	}
	return s.recordsOf(ctx, user, condition, args)
}

// RecordsOf returns a user's sessions, including expired ones.
func (s *Store) RecordsOf(ctx context.Context, user any) ([]Record, error) {
	return s.recordsOf(ctx, user, "", nil)
}

// recordsOf includes the sessions that another node of a cluster has just
// added. It compares keys byte by byte, because the collation of the column may
// treat another user's key as equal.
func (s *Store) recordsOf(ctx context.Context, user any, condition string, args []any) (records []Record, err error) {
	causal, err := s.causalPrefix(ctx)
	if err != nil {
		return nil, err
	}
	users, err := s.usersTable(ctx)
	if err != nil {
		return nil, err
	}
	err = s.doOnTokens(ctx, "list the user's sessions", func(ctx context.Context) error {
		all, err := s.selectRecords(ctx, originalColumns, causal, " WHERE user = ?"+condition+" ORDER BY active DESC, id DESC", append([]any{user}, args...)...)
		records = slices.DeleteFunc(all, func(r Record) bool {
			owner, _, err := users.Key.Param(r.Owner)
			return err != nil || !SameKey(owner, user)
		})
		return err
	})
	for i := range records {
		s.reconcile(&records[i])
	}
	return records, err
}

// selectRecords reads columns of the rows that match a condition.
func (s *Store) selectRecords(ctx context.Context, columns columnSet, prefix, condition string, args ...any) (records []Record, err error) {
	rows, err := s.db.QueryContext(ctx, prefix+"SELECT "+columns.selected()+" FROM "+s.tokensName+condition, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r Record
		if err := rows.Scan(columns.places(&r)...); err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, rows.Err()
}

// FindRecord returns a session without its user; its ID is 0 if there is none.
func (s *Store) FindRecord(ctx context.Context, selector string) (Record, error) {
	causal, err := s.causalPrefix(ctx)
	if err != nil {
		return Record{}, err
	}
	var found []Record // the collation and indexes of another app's table may allow several
	err = s.do(ctx, "look up the session", func(ctx context.Context) error {
		all, err := s.selectRecords(ctx, originalColumns, causal, " WHERE token_x = ?", selector)
		found = slices.DeleteFunc(all, func(r Record) bool { return r.Selector != selector })
		return err
	})
	if err != nil || len(found) != 1 {
		return Record{}, err
	}
	return found[0], nil
}

// LoginMethod returns how a session began, and how many seconds ago. It returns
// ErrSessionEnded if the session has another token by now.
func (s *Store) LoginMethod(ctx context.Context, r *Record) (method Method, age int64, err error) {
	table, err := s.tokenTable(ctx)
	if err != nil {
		return 0, 0, err
	}
	if !table.columns.has("method") {
		return 0, 0, s.missingColumns(table, "how a session began")
	}
	found, err := s.readRow(ctx, table, r)
	return found.Method, found.Now - found.Created, err
}

// IsTransient reports whether the browser drops the cookie of a session when it
// exits. It returns ErrSessionEnded if the session has another token by now.
func (s *Store) IsTransient(ctx context.Context, r *Record) (bool, error) {
	table, err := s.tokenTable(ctx)
	if err != nil || !table.columns.has("transient") {
		return false, err
	}
	found, err := s.readRow(ctx, table, r)
	return found.Transient, err
}

// readRow reads all columns of a session. It returns ErrSessionEnded if the
// session has another token by now.
func (s *Store) readRow(ctx context.Context, table *tokenTable, r *Record) (Record, error) {
	var found []Record
	err := s.do(ctx, "read the session", func(ctx context.Context) (err error) {
		found, err = s.selectRecords(ctx, table.columns, "", sameToken, r.ID, r.Selector)
		return err
	})
	if err == nil && len(found) == 0 {
		err = ErrSessionEnded
	}
	if err != nil {
		return Record{}, err
	}
	return found[0], nil
}

// missingColumns returns the error of a call that needs columns which a table of
// CandyPack, or of an older version, lacks.
func (s *Store) missingColumns(table *tokenTable, what string) error {
	return fmt.Errorf("%w: the token table %s lacks the columns that record %s; call Migrate, or run\nALTER TABLE %s ADD COLUMN %s", ErrConfig, s.tokensName, what, s.tokensName, definitions(table.columns.missing(), ", ADD COLUMN "))
}
