package store

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/jmoiron/sqlx"
)

// A stamp binds a session to its account: 8 bytes of a SHA-256 over the stored
// password hash and the columns that Config.AccountColumns names. The row has
// the stamp of the login. When the account has another one, the session has
// ended: the password was changed by any program, or the key has a new owner.
const stampSize = 8

// stampOf returns the stamp of an account. A nil password hash is NULL, which
// differs from an empty one.
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

// stamp returns the stamp of an account, without the password if the Config
// excludes that.
func (s *Store) stamp(password, account []byte) []byte {
	if s.cfg.IgnorePasswordChanges && len(s.cfg.AccountColumns) > 0 {
		password = nil
	}
	return stampOf(password, account)
}

// comparesStamps reports whether a session ends when its account changes.
func (s *Store) comparesStamps() bool {
	return !s.cfg.IgnorePasswordChanges || len(s.cfg.AccountColumns) > 0
}

// stampColumns returns the two SQL expressions that a stamp is made of, for the
// users table with an alias, such as "u.", or "".
func (s *Store) stampColumns(users *Users, alias string) (password, account string) {
	password, account = "NULL", "NULL"
	if users.HasPassword {
		password = alias + s.passwordName
	}
	if users.account != "" {
		account = strings.ReplaceAll(users.account, "{}", alias)
	}
	return password, account
}

// accountExpression returns the SQL of all columns with these names, of which
// no two lists of values give the same bytes. It depends on neither the time
// zone nor the character set of a connection.
func (t *Users) accountExpression(names []string) (string, error) {
	var parts []string
	for _, name := range names {
		c, ok := t.Column(name)
		if !ok {
			return "", fmt.Errorf("%w: Config.AccountColumns: the users table has no column %q", ErrConfig, name)
		}
		value := "CAST({}" + quoteColumn(c.Name) + " AS BINARY)"
		if c.dataType == "timestamp" {
			value = "CAST(UNIX_TIMESTAMP({}" + quoteColumn(c.Name) + ") AS BINARY)"
		}
		parts = append(parts, "COALESCE(CONCAT(LENGTH("+value+"), ':', "+value+"), '-')")
	}
	if len(parts) == 0 {
		return "", nil
	}
	return "CONCAT(" + strings.Join(parts, ", ") + ")", nil
}

// readStamp reads the stamp of the account with a key; nil if there is none.
func (s *Store) readStamp(ctx context.Context, on sqlx.QueryerContext, key any) ([]byte, error) {
	users, err := s.usersTable(ctx)
	if err != nil {
		return nil, err
	}
	var password, account []byte
	passwordColumn, accountColumn := s.stampColumns(users, "")
	err = on.QueryRowxContext(ctx, "SELECT "+passwordColumn+", "+accountColumn+" FROM "+s.usersName+" WHERE "+s.keyName+" = ?", key).Scan(&password, &account)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return s.stamp(password, account), err
}

// PublicID returns the ID of a session that its user may see. It is stable for
// the session, and hides the row's number, which would let any user count the
// logins of all. If the table has no secret in its comment, the ID changes with
// the token.
func (s *Store) PublicID(r *Record) string {
	mac := hmac.New(sha256.New, nil)
	if t := s.tokens.Load(); t != nil && t.secret != nil {
		mac = hmac.New(sha256.New, t.secret)
		mac.Write(binary.LittleEndian.AppendUint64(nil, r.ID))
	} else {
		mac.Write([]byte(r.Hash))
	}
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:12])
}
