package session

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jmoiron/sqlx"
)

// A stamp binds a session to its account: 8 bytes of a SHA-256 over the stored
// password hash and the columns that Config.AccountColumns names. The row has the
// stamp of the login. When the account has another one, the session has ended:
// the password was changed by any program, or the key has a new owner.
const stampSize = 8

// stampOf returns the stamp of an account. A nil password hash is NULL, and not
// the same as an empty one.
func stampOf(password, account []byte) []byte {
	sum := sha256.New()
	if password != nil {
		sum.Write([]byte{1})
		sum.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(password))))
		sum.Write(password)
	}
	sum.Write([]byte{0})
	sum.Write(account)
	return sum.Sum(nil)[:stampSize]
}

// comparesStamps reports whether a session ends when its account changes.
func (c *Config) comparesStamps() bool {
	return !c.IgnorePasswordChanges || len(c.AccountColumns) > 0
}

// stampColumns returns the two SQL expressions that a stamp is made of.
func (t *usersTable) stampColumns(s *store, prefix string) (password, account string) {
	password, account = "NULL", "NULL"
	if t.hasPassword {
		password = prefix + s.password
	}
	if t.account != "" {
		account = strings.ReplaceAll(t.account, "{}", prefix)
	}
	return password, account
}

// accountExpression returns the SQL of all columns with these names, of which no
// two lists of values give the same bytes. It depends on neither the time zone
// nor the character set of a connection.
func (t *usersTable) accountExpression(names []string) (string, error) {
	var parts []string
	for _, name := range names {
		c, ok := t.column(name)
		if !ok {
			return "", fmt.Errorf("%w: Config.AccountColumns: the users table has no column %q", ErrConfig, name)
		}
		value := "CAST({}" + quoteColumn(c.name) + " AS BINARY)"
		if c.dataType == "timestamp" {
			value = "CAST(UNIX_TIMESTAMP({}" + quoteColumn(c.name) + ") AS BINARY)"
		}
		parts = append(parts, "COALESCE(CONCAT(LENGTH("+value+"), ':', "+value+"), '-')")
	}
	if len(parts) == 0 {
		return "", nil
	}
	return "CONCAT(" + strings.Join(parts, ", ") + ")", nil
}

// stampOf reads the stamp of the account with this key; nil if there is none.
func (s *store) stampOf(ctx context.Context, on sqlx.QueryerContext, key any) ([]byte, error) {
	table, err := s.definition(ctx)
	if err != nil {
		return nil, err
	}
	var password, account []byte
	passwordColumn, accountColumn := table.stampColumns(s, "")
	err = on.QueryRowxContext(ctx, "SELECT "+passwordColumn+", "+accountColumn+" FROM "+s.users+" WHERE "+s.key+" = ?", key).Scan(&password, &account)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return s.stamp(password, account), err
}

// stamp is stampOf as the Config has it.
func (s *store) stamp(password, account []byte) []byte {
	if s.cfg.IgnorePasswordChanges && len(s.cfg.AccountColumns) > 0 {
		password = nil
	}
	return stampOf(password, account)
}

// restamp gives the sessions of a user that have the old stamp the new one.
func (s *store) restamp(ctx context.Context, tx *sqlx.Tx, user any, old, stamp []byte) error {
	table, err := s.tokenTable(ctx)
	if err != nil || !table.stamped {
		return err
	}
	var ids []uint64
	if err := tx.SelectContext(ctx, &ids, "SELECT id FROM "+s.tokens+" WHERE user = ? AND stamp = ? ORDER BY id", user, old); err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := tx.ExecContext(ctx, "UPDATE "+s.tokens+" SET stamp = ? WHERE id = ?", stamp, id); err != nil {
			return err
		}
	}
	return nil
}

// A loginMethod says how a session began.
type loginMethod uint8

// The methods, as the column method has them.
const (
	methodUnknown  loginMethod = iota // an older row, or one of CandyPack's
	methodPassword                    // Login, Register, or a password set since
	methodApp                         // LoginAs
)

// errRowGone says that a session was ended concurrently.
var errRowGone = errors.New("the session has ended")

// keepOnly deletes all sessions of a user but one, and gives that one a new token
// and stamp. It returns how many it deleted. It takes the locks of rows in the
// order of their ids, as every deletion does.
func (s *store) keepOnly(ctx context.Context, tx *sqlx.Tx, kept *record, selector, hash string, stamp []byte) (n int64, err error) {
	table, err := s.tokenTable(ctx)
	if err != nil {
		return 0, err
	}
	var below, above []uint64
	rows, err := s.idsOf(ctx, tx, kept.owner)
	if err != nil {
		return 0, err
	}
	for _, id := range rows {
		switch {
		case id < kept.id:
			below = append(below, id)
		case id > kept.id:
			above = append(above, id)
		}
	}
	defer s.changed(rows...)
	for i, ids := range [][]uint64{below, nil, above} {
		if i == 1 {
			set, args := "token_x = ?, token_y = ?", []any{selector, hash}
			if table.stamped {
				set, args = set+", stamp = ?, method = ?", append(args, stamp, methodPassword)
			}
			result, err := tx.ExecContext(ctx, "UPDATE "+s.tokens+" SET "+set+" WHERE id = ? AND CONCAT(token_x, '') = ?", append(args, kept.id, kept.selector)...)
			if err != nil {
				return 0, err
			}
			if changed, err := result.RowsAffected(); err != nil || changed == 0 {
				return 0, errors.Join(err, errRowGone)
			}
		}
		if len(ids) > 0 {
			deleted, err := s.deleteWith(ctx, tx, ids, "")
			if err != nil {
				return 0, err
			}
			n += deleted
		}
	}
	return n, nil
}

// idsOf reads, in a transaction, the ids of all sessions under a key.
func (s *store) idsOf(ctx context.Context, tx *sqlx.Tx, user any) (ids []uint64, err error) {
	err = tx.SelectContext(ctx, &ids, "SELECT id FROM "+s.tokens+" WHERE user = ? ORDER BY id", user)
	return ids, err
}

// setStamp gives a session the stamp of its account as it is now.
func (s *store) setStamp(ctx context.Context, id uint64, stamp []byte) error {
	table, err := s.tokenTable(ctx)
	if err != nil || !table.stamped {
		return err
	}
	_, _, err = s.exec(ctx, "stamp the session", "UPDATE "+s.tokens+" SET stamp = ? WHERE id = ?", stamp, id)
	return err
}

// deleteRejected deletes a session whose account has changed or is gone, unless
// the session was stamped again meanwhile.
func (s *store) deleteRejected(ctx context.Context, r *record) error {
	defer s.changed(r.id)
	condition, args := "", []any{r.id}
	if r.stamp != nil {
		condition, args = " AND stamp = ?", append(args, r.stamp)
	}
	_, _, err := s.exec(ctx, "delete the session", "DELETE FROM "+s.tokens+" WHERE id = ?"+condition, args...)
	return err
}

// recentMethod reads how a session began, and how many seconds ago.
func (s *store) recentMethod(ctx context.Context, r *record) (method loginMethod, age int64, err error) {
	table, err := s.tokenTable(ctx)
	if err != nil {
		return 0, 0, err
	}
	if !table.stamped {
		return 0, 0, fmt.Errorf("%w: the token table %s lacks the columns that record how a session began; call Migrate, or run\nALTER TABLE %s ADD COLUMN %s", ErrConfig, s.tokens, s.tokens, strings.Join(accountColumns, ", ADD COLUMN "))
	}
	err = s.run(ctx, "read the session", func(ctx context.Context, _ bool) error {
		return s.db.QueryRowContext(ctx, "SELECT method, CAST(UNIX_TIMESTAMP() AS SIGNED) - CAST(UNIX_TIMESTAMP(date) AS SIGNED) FROM "+s.tokens+" WHERE id = ? AND CONCAT(token_x, '') = ?", r.id, r.selector).Scan(&method, &age)
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotLoggedIn
	}
	return method, age, err
}

// sameKey compares two keys to the letter, as the driver or column.arg gives them.
func sameKey(a, b any) bool { return string(keyBytes(a)) == string(keyBytes(b)) }

func keyBytes(key any) []byte {
	switch v := key.(type) {
	case []byte:
		return v
	case string:
		return []byte(v)
	case int64:
		return strconv.AppendInt(nil, v, 10)
	case uint64:
		return strconv.AppendUint(nil, v, 10)
	}
	return fmt.Append(nil, key)
}

// publicID returns the ID of a session that its user may see. It is stable for the
// session, and says nothing about the row's number, which would let any user count
// the logins of all. A table without a secret in its comment gives an ID that
// changes with the token.
func (s *store) publicID(r *record) string {
	mac := hmac.New(sha256.New, nil)
	if t := s.checked.Load(); t != nil && t.secret != nil {
		mac = hmac.New(sha256.New, t.secret)
		mac.Write(binary.LittleEndian.AppendUint64(nil, r.id))
	} else {
		mac.Write([]byte(r.hash))
	}
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:12])
}
