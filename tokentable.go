package session

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/jmoiron/sqlx"

	"github.com/candysession/session/internal/pool"
)

// A tokenTable describes the token table as it is in the database.
type tokenTable struct {
	exists  bool
	stamped bool            // it has the columns stamp and method
	comment string          // as it is
	realm   string          // the users table and key that its comment names; "" if it names none
	secret  []byte          // from its comment: makes the IDs of sessions; nil without one
	user    string          // the definition of the column user; "" if there is none
	indexed map[string]bool // columns that are the first of an index
}

// schema returns the statement that creates the token table. The table has
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
// The selector is ASCII and at most 64 characters, so an entry of token_x is some
// 35 bytes; active and user are 4 to 16 bytes and the id.
func (s *store) schema(ctx context.Context) (string, error) {
	t, err := s.definition(ctx)
	if err != nil {
		return "", err
	}
	return "CREATE TABLE IF NOT EXISTS " + s.tokens + ` (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  user ` + t.key.definition + ` NOT NULL,
  token_x VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  token_y VARCHAR(72) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  browser VARCHAR(255) NOT NULL DEFAULT '',
  ip VARCHAR(45) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
  date TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  active TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  ` + strings.Join(accountColumns, ",\n  ") + `,
  PRIMARY KEY (id),
  UNIQUE KEY token_x (token_x),
  KEY active (active),
  KEY user (user)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 ROW_FORMAT=DYNAMIC COMMENT='` + s.realmComment(t) + "'", nil
}

// accountColumns are those that CandyPack's table lacks. Without them a session
// is not bound to the password of its account.
var accountColumns = []string{"stamp BINARY(8) NULL", "method TINYINT UNSIGNED NOT NULL DEFAULT 0"}

// realmOf returns the name of the users table and its key, as the comment of the
// token table has it. It names the database only if that is another one, so that
// a copy of both tables under another name stays good.
func (s *store) realmOf(t *usersTable) string {
	realm := t.name + "." + t.key.name
	tokens, _ := splitName(s.cfg.TokenTable)
	users, _ := splitName(s.cfg.UsersTable)
	if tokens == nil && users == nil || tokens == t.database {
		return realm
	}
	return t.database + "." + realm
}

// realmComment returns the comment of a new token table: its realm, and a secret
// of which the IDs of sessions are made. The IDs must say nothing, but they give
// no access.
func (s *store) realmComment(t *usersTable) string {
	secret := make([]byte, 16)
	rand.Read(secret)
	return "sessions of " + s.realmOf(t) + ", key " + hex.EncodeToString(secret)
}

var realmPattern = regexp.MustCompile(`sessions of (\S+), key ([0-9a-f]{32})$`)

// tokenTable returns the token table, and creates it if there is none. It reads
// the table once, and checks that it serves this Manager's users table and key:
// otherwise it returns an error matching ErrConfig.
func (s *store) tokenTable(ctx context.Context) (*tokenTable, error) {
	if t := s.checked.Load(); t != nil {
		return t, nil
	}
	users, err := s.definition(ctx)
	if err != nil {
		return nil, err
	}
	var t *tokenTable
	err = s.run(ctx, "read the token table", func(ctx context.Context, _ bool) (err error) {
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
	if s.checked.CompareAndSwap(nil, t) && !t.stamped {
		s.cfg.Logger.Warn("session: the token table lacks columns, so a session does not end when its user's password changes; call Migrate", "table", s.cfg.TokenTable, "columns", strings.Join(accountColumns, ", "))
	}
	return t, nil
}

// readTokenTable reads what the database knows of the token table.
func (s *store) readTokenTable(ctx context.Context, db *sqlx.DB) (*tokenTable, error) {
	database, table := splitName(s.cfg.TokenTable)
	t := &tokenTable{indexed: map[string]bool{}}
	const of = " WHERE TABLE_SCHEMA = COALESCE(?, DATABASE()) AND TABLE_NAME = ?"
	rows, err := db.QueryContext(ctx, "SELECT COLUMN_NAME, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME FROM information_schema.COLUMNS"+of, database, table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := 0
	for rows.Next() {
		var name, definition string
		var charset, collation sql.NullString
		if err := rows.Scan(&name, &definition, &charset, &collation); err != nil {
			return nil, err
		}
		t.exists = true
		switch strings.ToLower(name) {
		case "user":
			t.user = definitionOf(definition, charset, collation)
		case "stamp", "method":
			found++
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || !t.exists {
		return t, err
	}
	t.stamped = found == len(accountColumns)
	var comment sql.NullString
	if err := db.QueryRowContext(ctx, "SELECT TABLE_COMMENT FROM information_schema.TABLES"+of, database, table).Scan(&comment); err != nil {
		return nil, err
	}
	t.comment = comment.String
	if match := realmPattern.FindStringSubmatch(t.comment); match != nil {
		t.realm = match[1]
		t.secret, _ = hex.DecodeString(match[2])
	}
	var names []string
	if err := db.SelectContext(ctx, &names, "SELECT COLUMN_NAME AS name FROM information_schema.STATISTICS"+of+" AND SEQ_IN_INDEX = 1", database, table); err != nil {
		return nil, err
	}
	for _, name := range names {
		t.indexed[strings.ToLower(name)] = true
	}
	return t, nil
}

// definitionOf returns the type of a column as a statement may have it.
func definitionOf(columnType string, charset, collation sql.NullString) string {
	if charset.Valid {
		columnType += " CHARACTER SET " + charset.String + " COLLATE " + collation.String
	}
	return columnType
}

// checkTokenTable returns an error matching ErrConfig if the table does not serve
// the users table: it belongs to another one, or its column user does not have
// the key's type, so that two keys could become one.
func (s *store) checkTokenTable(t *tokenTable, users *usersTable) error {
	if err := s.checkRealm(t, users); err != nil {
		return err
	}
	if !sameDefinition(t.user, users.key.definition) {
		return fmt.Errorf("%w: the column user of the token table %s is %s, and the key %s of %s is %s; call Migrate, or run\n%s", ErrConfig, s.tokens, t.user, s.key, s.users, users.key.definition, s.modifyUser(users))
	}
	return nil
}

// checkRealm returns an error matching ErrConfig if the table is another users
// table's, or no token table at all.
func (s *store) checkRealm(t *tokenTable, users *usersTable) error {
	realm := s.realmOf(users)
	switch {
	case t.realm != "" && !strings.EqualFold(t.realm, realm):
		return fmt.Errorf("%w: the token table %s has the sessions of %s, and this Manager those of %s; set Config.TokenTable to a table of its own. If the users table or its key was renamed, empty the token table and run\nALTER TABLE %s COMMENT = '%s'", ErrConfig, s.tokens, t.realm, realm, s.tokens, s.realmComment(users))
	case t.user == "":
		return fmt.Errorf("%w: the table %s has no column user, so it is no token table; set Config.TokenTable to another name", ErrConfig, s.tokens)
	}
	return nil
}

func (s *store) modifyUser(users *usersTable) string {
	return "ALTER TABLE " + s.tokens + " MODIFY user " + users.key.definition + " NOT NULL"
}

// sameDefinition compares the types of two columns. The display width of an
// integer says nothing about its range.
func sameDefinition(a, b string) bool {
	plain := func(s string) string { return displayWidth.ReplaceAllString(strings.ToLower(s), "int") }
	return plain(a) == plain(b)
}

var displayWidth = regexp.MustCompile(`\bint\(\d+\)`)

// createTable creates the token table, and returns the statement.
func (s *store) createTable(ctx context.Context, db *sqlx.DB) (ran []string, err error) {
	statement, err := s.schema(ctx)
	if err != nil {
		return nil, err
	}
	s.checked.Store(nil)
	_, err = db.ExecContext(ctx, statement)
	if isError(err, denied...) {
		return nil, fmt.Errorf("%w: this database user may not create the token table; have it created with\n%s;\n%w", ErrConfig, statement, err)
	}
	if err != nil {
		return nil, s.explain("create the token table", err)
	}
	return []string{statement}, nil
}

// migrate creates the table, or adds what it lacks, and returns the statements it
// ran. InnoDB adds columns with defaults and indexes online.
func (s *store) migrate(ctx context.Context) (ran []string, err error) {
	s.forgetTables()
	db, done := pool.WithoutReadTimeout(s.db)
	defer done()
	users, err := s.usersTable(ctx)
	if err != nil {
		return nil, err
	}
	t, err := s.readTokenTable(ctx, db)
	if err != nil {
		return nil, s.explain("read the token table", err)
	}
	if !t.exists {
		return s.createTable(ctx, db)
	}
	defer s.forgetTables()
	if err := s.checkRealm(t, users); err != nil {
		return nil, err
	}
	if !sameDefinition(t.user, users.key.definition) {
		if err := s.modifyStrictly(ctx, db, s.modifyUser(users)); err != nil {
			return nil, err
		}
		ran = append(ran, s.modifyUser(users))
	}
	var twice error
	alter := func(change string) error {
		statement := "ALTER TABLE " + s.tokens + " " + change
		_, err := db.ExecContext(ctx, statement)
		switch {
		case isError(err, erDuplicateIndex, erDuplicateColumn): // added concurrently
			return nil
		case isError(err, erDuplicate):
			twice = fmt.Errorf("session: the token table %s holds a token_x twice, so it can have no unique index, and lookups are slow; delete such rows, which let in no new client, and migrate again (SELECT token_x FROM %s GROUP BY token_x HAVING COUNT(*) > 1): %w", s.tokens, s.tokens, err)
			return nil
		case isError(err, denied...):
			return fmt.Errorf("%w: this database user may not alter the token table; have it done with\n%s;\n%w", ErrConfig, statement, err)
		case err != nil:
			return s.explain(change, err)
		}
		ran = append(ran, statement)
		return nil
	}
	if !t.stamped {
		for _, column := range accountColumns {
			if err := alter("ADD COLUMN " + column); err != nil {
				return ran, err
			}
		}
	}
	if t.realm == "" {
		comment := strings.TrimSpace(t.comment + " " + s.realmComment(users))
		if err := alter("COMMENT = '" + strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(comment) + "'"); err != nil {
			return ran, err
		}
	}
	for _, index := range []struct{ column, add string }{
		{"token_x", "UNIQUE INDEX"},
		{"active", "INDEX"},
		{"user", "INDEX"},
	} {
		if t.indexed[index.column] {
			continue
		}
		add := "ADD " + index.add + " " + index.column + " (" + index.column
		err := alter(add + ")")
		if isError(err, erKeyTooLong, erIndexTooLong) { // ROW_FORMAT=COMPACT allows 767 bytes
			err = alter(add + "(191))")
		}
		if err != nil {
			return ran, err
		}
	}
	return ran, twice
}

// modifyStrictly changes the type of a column, unless that would change a value:
// a strict server refuses it.
func (s *store) modifyStrictly(ctx context.Context, db *sqlx.DB, statement string) error {
	conn, err := db.Connx(ctx)
	if err != nil {
		return s.explain("connect", err)
	}
	defer conn.Close()
	var mode string
	if err := conn.QueryRowContext(ctx, "SELECT @@SESSION.sql_mode").Scan(&mode); err != nil {
		return s.explain("read sql_mode", err)
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), "SET SESSION sql_mode = ?", mode)
	if _, err := conn.ExecContext(ctx, "SET SESSION sql_mode = CONCAT(@@SESSION.sql_mode, ',STRICT_ALL_TABLES')"); err != nil {
		return s.explain("set sql_mode", err)
	}
	if _, err := conn.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("%w: the column user of the token table %s does not have the type of the users' key, and cannot be given it without loss; delete the sessions whose user does not fit, and run\n%s;\n%w", ErrConfig, s.tokens, statement, err)
	}
	return nil
}

// Migrate creates the token table, or adds the columns with defaults, the comment
// and the indexes that an existing one lacks. It gives the column user the type of
// the users' key if that changes no value. Migrate returns the statements it ran:
// none if the table is up to date. A table that cannot serve, and a U that does
// not fit the users table, is an error matching [ErrConfig].
func (m *Manager[U]) Migrate(ctx context.Context) (ran []string, err error) {
	return m.store.migrate(ctx)
}

// Schema is the statement that makes the token table, for those who keep their schema by hand. It asks the database,
// as the column user has the type of the users table's key.
func (m *Manager[U]) Schema(ctx context.Context) (string, error) {
	return m.store.schema(ctx)
}
