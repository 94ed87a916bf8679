// Package pool opens connection pools of the mysql driver whose connections
// read in large pieces and are discarded when the server has stopped
// responding. It knows no statement.
package pool

import (
	"database/sql"
	"database/sql/driver"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
)

// deadAfter is how long a read must take before it fails, for the server to
// count as dead.
const deadAfter = 2 * time.Second

// Open returns a pool with this configuration, which it changes. It does not
// connect.
func Open(cfg *mysql.Config) (*sqlx.DB, error) {
	if cfg.Net == "tcp" || cfg.Net == "unix" { // others may have a dialer of their own
		cfg.DialFunc = (&dialer{deadAfter: deadAfter}).dial
	}
	return open(cfg)
}

// open returns a pool with this configuration, whose dialer it keeps.
func open(cfg *mysql.Config) (*sqlx.DB, error) {
	inner, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return sqlx.NewDb(sql.OpenDB(connector{inner, tunedDriver{inner.Driver(), cfg}}), "mysql"), nil
}

// A tunedDriver marks the pools of Open and carries their configuration.
type tunedDriver struct {
	driver.Driver
	cfg *mysql.Config
}

// A connector connects as the driver does, for a pool with a tunedDriver.
type connector struct {
	driver.Connector
	driver tunedDriver
}

// Driver returns the tunedDriver, from which database/sql has it.
func (c connector) Driver() driver.Driver { return c.driver }

// Config returns the configuration of a pool from Open, and nil for any other.
// The caller must not change it.
func Config(db *sqlx.DB) *mysql.Config {
	if d, ok := db.Driver().(tunedDriver); ok {
		return d.cfg
	}
	return nil
}

// WithoutReadTimeout returns a pool for long-running statements, and a function
// that closes it. Of a pool that is not from Open it returns the pool itself.
func WithoutReadTimeout(db *sqlx.DB) (unlimited *sqlx.DB, done func()) {
	if cfg := Config(db); cfg != nil {
		cfg = cfg.Clone()
		cfg.ReadTimeout = 0
		if unlimited, err := open(cfg); err == nil {
			return unlimited, func() { unlimited.Close() }
		}
	}
	return db, func() {}
}
