package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"
)

// A fault is a fault injected into one server while an app uses it.
type fault struct {
	name        string
	description string
	setUp       func(*testbed) error
	// inject starts the fault and returns a function that ends it.
	inject  func(*testbed) (end func() error, err error)
	args    []string // arguments of the server
	replica bool     // the app uses a replica
	// disconnectWithin is passed to the load.
	disconnectWithin time.Duration
	long             int  // times the usual duration
	quick            bool // part of the subset for CI
}

// A testbed is an app, its server, and a proxy between them.
type testbed struct {
	server  *server
	replica *server    // of the server, or nil
	front   *forwarder // forwards the app's connections to the proxy
	proxy   *toxiproxy.Proxy
	app     *app
	load    *load
	notes   []string // details for the result
}

// repeatedly runs a task in a loop, in the background, until end is called or
// the task fails.
func repeatedly(task func(context.Context) error) (end func() error, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			if err = task(ctx); err != nil {
				return
			}
		}
	})
	return func() error {
		cancel()
		running.Wait()
		if ctx.Err() != nil {
			return nil
		}
		return err
	}, nil
}

// pause sleeps for d or until the context ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// toxic returns a fault that adds one of toxiproxy's toxics to the server's
// responses.
func toxic(kind, attributes string) func(*testbed) (func() error, error) {
	return func(s *testbed) (func() error, error) {
		_, err := s.proxy.Toxics.AddToxicJson(strings.NewReader(`{"name": "fault", "type": "` + kind + `", "stream": "downstream", "attributes": {` + attributes + `}}`))
		return func() error { return s.proxy.Toxics.RemoveToxic(context.Background(), "fault") }, err
	}
}

var faults = []fault{
	{name: "none", description: "for comparison", quick: true, inject: func(*testbed) (func() error, error) { return func() error { return nil }, nil }},
	{name: "latency", description: "responses are delayed by 100 to 300 ms", inject: toxic("latency", `"latency": 200, "jitter": 100`)},
	{name: "reset", description: "all connections are reset, every half second", quick: true, inject: func(s *testbed) (func() error, error) {
		return repeatedly(func(ctx context.Context) error {
			end, err := toxic("reset_peer", `"timeout": 0`)(s)
			if err != nil {
				return err
			}
			pause(ctx, 100*time.Millisecond)
			err = end()
			pause(ctx, 400*time.Millisecond)
			return err
		})
	}},
	{name: "half-open", description: "the server's responses are lost, and no connection closes", quick: true, inject: toxic("timeout", `"timeout": 0`), long: 2},
	{name: "connections forgotten", description: "connections from before the fault transmit nothing and do not close, as behind a firewall that lost its state; new connections work. At the end the server closes the old ones", quick: true,
		inject: func(s *testbed) (func() error, error) {
			s.front.dropExisting()
			return func() error { s.front.closeForgotten(); return nil }, nil
		}},
	{name: "slow close", description: "connections take a second to close", inject: toxic("slow_close", `"delay": 1000`)},
	{name: "connections used up", description: "other clients hold all of the server's connections, and the app's are killed", quick: true,
		setUp: func(s *testbed) error { return s.server.exec("SET GLOBAL max_connections = 60") },
		inject: func(s *testbed) (func() error, error) {
			others, err := sql.Open("mysql", "other:other@tcp("+s.server.address()+")/")
			if err != nil {
				return nil, err
			}
			var held []*sql.Conn
			end, _ := repeatedly(func(ctx context.Context) error {
				s.killConnections()
				for {
					conn, err := others.Conn(ctx)
					if err != nil {
						break
					}
					held = append(held, conn)
				}
				pause(ctx, 50*time.Millisecond)
				return nil
			})
			return func() error {
				end()
				for _, conn := range held {
					conn.Close()
				}
				return others.Close()
			}, nil
		}},
	{name: "pool used up", description: "the app's own code holds every connection of the pool", quick: true, inject: func(s *testbed) (func() error, error) {
		var held []*sqlx.Conn
		for range s.app.db.Stats().MaxOpenConnections {
			conn, err := s.app.db.Connx(context.Background())
			if err != nil {
				return nil, err
			}
			held = append(held, conn)
		}
		return func() error {
			for _, conn := range held {
				conn.Close()
			}
			return nil
		}, nil
	}},
	{name: "server killed", description: "SIGKILL; the server is started again at the end", quick: true, inject: func(s *testbed) (func() error, error) {
		s.server.kill()
		return s.server.start, nil
	}},
	{name: "server killed, often", description: "SIGKILL and start, repeatedly", inject: func(s *testbed) (func() error, error) {
		return repeatedly(func(ctx context.Context) error {
			s.server.kill()
			err := s.server.start()
			pause(ctx, 700*time.Millisecond)
			return err
		})
	}},
	{name: "read-only", description: "read_only = 1", quick: true, inject: func(s *testbed) (func() error, error) {
		return func() error { return s.server.exec("SET GLOBAL read_only = 0") }, s.server.exec("SET GLOBAL read_only = 1")
	}},
	{name: "disk full", description: "the file system of the server is full", inject: func(s *testbed) (func() error, error) {
		filler := filepath.Join(s.server.dir, "filler")
		f, err := os.Create(filler)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		block := make([]byte, 64<<10)
		for err == nil {
			_, err = f.Write(block)
		}
		// Sessions are small. Larger rows use up the free space in the table's
		// file.
		s.server.exec("CREATE TABLE app.filler (t LONGTEXT)")
		for i := 0; i < 200 && s.server.exec("INSERT INTO app.filler VALUES (REPEAT('x', 200000))") == nil; i++ {
		}
		return func() error { return os.Remove(filler) }, nil
	}},
	{name: "table dropped", description: "DROP TABLE; the sessions in it have no expected state", quick: true, inject: func(s *testbed) (func() error, error) {
		if err := s.server.exec("DROP TABLE app.user_tokens"); err != nil {
			return nil, err
		}
		now := time.Now()
		s.load.dropped.Store(&now)
		return func() error { return nil }, nil
	}},
	{name: "table locked", description: "ALTER TABLE … FORCE, ALGORITHM=COPY, LOCK=EXCLUSIVE, with 200,000 further rows, repeatedly", quick: true,
		setUp: func(s *testbed) error {
			return s.server.exec("INSERT INTO app.user_tokens (user, token_x, token_y) SELECT 1, CONCAT('filler', seq), 'filler' FROM app.users, app.seq_1_to_200000 WHERE id = 1")
		},
		inject: func(s *testbed) (func() error, error) {
			n := 0
			end, err := repeatedly(func(ctx context.Context) error {
				err := s.server.exec("ALTER TABLE app.user_tokens FORCE, ALGORITHM=COPY, LOCK=EXCLUSIVE")
				n++
				pause(ctx, 300*time.Millisecond)
				return err
			})
			return func() error {
				err := end()
				s.note("%d ALTERs", n)
				return err
			}, err
		}},
	{name: "deadlocks", description: "other transactions lock rows in the opposite order (1213)", quick: true, inject: func(s *testbed) (func() error, error) {
		before := s.server.number("SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'Innodb_deadlocks'")
		end, err := s.lockers(8, 2*time.Millisecond)
		return func() error {
			err := end()
			s.note("%d deadlocks", s.server.number("SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'Innodb_deadlocks'")-before)
			return err
		}, err
	}},
	{name: "lock waits", description: "other transactions lock rows for longer than innodb_lock_wait_timeout, 1 s (1205)", args: []string{"--innodb-lock-wait-timeout=1"},
		inject: func(s *testbed) (func() error, error) { return s.lockers(2, 1500*time.Millisecond) }},
	{name: "replica behind", description: "lookups use a replica that lags by one to two seconds; a logout may take effect up to three seconds late", quick: true, replica: true,
		setUp:  func(s *testbed) error { return s.replica.delay(1) },
		inject: func(s *testbed) (func() error, error) { return func() error { return nil }, nil }},
	{name: "replica killed", description: "lookups use a replica without delay; SIGKILL of the replica, which is started again at the end", replica: true,
		inject: func(s *testbed) (func() error, error) {
			s.replica.kill()
			return s.replica.start, nil
		}},
	{name: "clients disconnect", description: "every second client disconnects within 3 ms of its request", quick: true, disconnectWithin: 3 * time.Millisecond,
		inject: func(s *testbed) (func() error, error) { return func() error { return nil }, nil }},
	{name: "app's clock behind", description: "the database's clock is an hour ahead of the app's", quick: true, setUp: clock("+3600"),
		inject: func(s *testbed) (func() error, error) { return func() error { return nil }, nil }},
	{name: "app's clock ahead", description: "the database's clock is an hour behind the app's", setUp: clock("-3600"),
		inject: func(s *testbed) (func() error, error) { return func() error { return nil }, nil }},
	{name: "clock set back", description: "the database's clock is set back an hour, and forward again at the end", quick: true, setUp: clock("+0"),
		inject: func(s *testbed) (func() error, error) {
			return func() error { return clock("+0")(s) }, clock("-3600")(s)
		}},
}

// clock returns a function that sets the clock of a server that runs under
// libfaketime.
func clock(offset string) func(*testbed) error {
	return func(s *testbed) error {
		if err := os.WriteFile(s.clockFile(), []byte(offset+"\n"), 0o644); err != nil {
			return err
		}
		want := map[string]string{"+3600": "3600", "-3600": "-3600", "+0": "0"}[offset]
		return s.server.await(fmt.Sprintf("SELECT ABS(UNIX_TIMESTAMP() - %d - (%s)) < 60", time.Now().Unix(), want))
	}
}

func (s *testbed) clockFile() string { return filepath.Join(s.server.dir, "clock") }

// note adds a detail to the result.
func (s *testbed) note(format string, a ...any) { s.notes = append(s.notes, fmt.Sprintf(format, a...)) }

// killConnections kills the app's connections on the server.
func (s *testbed) killConnections() {
	rows, err := s.server.root.Query("SELECT id FROM information_schema.PROCESSLIST WHERE user = 'app'")
	if err != nil {
		return
	}
	var ids []int64
	for rows.Next() {
		var id int64
		if rows.Scan(&id) == nil {
			ids = append(ids, id)
		}
	}
	rows.Close()
	for _, id := range ids {
		s.server.exec(fmt.Sprintf("KILL %d", id))
	}
}

// lockers starts n transactions at a time that each lock two rows of one user,
// the later row first, and hold each lock for the given time.
func (s *testbed) lockers(n int, hold time.Duration) (end func() error, err error) {
	var ends []func() error
	for range n {
		end, _ := repeatedly(func(ctx context.Context) error {
			tx, err := s.server.root.BeginTx(ctx, nil)
			if err != nil {
				return nil
			}
			defer tx.Rollback()
			var low, high int64
			err = tx.QueryRow("SELECT MIN(id), MAX(id) FROM app.user_tokens WHERE user = ?", 1+rand.N(users)).Scan(&low, &high)
			if err != nil || low == high {
				return nil
			}
			for _, id := range []int64{high, low} {
				if _, err := tx.Exec("UPDATE app.user_tokens SET ip = ip WHERE id = ?", id); err != nil {
					return nil // chosen as the victim of a deadlock
				}
				pause(ctx, hold)
			}
			return nil
		})
		ends = append(ends, end)
	}
	return func() error {
		for _, end := range ends {
			end()
		}
		return nil
	}, nil
}

// run injects the fault into a new testbed under load, and returns the result.
func (f *fault) run(template, hash string, duration time.Duration, log *slog.Logger) (row result, err error) {
	dir, err := tempDir()
	if err != nil {
		return row, err
	}
	defer os.RemoveAll(dir)
	if f.name == "disk full" {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=120m"); err != nil {
			return row, fmt.Errorf("mount a file system to fill: %w", err)
		}
		defer syscall.Unmount(dir, 0)
	}
	if err := copyTree(template+"/data", dir+"/data"); err != nil {
		return row, err
	}
	args := f.args
	if f.replica {
		args = primaryArgs
	}
	s := &testbed{server: newServer(dir, "127.0.0.1", args...)}
	if strings.Contains(f.name, "clock") {
		preload := library("faketime/libfaketimeMT.so.1")
		if preload == "" {
			return row, fmt.Errorf("libfaketime is not installed (Debian: faketime)")
		}
		os.WriteFile(s.clockFile(), []byte("+0\n"), 0o644)
		s.server.env = []string{"LD_PRELOAD=" + preload, "FAKETIME_TIMESTAMP_FILE=" + s.clockFile(), "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"}
	}
	if err := s.server.start(); err != nil {
		return row, err
	}
	defer s.server.stop()
	if err := s.server.prepare(hash); err != nil {
		return row, err
	}
	if err := s.server.exec("CREATE USER other@'%' IDENTIFIED BY 'other'"); err != nil {
		return row, err
	}
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	s.proxy = toxiproxy.NewProxy(api, "database", "127.0.0.1:0", s.server.address())
	if err := s.proxy.Start(); err != nil {
		return row, err
	}
	defer s.proxy.Stop()
	if s.front, err = forward(s.proxy.Listen); err != nil {
		return row, err
	}
	defer s.front.Close()
	replica, grace := "", time.Duration(0)
	if f.replica {
		s.replica, err = s.server.replicate(template)
		if s.replica != nil {
			defer s.replica.remove()
		}
		if err != nil {
			return row, fmt.Errorf("start a replica: %w", err)
		}
		replica, grace = "app:app@tcp("+s.replica.address()+")/app", 3*time.Second
	}
	if s.app, err = newApp("app:app@tcp("+s.front.Addr().String()+")/app", replica, 2*time.Second, log); err != nil {
		return row, err
	}
	defer s.app.close()
	if _, err := s.app.auth.Migrate(context.Background()); err != nil {
		return row, err
	}
	if f.setUp != nil {
		if err := f.setUp(s); err != nil {
			return row, err
		}
	}
	s.load = newLoad(f.name, s.app)
	s.load.disconnectWithin, s.load.grace = f.disconnectWithin, grace
	s.load.age = s.server.age
	recovery, err := s.load.runUnder(func() (func() error, error) { return f.inject(s) }, duration*time.Duration(max(1, f.long)))
	if err != nil {
		return row, err
	}
	row = s.load.result(f.name, f.description, recovery)
	row.notes = s.notes
	// LogoutAll of every user must leave no row.
	for i := range users {
		if _, err := s.app.auth.LogoutAll(context.Background(), i+1); err != nil {
			return row, err
		}
	}
	if n := s.server.number("SELECT COUNT(*) FROM app.user_tokens WHERE token_y <> 'filler'"); n != 0 {
		row.otherViolations += n
		row.notes = append(row.notes, fmt.Sprintf("%d rows that LogoutAll did not delete", n))
	}
	return row, nil
}
