package session

import (
	"context"
	"errors"
	"time"

	"github.com/candysession/session/internal/store"
	"github.com/jmoiron/sqlx"
)

// A Row is a user as a map from column to value, for apps without a user
// struct. It has every column of the users table except the password. Text is a
// string, an integer an int64, or a uint64 if it does not fit, a binary column
// []byte, and NULL is nil. Dates are time.Time if the DSN sets parseTime, as
// [Open] does, and otherwise strings.
type Row map[string]any

// newMapper returns the mapper of the app's user type.
func newMapper[U any](db *sqlx.DB, password string) (*store.Mapper[U], error) {
	// This is a function to U only if U is Row.
	toRow, _ := any(func(row map[string]any) Row { return row }).(func(map[string]any) U)
	return store.NewMapper(db.Mapper, password, toRow)
}

// storeConfig returns what the store needs of the Config.
func (c *Config) storeConfig() store.Config {
	return store.Config{
		UsersTable:            c.UsersTable,
		KeyColumn:             c.KeyColumn,
		PasswordColumn:        c.PasswordColumn,
		TokenTable:            c.TokenTable,
		AccountColumns:        c.AccountColumns,
		IgnorePasswordChanges: c.IgnorePasswordChanges,
		MaxAge:                c.MaxAge,
		MaxLifetime:           c.MaxLifetime,
		MaxSessions:           c.MaxSessions,
		Timeout:               c.Timeout,
		Replica:               c.Replica,
		Logger:                c.Logger,
	}
}

// wrap adds the operation and ErrUnavailable to an error of the database or of
// a context. ErrBusy stays as it is.
func (m *Manager[U]) wrap(op string, err error) error {
	if errors.Is(err, ErrBusy) {
		return err
	}
	return m.store.Wrap(op, err)
}

// detach returns the context of a write that a request asks for. Neither a
// client that disconnects nor a deadline of the request aborts the write: that
// would kill its connection, and leave the outcome unknown. Config.Timeout ends
// it.
func detach(ctx context.Context) context.Context { return context.WithoutCancel(ctx) }

// Migrate creates the token table, or adds the columns with defaults, the
// comment and the indexes that an existing one lacks. It gives the column user
// the type of the users' key if that changes no value. Migrate returns the
// statements it ran: none if the table is up to date. A table that cannot
// serve, and a U that does not fit the users table, is an error matching
// [ErrConfig].
func (m *Manager[U]) Migrate(ctx context.Context) (ran []string, err error) {
	return m.store.Migrate(ctx)
}

// Schema returns the statement that creates the token table, for apps that
// manage their schema themselves. It reads the users table, because the column
// user has the type of its key.
func (m *Manager[U]) Schema(ctx context.Context) (string, error) {
	return m.store.Schema(ctx)
}

// Stats describes the token table.
type Stats struct {
	Rows    int64     // all sessions
	Active  int64     // sessions idle for no longer than Config.MaxAge
	Expired int64     // other sessions, which the next purge deletes
	Oldest  time.Time // time of the least recent renewal; zero if there is no session
	Bytes   int64     // size of data and indexes, as estimated by the server
}

// Stats returns the size of the token table. It scans one index, which takes
// some tenths of a second for a million rows.
func (m *Manager[U]) Stats(ctx context.Context) (Stats, error) {
	stats, err := m.store.Stats(ctx)
	if err != nil {
		return Stats{}, err
	}
	return Stats{
		Rows:    stats.Rows,
		Active:  stats.Rows - stats.Expired,
		Expired: stats.Expired,
		Oldest:  stats.Oldest,
		Bytes:   stats.Bytes,
	}, nil
}
