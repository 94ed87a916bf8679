package session

import (
	"bytes"
	"context"
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

// A flakyNetwork drops responses: the server has executed the statement, and the
// connection is closed before the client reads the result.
type flakyNetwork struct {
	name string
	net  string

	mu     sync.Mutex
	match  string // selects the statements
	left   int    // how many statements are left to match
	before func() // runs before such a statement is sent
}

type flakyConn struct {
	net.Conn
	l    *flakyNetwork
	drop atomic.Bool
}

var networks atomic.Int64

// Prefixes of packets: a command, and a query.
const (
	execute = "\x17"
	commit  = "\x03COMMIT"
)

// dropResponses drops the responses to the next n statements that contain match.
// If before is set, it runs before such a statement is sent, and the response
// arrives.
func (l *flakyNetwork) dropResponses(match string, n int, before func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.match, l.left, l.before = match, n, before
}

func (c *flakyConn) Write(b []byte) (int, error) {
	c.l.mu.Lock()
	hit := c.l.match != "" && c.l.left > 0 && len(b) > 4 && (bytes.HasPrefix(b[4:], []byte(c.l.match)) || len(c.l.match) > 1 && bytes.Contains(b, []byte(c.l.match)))
	before := c.l.before
	if hit {
		c.l.left--
		c.drop.Store(before == nil)
	}
	c.l.mu.Unlock()
	if hit && before != nil {
		before()
	}
	return c.Conn.Write(b)
}

func (c *flakyConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.drop.Load() {
		c.Conn.Close()
		return 0, io.EOF
	}
	return n, err
}

// setupFlaky returns an app whose database connections go over a flakyNetwork.
func setupFlaky(t *testing.T, cfg Config) (*fixture[user], *flakyNetwork) {
	t.Helper()
	f := setup(t, Config{})
	dsn, err := mysql.ParseDSN(f.dsn)
	noError(t, err)
	l := &flakyNetwork{name: fmt.Sprintf("flaky%d", networks.Add(1)), net: dsn.Net}
	mysql.RegisterDialContext(l.name, func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, l.net, address)
		return &flakyConn{Conn: conn, l: l}, err
	})
	dsn.Net = l.name
	db := open(t, dsn.FormatDSN(), "")
	return newManager[user](t, db, f.dsn, cfg), l
}

// A statement whose response was lost is not executed twice. The Manager finds
// out that it was executed.
func TestRetryAfterLostResponse(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "goes on with one connection")
	f, network := setupFlaky(t, Config{MaxSessions: 3})
	b := newBrowser(chrome130)
	f.login(b, alice)
	f.waitForPurge()

	network.dropResponses("FROM `user_tokens` t", 1, nil) // to prepare it again
	f.wantLoggedIn(b)
	network.dropResponses(execute, 1, nil)
	f.wantLoggedIn(b)
	if network.left != 0 {
		t.Error("nothing was lost")
	}

	// The previous session is replaced.
	old := *b
	old.cookies = map[string]string{"__Host-session": b.cookies["__Host-session"]}
	network.dropResponses(commit, 1, nil)
	f.login(b, alice)
	f.wantLoggedIn(b)
	f.wantRejected(&old, ErrUnknownSession)
	if n := f.rows(); n != 1 {
		t.Errorf("a login whose answer was lost left %d rows", n)
	}
	// Only the oldest session is revoked.
	browsers := []*browser{b, newBrowser(chrome130), newBrowser(chrome130), newBrowser(chrome130)}
	f.login(browsers[1], alice)
	f.login(browsers[2], alice)
	network.dropResponses(commit, 1, nil)
	f.login(browsers[3], alice)
	f.wantRejected(browsers[0], ErrUnknownSession)
	for _, b := range browsers[1:] {
		f.wantLoggedIn(b)
	}

	b = browsers[3]
	f.age(25 * time.Hour)
	network.dropResponses("UPDATE `user_tokens` SET active", 1, nil)
	f.handle(b, func(_ http.ResponseWriter, r *http.Request) {
		if time.Since(f.auth.Session(r).Active).Abs() > time.Hour {
			t.Error("the row was renewed, and the request does not know")
		}
	})
	network.dropResponses("UPDATE `user_tokens` SET token_x", 1, nil)
	f.handle(b, func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.Rotate(w, r)) })
	f.wantLoggedIn(b)
	network.dropResponses("UPDATE `users`", 1, nil)
	f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		noError(t, f.auth.SetPassword(w, r, alice["password"], "another"))
	})
	f.wantLoggedIn(b)
	if n := f.rows(); n != 1 {
		t.Errorf("%d sessions after the password was changed", n)
	}

	f.login(browsers[1], Credentials{"email": alice["email"], "password": "another"})
	sessions, err := f.auth.Sessions(t.Context(), 1)
	noError(t, err)
	network.dropResponses("DELETE", 1, nil)
	noError(t, f.auth.Revoke(t.Context(), 1, sessions[1].ID))
	network.dropResponses("DELETE", 1, nil)
	f.handle(browsers[1], func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.Logout(w, r)) })
	if n := f.rows(); n != 0 {
		t.Errorf("%d sessions after each was ended", n)
	}

	// A user is not created twice. The error says that the user may have been
	// created.
	network.dropResponses(commit, 1, nil)
	err = f.register(Fields{"email": "carol@example.com", "password": "carol's"}, formOptions{Columns: []string{"email"}})
	wantError(t, err, ErrUnavailable)
	if !strings.Contains(err.Error(), "may have been created") || get[int](t, f.db, "SELECT COUNT(*) FROM users WHERE email = 'carol@example.com'") != 1 {
		t.Error(err)
	}
}

// If the outcome of a login is unknown, the response sets no cookie, and the
// row can be revoked.
func TestLoginUnknownOutcome(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "goes on with one connection")
	f, network := setupFlaky(t, Config{})
	f.login(newBrowser(""), bob)
	f.waitForPurge()
	for _, test := range []struct{ name, setUp, drop, mustSay string }{
		{"every answer is lost", "DELETE FROM user_tokens", "user_tokens", ""},
		{"another could be saved", "ALTER TABLE user_tokens DROP INDEX token_x", "INSERT", "token_x has no unique index"},
	} {
		mustExec(t, f.db, test.setUp)
		network.dropResponses(test.drop, 100, nil)
		b := newBrowser("")
		var err error
		response := b.do(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err = logIn(f.auth, w, r, alice)
		})), "POST", "/login")
		network.dropResponses("", 0, nil)
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

// A client that disconnects does not abort a statement. Otherwise its outcome
// would be unknown.
func TestClientDisconnect(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "goes on with one connection")
	f, network := setupFlaky(t, Config{})
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
	network.dropResponses("INSERT INTO `user_tokens`", 1, cancel)
	noError(t, h(ctx, login))
	if n := f.rows(); n != 1 {
		t.Errorf("%d sessions", n)
	}
	// A client that disconnected before gets no session.
	ctx, cancel = context.WithCancel(t.Context())
	network.dropResponses("FROM `users`", 1, cancel)
	wantError(t, h(ctx, login), ErrUnavailable)
	if n := f.rows(); n != 1 {
		t.Errorf("%d sessions", n)
	}
}

// A call that the database does not answer fails after Config.Timeout: a direct
// lookup, one in a batch, and one that waits for a connection.
func TestTimeout(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has no locks")
	dsn := setup(t, Config{}).dsn
	const timeout = 300 * time.Millisecond
	for name, db := range map[string]*sqlx.DB{
		"by a deadline":  open(t, dsn, ""),
		"by the driver":  open(t, dsn, "readTimeout=300ms"),
		"a pool of ones": openRaw(t, dsn, "parseTime=true"),
	} {
		f := newManager[user](t, db, dsn, Config{Timeout: timeout})
		b := newBrowser("")
		f.login(b, alice)
		f.wantLoggedIn(b)
		status := func(b *browser) int { // with its own copy of the cookies
			own := browser{maps.Clone(b.cookies), b.userAgent}
			return own.do(f.auth.Middleware(http.NotFoundHandler()), "GET", "/").StatusCode
		}
		release := lockTables(f)
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
		waitUntil(t, func() bool { return isIdle(f.auth.byID) })

		// The pool has no free connection.
		f.waitForPurge()
		db.SetMaxOpenConns(1)
		conn, err := db.Conn(t.Context())
		noError(t, err)
		if status(b) != http.StatusServiceUnavailable {
			t.Errorf("%s: answered without a connection", name)
		}
		noError(t, conn.Close())
		f.wantLoggedIn(b)
	}
}
