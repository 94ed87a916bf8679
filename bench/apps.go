package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"

	"github.com/alexedwards/scs/mysqlstore"
	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	"github.com/candysession/session"
	"github.com/candysession/session/internal/testdb"
	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
	"golang.org/x/crypto/bcrypt"
)

const (
	users     = 1000 // the number of users, each with one session
	userAgent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
)

// A User is a row of the users table, of about 200 bytes.
type User struct {
	ID    int64  `db:"id"`
	Email string `db:"email"`
	Name  string `db:"name"`
	About string `db:"about"`
}

// An app is a contestant: a handler that looks up the user of a request, and
// the cookies of logged-in users.
type app struct {
	name    string
	handler http.Handler
	cookies []string // the Cookie header of each user
}

// A bench is a private server with the contestants that use it.
type bench struct {
	dsn     *mysql.Config
	stop    func()
	version string
	pid     string
	admin   *sqlx.DB
	db      *sqlx.DB // opened by session.Open
	auth    *session.Manager[User]

	subject, baseline, scsDefault, scsInterpolated, scsMemory, bcryptEach app
}

// newBench starts a server with the given buffer pool size and creates the
// contestants.
func newBench(bufferPool string) (b *bench, err error) {
	b = &bench{}
	if b.dsn, b.stop, err = testdb.Private("--innodb-buffer-pool-size="+bufferPool, "--innodb-log-file-size=256M"); err != nil {
		return nil, err
	}
	if b.admin, err = sqlx.Open("mysql", b.dsn.FormatDSN()); err != nil {
		return nil, err
	}
	b.admin.MustExec("CREATE DATABASE app")
	b.dsn.DBName = "app"
	// Use TCP, as apps and servers on different machines do.
	var port string
	if err := b.admin.Get(&port, "SELECT @@port"); err != nil {
		return nil, err
	}
	b.dsn.Net, b.dsn.Addr = "tcp", net.JoinHostPort("127.0.0.1", port)
	if err := b.admin.Get(&b.version, "SELECT CONCAT(@@version_comment, ' ', VERSION())"); err != nil {
		return nil, err
	}
	var pidFile string
	if err := b.admin.Get(&pidFile, "SELECT @@pid_file"); err != nil {
		return nil, err
	}
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		return nil, err
	}
	b.pid = strings.TrimSpace(string(pid))
	if b.db, err = session.Open(b.dsn.FormatDSN()); err != nil {
		return nil, err
	}
	b.db.MustExec("CREATE TABLE users (id BIGINT AUTO_INCREMENT PRIMARY KEY, email VARCHAR(255) NOT NULL UNIQUE, password VARCHAR(60) NOT NULL, name VARCHAR(100) NOT NULL, about VARCHAR(255) NOT NULL)")
	hash, err := bcrypt.GenerateFromPassword([]byte("the password"), bcrypt.MinCost)
	if err != nil {
		return nil, err
	}
	for i := range users {
		b.db.MustExec("INSERT INTO users (email, password, name, about) VALUES (?, ?, ?, ?)", email(i), string(hash), fmt.Sprint("Person Number ", i), strings.Repeat("about this person. ", 7))
	}
	if b.auth, err = b.manager(session.Config{}); err != nil {
		return nil, err
	}
	return b, b.makeApps()
}

// manager returns a Manager with cheap password hashes.
func (b *bench) manager(cfg session.Config) (*session.Manager[User], error) {
	cfg.PasswordCost = bcrypt.MinCost
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return session.New[User](b.db, cfg)
}

func (b *bench) close() {
	b.auth.Close()
	b.db.Close()
	b.admin.Close()
	b.stop()
}

func email(i int) string { return fmt.Sprint("person", i, "@example.com") }

// makeApps creates the contestants and logs in every user of each.
func (b *bench) makeApps() error {
	b.subject = app{name: "session", handler: b.auth.Middleware(greet(b.auth))}
	login := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := b.auth.LoginAs(w, r, r.FormValue("id")); err != nil {
			panic(err)
		}
	})
	for i := range users {
		b.subject.cookies = append(b.subject.cookies, visit(login, fmt.Sprint("/?id=", i+1)))
	}

	// The baseline selects the same columns with the same join and index, and
	// does nothing else.
	query, err := b.db.Prepare("SELECT t.token_x, t.token_y, u.id, t.id, t.browser, t.ip, UNIX_TIMESTAMP(t.date), UNIX_TIMESTAMP(t.active), UNIX_TIMESTAMP(), u.about, u.email, u.id, u.name" +
		" FROM user_tokens t LEFT JOIN users u ON u.id = t.user WHERE t.token_x = ?")
	if err != nil {
		return err
	}
	lookup := func(ctx context.Context, selector string) (user User, hash []byte, err error) {
		var tokenX, browser, ip string
		var id, owner, created, active, now int64
		err = query.QueryRowContext(ctx, selector).Scan(&tokenX, &hash, &owner, &id, &browser, &ip, &created, &active, &now, &user.About, &user.Email, &user.ID, &user.Name)
		return user, hash, err
	}
	b.baseline = app{name: "one prepared query per request", cookies: b.subject.cookies, handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cookie, _ := r.Cookie("__Host-session")
		selector, _, _ := strings.Cut(cookie.Value, ".")
		user, _, err := lookup(r.Context(), selector)
		if err != nil {
			panic(err)
		}
		io.WriteString(w, user.Name)
	})}

	// CandyPack runs a query and a bcrypt of cost 10 on each request.
	hash, err := bcrypt.GenerateFromPassword([]byte(strings.Repeat("0", 32)), 10)
	if err != nil {
		return err
	}
	b.bcryptEach = app{name: "bcrypt on every request", cookies: b.subject.cookies, handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cookie, _ := r.Cookie("__Host-session")
		selector, _, _ := strings.Cut(cookie.Value, ".")
		user, _, err := lookup(r.Context(), selector)
		if err == nil {
			err = bcrypt.CompareHashAndPassword(hash, []byte(strings.Repeat("0", 32)))
		}
		if err != nil {
			panic(err)
		}
		io.WriteString(w, user.Name)
	})}

	b.db.MustExec("CREATE TABLE sessions (token CHAR(43) PRIMARY KEY, data BLOB NOT NULL, expiry TIMESTAMP(6) NOT NULL, INDEX sessions_expiry_idx (expiry))")
	for _, peer := range []struct {
		app         *app
		name        string
		interpolate bool
		store       func(*sql.DB) scs.Store
	}{
		{&b.scsDefault, "scs + mysqlstore", false, func(db *sql.DB) scs.Store { return mysqlstore.NewWithCleanupInterval(db, 0) }},
		{&b.scsInterpolated, "scs + mysqlstore, interpolateParams", true, func(db *sql.DB) scs.Store { return mysqlstore.NewWithCleanupInterval(db, 0) }},
		{&b.scsMemory, "scs + memstore", false, func(*sql.DB) scs.Store { return memstore.NewWithCleanupInterval(0) }},
	} {
		dsn := b.dsn.Clone()
		dsn.ParseTime = true
		dsn.InterpolateParams = peer.interpolate
		connector, err := mysql.NewConnector(dsn)
		if err != nil {
			return err
		}
		db := sql.OpenDB(connector)
		db.SetMaxOpenConns(32) // like session.Open
		db.SetMaxIdleConns(32)
		sessions := scs.New()
		sessions.Store = peer.store(db)
		peer.app.name = peer.name
		// The session contains the user, so scs needs no second query.
		peer.app.handler = sessions.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if sessions.GetInt64(r.Context(), "id") == 0 {
				panic("not logged in")
			}
			io.WriteString(w, sessions.GetString(r.Context(), "name"))
		}))
		login := sessions.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			i, _ := strconv.Atoi(r.FormValue("id"))
			sessions.Put(r.Context(), "id", int64(i))
			sessions.Put(r.Context(), "email", email(i))
			sessions.Put(r.Context(), "name", fmt.Sprint("Person Number ", i))
			sessions.Put(r.Context(), "about", strings.Repeat("about this person. ", 7))
		}))
		for i := range users {
			peer.app.cookies = append(peer.app.cookies, visit(login, fmt.Sprint("/?id=", i+1)))
		}
	}
	return nil
}

// greet returns the page that all contestants serve.
func greet(auth *session.Manager[User]) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, ok := auth.User(r)
		if !ok {
			panic(auth.Err(r))
		}
		io.WriteString(w, user.Name)
	})
}

// visit logs a user in and returns the Cookie header of the user's further
// requests.
func visit(login http.Handler, target string) string {
	r := httptest.NewRequest("GET", target, nil)
	r.Header.Set("User-Agent", userAgent)
	w := httptest.NewRecorder()
	login.ServeHTTP(w, r)
	var header []string
	for _, c := range w.Result().Cookies() {
		header = append(header, c.Name+"="+c.Value)
	}
	return strings.Join(header, "; ")
}

// A visitor passes requests of one user after the other to a handler, as
// net/http would. It reuses the request and the response, to measure only the
// contestant.
type visitor struct {
	app     app
	next    int
	request *http.Request
	w       discard
}

func newVisitor(ctx context.Context, a app, start int) *visitor {
	r := httptest.NewRequestWithContext(ctx, "GET", "/", nil)
	r.Header = http.Header{"User-Agent": {userAgent}, "Accept": {"text/html"}, "Cookie": {""}}
	return &visitor{app: a, next: start, request: r, w: discard{}}
}

// visit sends the request of the next user.
func (v *visitor) visit() {
	v.next = (v.next + 7) % len(v.app.cookies)
	v.request.Header["Cookie"][0] = v.app.cookies[v.next]
	clear(v.w)
	v.app.handler.ServeHTTP(v.w, v.request)
}

// discard is a response that is not read.
type discard http.Header

func (d discard) Header() http.Header               { return http.Header(d) }
func (d discard) Write(p []byte) (int, error)       { return len(p), nil }
func (d discard) WriteString(s string) (int, error) { return len(s), nil }
func (d discard) WriteHeader(int)                   {}

// readLines returns the lines of a file.
func readLines(path string) (lines []string, err error) {
	data, err := os.ReadFile(path)
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		lines = append(lines, s.Text())
	}
	return lines, err
}
