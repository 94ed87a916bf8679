package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/candysession/session/internal/retry"
	"github.com/jmoiron/sqlx"
)

// A tokenTable describes the token table as it is in the database.
type tokenTable struct {
	exists  bool
	columns columnSet
	comment string          // as it is
	realm   string          // the users table and key that its comment names; "" if it names none
	secret  []byte          // from its comment: makes the IDs of sessions; nil without one
	user    string          // the definition of the column user; "" if there is none
	indexed map[string]bool // columns that are the first of an index
}

// Schema returns the statement that creates the token table. The table has
// CandyPack's columns, so that both apps can use it, and columns with defaults
// that CandyPack does not know. Each index serves one kind of statement (table,
// type and key of EXPLAIN; TestCheckUsesTheIndexes):
//
//	lookup                         t const PRIMARY (token_x at first), u const PRIMARY
//	lookup of a batch              t range PRIMARY (token_x at first), u eq_ref PRIMARY
//	purge: find expired            range active
//	a user's sessions              ref user
//	renew, logout, delete by id    range or const PRIMARY
//
// The selector is ASCII and at most 64 characters, so an entry of token_x is
// some 35 bytes; active and user are 4 to 16 bytes and the id.
func (s *Store) Schema(ctx context.Context) (string, error) {
	users, err := s.usersTable(ctx)
	if err != nil {
		return "", err
	}
	return "CREATE TABLE IF NOT EXISTS " + s.tokensName + ` (
  ` + strings.ReplaceAll(definitions(tokenColumns, ",\n  "), keyType, users.Key.Definition) + `,
  PRIMARY KEY (id),
  UNIQUE KEY token_x (token_x),
  KEY active (active),
  KEY user (user)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC COMMENT='` + s.realmComment(users) + "'", nil
}

// realmOf returns the name of the users table and its key, as the comment of
// the token table has it. It names the database only if that is another one, so
// that a copy of both tables under another name stays good.
func (s *Store) realmOf(users *Users) string {
	realm := users.name + "." + users.Key.Name
	inTokens, _ := SplitName(s.cfg.TokenTable)
	inUsers, _ := SplitName(s.cfg.UsersTable)
	if inTokens == nil && inUsers == nil || inTokens == users.database {
		return realm
	}
	return users.database + "." + realm
}

// realmComment returns the comment of a new token table: its realm, and a
// secret from which the IDs of sessions are made. The IDs must reveal nothing,
// but they give no access.
func (s *Store) realmComment(users *Users) string {
	secret := make([]byte, 16)
	rand.Read(secret)
	return "sessions of " + s.realmOf(users) + ", key " + hex.EncodeToString(secret)
}

// realmPattern matches the end of the comment of a token table: see
// realmComment.
var realmPattern = regexp.MustCompile(`sessions of (\S+), key ([0-9a-f]{32})$`)

// tokenTable returns the token table, and creates it if there is none. It reads
// the table once, and checks that it serves this Store's users table and key:
// otherwise it returns an error matching ErrConfig.
func (s *Store) tokenTable(ctx context.Context) (*tokenTable, error) {
	if t := s.tokens.Load(); t != nil {
		return t, nil
	}
	users, err := s.usersTable(ctx)
	if err != nil {
		return nil, err
	}
	var t *tokenTable
	err = s.do(ctx, "read the token table", func(ctx context.Context) (err error) {
		if t, err = s.readTokenTable(ctx, s.db); err != nil || t.exists {
			return err
		}
		if _, err = s.createTable(ctx, s.db); err == nil {
			t, err = s.readTokenTable(ctx, s.db)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.checkTokenTable(t, users); err != nil {
		return nil, err
	}
	missing := t.columns.missing()
	if s.tokens.CompareAndSwap(nil, t) && len(missing) > 0 {
		s.cfg.Logger.Warn("session: the token table lacks columns, so a session does not end when its user's password changes; call Migrate", "table", s.cfg.TokenTable, "columns", definitions(missing, ", "))
	}
	return t, nil
}

// readTokenTable reads the definition of the token table.
func (s *Store) readTokenTable(ctx context.Context, db *sqlx.DB) (*tokenTable, error) {
	database, table := SplitName(s.cfg.TokenTable)
	// A statement must fail if the table lacks an original column, not leave it
	// out.
	t := &tokenTable{columns: originalColumns, indexed: map[string]bool{}}
	rows, err := db.QueryContext(ctx, "SELECT COLUMN_NAME, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME FROM information_schema.COLUMNS"+ofTable, database, table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name, definition string
		var charset, collation sql.NullString
		if err := rows.Scan(&name, &definition, &charset, &collation); err != nil {
			return nil, err
		}
		t.exists = true
		t.columns |= columnsWhere(func(c tokenColumn) bool { return strings.EqualFold(c.name, name) })
		if strings.EqualFold(name, "user") {
			t.user = definitionOf(definition, charset, collation)
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || !t.exists {
		return t, err
	}
	var comment sql.NullString
	if err := db.QueryRowContext(ctx, "SELECT TABLE_COMMENT FROM information_schema.TABLES"+ofTable, database, table).Scan(&comment); err != nil {
		return nil, err
	}
	t.comment = comment.String
	if match := realmPattern.FindStringSubmatch(t.comment); match != nil {
		t.realm = match[1]
		t.secret, _ = hex.DecodeString(match[2])
	}
	var names []string
	if err := db.SelectContext(ctx, &names, "SELECT COLUMN_NAME AS name FROM information_schema.STATISTICS"+ofTable+" AND SEQ_IN_INDEX = 1", database, table); err != nil {
		return nil, err
	}
	for _, name := range names {
		t.indexed[strings.ToLower(name)] = true
	}
	return t, nil
}

// checkTokenTable returns an error matching ErrConfig if the table does not
// serve the users table: it belongs to another one, or its column user does not
// have the key's type, so that two keys could become one.
func (s *Store) checkTokenTable(t *tokenTable, users *Users) error {
	if err := s.checkRealm(t, users); err != nil {
		return err
	}
	if !sameDefinition(t.user, users.Key.Definition) {
		return fmt.Errorf("%w: the column user of the token table %s is %s, and the key %s of %s is %s; call Migrate, or run\n%s", ErrConfig, s.tokensName, t.user, s.keyName, s.usersName, users.Key.Definition, s.modifyUser(users))
	}
	return nil
}

// checkRealm returns an error matching ErrConfig if the table is another users
// table's, or no token table.
func (s *Store) checkRealm(t *tokenTable, users *Users) error {
	realm := s.realmOf(users)
	switch {
	case t.realm != "" && !strings.EqualFold(t.realm, realm):
		return fmt.Errorf("%w: the token table %s has the sessions of %s, and this Manager those of %s; set Config.TokenTable to a table of its own. If the users table or its key was renamed, empty the token table and run\nALTER TABLE %s COMMENT = '%s'", ErrConfig, s.tokensName, t.realm, realm, s.tokensName, s.realmComment(users))
	case t.user == "":
		return fmt.Errorf("%w: the table %s has no column user, so it is no token table; set Config.TokenTable to another name", ErrConfig, s.tokensName)
	}
	return nil
}

// modifyUser returns the statement that gives the column user the type of the
// users' key.
func (s *Store) modifyUser(users *Users) string {
	return "ALTER TABLE " + s.tokensName + " MODIFY user " + users.Key.Definition + " NOT NULL"
}

// createTable creates the token table, and returns the statement.
func (s *Store) createTable(ctx context.Context, db *sqlx.DB) (ran []string, err error) {
	statement, err := s.Schema(ctx)
	if err != nil {
		return nil, err
	}
	s.tokens.Store(nil)
	_, err = db.ExecContext(ctx, statement)
	if retry.HasNumber(err, accessDenied...) {
		return nil, fmt.Errorf("%w: this database user may not create the token table; have it created with\n%s;\n%w", ErrConfig, statement, err)
	}
	if err != nil {
		return nil, s.Wrap("create the token table", err)
	}
	return []string{statement}, nil
}
