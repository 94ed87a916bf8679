package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// Users is the definition of the users table.
type Users struct {
	Key         Column
	HasPassword bool

	database     string // as the server spells it
	name         string
	columns      []Column    // all except the password
	checked      atomic.Bool // it can serve: see checkUsers
	keyIsPrimary bool        // the key is in the primary key

	// view reports that it is no table: it has no indexes, and any column may
	// be NULL.
	view bool

	// passwordWidth is in characters; 0 if there is no such column, or it has
	// no limit.
	passwordWidth int64

	// account is an SQL expression of Config.AccountColumns, with {} before
	// each column; "" without them.
	account string
}

// Column returns the column with the given name, ignoring case as MySQL does.
func (t *Users) Column(name string) (Column, bool) {
	for _, c := range t.columns {
		if strings.EqualFold(c.Name, name) {
			return c, true
		}
	}
	return Column{}, false
}

// Users returns the definition of the users table, which it reads on first use.
// It returns an error matching ErrConfig if the table cannot serve.
func (s *Store) Users(ctx context.Context) (*Users, error) {
	t, err := s.usersTable(ctx)
	if err != nil || t.checked.Load() {
		return t, err
	}
	err = s.do(ctx, "read the users table", func(ctx context.Context) error { return s.checkUsers(ctx, t) })
	if err != nil {
		s.ForgetUsers() // it may be altered before the next call
		return nil, err
	}
	t.checked.Store(true)
	return t, nil
}

// ForgetUsers makes the next call of Users read the table again.
func (s *Store) ForgetUsers() { s.users.Store(nil) }

// usersTable does the same as Users for calls that read no user: a session can
// end whatever its user's columns are.
func (s *Store) usersTable(ctx context.Context) (*Users, error) {
	if t := s.users.Load(); t != nil {
		return t, nil
	}
	if err := s.CheckPool(ctx); err != nil {
		return nil, err
	}
	var t *Users
	err := s.do(ctx, "read the users table", func(ctx context.Context) (err error) {
		t, err = s.readUsersTable(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.users.Store(t)
	return t, nil
}

// readUsersTable reads the definition of the users table. It returns an error
// matching ErrConfig if there is no such table, or no column that can be its
// key.
func (s *Store) readUsersTable(ctx context.Context) (*Users, error) {
	database, table := SplitName(s.cfg.UsersTable)
	rows, err := s.db.QueryxContext(ctx, "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME, CHARACTER_MAXIMUM_LENGTH, EXTRA, IS_NULLABLE, COLUMN_KEY"+
		" FROM information_schema.COLUMNS"+ofTable+" ORDER BY ORDINAL_POSITION", database, table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	t := &Users{}
	exists := false
	for rows.Next() {
		exists = true
		var c Column
		var charset, collation, extra, nullable, index sql.NullString
		var width sql.NullInt64
		if err := rows.Scan(&t.database, &t.name, &c.Name, &c.dataType, &c.Definition, &charset, &collation, &width, &extra, &nullable, &index); err != nil {
			return nil, err
		}
		c.dataType, c.charset, c.width = strings.ToLower(c.dataType), charset.String, width.Int64
		switch c.dataType {
		case "tinyint", "smallint", "mediumint", "int", "bigint":
			c.kind = integerColumn
		case "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob":
			c.kind = binaryColumn
		case "uuid":
			c.kind = textColumn
		}
		c.Definition = definitionOf(c.Definition, charset, collation)
		if charset.Valid {
			c.kind = textColumn
			c.collation = collation.String
		}
		c.AutoIncrement = strings.Contains(strings.ToLower(extra.String), "auto_increment")
		// MariaDB can't declare a generated column NOT NULL.
		generated := strings.Contains(extra.String, "VIRTUAL") || strings.Contains(extra.String, "STORED")
		c.nullable = strings.EqualFold(nullable.String, "YES") && !generated
		if strings.EqualFold(c.Name, s.cfg.KeyColumn) {
			t.Key = c
			t.keyIsPrimary = strings.EqualFold(index.String, "PRI")
		}
		if strings.EqualFold(c.Name, s.cfg.PasswordColumn) {
			t.HasPassword, t.passwordWidth = true, width.Int64
		} else {
			t.columns = append(t.columns, c)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	switch {
	case !exists:
		return nil, fmt.Errorf("%w: there is no users table %s; create it, or set Config.UsersTable, or GRANT this database user SELECT on it", ErrConfig, s.usersName)
	case t.Key.Name == "":
		return nil, fmt.Errorf("%w: the users table %s has no column %s; set Config.KeyColumn to its primary key", ErrConfig, s.usersName, s.keyName)
	case t.Key.kind == otherColumn:
		return nil, fmt.Errorf("%w: the key %s of the users table is %s; it must be an integer, text or binary column", ErrConfig, s.keyName, t.Key.Definition)
	}
	kinds, err := selectPairs(ctx, s.db, "SELECT TABLE_TYPE, NULL FROM information_schema.TABLES"+ofTable, database, table)
	if err != nil {
		return nil, err
	}
	t.view = len(kinds) == 1 && strings.Contains(strings.ToUpper(kinds[0].name), "VIEW")
	t.account, err = t.accountExpression(s.cfg.AccountColumns)
	return t, err
}

// checkUsers returns an error matching ErrConfig if the users table cannot
// serve: two users could have one key, or its columns do not fit the app's user
// type.
func (s *Store) checkUsers(ctx context.Context, t *Users) error {
	if !t.view {
		unique, err := s.keyIsUnique(ctx, t)
		if err != nil {
			return err
		}
		if !unique {
			return fmt.Errorf("%w: the key %s of the users table %s has no unique index of its own, so two users could have one key; add one (ALTER TABLE %s ADD UNIQUE INDEX (%s)), or set Config.KeyColumn to the primary key", ErrConfig, s.keyName, s.usersName, s.usersName, s.keyName)
		}
	}
	if s.cfg.CheckUser == nil {
		return nil
	}
	needsTime, err := s.cfg.CheckUser(t)
	if err != nil || needsTime == "" {
		return err
	}
	for _, db := range s.pools() {
		var now any
		if err := db.QueryRowContext(ctx, "SELECT CURRENT_TIMESTAMP").Scan(&now); err != nil {
			return err
		}
		if _, parsed := now.(time.Time); !parsed {
			return fmt.Errorf("%w: field %s holds a time, but the DSN of this pool lacks parseTime; add parseTime=true, or open the pool with session.Open", ErrConfig, needsTime)
		}
	}
	return nil
}

// keyIsUnique reports whether the key has a unique index of its own.
func (s *Store) keyIsUnique(ctx context.Context, t *Users) (bool, error) {
	indexes, err := s.uniqueIndexes(ctx)
	if err != nil {
		return false, err
	}
	// The embedded engine of the examples does not list primary keys.
	unique, listed := t.keyIsPrimary, false
	for name, columns := range indexes {
		listed = listed || name == "PRIMARY"
		if len(columns) == 1 && strings.EqualFold(columns[0], t.Key.Name) {
			return true, nil
		}
	}
	return unique && !listed, nil
}

// uniqueIndexes returns the columns of each unique index of the users table.
func (s *Store) uniqueIndexes(ctx context.Context) (map[string][]string, error) {
	database, table := SplitName(s.cfg.UsersTable)
	parts, err := selectPairs(ctx, s.db, "SELECT INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS"+ofTable+" AND NON_UNIQUE = 0 ORDER BY INDEX_NAME, SEQ_IN_INDEX", database, table)
	indexes := map[string][]string{}
	for _, part := range parts {
		indexes[part.name] = append(indexes[part.name], part.value)
	}
	return indexes, err
}

// KeyParam converts a user's key, as the app or the driver has it, to a
// parameter for the column user. It returns an error matching
// ErrInvalidArgument for a value that the key column cannot hold.
func (s *Store) KeyParam(ctx context.Context, key any) (any, error) {
	table, err := s.usersTable(ctx)
	if err != nil {
		return nil, err
	}
	param, ok, err := table.Key.Param(key)
	if err == nil && !ok {
		err = fmt.Errorf("%w: the key column %s of %s is %s, which cannot hold this %T; give the key as the users table has it", ErrInvalidArgument, s.keyName, s.usersName, table.Key.Definition, key)
	}
	return param, err
}

// selectUsers returns a statement that reads the database's time, the key, the
// columns of the stamp, and the given columns of at most two users. The app
// must index the columns of its conditions.
func (s *Store) selectUsers(table *Users, columns []string, conditions []Condition) (query string, args []any) {
	var b strings.Builder
	password, account := s.stampColumns(table, "")
	b.WriteString("SELECT UNIX_TIMESTAMP(), " + s.keyName + ", " + password + ", " + account)
	for _, name := range columns {
		b.WriteString(", " + quoteColumn(name))
	}
	b.WriteString(" FROM " + s.usersName + " WHERE ")
	for i, c := range conditions {
		if i > 0 {
			b.WriteString(" AND ")
		}
		b.WriteString(quoteColumn(c.Column.Name) + " = ?")
		args = append(args, c.Value)
	}
	b.WriteString(" LIMIT 2")
	return b.String(), args
}

// SamplePasswords reads the password hashes of some users: of the first and of
// the last by key.
func (s *Store) SamplePasswords(ctx context.Context) (hashes [][]byte, err error) {
	query := "SELECT " + s.passwordName + " FROM " + s.usersName + " ORDER BY " + s.keyName
	for _, order := range []string{"", " DESC"} {
		var some [][]byte
		err = s.do(ctx, "read a sample of the passwords", func(ctx context.Context) error {
			some = nil
			return s.db.SelectContext(ctx, &some, query+order+" LIMIT 500")
		})
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, some...)
	}
	return hashes, nil
}
