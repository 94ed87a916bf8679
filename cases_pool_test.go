package session

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/candysession/session/internal/testdb"
	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
	"github.com/jmoiron/sqlx/reflectx"
)

// The cases of the app's own pools, tables and user types, and of the cache.
var (
	poolCases = []testCase{
		{"A6_pool_of_open", testOpenSetsAutocommit},
		{"A6_pool_without_autocommit", testPoolWithoutAutocommit},
		{"B8_any_pool", testAnyPool},
		{"B15_users_table_for_reading", testUsersTableForReading},
	}
	cacheCases = []testCase{}
)

// Whatever the DSN or the server says, a pool of Open saves what it writes.
func testOpenSetsAutocommit(t *testing.T) {
	t.Parallel()
	for _, params := range []string{"", "autocommit=0", "AutoCommit=off&Completion_Type=CHAIN", "@@session.autocommit=0", "completion_type=2"} {
		db := open(t, testdb.DSN(t), params)
		cfg := db.Driver().(tuned).cfg
		if cfg.Params["autocommit"] != "1" || cfg.Params["completion_type"] != "0" {
			t.Errorf("%s: the parameters are %v", params, cfg.Params)
		}
		pool, done := patient(db)
		for _, db := range []*sqlx.DB{db, pool} {
			if get[int](t, db, "SELECT @@autocommit") != 1 {
				t.Errorf("%s: autocommit is off", params)
			}
		}
		done()
	}
}

// The app's own pool is found out by the first call that needs it, each time
// until it is right.
func testPoolWithoutAutocommit(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has no transactions")
	good := setup(t, Config{})
	browser := newBrowser("")
	good.login(browser, alice)
	for _, params := range []string{"autocommit=0", "autocommit=off", "completion_type=1", "completion_type='CHAIN'", "completion_type=2"} {
		name, _, _ := strings.Cut(params, "=")
		bad := plain(t, good.dsn, params)
		for _, cfg := range []Config{{}, {Replica: bad}} {
			db := bad
			if cfg.Replica != nil {
				db = good.db
			}
			f := manage[user](t, db, good.dsn, cfg)
			calls := map[string]func() error{
				"Login": func() error {
					_, err := f.auth.Login(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil), alice)
					return err
				},
				"Logout": func() error {
					r := httptest.NewRequest("POST", "/", nil)
					r.AddCookie(&http.Cookie{Name: "__Host-session", Value: browser.cookies["__Host-session"]})
					return f.auth.Logout(httptest.NewRecorder(), r)
				},
				"LogoutAll": func() error { _, err := f.auth.LogoutAll(t.Context(), 1); return err },
				"Sessions":  func() error { _, err := f.auth.Sessions(t.Context(), 1); return err },
				"Migrate":   func() error { _, err := f.auth.Migrate(t.Context()); return err },
				"Purge":     func() error { _, err := f.auth.Purge(t.Context()); return err },
				"check": func() (err error) {
					f.auth.cfg.OnError = func(_ http.ResponseWriter, _ *http.Request, cause error) { err = cause }
					browser.do(f.auth.Middleware(http.NotFoundHandler()), "GET", "/")
					return err
				},
			}
			for call, do := range calls {
				err := do()
				if !errors.Is(err, ErrConfig) {
					t.Errorf("%s, %s: error is %v", params, call, err)
				} else if !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "DSN") {
					t.Errorf("%s, %s: %v", params, call, err)
				}
			}
		}
	}
	if good.rows() != 1 {
		t.Error("the session was ended, or another saved")
	}
}

// instrumented is a connector that wraps another's connections, as those do
// that trace statements.
type instrumented struct{ driver.Connector }

type tracedDriver struct{ driver.Driver }

type tracedConn struct {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.QueryerContext
	driver.ExecerContext
	driver.NamedValueChecker
	driver.SessionResetter
	driver.Validator
	driver.Pinger
}

func (i instrumented) Driver() driver.Driver { return tracedDriver{i.Connector.Driver()} }

func (i instrumented) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := i.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return tracedConn{conn, conn.(driver.ConnBeginTx), conn.(driver.ConnPrepareContext), conn.(driver.QueryerContext),
		conn.(driver.ExecerContext), conn.(driver.NamedValueChecker), conn.(driver.SessionResetter), conn.(driver.Validator), conn.(driver.Pinger)}, nil
}

// tagged is a user whose columns stand in the tags of another mapper too.
type tagged struct {
	ID    int64          `db:"id" json:"id"`
	Email string         `db:"email" json:"email"`
	Name  sql.NullString `db:"name" json:"name"`
}

// Everything works with a pool as apps have it.
func testAnyPool(t *testing.T) {
	t.Parallel()
	params := []string{
		"", "parseTime=true", "parseTime=true&loc=Local", "columnsWithAlias=true", "charset=latin1", "charset=utf8", "interpolateParams=true",
		"clientFoundRows=true", "multiStatements=true", "time_zone='%2B05:30'", "sql_safe_updates=1", "sql_auto_is_null=1", "sql_mode=''",
		"sql_mode='ANSI'", "sql_mode='ANSI_QUOTES'", "sql_mode='NO_BACKSLASH_ESCAPES'", "sql_mode='NO_BACKSLASH_ESCAPES'&interpolateParams=true",
		"sql_mode='TRADITIONAL'", "sql_mode='PAD_CHAR_TO_FULL_LENGTH,HIGH_NOT_PRECEDENCE,NO_UNSIGNED_SUBTRACTION'", "transaction_isolation='SERIALIZABLE'",
		"sql_mode='ORACLE'", "sql_mode='SIMULTANEOUS_ASSIGNMENT,TIME_ROUND_FRACTIONAL'",
	}
	testdb.SkipEmbedded(t, "has few of these variables")
	for _, param := range params {
		t.Run("DSN "+param, func(t *testing.T) {
			t.Parallel()
			dsn := testdb.DSN(t)
			db := plain(t, dsn, param)
			if err := db.Ping(); err != nil {
				t.Skip("the server does not know it: ", err)
			}
			anyPool(t, dsn, db)
		})
	}
	for name, mapper := range map[string]*reflectx.Mapper{
		"json, lower": reflectx.NewMapperFunc("json", strings.ToLower),
		"json, upper": reflectx.NewMapperFunc("json", strings.ToUpper),
		"field names": reflectx.NewMapperFunc("column", strings.ToUpper),
		"tags only":   reflectx.NewMapper("db"),
		"mapped tags": reflectx.NewMapperTagFunc("json", strings.ToUpper, strings.ToUpper),
	} {
		t.Run("Mapper "+name, func(t *testing.T) {
			t.Parallel()
			dsn := testdb.DSN(t)
			db := plain(t, dsn, "columnsWithAlias=true")
			db.Mapper = mapper
			anyPool(t, dsn, db)
		})
	}
	t.Run("driver", func(t *testing.T) {
		t.Parallel()
		dsn := testdb.DSN(t)
		cfg, err := mysql.ParseDSN(dsn)
		noError(t, err)
		inner, err := mysql.NewConnector(cfg)
		noError(t, err)
		db := sqlx.NewDb(sql.OpenDB(instrumented{inner}), "traced")
		t.Cleanup(func() { db.Close() })
		anyPool(t, dsn, db)
	})
}

// anyPool is a day of an app.
func anyPool(t *testing.T, dsn string, db *sqlx.DB) {
	good := open(t, dsn, "")
	mustExec(t, good, usersTableInt)
	f := manage[tagged](t, db, dsn, Config{MaxSessions: 2, MaxAge: time.Hour, UpdateAge: time.Minute})
	throttle, err := NewMySQLThrottle(db, "attempts")
	noError(t, err)
	f.auth.cfg.Throttle = throttle
	count := func(query string) int { t.Helper(); return get[int](t, good, query) }

	mustExec(t, good, "CREATE TABLE user_tokens (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, user INT NOT NULL, token_x VARCHAR(64) NOT NULL, token_y VARCHAR(72) NOT NULL, browser VARCHAR(255) NOT NULL, ip VARCHAR(45) NOT NULL, date TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, active TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)")
	ran, err := f.auth.Migrate(t.Context())
	noError(t, err)
	if len(ran) == 0 {
		t.Error("Migrate added no index")
	}
	mustExec(t, good, "DROP TABLE user_tokens")

	carol := Fields{"email": `carol'"\@example.com`, "password": "carol's password"}
	options := RegisterOptions{Columns: []string{"email", "name"}}
	first := newBrowser(firefox)
	var registered tagged
	first.do(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		registered, err = f.auth.Register(w, r, carol, options)
	})), "POST", "/register")
	noError(t, err)
	if registered.Email != carol["email"] || registered.ID != 1 || registered.Name.Valid {
		t.Errorf("registered is %+v", registered)
	}
	register := func(fields Fields) error {
		_, err := f.auth.Register(httptest.NewRecorder(), httptest.NewRequest("POST", "/register", nil), fields, options)
		return err
	}
	wantError(t, register(carol), ErrTaken)
	wantError(t, register(Fields{"email": strings.Repeat("x", 300), "password": "a password"}), ErrUsage)

	credentials := Credentials{"email": carol["email"].(string), "password": carol["password"].(string)}
	login := func(b *browser, c Credentials) (err error) {
		b.do(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err = f.auth.Login(w, r, c)
		})), "POST", "/login")
		return err
	}
	second, third := newBrowser(firefox), newBrowser(firefox)
	wantError(t, login(second, Credentials{"email": credentials["email"], "password": "wrong"}), ErrInvalidCredentials)
	noError(t, login(second, credentials))
	noError(t, login(third, credentials))
	noError(t, login(third, credentials))
	check := func(b *browser) (in bool) {
		t.Helper()
		response := b.do(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if user, ok := f.auth.User(r); ok {
				in = user.Email == carol["email"] && user.ID == 1
			}
		})), "GET", "/")
		if response.StatusCode != http.StatusOK {
			t.Fatal(response.Status)
		}
		return in
	}
	if check(first) || !check(second) || !check(third) || check(newBrowser("")) || check(forger(second)) || check(withToken(newToken())) {
		t.Error("the checks are wrong")
	}
	sessions, err := f.auth.Sessions(t.Context(), 1)
	noError(t, err)
	if len(sessions) != 2 || time.Since(sessions[0].Created).Abs() > time.Minute || sessions[0].Browser != firefox {
		t.Fatalf("sessions are %+v", sessions)
	}
	f.purged()
	mustExec(t, good, "UPDATE user_tokens SET active = FROM_UNIXTIME(UNIX_TIMESTAMP(active) - 600)")
	check(third)
	if n := count("SELECT COUNT(*) FROM user_tokens WHERE active > FROM_UNIXTIME(UNIX_TIMESTAMP() - 60)"); n != 1 {
		t.Errorf("%d were renewed", n)
	}
	for _, s := range sessions {
		noError(t, f.auth.Revoke(t.Context(), 1, s.ID))
	}
	if check(second) || check(third) {
		t.Error("Revoke did not end the sessions")
	}
	noError(t, login(second, credentials))
	third.do(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := f.auth.Login(w, r, credentials); err != nil {
			t.Error(err)
		}
		if err := f.auth.SetPassword(w, r, credentials["password"], "carol's new password"); err != nil {
			t.Error(err)
		}
	})), "POST", "/login")
	if check(second) || !check(third) {
		t.Error("SetPassword did not end the other session, or its own")
	}
	third.do(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := f.auth.Logout(w, r); err != nil {
			t.Error(err)
		}
	})), "POST", "/logout")
	if f.rows() != 0 {
		t.Error("Logout left the row")
	}
	credentials["password"] = "carol's new password"
	noError(t, login(third, credentials))
	f.purged()
	mustExec(t, good, "UPDATE user_tokens SET active = FROM_UNIXTIME(UNIX_TIMESTAMP(active) - 7200)")
	if check(third) {
		t.Error("an expired session lets in")
	}
	n, err := f.auth.Purge(t.Context())
	noError(t, err)
	if n != 1 || f.rows() != 0 {
		t.Errorf("Purge deleted %d, and left %d", n, f.rows())
	}
	noError(t, login(third, credentials))
	if n, err := f.auth.LogoutAll(t.Context(), 1); n != 1 || err != nil {
		t.Errorf("LogoutAll: %d, %v", n, err)
	}
	f.purged()
	stats, err := f.auth.Stats(t.Context())
	noError(t, err)
	if stats.Rows != 0 || db.Stats().InUse != 0 {
		t.Errorf("%+v, %d connections in use", stats, db.Stats().InUse)
	}
}

// A database user may have no more rights than the app needs. What it lacks
// beyond that is said.
func testUsersTableForReading(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has no privileges")
	f := setup(t, Config{})
	_, err := f.auth.Migrate(t.Context())
	noError(t, err)
	cfg, err := mysql.ParseDSN(f.dsn)
	noError(t, err)
	for i, test := range []struct {
		users, tokens string // rights
		login         string // what the error of a login says, if it is one
	}{
		{"SELECT", "SELECT, INSERT, UPDATE, DELETE", ""},
		{"SELECT (id, email, password, name)", "SELECT, INSERT, UPDATE, DELETE", ""},
		{"SELECT", "SELECT, INSERT, UPDATE", "GRANT DELETE ON `user_tokens`"},
		{"SELECT", "SELECT", "GRANT INSERT ON `user_tokens`"},
		{"SELECT (id, email, name)", "SELECT, INSERT, UPDATE, DELETE", "GRANT SELECT ON `users`"},
		{"INSERT", "SELECT, INSERT, UPDATE, DELETE", "SELECT"},
	} {
		name := fmt.Sprintf("%s_%d", cfg.DBName, i)
		name = name[max(0, len(name)-32):]
		for _, host := range []string{"localhost", "%"} {
			at := fmt.Sprintf("'%s'@'%s'", name, host)
			mustExec(t, f.db, "CREATE USER "+at+" IDENTIFIED BY 'app'")
			t.Cleanup(func() { f.db.Exec("DROP USER " + at) })
			mustExec(t, f.db, "GRANT "+test.users+" ON users TO "+at)
			mustExec(t, f.db, "GRANT "+test.tokens+" ON user_tokens TO "+at)
		}
		own := cfg.Clone()
		own.User, own.Passwd = name, "app"
		poor := manage[user](t, open(t, own.FormatDSN(), ""), "", Config{MaxSessions: 1})
		says := func(err error, grant string) {
			t.Helper()
			tell(err)
			if !errors.Is(err, ErrConfig) || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), grant) {
				t.Errorf("%s; %s: error is %v, want %s in it", test.users, test.tokens, err, grant)
			}
		}
		b := newBrowser("")
		login := func() (err error) {
			b.do(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, err = poor.auth.Login(w, r, alice) }), "POST", "/login")
			return err
		}
		if test.login != "" {
			err := login()
			if err == nil {
				b = newBrowser("")
				err = login() // ends the first
			}
			says(err, test.login)
			continue
		}
		noError(t, login())
		b = newBrowser("")
		noError(t, login())
		if n := f.rows(); n != 1 {
			t.Errorf("%d sessions are left, want 1", n)
		}
		poor.isIn(b)
		b.do(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := poor.auth.Register(w, r, Fields{"email": "carol@example.com", "password": "a password"}, RegisterOptions{Columns: []string{"email"}})
			says(err, "GRANT INSERT ON `users`")
			says(poor.auth.SetPassword(w, r, alice["password"], "a new password"), "GRANT UPDATE ON `users`")
			if _, err := poor.auth.LogoutAll(r.Context(), 1); err != nil {
				t.Error(err)
			}
		}), "POST", "/")
	}
}
