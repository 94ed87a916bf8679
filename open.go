package session

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"

	"github.com/candysession/session/internal/pool"
)

// Open returns a connection pool tuned for this package. It does not connect.
// Any other *sqlx.DB of the mysql driver works too.
//
// Open always sets parseTime, loc=UTC, charset utf8mb4, autocommit=1,
// completion_type=0 and interpolateParams, which needs one round trip for each
// statement and is safe in this charset. Unless the DSN sets them, it defaults
// time_zone to '+00:00', timeout to 5s, and readTimeout and writeTimeout to
// 10s.
//
// The pool has at most 32 connections, all of which may stay idle. Each is
// replaced after 5 minutes, before the idle limit of a load balancer or server
// closes it. If the server stops responding on one connection, older
// connections are discarded: behind a firewall that dropped them, each would
// cost a request its Config.Timeout.
//
// A DSN that cannot be parsed, or names no database, returns an error matching
// [ErrConfig].
func Open(dsn string) (*sqlx.DB, error) {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil { // the driver's error may quote the password
		return nil, fmt.Errorf("%w: the DSN can't be read; it must look like user:password@tcp(host:3306)/database", ErrConfig)
	}
	if cfg.DBName == "" {
		return nil, fmt.Errorf("%w: the DSN names no database; add it after the last slash", ErrConfig)
	}
	cfg.ParseTime = true
	cfg.Loc = time.UTC
	cfg.InterpolateParams = true
	if !strings.HasPrefix(cfg.Collation, "utf8mb4_") {
		cfg.Collation = ""
	}
	// Another charset, such as gbk, could swallow the backslash of an escape.
	cfg.Apply(mysql.Charset("utf8mb4", cfg.Collation))
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
	db, err := pool.Open(cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: DSN: %w", ErrConfig, err)
	}
	db.SetMaxOpenConns(32)
	db.SetMaxIdleConns(32)
	db.SetConnMaxLifetime(5 * time.Minute)
	return db, nil
}
