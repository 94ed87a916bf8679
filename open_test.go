package session

import (
	"context"
	"testing"
	"time"

	"github.com/candysession/session/internal/testdb"
)

// When the server falls silent on a connection, those that are as old are not used again.
func TestSilentConnections(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "goes on with one connection")
	db := open(t, testdb.DSN(t), "")
	cfg := db.Driver().(tuned).cfg
	if cfg.DialFunc == nil {
		t.Skip("connections are dialed by another")
	}
	d := &dialer{silent: time.Millisecond}
	cfg.DialFunc = d.dial
	pool, err := openPool(cfg)
	noError(t, err)
	defer pool.Close()
	pool.SetMaxIdleConns(8)
	first, err := pool.Conn(t.Context())
	noError(t, err)
	id := func() (id int64) { noError(t, pool.GetContext(t.Context(), &id, "SELECT CONNECTION_ID()")); return id }
	kept := id()
	if id() != kept {
		t.Fatal("an idle connection is not used again")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := first.ExecContext(ctx, "DO SLEEP(60)"); err == nil {
		t.Error("it was not silent")
	}
	first.Close()
	waitUntil(t, func() bool { return d.silence.Load() != 0 })
	if id() == kept {
		t.Error("a connection of before the silence is used again")
	}
	if kept = id(); id() != kept {
		t.Error("a connection of after the silence is not")
	}
}

// Statements that take long have a pool without a read timeout.
func TestPatientPool(t *testing.T) {
	t.Parallel()
	dsn := testdb.DSN(t)
	pool, done := patient(open(t, dsn, "readTimeout=1s"))
	if of := pool.Driver().(tuned); of.cfg.ReadTimeout != 0 || pool.Ping() != nil {
		t.Error("it has a read timeout, or none works")
	}
	done()
	if pool.Ping() == nil {
		t.Error("it is not closed")
	}
	own := plain(t, dsn, "")
	if pool, done = patient(own); pool != own {
		t.Error("an app's own pool is not left alone")
	}
	done()
	noError(t, own.Ping())
}
