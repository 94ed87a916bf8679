package session

import (
	"bufio"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
)

// Open opens a pool of connections that is tuned for this package, and does not connect yet. Any other *sqlx.DB of
// the mysql driver works too.
//
// Whatever the DSN says, it has parseTime, loc=UTC, charset utf8mb4, autocommit=1, completion_type=0, and
// interpolateParams: one round trip for each statement, safe in this charset. Where the DSN does not say otherwise, it has time_zone '+00:00', timeout 5s,
// readTimeout and writeTimeout 10s. The pool has at most 32 connections, all of which may stay idle; each is replaced after 5 minutes, so that a load
// balancer's or server's idle limit never meets a live one. When the server falls silent on one connection, those that
// are as old are not used again: behind a firewall that forgot them, each would cost a request its Config.Timeout.
//
// A DSN that cannot be read, or names no database, is an [ErrConfig].
func Open(dsn string) (*sqlx.DB, error) {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil { // the driver's error may quote the password
		return nil, fmt.Errorf("%w: the DSN can't be read; it must look like user:password@tcp(host:3306)/database", ErrConfig)
	}
	if cfg.DBName == "" {
		return nil, fmt.Errorf("%w: the DSN names no database; write it behind the last slash", ErrConfig)
	}
	cfg.ParseTime = true
	cfg.Loc = time.UTC
	cfg.InterpolateParams = true
	if !strings.HasPrefix(cfg.Collation, "utf8mb4_") {
		cfg.Collation = ""
	}
	cfg.Apply(mysql.Charset("utf8mb4", cfg.Collation)) // another, such as gbk, could swallow the backslash of an escape
	setDefault(&cfg.Timeout, 5*time.Second)
	setDefault(&cfg.ReadTimeout, DefaultTimeout)
	setDefault(&cfg.WriteTimeout, DefaultTimeout)
	if cfg.Params == nil {
		cfg.Params = map[string]string{}
	}
	maps.DeleteFunc(cfg.Params, func(name, _ string) bool { // @@session.autocommit, too
		name = strings.ToLower(name)
		return strings.HasSuffix(name, "autocommit") || strings.HasSuffix(name, "completion_type")
	})
	cfg.Params["autocommit"], cfg.Params["completion_type"] = "1", "0"
	if cfg.Params["time_zone"] == "" {
		cfg.Params["time_zone"] = "'+00:00'"
	}
	if cfg.Net == "tcp" || cfg.Net == "unix" { // others may have a dialer of their own
		cfg.DialFunc = (&dialer{silent: 2 * time.Second}).dial
	}
	db, err := openPool(cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: DSN: %w", ErrConfig, err)
	}
	db.SetMaxOpenConns(32)
	db.SetMaxIdleConns(32)
	db.SetConnMaxLifetime(5 * time.Minute)
	return db, nil
}

// A tuned driver is that of a pool of Open, and knows how it was opened.
type tuned struct {
	driver.Driver
	cfg *mysql.Config
}

type connector struct {
	driver.Connector
	tuned
}

func (c connector) Driver() driver.Driver { return c.tuned }

func openPool(cfg *mysql.Config) (*sqlx.DB, error) {
	inner, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return sqlx.NewDb(sql.OpenDB(connector{inner, tuned{inner.Driver(), cfg}}), "mysql"), nil
}

// readTimeout returns the readTimeout of a pool of Open, and 0 of another.
func readTimeout(db *sqlx.DB) time.Duration {
	if of, ok := db.Driver().(tuned); ok {
		return of.cfg.ReadTimeout
	}
	return 0
}

// patient is a pool for statements that may take long, without the read timeout of a pool of Open.
func patient(db *sqlx.DB) (pool *sqlx.DB, done func()) {
	if of, ok := db.Driver().(tuned); ok {
		cfg := of.cfg.Clone()
		cfg.ReadTimeout = 0
		if pool, err := openPool(cfg); err == nil {
			return pool, func() { pool.Close() }
		}
	}
	return db, func() {}
}

// A dialer makes connections, and knows which of them the server may have forgotten.
type dialer struct {
	silent  time.Duration // for so long the server must not have answered on a connection that is then given up
	silence atomic.Int64  // since when it was, in nanoseconds of the epoch
}

var errSilent = errors.New("session: the server fell silent on a connection as old as this")

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &bufferedConn{conn, bufio.NewReaderSize(conn, 32<<10), d, time.Now().UnixNano()}, nil
}

// A bufferedConn takes what the server has sent in one system call: the driver reads 4 kB at a time, and the answer to
// many look-ups is longer.
type bufferedConn struct {
	net.Conn
	reader *bufio.Reader
	dialer *dialer
	made   int64 // in nanoseconds of the epoch
}

func (c *bufferedConn) Read(p []byte) (int, error) {
	begun := time.Now()
	n, err := c.reader.Read(p)
	if err != nil && time.Since(begun) > c.dialer.silent {
		c.dialer.silence.Store(begun.UnixNano())
	}
	return n, err
}

// SyscallConn lets the driver see whether a connection that it is about to use again still works.
func (c *bufferedConn) SyscallConn() (syscall.RawConn, error) {
	if c.made < c.dialer.silence.Load() {
		return nil, errSilent
	}
	return c.Conn.(syscall.Conn).SyscallConn()
}
