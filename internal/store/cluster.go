package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jmoiron/sqlx"
)

// causalPrefix returns the prefix of a statement that makes a SELECT on a
// Galera node wait for all writes that other nodes have acknowledged. It is
// empty on other servers.
func (s *Store) causalPrefix(ctx context.Context) (string, error) {
	galera, err := s.IsGalera(ctx)
	if !galera {
		return "", err
	}
	return "SET STATEMENT wsrep_sync_wait = 1 FOR ", nil
}

// IsGalera reports whether the database is a MariaDB Galera cluster. It asks
// once.
func (s *Store) IsGalera(ctx context.Context) (bool, error) {
	if known := s.galera.Load(); known != nil {
		return *known, nil
	}
	var variables []pair
	err := s.do(ctx, "read the server's variables", func(ctx context.Context) (err error) {
		variables, err = selectPairs(ctx, s.db, "SHOW VARIABLES WHERE Variable_name = 'version' OR Variable_name = 'wsrep_on'")
		return err
	})
	if err != nil {
		return false, err
	}
	on, mariaDB := false, false
	for _, v := range variables {
		on = on || strings.EqualFold(v.name, "wsrep_on") && strings.EqualFold(v.value, "ON")
		mariaDB = mariaDB || strings.Contains(v.value, "MariaDB")
	}
	galera := on && mariaDB
	s.galera.Store(&galera)
	return galera, nil
}

// AssumeGalera makes the Store use the statements for a Galera cluster. Tests
// call it, because any MariaDB executes them.
func (s *Store) AssumeGalera() {
	galera := true
	s.galera.Store(&galera)
}

// CheckPool returns an error matching ErrConfig if writes through a pool could
// be lost: its connections begin a transaction with each statement and never
// end it. It asks until the answer is good, and then never again.
func (s *Store) CheckPool(ctx context.Context) error {
	if s.poolChecked.Load() {
		return nil
	}
	err := s.do(ctx, "read the variables of a connection", func(ctx context.Context) error {
		for _, db := range s.pools() {
			if err := checkConnection(ctx, db); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		s.poolChecked.Store(true)
	}
	return err
}

// pools returns the pools that the Store reads from.
func (s *Store) pools() []*sqlx.DB {
	if s.cfg.Replica != nil && s.cfg.Replica != s.db {
		return []*sqlx.DB{s.db, s.cfg.Replica}
	}
	return []*sqlx.DB{s.db}
}

// checkConnection checks one connection of a pool. A server that lacks a
// variable passes.
func checkConnection(ctx context.Context, db *sqlx.DB) error {
	variables, err := selectPairs(ctx, db, "SHOW VARIABLES WHERE Variable_name = 'autocommit' OR Variable_name = 'completion_type'")
	if err != nil {
		return err
	}
	for _, v := range variables {
		value := strings.ToUpper(v.value)
		switch {
		case strings.EqualFold(v.name, "autocommit") && (value == "OFF" || value == "0"):
			return fmt.Errorf("%w: connections of this pool have autocommit off, so logins are lost and ended sessions stay; add autocommit=1 to the DSN, or open the pool with session.Open", ErrConfig)
		case strings.EqualFold(v.name, "completion_type") && (strings.HasPrefix(value, "CHAIN") || strings.HasPrefix(value, "RELEASE") || value == "1" || value == "2"):
			return fmt.Errorf("%w: connections of this pool have completion_type %s, so what follows a transaction is lost; add completion_type=0 to the DSN, or open the pool with session.Open", ErrConfig, v.value)
		}
	}
	return nil
}
