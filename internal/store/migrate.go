package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/candysession/session/internal/pool"
	"github.com/candysession/session/internal/retry"
	"github.com/jmoiron/sqlx"
)

// Migrate creates the token table, or adds missing columns and indexes, and
// returns the statements it ran. InnoDB adds columns with defaults, and
// indexes, online.
func (s *Store) Migrate(ctx context.Context) (ran []string, err error) {
	s.forgetTables()
	db, done := pool.WithoutReadTimeout(s.db)
	defer done()
	users, err := s.Users(ctx)
	if err != nil {
		return nil, err
	}
	t, err := s.readTokenTable(ctx, db)
	if err != nil {
		return nil, s.Wrap("read the token table", err)
	}
	if !t.exists {
		return s.createTable(ctx, db)
	}
	defer s.forgetTables()
	if err := s.checkRealm(t, users); err != nil {
		return nil, err
	}
	m := &migration{Store: s, db: db}
	err = m.run(ctx, t, users)
	if err == nil {
		err = m.duplicates
	}
	return m.ran, err
}

// A migration alters a token table.
type migration struct {
	*Store
	db         *sqlx.DB
	ran        []string
	duplicates error // prevents the unique index
}

// run adds everything that the token table t lacks.
func (m *migration) run(ctx context.Context, t *tokenTable, users *Users) error {
	if !sameDefinition(t.user, users.Key.Definition) {
		if err := m.modifyStrictly(ctx, m.modifyUser(users)); err != nil {
			return err
		}
	}
	for _, c := range t.columns.missing() {
		if err := m.alter(ctx, "ADD COLUMN "+c.name+" "+c.definition); err != nil {
			return err
		}
	}
	if t.realm == "" {
		comment := strings.TrimSpace(t.comment + " " + m.realmComment(users))
		if err := m.alter(ctx, "COMMENT = '"+strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(comment)+"'"); err != nil {
			return err
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
		err := m.alter(ctx, add+")")
		if retry.HasNumber(err, erTooLongKey, erIndexColumnTooLong) {
			// ROW_FORMAT=COMPACT allows 767 bytes.
			err = m.alter(ctx, add+"(191))")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// alter changes the token table. It keeps an error of duplicate selectors for
// later, because the other changes are possible.
func (m *migration) alter(ctx context.Context, change string) error {
	statement := "ALTER TABLE " + m.tokensName + " " + change
	_, err := m.db.ExecContext(ctx, statement)
	switch {
	case retry.HasNumber(err, erDupKeyName, erDupFieldName): // added concurrently
		return nil
	case retry.HasNumber(err, erDupEntry):
		m.duplicates = fmt.Errorf("session: the token table %s holds a token_x twice, so it can have no unique index, and lookups are slow; delete such rows, which let in no new client, and migrate again (SELECT token_x FROM %s GROUP BY token_x HAVING COUNT(*) > 1): %w", m.tokensName, m.tokensName, err)
		return nil
	case retry.HasNumber(err, accessDenied...):
		return fmt.Errorf("%w: this database user may not alter the token table; have it done with\n%s;\n%w", ErrConfig, statement, err)
	case err != nil:
		return m.Wrap(change, err)
	}
	m.ran = append(m.ran, statement)
	return nil
}

// modifyStrictly changes the type of a column, unless that would change a
// value: a strict server rejects it.
func (m *migration) modifyStrictly(ctx context.Context, statement string) error {
	conn, err := m.db.Connx(ctx)
	if err != nil {
		return m.Wrap("connect", err)
	}
	defer conn.Close()
	var mode string
	if err := conn.QueryRowContext(ctx, "SELECT @@SESSION.sql_mode").Scan(&mode); err != nil {
		return m.Wrap("read sql_mode", err)
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), "SET SESSION sql_mode = ?", mode)
	if _, err := conn.ExecContext(ctx, "SET SESSION sql_mode = CONCAT(@@SESSION.sql_mode, ',STRICT_ALL_TABLES')"); err != nil {
		return m.Wrap("set sql_mode", err)
	}
	if _, err := conn.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("%w: the column user of the token table %s does not have the type of the users' key, and cannot be given it without loss; delete the sessions whose user does not fit, and run\n%s;\n%w", ErrConfig, m.tokensName, statement, err)
	}
	m.ran = append(m.ran, statement)
	return nil
}

// Stats describes the token table.
type Stats struct {
	Rows    int64
	Expired int64     // idle for longer than MaxAge
	Oldest  time.Time // the earliest renewal; zero if there is no session
	Bytes   int64     // of data and indexes, as the server estimates them
}

// Stats counts the whole table.
func (s *Store) Stats(ctx context.Context) (stats Stats, err error) {
	var oldest sql.NullInt64
	var expired sql.NullFloat64 // a SUM of booleans is a DECIMAL
	if _, err := s.tokenTable(ctx); err != nil {
		return Stats{}, s.Wrap("count the sessions", err)
	}
	db, done := pool.WithoutReadTimeout(s.db)
	defer done()
	err = s.retryWithin(ctx, func(ctx context.Context, _ bool) error {
		query := "SELECT COUNT(*), SUM(" + s.idleSQL + "), MIN(UNIX_TIMESTAMP(active)) FROM " + s.tokensName
		return db.QueryRowxContext(ctx, query, seconds(s.cfg.MaxAge)).Scan(&stats.Rows, &expired, &oldest)
	})
	if err != nil {
		return Stats{}, s.Wrap("count the sessions", err)
	}
	stats.Expired = int64(expired.Float64)
	if oldest.Valid {
		stats.Oldest = time.Unix(oldest.Int64, 0).UTC()
	}
	database, table := SplitName(s.cfg.TokenTable)
	err = db.GetContext(ctx, &stats.Bytes, "SELECT COALESCE(SUM(DATA_LENGTH + INDEX_LENGTH), 0) AS bytes FROM information_schema.TABLES"+ofTable, database, table)
	if err != nil {
		return Stats{}, s.Wrap("measure the token table", err)
	}
	return stats, nil
}
