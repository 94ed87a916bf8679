package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// SetPassword replaces the password hash of a user if it is still old. In the
// same transaction it deletes all of the user's sessions except kept, and gives
// that one a new token. It returns how many it deleted, and ErrSessionEnded,
// without a change, if kept has ended concurrently.
func (s *Store) SetPassword(ctx context.Context, key any, old []byte, hash string, kept *Record, selector, tokenHash string) (replaced bool, ended int64, err error) {
	replaced, err = s.replacePassword(ctx, key, old, hash, func(ctx context.Context, tx *sqlx.Tx, stamp []byte) (err error) {
		ended, err = s.keepOnly(ctx, tx, key, kept, selector, tokenHash, stamp)
		return err
	})
	return replaced, ended, err
}

// UpgradePassword replaces the password hash of a user, of the same password,
// if it is still old, and the stamp of the user's sessions. It returns the new
// stamp, or nil if the hash has changed.
func (s *Store) UpgradePassword(ctx context.Context, key any, old []byte, hash string, oldStamp []byte) (stamp []byte, err error) {
	var renewed []byte
	replaced, err := s.replacePassword(ctx, key, old, hash, func(ctx context.Context, tx *sqlx.Tx, stamp []byte) error {
		renewed = stamp
		return s.replaceStamp(ctx, tx, key, oldStamp, stamp)
	})
	if !replaced || err != nil {
		return nil, err
	}
	return renewed, nil
}

// replacePassword replaces the password hash if it is still old. In the same
// transaction it calls then with the user's new stamp. It returns an error if
// the column is too narrow, because a non-strict server would truncate the
// hash.
func (s *Store) replacePassword(ctx context.Context, key any, old []byte, hash string, then func(ctx context.Context, tx *sqlx.Tx, stamp []byte) error) (replaced bool, err error) {
	table, err := s.Users(ctx)
	if err != nil {
		return false, err
	}
	if table.passwordWidth != 0 && table.passwordWidth < int64(len(hash)) {
		s.ForgetUsers() // it may be widened before the next call
		return false, fmt.Errorf("session: the column %s of %s has %d characters, and a bcrypt hash %d; make it VARCHAR(255)", s.passwordName, s.usersName, table.passwordWidth, len(hash))
	}
	var was any // NULL, or exactly these bytes
	if old != nil {
		was = string(old)
	}
	err = s.doOnceOnTokens(ctx, "replace the password", func(ctx context.Context, mayHaveRun bool) error {
		return s.inTransaction(ctx, func(tx *sqlx.Tx) error {
			result, err := tx.ExecContext(ctx, "UPDATE "+s.usersName+" SET "+s.passwordName+" = ? WHERE "+s.keyName+" = ? AND "+s.passwordName+" <=> ?", hash, key, was)
			if err != nil {
				return err
			}
			n, err := result.RowsAffected()
			if n == 0 && mayHaveRun { // the first transaction may have been committed
				return tx.QueryRowContext(ctx, "SELECT COUNT(*) = 1 FROM "+s.usersName+" WHERE "+s.keyName+" = ? AND "+s.passwordName+" = ?", key, hash).Scan(&replaced)
			}
			if replaced = n == 1; err != nil || !replaced {
				return err
			}
			stamp, err := s.readStamp(ctx, tx, key)
			if err != nil {
				return err
			}
			return then(ctx, tx, stamp)
		})
	})
	return replaced && err == nil, err
}

// replaceStamp gives the sessions of a user that have the old stamp a new one.
func (s *Store) replaceStamp(ctx context.Context, tx *sqlx.Tx, user any, old, stamp []byte) error {
	table, err := s.tokenTable(ctx)
	if err != nil || !table.columns.has("stamp") {
		return err
	}
	var ids []uint64
	if err := tx.SelectContext(ctx, &ids, "SELECT id FROM "+s.tokensName+" WHERE user = ? AND stamp = ? ORDER BY id", user, old); err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := tx.ExecContext(ctx, "UPDATE "+s.tokensName+" SET stamp = ? WHERE id = ?", stamp, id); err != nil {
			return err
		}
	}
	return nil
}

// keepOnly deletes all sessions of a user except one, and gives that one a new
// token and stamp. It returns how many it deleted. It locks rows in the order
// of their ids, as every deletion does.
func (s *Store) keepOnly(ctx context.Context, tx *sqlx.Tx, user any, kept *Record, selector, hash string, stamp []byte) (n int64, err error) {
	table, err := s.tokenTable(ctx)
	if err != nil {
		return 0, err
	}
	ids, err := s.idsOf(ctx, tx, user)
	if err != nil {
		return 0, err
	}
	defer s.cfg.Changed(ids...)
	var below, above []uint64
	for _, id := range ids {
		switch {
		case id < kept.ID:
			below = append(below, id)
		case id > kept.ID:
			above = append(above, id)
		}
	}
	remove := func(ids []uint64) error {
		if len(ids) > 0 {
			deleted, err := s.deleteIn(ctx, tx, ids, "")
			n += deleted
			return err
		}
		return nil
	}
	if err := remove(below); err != nil {
		return 0, err
	}
	set, args := "token_x = ?, token_y = ?", []any{selector, hash}
	if table.columns.has("stamp") {
		set, args = set+", stamp = ?", append(args, stamp)
	}
	if table.columns.has("method") {
		set, args = set+", method = ?", append(args, MethodPassword)
	}
	result, err := tx.ExecContext(ctx, "UPDATE "+s.tokensName+" SET "+set+sameToken, append(args, kept.ID, kept.Selector)...)
	if err != nil {
		return 0, err
	}
	if changed, err := result.RowsAffected(); err != nil || changed == 0 {
		return 0, errors.Join(err, ErrSessionEnded)
	}
	return n, remove(above)
}

// idsOf reads, in a transaction, the ids of all sessions of a user.
func (s *Store) idsOf(ctx context.Context, tx *sqlx.Tx, user any) (ids []uint64, err error) {
	err = tx.SelectContext(ctx, &ids, "SELECT id FROM "+s.tokensName+" WHERE user = ? ORDER BY id", user)
	return ids, err
}
