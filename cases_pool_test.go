package session

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/candysession/session/internal/pool"
	"github.com/candysession/session/internal/store"
	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/internal/token"
	"github.com/candysession/session/throttle"
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
		{"B9_fields_that_do_not_fit", testFieldsThatDoNotFit},
		{"B9_fields_that_fit", testFieldsThatFit},
		{"B9_keys_that_are_not_unique", testKeysThatAreNotUnique},
		{"B9_logout_without_a_user", testLogoutWithoutAUser},
		{"B11_characters_that_are_missing", testMissingCharacters},
		{"B13_compact_rows", testCompactRows},
		{"C9_panic_in_scan", testPanicsInScan},
		{"B15_users_table_for_reading", testUsersTableForReading},
	}
	cacheCases = []testCase{
		{"A9_each_request_its_own_user", testOwnUsers},
		{"A9_rows", testOwnRows},
		{"A9_copies", testCopies},
		{"A12_ended_here_after_elsewhere", testEndedHere},
		{"A13_certain_of_the_row", testCertain},
		{"A14_login_in_the_future", testLoginInTheFuture},
	}
)

// A pool of Open commits its writes, whatever the DSN and the server set.
func testOpenSetsAutocommit(t *testing.T) {
	t.Parallel()
	for _, params := range []string{"", "autocommit=0", "AutoCommit=off&Completion_Type=CHAIN", "@@session.autocommit=0", "completion_type=2"} {
		db := open(t, testdb.DSN(t), params)
		cfg := pool.Config(db)
		if cfg.Params["autocommit"] != "1" || cfg.Params["completion_type"] != "0" {
			t.Errorf("%s: the parameters are %v", params, cfg.Params)
		}
		noTimeout, done := pool.WithoutReadTimeout(db)
		for _, db := range []*sqlx.DB{db, noTimeout} {
			if get[int](t, db, "SELECT @@autocommit") != 1 {
				t.Errorf("%s: autocommit is off", params)
			}
		}
		done()
	}
}

// A wrong setting of the app's own pool is an error of each call, until it is
// corrected.
func testPoolWithoutAutocommit(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has no transactions")
	good := setup(t, Config{})
	browser := newBrowser("")
	good.login(browser, alice)
	for _, params := range []string{"autocommit=0", "autocommit=off", "completion_type=1", "completion_type='CHAIN'", "completion_type=2"} {
		name, _, _ := strings.Cut(params, "=")
		bad := openRaw(t, good.dsn, params)
		for _, cfg := range []Config{{}, {Replica: bad}} {
			db := bad
			if cfg.Replica != nil {
				db = good.db
			}
			f := newManager[user](t, db, good.dsn, cfg)
			calls := map[string]func() error{
				"Login": func() error {
					_, err := logIn(f.auth, httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil), alice)
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

// An instrumented is a connector that wraps connections, as tracing libraries
// do.
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

// A tagged is a user with column names in the tags of another mapper too.
type tagged struct {
	ID    int64          `db:"id" json:"id"`
	Email string         `db:"email" json:"email"`
	Name  sql.NullString `db:"name" json:"name"`
}

// Everything works with the pools that apps use.
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
			db := openRaw(t, dsn, param)
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
			db := openRaw(t, dsn, "columnsWithAlias=true")
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

// anyPool runs the calls of a typical app.
func anyPool(t *testing.T, dsn string, db *sqlx.DB) {
	good := open(t, dsn, "")
	mustExec(t, good, usersTableInt)
	f := newManager[tagged](t, db, dsn, Config{MaxSessions: 2, MaxAge: time.Hour, UpdateAge: time.Minute})
	counts, err := throttle.NewMySQL(db, "attempts", nil)
	noError(t, err)
	f.auth.cfg.Throttle = counts
	count := func(query string) int { t.Helper(); return get[int](t, good, query) }

	mustExec(t, good, "CREATE TABLE user_tokens (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, user INT NOT NULL, token_x VARCHAR(64) NOT NULL, token_y VARCHAR(72) NOT NULL, browser VARCHAR(255) NOT NULL, ip VARCHAR(45) NOT NULL, date TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, active TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)")
	ran, err := f.auth.Migrate(t.Context())
	noError(t, err)
	if len(ran) == 0 {
		t.Error("Migrate added no index")
	}
	mustExec(t, good, "DROP TABLE user_tokens")

	carol := Fields{"email": `carol'"\@example.com`, "password": "carol's password"}
	options := formOptions{Columns: []string{"email", "name"}}
	first := newBrowser(firefox)
	var registered tagged
	first.do(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		registered, err = register(f.auth, w, r, carol, options)
	})), "POST", "/register")
	noError(t, err)
	if registered.Email != carol["email"] || registered.ID != 1 || registered.Name.Valid {
		t.Errorf("registered is %+v", registered)
	}
	register := func(fields Fields) error {
		_, err := register(f.auth, httptest.NewRecorder(), httptest.NewRequest("POST", "/register", nil), fields, options)
		return err
	}
	wantError(t, register(carol), ErrDuplicate)
	wantError(t, register(Fields{"email": strings.Repeat("x", 300), "password": "a password"}), ErrInvalidArgument)

	credentials := Credentials{"email": carol["email"].(string), "password": carol["password"].(string)}
	login := func(b *browser, c Credentials) (err error) {
		b.do(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err = logIn(f.auth, w, r, c)
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
	if check(first) || !check(second) || !check(third) || check(newBrowser("")) || check(forgeToken(second)) || check(withToken(token.New())) {
		t.Error("the checks are wrong")
	}
	sessions, err := f.auth.Sessions(t.Context(), 1)
	noError(t, err)
	if len(sessions) != 2 || time.Since(sessions[0].Created).Abs() > time.Minute || sessions[0].Browser != firefox {
		t.Fatalf("sessions are %+v", sessions)
	}
	f.waitForPurge()
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
		if _, err := logIn(f.auth, w, r, credentials); err != nil {
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
	f.waitForPurge()
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
	f.waitForPurge()
	stats, err := f.auth.Stats(t.Context())
	noError(t, err)
	if stats.Rows != 0 || db.Stats().InUse != 0 {
		t.Errorf("%+v, %d connections in use", stats, db.Stats().InUse)
	}
}

// The database user needs only the app's own rights. Errors name the missing
// ones.
func testUsersTableForReading(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has no privileges")
	f := setup(t, Config{})
	_, err := f.auth.Migrate(t.Context())
	noError(t, err)
	cfg, err := mysql.ParseDSN(f.dsn)
	noError(t, err)
	for i, test := range []struct {
		users, tokens string // privileges
		login         string // in the error of a login, if it fails
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
		poor := newManager[user](t, open(t, own.FormatDSN(), ""), "", Config{MaxSessions: 1})
		says := func(err error, grant string) {
			t.Helper()
			recordErr(err)
			if !errors.Is(err, ErrConfig) || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), grant) {
				t.Errorf("%s; %s: error is %v, want %s in it", test.users, test.tokens, err, grant)
			}
		}
		b := newBrowser("")
		login := func() (err error) {
			b.do(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, err = logIn(poor.auth, w, r, alice) }), "POST", "/login")
			return err
		}
		if test.login != "" {
			err := login()
			if err == nil {
				b = newBrowser("")
				err = login() // revokes the first session
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
		poor.wantLoggedIn(b)
		b.do(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := register(poor.auth, w, r, Fields{"email": "carol@example.com", "password": "a password"}, formOptions{Columns: []string{"email"}})
			says(err, "GRANT INSERT ON `users`")
			says(poor.auth.SetPassword(w, r, alice["password"], "a new password"), "GRANT UPDATE ON `users`")
			if _, err := poor.auth.LogoutAll(r.Context(), 1); err != nil {
				t.Error(err)
			}
		}), "POST", "/")
	}
}

// badUser checks the error of the first use of a users table. The error returns
// until the table is repaired.
func badUser[U any](t *testing.T, table string, says []string, repair string) {
	t.Helper()
	dsn := testdb.DSN(t)
	db := open(t, dsn, "")
	mustExec(t, db, table)
	mustExec(t, db, "INSERT INTO users (id, password) VALUES (1, '')")
	f := newManager[U](t, db, dsn, Config{})
	migrate := func() error { _, err := f.auth.Migrate(t.Context()); return err }
	login := func() error {
		_, err := f.auth.LoginAs(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil), 1)
		return err
	}
	for name, call := range map[string]func() error{"Migrate": migrate, "LoginAs": login} {
		err := call()
		recordErr(err)
		if !errors.Is(err, ErrConfig) || errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %s: error is %v", table, name, err)
			continue
		}
		for _, text := range says {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %s: error is %v, want %s in it", table, name, err, text)
			}
		}
	}
	if repair != "" {
		mustExec(t, db, repair)
		if err := login(); err != nil {
			t.Errorf("%s; %s: %v", table, repair, err)
		}
	}
}

func testFieldsThatDoNotFit(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has few of these types")
	table := func(columns string) string {
		return "CREATE TABLE users (id INT NOT NULL PRIMARY KEY, password VARCHAR(255) NOT NULL, " + columns + ")"
	}
	badUser[struct{ Name string }](t, table("name VARCHAR(9) NULL"), []string{"`name`", "Name", "NOT NULL", "*string or sql.NullString"}, "ALTER TABLE users DROP name, ADD name VARCHAR(9) NOT NULL DEFAULT ''")
	badUser[struct{ Age int }](t, table("age INT NULL DEFAULT 1"), []string{"`age`", "Age", "*int"}, "ALTER TABLE users MODIFY age INT NOT NULL DEFAULT 1")
	badUser[struct{ Admin bool }](t, table("admin TINYINT(1) NULL"), []string{"`admin`", "Admin", "sql.NullBool"}, "")
	badUser[struct{ Admin bool }](t, table("admin BIT(1) NULL"), []string{"`admin`", "Admin"}, "ALTER TABLE users DROP admin, ADD admin BIT(1) NOT NULL DEFAULT b'1'")
	badUser[struct{ Admin bool }](t, table("admin BIT(8) NOT NULL DEFAULT 3"), []string{"`admin`", "bit(8)", "[]byte"}, "")
	badUser[struct{ Flags uint8 }](t, table("flags BIT(8) NOT NULL DEFAULT 3"), []string{"`flags`", "Flags"}, "ALTER TABLE users MODIFY flags TINYINT UNSIGNED NOT NULL DEFAULT 3")
	badUser[struct{ Seen time.Time }](t, table("seen DATETIME NULL"), []string{"`seen`", "Seen", "sql.NullTime"}, "")
	badUser[struct{ Opens time.Time }](t, table("opens TIME NOT NULL DEFAULT '08:00:00'"), []string{"`opens`", "Opens", "string"}, "")
	badUser[struct{ Seen int64 }](t, table("seen TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP"), []string{"`seen`", "Seen", "time.Time"}, "")
	badUser[struct{ Plan int }](t, table("plan VARCHAR(9) NOT NULL DEFAULT 'free'"), []string{"`plan`", "Plan", "string"}, "")
	badUser[struct{ Rate int }](t, table("rate DECIMAL(5,2) NOT NULL DEFAULT 1.5"), []string{"`rate`", "Rate", "float64"}, "")
	badUser[struct{ Roles []string }](t, table("roles VARCHAR(99) NOT NULL DEFAULT ''"), []string{"`roles`", "Roles", "Scan method"}, "")
	badUser[struct{ Extra json.RawMessage }](t, table("extra TEXT NULL"), []string{"`extra`", "Extra"}, "")
	badUser[struct {
		ID    int64
		Phone string
	}](t, table("x INT NULL"), []string{"no column `phone`", "Phone", `db:"-"`}, "ALTER TABLE users ADD phone VARCHAR(20) NOT NULL DEFAULT ''")

	// Without parseTime no time.Time can be read.
	dsn := testdb.DSN(t)
	mustExec(t, open(t, dsn, ""), table("seen DATETIME NOT NULL"))
	for _, db := range []*sqlx.DB{openRaw(t, dsn, ""), open(t, dsn, "")} {
		f := newManager[struct{ Seen sql.NullTime }](t, db, dsn, Config{Replica: openRaw(t, dsn, "")})
		_, err := f.auth.Migrate(t.Context())
		wantError(t, err, ErrConfig)
		if !strings.Contains(err.Error(), "parseTime") || !strings.Contains(err.Error(), "Seen") {
			t.Error(err)
		}
	}
}

// A wide is a user with a field for most kinds of columns.
type wide struct {
	ID      int64
	Admin   bool
	Maybe   *bool
	Perhaps sql.NullBool
	Nothing *bool
	Small   int8
	Count   uint64
	Name    *string
	Note    sql.NullString
	Bytes   []byte
	Any     any
	Seen    time.Time
	Left    *time.Time
	Gone    sql.NullTime
	Rate    float64
	Price   string
	Year    int
	Kind    string
	Level   int
	Extra   json.RawMessage
	Flags   []byte
	Made    string
}

func testFieldsThatFit(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has few of these types")
	dsn := testdb.DSN(t)
	mustExec(t, open(t, dsn, ""), `CREATE TABLE users (id BIGINT UNSIGNED NOT NULL, password VARCHAR(255) NULL, admin BIT(1) NOT NULL, maybe BIT(1) NULL,
		perhaps BIT(1) NULL, nothing BIT(1) NULL, small INT NOT NULL, count BIGINT UNSIGNED NOT NULL, name VARCHAR(9) NULL, note TEXT NULL, bytes BLOB NULL,
		`+"`any`"+` INT NULL, seen DATETIME(6) NOT NULL, `+"`left`"+` DATE NULL, gone TIMESTAMP NULL, rate DECIMAL(5,2) NOT NULL, price DECIMAL(5,2) NOT NULL,
		`+"`year`"+` YEAR NOT NULL, kind ENUM('a', 'b') NOT NULL, level ENUM('1', '2') NOT NULL, extra JSON NOT NULL, flags BIT(8) NULL,
		made VARCHAR(20) AS (CONCAT(kind, '!')), UNIQUE KEY (id))`)
	mustExec(t, open(t, dsn, ""), `INSERT INTO users (id, admin, maybe, perhaps, small, count, seen, rate, price, `+"`year`"+`, kind, level, extra, flags)
		VALUES (1, b'1', b'0', b'1', 5, 18446744073709551615, '2026-01-02 03:04:05', 1.5, 1.5, 2026, 'a', '2', '{}', 5)`)
	mustExec(t, open(t, dsn, ""), "CREATE VIEW people AS SELECT * FROM users")
	for _, cfg := range []Config{{}, {UsersTable: "people"}} {
		f := newManager[wide](t, open(t, dsn, ""), dsn, cfg)
		b := newBrowser("")
		var users []wide
		f.handle(b, func(w http.ResponseWriter, r *http.Request) {
			user, err := f.auth.LoginAs(w, r, 1)
			noError(t, err)
			users = append(users, user)
		})
		f.handle(b, func(_ http.ResponseWriter, r *http.Request) {
			user, ok := f.auth.User(r)
			if !ok {
				t.Error("not logged in")
			}
			users = append(users, user)
		})
		for _, u := range users {
			if !u.Admin || u.Maybe == nil || *u.Maybe || !u.Perhaps.Bool || u.Nothing != nil || u.Count != 1<<64-1 || u.Level != 2 || string(u.Flags) != "\x05" || u.Made != "a!" {
				t.Errorf("%+v", u)
			}
		}
	}
}

func testKeysThatAreNotUnique(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has few of these indexes")
	for columns, unique := range map[string]string{
		"id INT NOT NULL":           "ADD PRIMARY KEY (id)",
		"id INT NOT NULL, KEY (id)": "ADD UNIQUE KEY (id)",
		"id INT NOT NULL, tenant INT NOT NULL DEFAULT 1, PRIMARY KEY (tenant, id)":         "ADD UNIQUE KEY (id)",
		"id INT NOT NULL, tenant INT NOT NULL DEFAULT 1, PRIMARY KEY (id, tenant)":         "DROP PRIMARY KEY, ADD PRIMARY KEY (id)",
		"id VARCHAR(20) NOT NULL, other INT NOT NULL DEFAULT 1 UNIQUE KEY, KEY (id)":       "ADD UNIQUE KEY (id)",
		"id BINARY(16) NOT NULL, other INT NOT NULL DEFAULT 1 UNIQUE KEY, KEY other2 (id)": "ADD UNIQUE KEY (id)",
	} {
		badUser[struct{ Password2 string }](t, "CREATE TABLE users (password VARCHAR(255) NULL, password2 VARCHAR(9) NOT NULL DEFAULT '', "+columns+")",
			[]string{"`id`", "`users`", "unique index"}, "")
		dsn := testdb.DSN(t)
		db := open(t, dsn, "")
		mustExec(t, db, "CREATE TABLE users (password VARCHAR(255) NULL, "+columns+")")
		f := newManager[Row](t, db, dsn, Config{})
		_, err := f.auth.Migrate(t.Context())
		wantError(t, err, ErrConfig)
		mustExec(t, db, "ALTER TABLE users "+unique)
		_, err = f.auth.Migrate(t.Context())
		noError(t, err)
	}
}

// A user who can't be read can still log out, and others can log in.
func testLogoutWithoutAUser(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has few of these types")
	for _, cfg := range []Config{{}, {Cache: Cache{Fresh: time.Minute, Stale: time.Hour}}} {
		dsn := testdb.DSN(t)
		db := open(t, dsn, "")
		mustExec(t, db, usersTableInt)
		mustExec(t, db, "INSERT INTO users (email, password, name) VALUES (?, ?, 'a'), (?, ?, 'a')", alice["email"], hashOf(alice["password"]), bob["email"], hashOf(bob["password"]))
		mustExec(t, db, "ALTER TABLE users MODIFY name VARCHAR(20) NOT NULL")
		f := newManager[struct{ Name string }](t, db, dsn, cfg)
		browsers := []*browser{newBrowser(chrome130), newBrowser(chrome130), newBrowser(chrome130)}
		for _, b := range browsers {
			f.login(b, alice)
		}
		mustExec(t, db, "ALTER TABLE users MODIFY name VARCHAR(20) NULL")
		mustExec(t, db, "UPDATE users SET name = NULL WHERE id = 1")
		var err error
		current := f
		for i, b := range browsers {
			if i == 1 { // after a restart
				current = newManager[struct{ Name string }](t, db, dsn, cfg)
			}
			current.auth.cfg.OnError = func(_ http.ResponseWriter, _ *http.Request, cause error) { err = cause }
			err = nil
			b.do(current.auth.Middleware(http.NotFoundHandler()), "GET", "/")
			if cfg.Cache.Fresh == 0 || i > 0 {
				wantError(t, err, ErrConfig)
				if errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "name") {
					t.Error(err)
				}
			}
			forgeToken(b).do(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { noError(t, current.auth.Logout(w, r)) }), "POST", "/logout")
			if n := f.rows(); n != len(browsers)-i {
				t.Errorf("a made-up token ended a session, %d are left", n)
			}
			b.do(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { noError(t, current.auth.Logout(w, r)) }), "POST", "/logout")
			if n := f.rows(); n != len(browsers)-1-i || len(b.cookies) != 0 {
				t.Errorf("Logout left %d sessions and the cookies %v", n, b.cookies)
			}
		}
		lines := []string{"__Host-session=" + token.New().Selector + "." + token.New().Verifier}
		mustExec(t, db, "UPDATE users SET name = 'a' WHERE id = 1")
		for range 2 {
			b := newBrowser(chrome130)
			f.login(b, alice)
			lines = append(lines, "__Host-session="+b.cookies["__Host-session"])
		}
		mustExec(t, db, "UPDATE users SET name = NULL WHERE id = 1")
		newBrowser(chrome130).do(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { noError(t, current.auth.Logout(w, r)) }), "POST", "/logout", "Cookie", strings.Join(lines, "; "))
		if n := f.rows(); n != 0 {
			t.Errorf("Logout with several cookies left %d sessions", n)
		}
		b := newBrowser(chrome130)
		f.login(b, bob)
		mustExec(t, db, "UPDATE users SET name = NULL WHERE id = 2")
		mustExec(t, db, "UPDATE users SET name = 'a' WHERE id = 1")
		b.do(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, err = logIn(f.auth, w, r, alice) }), "POST", "/login")
		noError(t, err)
		if n := f.rows(); n != 1 {
			t.Errorf("%d sessions, want the new one", n)
		}
	}
}

// A roles is a Scanner that stores its value in an unexported slice.
type roles struct{ names []string }

func (r *roles) Scan(v any) error {
	r.names = strings.Split(string(v.([]byte)), ",")
	return nil
}

// A raw keeps the bytes that Scan received, without a copy.
type raw struct{ b []byte }

func (r *raw) Scan(v any) error { r.b = v.([]byte); return nil }

type settings map[string]any

func (s *settings) Scan(v any) error { return json.Unmarshal(v.([]byte), s) }

type sharedUser struct {
	ID       int64
	Roles    roles
	Raw      raw
	Name     *string
	Bytes    []byte
	Settings settings
	Extra    json.RawMessage
	More     *roles
	Seen     *time.Time
}

func (u *sharedUser) change() {
	u.Roles.names[0], u.Raw.b[0], *u.Name, u.Bytes[0], u.Extra[0], u.More.names[0] = "root", 'x', "Mallory", 'x', 'x', "root"
	u.Settings["admin"] = true
	u.Settings["list"].([]any)[0] = "changed"
	*u.Seen = u.Seen.Add(time.Hour)
}

// setupUsers returns an app with its own users table and one user.
func setupUsers[U any](t *testing.T, table, row string, cfg Config) (*fixture[U], *browser) {
	t.Helper()
	dsn := testdb.DSN(t)
	db := open(t, dsn, "")
	mustExec(t, db, table)
	mustExec(t, db, row)
	f := newManager[U](t, db, dsn, cfg)
	b := newBrowser("")
	f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		if _, err := f.auth.LoginAs(w, r, 1); err != nil {
			t.Fatal(err)
		}
	})
	return f, b
}

const (
	sharingTable = `CREATE TABLE users (id INT NOT NULL PRIMARY KEY, password VARCHAR(255) NULL, roles VARCHAR(99) NOT NULL, raw VARCHAR(99) NOT NULL, name VARCHAR(99) NULL,
		bytes VARBINARY(99) NULL, settings VARCHAR(99) NOT NULL, extra VARCHAR(99) NOT NULL, more VARCHAR(99) NULL, seen DATETIME NULL)`
	sharingRow = `INSERT INTO users VALUES (1, '', 'a,b', 'raw', 'Alice', 'bytes', '{"list": ["x", {"y": 1}]}', '{}', 'c,d', '2026-01-02 03:04:05')`
)

// A request that changes its user affects neither other requests of the session
// nor a second call in the same request.
func testOwnUsers(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has no locks")
	for _, cfg := range []Config{{}, {Cache: Cache{Fresh: time.Hour}}} {
		f, b := setupUsers[sharedUser](t, sharingTable, sharingRow, cfg)
		// Together in one batch.
		row, err := f.auth.bySelector.Find(t.Context(), selectorOf(b), selectorOf(b))
		noError(t, err)
		want := fmt.Sprintf("%+v", row.User.Roles) + row.User.Seen.String()
		for range 2 {
			first, second := f.auth.mapper.Clone(row.User), f.auth.mapper.Clone(row.User)
			if !reflect.DeepEqual(first, second) || !reflect.DeepEqual(first, row.User) {
				t.Fatalf("copies differ: %+v, %+v", first, second)
			}
			first.change()
			if reflect.DeepEqual(first, second) || !reflect.DeepEqual(second, row.User) || fmt.Sprintf("%+v", row.User.Roles)+row.User.Seen.String() != want {
				t.Errorf("the change is seen: %+v", second)
			}
		}
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() {
				own := &browser{maps.Clone(b.cookies), ""}
				own.do(f.auth.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					for range 2 {
						u, ok := f.auth.User(r)
						if !ok || u.Roles.names[0] != "a" || string(u.Raw.b) != "raw" || *u.Name != "Alice" || string(u.Bytes) != "bytes" ||
							u.Settings["admin"] != nil || u.Settings["list"].([]any)[0] != "x" || string(u.Extra) != "{}" || u.More.names[0] != "c" || u.Seen.Hour() != 3 {
							t.Errorf("%+v", u)
							return
						}
						u.change()
					}
				})), "GET", "/")
			})
		}
		wg.Wait()
	}
}

func testOwnRows(t *testing.T) {
	t.Parallel()
	f, b := setupUsers[Row](t, "CREATE TABLE users (id INT NOT NULL PRIMARY KEY, password VARCHAR(255) NULL, bytes VARBINARY(9) NULL)", "INSERT INTO users VALUES (1, '', 'bytes')", Config{Cache: Cache{Fresh: time.Hour}})
	for range 3 {
		f.handle(b, func(_ http.ResponseWriter, r *http.Request) {
			row, _ := f.auth.User(r)
			if string(row["bytes"].([]byte)) != "bytes" || row["more"] != nil {
				t.Errorf("%v", row)
			}
			row["bytes"].([]byte)[0], row["more"] = 'x', true
		})
	}
}

// Clone makes deep copies of all kinds of types.
func testCopies(t *testing.T) {
	t.Parallel()
	type node struct {
		next  *node
		value []int
	}
	type everything struct {
		Number  *big.Int
		At      time.Time
		Zone    *time.Location
		Address netip.Addr
		any     any
		list    []map[string][]byte
		array   [2]*int
		ring    *node
		none    []int
		nothing map[string]int
		inner   struct{ sql.Null[[]byte] }
	}
	ring := &node{value: []int{1}}
	ring.next = ring
	one := 1
	was := everything{Number: big.NewInt(5), At: time.Now(), Zone: time.UTC, Address: netip.MustParseAddr("fe80::1%eth0"), any: []any{&one, "x"},
		list: []map[string][]byte{{"a": []byte("b")}}, array: [2]*int{&one, &one}, ring: ring, inner: struct{ sql.Null[[]byte] }{sql.Null[[]byte]{V: []byte("c"), Valid: true}}}
	mapper, err := store.NewMapper[everything](reflectx.NewMapper("db"), "password", nil)
	noError(t, err)
	is := mapper.Clone(was)
	if !reflect.DeepEqual(is, was) || is.Address != was.Address || is.Zone != was.Zone || is.At != was.At || is.ring == was.ring || is.ring.next != is.ring || is.array[0] != is.array[1] || is.none != nil || is.nothing != nil {
		t.Errorf("%+v, want %+v", is, was)
	}
	is.Number.SetInt64(6)
	*is.any.([]any)[0].(*int) = 2
	is.list[0]["a"][0] = 'x'
	is.ring.value[0] = 2
	is.inner.V[0] = 'x'
	if was.Number.Int64() != 5 || one != 1 || was.list[0]["a"][0] != 'b' || ring.value[0] != 1 || was.inner.V[0] != 'c' {
		t.Errorf("the original changed: %+v", was)
	}
}

// A session that this Manager revokes is no longer cached here, even if other
// servers have deleted the row or rotated the token before.
func testEndedHere(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(f *fixture[user], b *browser) error{
		"LogoutAll": func(f *fixture[user], _ *browser) error { _, err := f.auth.LogoutAll(t.Context(), 1); return err },
		"LogoutOthers": func(f *fixture[user], _ *browser) (err error) {
			other := newBrowser(chrome130)
			f.login(other, alice)
			f.handle(other, func(w http.ResponseWriter, r *http.Request) { err = f.auth.LogoutOthers(w, r) })
			return err
		},
		"SetPassword": func(f *fixture[user], _ *browser) (err error) {
			other := newBrowser(chrome130)
			f.login(other, alice)
			f.handle(other, func(w http.ResponseWriter, r *http.Request) {
				err = f.auth.SetPassword(w, r, alice["password"], "another password")
			})
			return err
		},
	} {
		for _, elsewhere := range []string{"renewed", "ended", "nothing"} {
			here := setup(t, Config{Cache: Cache{Fresh: time.Hour}})
			there := newManager[user](t, here.db, here.dsn, Config{})
			b, bobs := newBrowser(chrome130), newBrowser(chrome130)
			here.login(b, alice)
			here.login(bobs, bob)
			before := &browser{maps.Clone(b.cookies), b.userAgent}
			here.wantLoggedIn(before)
			here.wantLoggedIn(bobs)
			switch elsewhere {
			case "renewed":
				there.handle(b, func(w http.ResponseWriter, r *http.Request) { noError(t, there.auth.LogoutOthers(w, r)) })
				here.wantLoggedIn(b)
				// A request with the new token evicts the old one.
				here.wantRejected(before, ErrUnknownSession)
			case "ended":
				_, err := there.auth.LogoutAll(t.Context(), 1)
				noError(t, err)
				here.wantLoggedIn(before) // within Fresh
			}
			if err := end(here, b); err != nil {
				t.Errorf("%s, %s: %v", name, elsewhere, err)
			}
			for _, b := range []*browser{b, before} {
				if err := here.errOf(b); !errors.Is(err, ErrUnknownSession) {
					t.Errorf("%s, %s: the session is %v", name, elsewhere, err)
				}
			}
			there.auth.LogoutAll(t.Context(), 2)
			here.wantLoggedIn(bobs) // is still cached
		}
	}
	here := setup(t, Config{Cache: Cache{Fresh: time.Hour}})
	there := newManager[user](t, here.db, here.dsn, Config{})
	b := newBrowser(chrome130)
	here.login(b, alice)
	here.wantLoggedIn(b)
	sessions, err := here.auth.Sessions(t.Context(), 1)
	noError(t, err)
	noError(t, there.auth.Revoke(t.Context(), 1, sessions[0].ID))
	wantError(t, here.auth.Revoke(t.Context(), 1, sessions[0].ID), ErrSessionNotFound)
	here.wantRejected(b, ErrUnknownSession)
}

// Fresh, RequireFresh and SetPassword do not rely on the cache.
func testCertain(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{Cache: Cache{Fresh: time.Hour, Stale: 2 * time.Hour}})
	there := newManager[user](t, f.db, f.dsn, Config{})
	var failed error
	f.auth.cfg.OnError = func(w http.ResponseWriter, _ *http.Request, err error) {
		failed = err
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	login := func() *browser {
		b := newBrowser(chrome130)
		f.login(b, alice)
		f.wantLoggedIn(b)
		return b
	}
	fresh := func(b *browser) (is, after bool) {
		f.handle(b, func(_ http.ResponseWriter, r *http.Request) { is, after = f.auth.Fresh(r, time.Hour), f.auth.Check(r) })
		return is, after
	}
	dangerous := func(b *browser) int {
		return b.do(f.auth.RequireFresh(time.Hour)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })), "GET", "/").StatusCode
	}
	setPassword := func(b *browser, wrap func(http.Handler) http.Handler) (err error) {
		b.do(wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			err = f.auth.SetPassword(w, r, alice["password"], "a new password")
		})), "POST", "/")
		return err
	}
	bare := func(h http.Handler) http.Handler { return h }
	b := login()
	if is, after := fresh(b); !is || !after || dangerous(b) != http.StatusNoContent {
		t.Error("a fresh login is not")
	}
	for i, look := range []func(b *browser){
		func(b *browser) {
			if is, after := fresh(b); is || after {
				t.Errorf("Fresh is %v, Check %v", is, after)
			}
		},
		func(b *browser) {
			if status := dangerous(b); status != http.StatusUnauthorized {
				t.Errorf("RequireFresh answers %d", status)
			}
		},
		func(b *browser) { wantError(t, setPassword(b, f.auth.Middleware), ErrNotLoggedIn) },
		func(b *browser) { wantError(t, setPassword(b, bare), ErrNotLoggedIn) },
	} {
		b := login()
		_, err := there.auth.LogoutAll(t.Context(), 1)
		noError(t, err)
		f.wantLoggedIn(b) // from the cache
		look(b)
		if err := f.errOf(b); i < 2 && !errors.Is(err, ErrUnknownSession) && err != nil {
			t.Error(err)
		}
	}
	// While the database fails, nothing is fresh.
	b = login()
	f.waitForPurge()
	mustExec(t, f.db, "ALTER TABLE user_tokens RENAME COLUMN token_y TO gone")
	if is, after := fresh(b); is || !after {
		t.Errorf("while the database fails, Fresh is %v, Check %v", is, after)
	}
	if status := dangerous(b); status != http.StatusServiceUnavailable || failed == nil {
		t.Errorf("RequireFresh answers %d after %v", status, failed)
	}
	if err := setPassword(b, f.auth.Middleware); err == nil {
		t.Error("SetPassword took the cache's word")
	}
	mustExec(t, f.db, "ALTER TABLE user_tokens RENAME COLUMN gone TO token_y")
	if is, _ := fresh(b); !is || dangerous(b) != http.StatusNoContent {
		t.Error("it is not fresh after the failure")
	}
}

func testLoginInTheFuture(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{}, {Cache: Cache{Fresh: time.Hour}}} {
		f := setup(t, cfg)
		for ahead, want := range map[int]bool{30 * 86400: false, 3600: false, 60: false, -1: true} {
			b := newBrowser(chrome130)
			mustExec(t, f.db, "UPDATE users SET password = ? WHERE id = 1", hashOf(alice["password"]))
			f.login(b, alice)
			f.waitForPurge()
			mustExec(t, f.db, "UPDATE user_tokens SET date = FROM_UNIXTIME(UNIX_TIMESTAMP() + ?), active = FROM_UNIXTIME(UNIX_TIMESTAMP() + ?) WHERE token_x = ?", ahead, ahead, selectorOf(b))
			f.handle(b, func(w http.ResponseWriter, r *http.Request) {
				if got := f.auth.Fresh(r, 10*time.Second); got != want {
					t.Errorf("%d s ahead: Fresh is %v", ahead, got)
				}
				if err := f.auth.SetPassword(w, r, "", "a new password"); !want && err == nil {
					t.Errorf("%d s ahead: SetPassword asks for no password", ahead)
				}
			})
			status := b.do(f.auth.RequireFresh(10*time.Second)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })), "GET", "/").StatusCode
			if !want && status != http.StatusForbidden {
				t.Errorf("%d s ahead: RequireFresh answers %d", ahead, status)
			}
		}
	}
}

// A bomb panics in Scan, in several ways.
type bomb string

func (b *bomb) Scan(v any) error {
	switch text := string(v.([]byte)); text {
	case "panic":
		panic("a bug of the app")
	case "nil":
		var none *bomb
		*none = "x"
	default:
		*b = bomb(text)
	}
	return nil
}

// A panic in Scan is an error of its own request, and leaks no connection.
func testPanicsInScan(t *testing.T) {
	t.Parallel()
	type bombs struct {
		ID    int64
		Name  bomb
		Other *bomb
	}
	dsn := testdb.DSN(t)
	db := open(t, dsn, "")
	db.SetMaxOpenConns(2)
	mustExec(t, db, "CREATE TABLE users (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, email VARCHAR(99) NOT NULL, password VARCHAR(255) NULL, name VARCHAR(20) NOT NULL DEFAULT 'x', other VARCHAR(20) NULL)")
	for _, c := range []Credentials{alice, bob} {
		mustExec(t, db, "INSERT INTO users (email, password) VALUES (?, ?)", c["email"], hashOf(c["password"]))
	}
	f := newManager[bombs](t, db, dsn, Config{})
	alices, bobs := newBrowser(""), newBrowser("")
	f.login(alices, alice)
	f.login(bobs, bob)
	for _, set := range []string{"name = 'panic'", "name = 'nil'", "name = 'x', other = 'panic'"} {
		mustExec(t, db, "UPDATE users SET "+set+" WHERE id = 1")
		rows, err := f.auth.bySelector.Read(t.Context(), []any{selectorOf(alices), selectorOf(bobs)})
		noError(t, err)
		if _, err := rows.Row(selectorOf(alices)); err == nil || !strings.Contains(err.Error(), "panic") {
			t.Errorf("%s: alice: %v", set, err)
		}
		if _, err := rows.Row(selectorOf(bobs)); err != nil {
			t.Errorf("%s: bob: %v", set, err)
		}
		for range 50 {
			if response := alices.do(f.auth.Middleware(http.NotFoundHandler()), "GET", "/"); response.StatusCode != http.StatusServiceUnavailable {
				t.Fatal(response.Status)
			}
			if _, err := f.auth.LoginAs(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil), 1); err == nil || errors.Is(err, ErrUnavailable) {
				t.Fatal(err)
			}
		}
		f.wantLoggedIn(bobs)
		if n := db.Stats().InUse; n != 0 {
			t.Errorf("%s: %d connections are in use", set, n)
		}
	}
	alices.do(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.Logout(w, r)) }), "POST", "/logout")
}

// An identifier that the table or the connection can't hold is unknown, and
// takes as long as any other. Such a key is an error.
func testMissingCharacters(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has one character set")
	for _, params := range []string{"charset=utf8", "charset=utf8&interpolateParams=true", "charset=latin1", "charset=utf8mb4", "charset=utf8mb4&interpolateParams=true"} {
		for _, charset := range []string{"utf8mb4", "utf8", "latin1", "ascii"} {
			t.Run(params+" "+charset, func(t *testing.T) {
				t.Parallel()
				dsn := testdb.DSN(t)
				good := open(t, dsn, "")
				mustExec(t, good, "CREATE TABLE users (id VARCHAR(50) NOT NULL PRIMARY KEY, email VARCHAR(50) NOT NULL UNIQUE, password VARCHAR(255) NULL) CHARSET="+charset)
				mustExec(t, good, "INSERT INTO users VALUES ('victim', 'victim', ?)", hashOf(alice["password"]))
				f := newManager[Row](t, openRaw(t, dsn, params), dsn, Config{})
				_, err := f.auth.Migrate(t.Context())
				noError(t, err)
				for _, name := range []string{"victim😀", "😀", "victim\u65e5", "v\u00efctim\u65e5", "victim\u200b"} {
					r, w := httptest.NewRequest("POST", "/", nil), httptest.NewRecorder()
					if _, err := logIn(f.auth, w, r, Credentials{"email": name, "password": alice["password"]}); err != ErrInvalidCredentials {
						// Some collations ignore this character.
						if err != nil || name != "victim\u200b" {
							t.Errorf("%q: Login: %v", name, err)
						}
					}
					for call, err := range map[string]error{
						"LoginAs":   errOnly(f.auth.LoginAs(w, r, name)),
						"LogoutAll": errOnly(f.auth.LogoutAll(t.Context(), name)),
						"Sessions":  errOnly(f.auth.Sessions(t.Context(), name)),
						"Revoke":    f.auth.Revoke(t.Context(), name, "1"),
						"Register":  errOnly(register(f.auth, w, r, Fields{"id": name, "email": name, "password": "a password"}, formOptions{Columns: []string{"id", "email"}, NoLogin: true})),
					} {
						recordErr(err)
						if err != nil && !errors.Is(err, ErrInvalidArgument) && !errors.Is(err, ErrUserNotFound) && !errors.Is(err, ErrSessionNotFound) && !errors.Is(err, ErrDuplicate) {
							t.Errorf("%q: %s: %v", name, call, err)
						}
						if errors.Is(err, ErrUnavailable) {
							t.Errorf("%q: %s: %v", name, call, err)
						}
					}
				}
			})
		}
	}
}

// The token table works on a server whose default row format is COMPACT.
// Migrate adds the indexes to an existing table of that format.
func testCompactRows(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has no row formats")
	users := "CREATE TABLE users (id VARCHAR(255) NOT NULL, password VARCHAR(255) NULL, PRIMARY KEY (id)) ROW_FORMAT=DYNAMIC CHARSET=utf8mb4"
	day := func(db *sqlx.DB, dsn string) {
		t.Helper()
		f := newManager[Row](t, db, dsn, Config{})
		b := newBrowser("")
		f.handle(b, func(w http.ResponseWriter, r *http.Request) { noError(t, errOnly(f.auth.LoginAs(w, r, "alice"))) })
		f.wantLoggedIn(b)
		ran, err := f.auth.Migrate(t.Context())
		noError(t, err)
		if len(ran) != 0 {
			t.Errorf("Migrate ran %q", ran)
		}
	}

	for _, column := range []string{"VARCHAR(255) CHARACTER SET utf8mb4", "VARCHAR(255) CHARACTER SET utf8mb3"} {
		dsn := testdb.DSN(t)
		db := open(t, dsn, "")
		mustExec(t, db, users)
		mustExec(t, db, "INSERT INTO users VALUES ('alice', '')")
		mustExec(t, db, "CREATE TABLE user_tokens (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, user "+column+" NOT NULL, token_x "+column+" NOT NULL, token_y VARCHAR(255) NOT NULL,"+
			" browser VARCHAR(255) NOT NULL, ip VARCHAR(255) NOT NULL, date TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, active TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP) ROW_FORMAT=COMPACT")
		f := newManager[Row](t, db, dsn, Config{})
		ran, err := f.auth.Migrate(t.Context())
		noError(t, err)
		if !slices.ContainsFunc(ran, func(statement string) bool { return strings.HasSuffix(statement, "INDEX user (user(191))") }) {
			t.Errorf("Migrate ran %q", ran)
		}
		day(db, dsn)
	}

	if testdb.Find("mariadbd") == "" {
		return
	}
	cfg, stop, err := testdb.Private("--innodb-default-row-format=compact")
	noError(t, err)
	t.Cleanup(stop)
	cfg.DBName = "app"
	admin := cfg.Clone()
	admin.DBName = "mysql"
	mustExec(t, open(t, admin.FormatDSN(), ""), "CREATE DATABASE app")
	db := open(t, cfg.FormatDSN(), "")
	mustExec(t, db, users)
	mustExec(t, db, "INSERT INTO users VALUES ('alice', '')")
	day(db, cfg.FormatDSN())
}
