package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/candysession/session/internal/testdb"
	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
)

func TestRetries(t *testing.T) {
	t.Parallel()
	deadlock := &mysql.MySQLError{Number: erDeadlock}
	lockWait := fmt.Errorf("wrapped: %w", &mysql.MySQLError{Number: erLockWait})
	other := &mysql.MySQLError{Number: erDuplicate}
	missing := &mysql.MySQLError{Number: erNoTable}
	for _, test := range []struct {
		name   string
		errs   []error // of one try after the other
		again  string  // what each was told
		result error
	}{
		{"at once", []error{nil}, "n", nil},
		{"conflicts are undone", []error{deadlock, lockWait, nil}, "nnn", nil},
		{"lost answers are not", []error{mysql.ErrInvalidConn, deadlock, io.ErrUnexpectedEOF, nil}, "nyyy", nil},
		{"not for ever", []error{deadlock, deadlock, deadlock, deadlock, nil}, "nnnn", deadlock},
		{"refusals are final", []error{other, nil}, "n", other},
		{"a table that is missing is made", []error{missing, nil}, "nn", nil},
		{"once", []error{missing, missing, nil}, "nn", missing},
		{"a server that can't be reached", []error{&net.OpError{Op: "dial", Err: errors.New("refused")}, nil}, "n", &net.OpError{}},
	} {
		made, again := 0, ""
		x := runner{time.Minute, func(context.Context) error { made++; return nil }, nil}
		err := x.run(t.Context(), func(ctx context.Context, lost bool) error {
			if _, ok := ctx.Deadline(); !ok {
				t.Errorf("%s: no deadline", test.name)
			}
			again += map[bool]string{true: "y", false: "n"}[lost]
			return test.errs[len(again)-1]
		})
		if again != test.again || (err == nil) != (test.result == nil) || made > 0 != (test.errs[0] == error(missing)) {
			t.Errorf("%s: tried %q, %v, %d tables", test.name, again, err, made)
		}
	}

	// Late in the timeout, and when nobody waits any more, nothing is tried again.
	tries := 0
	x := runner{time.Nanosecond, nil, nil}
	x.try(t.Context(), func(context.Context, bool) error { tries++; return deadlock })
	ctx, cancel := context.WithCancel(t.Context())
	x.timeout = time.Hour
	x.try(ctx, func(context.Context, bool) error { tries++; cancel(); return deadlock })
	if tries != 2 {
		t.Errorf("%d tries", tries)
	}
}

// A lossy network loses answers: the server has done what it was told, and the connection is gone.
type lossy struct {
	name string
	net  string

	mu     sync.Mutex
	match  string // the statements whose answers are lost
	left   int    // so many
	before func() // runs before such a statement is sent
}

type lossyConn struct {
	net.Conn
	l    *lossy
	lose atomic.Bool
}

var networks atomic.Int64

// Beginnings of packets: a command, and a query.
const (
	execute = "\x17"
	commit  = "\x03COMMIT"
)

// lose has the answers to the next statements that contain this be lost.
func (l *lossy) lose(match string, n int, before func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.match, l.left, l.before = match, n, before
}

func (c *lossyConn) Write(b []byte) (int, error) {
	c.l.mu.Lock()
	hit := c.l.match != "" && c.l.left > 0 && len(b) > 4 && (bytes.HasPrefix(b[4:], []byte(c.l.match)) || len(c.l.match) > 1 && bytes.Contains(b, []byte(c.l.match)))
	before := c.l.before
	if hit {
		c.l.left--
		c.lose.Store(before == nil)
	}
	c.l.mu.Unlock()
	if hit && before != nil {
		before()
	}
	return c.Conn.Write(b)
}

func (c *lossyConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.lose.Load() {
		c.Conn.Close()
		return 0, io.EOF
	}
	return n, err
}

// overLossy is an app whose connections to the database are lossy.
func overLossy(t *testing.T, cfg Config) (*fixture[user], *lossy) {
	t.Helper()
	f := setup(t, Config{})
	dsn, err := mysql.ParseDSN(f.dsn)
	noError(t, err)
	l := &lossy{name: fmt.Sprintf("lossy%d", networks.Add(1)), net: dsn.Net}
	mysql.RegisterDialContext(l.name, func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, l.net, address)
		return &lossyConn{Conn: conn, l: l}, err
	})
	dsn.Net = l.name
	db := open(t, dsn.FormatDSN(), "")
	return manage[user](t, db, f.dsn, cfg), l
}

// What was done although the answer was lost is found, and not done twice.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "goes on with one connection")
	f, network := overLossy(t, Config{MaxSessions: 3})
	b := newBrowser(chrome130)
	f.login(b, alice)
	f.purged()

	network.lose("FROM `user_tokens` t", 1, nil) // to prepare it
	f.isIn(b)
	network.lose(execute, 1, nil)
	f.isIn(b)
	if network.left != 0 {
		t.Error("nothing was lost")
	}

	// The session of before is replaced.
	old := *b
	old.cookies = map[string]string{"__Host-session": b.cookies["__Host-session"]}
	network.lose(commit, 1, nil)
	f.login(b, alice)
	f.isIn(b)
	f.isOut(&old, ErrUnknownSession)
	if n := f.rows(); n != 1 {
		t.Errorf("a login whose answer was lost left %d rows", n)
	}
	// No session ends but the oldest.
	browsers := []*browser{b, newBrowser(chrome130), newBrowser(chrome130), newBrowser(chrome130)}
	f.login(browsers[1], alice)
	f.login(browsers[2], alice)
	network.lose(commit, 1, nil)
	f.login(browsers[3], alice)
	f.isOut(browsers[0], ErrUnknownSession)
	for _, b := range browsers[1:] {
		f.isIn(b)
	}

	b = browsers[3]
	f.age(25 * time.Hour)
	network.lose("UPDATE `user_tokens` SET active", 1, nil)
	f.inside(b, func(_ http.ResponseWriter, r *http.Request) {
		if time.Since(f.auth.Session(r).Active).Abs() > time.Hour {
			t.Error("the row was renewed, and the request does not know")
		}
	})
	network.lose("UPDATE `user_tokens` SET token_x", 1, nil)
	f.inside(b, func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.Rotate(w, r)) })
	f.isIn(b)
	network.lose("UPDATE `users`", 1, nil)
	f.inside(b, func(w http.ResponseWriter, r *http.Request) {
		noError(t, f.auth.SetPassword(w, r, alice["password"], "another"))
	})
	f.isIn(b)
	if n := f.rows(); n != 1 {
		t.Errorf("%d sessions after the password was changed", n)
	}

	f.login(browsers[1], Credentials{"email": alice["email"], "password": "another"})
	sessions, err := f.auth.Sessions(t.Context(), 1)
	noError(t, err)
	network.lose("DELETE", 1, nil)
	noError(t, f.auth.Revoke(t.Context(), 1, sessions[1].ID))
	network.lose("DELETE", 1, nil)
	f.inside(browsers[1], func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.Logout(w, r)) })
	if n := f.rows(); n != 0 {
		t.Errorf("%d sessions after each was ended", n)
	}

	// A user is not added twice, and nobody can tell whether it was once.
	network.lose(commit, 1, nil)
	err = f.register(Fields{"email": "carol@example.com", "password": "carol's"}, formOptions{Columns: []string{"email"}})
	wantError(t, err, ErrUnavailable)
	if !strings.Contains(err.Error(), "may have been created") || get[int](t, f.db, "SELECT COUNT(*) FROM users WHERE email = 'carol@example.com'") != 1 {
		t.Error(err)
	}
}

// A login of which nobody knows whether it was saved gives no cookie, and its row can be revoked.
func TestLoginWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "goes on with one connection")
	f, network := overLossy(t, Config{})
	f.login(newBrowser(""), bob)
	f.purged()
	for _, test := range []struct{ name, setUp, lose, mustSay string }{
		{"every answer is lost", "DELETE FROM user_tokens", "user_tokens", ""},
		{"another could be saved", "ALTER TABLE user_tokens DROP INDEX token_x", "INSERT", "token_x has no unique index"},
	} {
		mustExec(t, f.db, test.setUp)
		network.lose(test.lose, 100, nil)
		b := newBrowser("")
		var err error
		response := b.do(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err = logIn(f.auth, w, r, alice)
		})), "POST", "/login")
		network.lose("", 0, nil)
		wantError(t, err, ErrUnavailable)
		if len(response.Cookies()) != 0 || !strings.Contains(err.Error(), test.mustSay) {
			t.Errorf("%s: %v, %v", test.name, response.Cookies(), err)
		}
		sessions, err := f.auth.Sessions(t.Context(), 1)
		noError(t, err)
		for _, s := range sessions {
			noError(t, f.auth.Revoke(t.Context(), 1, s.ID))
		}
		if n := get[int](t, f.db, "SELECT COUNT(*) FROM user_tokens WHERE user = 1"); len(sessions) != 1 || n != 0 {
			t.Errorf("%s: %d sessions could be revoked, %d rows are left", test.name, len(sessions), n)
		}
	}
}

// A client that leaves does not break off what it has begun: that would leave open whether it was done.
func TestClientsThatLeave(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "goes on with one connection")
	f, network := overLossy(t, Config{})
	h := func(ctx context.Context, do func(w http.ResponseWriter, r *http.Request) error) error {
		var err error
		newBrowser("").do(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { err = do(w, r.WithContext(ctx)) }), "POST", "/")
		return err
	}
	login := func(w http.ResponseWriter, r *http.Request) error {
		_, err := logIn(f.auth, w, r, alice)
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	network.lose("INSERT INTO `user_tokens`", 1, cancel)
	noError(t, h(ctx, login))
	if n := f.rows(); n != 1 {
		t.Errorf("%d sessions", n)
	}
	// Who left before that needs no session.
	ctx, cancel = context.WithCancel(t.Context())
	network.lose("FROM `users`", 1, cancel)
	wantError(t, h(ctx, login), ErrUnavailable)
	if n := f.rows(); n != 1 {
		t.Errorf("%d sessions", n)
	}
}

// What the database does not answer ends at Config.Timeout, however it is asked: alone, in a batch, or for a connection.
func TestTimeout(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has no locks")
	dsn := setup(t, Config{}).dsn
	const timeout = 300 * time.Millisecond
	for name, db := range map[string]*sqlx.DB{
		"by a deadline":  open(t, dsn, ""),
		"by the driver":  open(t, dsn, "readTimeout=300ms"),
		"a pool of ones": plain(t, dsn, "parseTime=true"),
	} {
		f := manage[user](t, db, dsn, Config{Timeout: timeout})
		b := newBrowser("")
		f.login(b, alice)
		f.isIn(b)
		status := func(b *browser) int { // of a browser that is used by many
			own := browser{maps.Clone(b.cookies), b.userAgent}
			return own.do(f.auth.Middleware(http.NotFoundHandler()), "GET", "/").StatusCode
		}
		release := stopped(f)
		var wg sync.WaitGroup
		var failed atomic.Int64
		begun := time.Now()
		for range 3 * directSlots {
			wg.Go(func() {
				if status(b) != http.StatusServiceUnavailable {
					failed.Add(1)
				}
			})
		}
		wg.Wait()
		if took := time.Since(begun); failed.Load() != 0 || took > 20*timeout {
			t.Errorf("%s: %d were let in, after %v", name, failed.Load(), took)
		}
		release()
		waitUntil(t, func() bool { return f.auth.byID.isIdle() })

		// A pool that is used up.
		f.purged()
		db.SetMaxOpenConns(1)
		conn, err := db.Conn(t.Context())
		noError(t, err)
		if status(b) != http.StatusServiceUnavailable {
			t.Errorf("%s: answered without a connection", name)
		}
		noError(t, conn.Close())
		f.isIn(b)
	}
}
