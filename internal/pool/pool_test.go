package pool

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"

	"github.com/candysession/session/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testConfig is a configuration for a new schema, with a read timeout.
func testConfig(t *testing.T, readTimeout time.Duration) *mysql.Config {
	t.Helper()
	cfg, err := mysql.ParseDSN(testdb.DSN(t))
	noError(t, err)
	cfg.ReadTimeout = readTimeout
	return cfg
}

// A read that times out marks earlier connections as broken, and no later ones.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	defer listener.Close() // its backlog accepts connections, which get no answer
	d := &dialer{deadAfter: 5 * time.Millisecond}
	dial := func() net.Conn {
		conn, err := d.dial(t.Context(), "tcp", listener.Addr().String())
		noError(t, err)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	check := func(conn net.Conn) error {
		_, err := conn.(syscall.Conn).SyscallConn()
		return err
	}
	old, stalled := dial(), dial()
	for _, wait := range []time.Duration{-time.Second, 20 * time.Millisecond} {
		noError(t, check(old))
		noError(t, stalled.SetReadDeadline(time.Now().Add(wait)))
		if _, err := stalled.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	if err := check(old); !errors.Is(err, errStaleConn) {
		t.Errorf("the check of an older connection returns %v", err)
	}
	noError(t, check(dial()))
}

// When the server stops responding on a connection, older ones are not used again.
func TestSilentConnections(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "goes on with one connection")
	cfg := testConfig(t, 10*time.Second)
	d := &dialer{deadAfter: time.Millisecond}
	cfg.DialFunc = d.dial
	pool, err := open(cfg)
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
		t.Error("the server responded")
	}
	first.Close()
	for d.lastDead.Load() == 0 {
		noError(t, t.Context().Err())
		runtime.Gosched()
	}
	if id() == kept {
		t.Error("a connection of before the silence is used again")
	}
	if kept = id(); id() != kept {
		t.Error("a connection of after the silence is not")
	}
}

// Open sets its dialer, unless the network is another's.
func TestDialer(t *testing.T) {
	t.Parallel()
	for network, want := range map[string]bool{"tcp": true, "unix": true, "tunnel": false} {
		cfg := mysql.NewConfig()
		cfg.Net, cfg.Addr = network, "localhost:1"
		db, err := Open(cfg)
		noError(t, err)
		if (Config(db).DialFunc != nil) != want {
			t.Errorf("with %s the dialer is %p", network, Config(db).DialFunc)
		}
		noError(t, db.Close())
	}
}

func TestWithoutReadTimeout(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, time.Second)
	db, err := Open(cfg)
	noError(t, err)
	defer db.Close()
	pool, done := WithoutReadTimeout(db)
	if Config(pool).ReadTimeout != 0 || Config(db).ReadTimeout != time.Second || pool.Ping() != nil {
		t.Error("it has a read timeout, or does not work")
	}
	done()
	if pool.Ping() == nil {
		t.Error("it is not closed")
	}
	own, err := sqlx.Open("mysql", cfg.FormatDSN())
	noError(t, err)
	defer own.Close()
	if Config(own) != nil {
		t.Error("an app's own pool has a Config")
	}
	if pool, done = WithoutReadTimeout(own); pool != own {
		t.Error("an app's own pool is not left alone")
	}
	done()
	noError(t, own.Ping())
}
