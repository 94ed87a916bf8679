package session

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/candysession/session/internal/store"
	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/internal/token"
	"github.com/go-sql-driver/mysql"
)

// The token table uses the type of the users table's key, whatever the names
// are.
func TestKeysAndNames(t *testing.T) {
	t.Parallel()
	binary := uuid{0xff, 0, 0x27, 15: 1}
	for name, test := range map[string]struct {
		cfg     Config
		key     string
		values  []any
		asKey   any // the value as an app has it
		notKeys []any
		column  string

		impossible []any // that the column can't hold
	}{
		"INT":             {Config{}, "INT NOT NULL AUTO_INCREMENT", []any{1, 2}, 1, []any{3, -1}, "int", []any{"1x", "01", "+1", " 1", "1 ", "1.0", "one", "", 1 << 31, int64(-1<<31 - 1), uint64(1 << 63), nil, 1.0, true}},
		"BIGINT UNSIGNED": {Config{}, "BIGINT UNSIGNED NOT NULL", []any{"18446744073709551615", 2}, uint64(18446744073709551615), []any{3, "18446744073709551614"}, "bigint unsigned", []any{-1, "18446744073709551616"}},
		"CHAR(36)": {Config{}, "CHAR(36) CHARACTER SET ascii NOT NULL", []any{"0b7a5f4e-9d1c-4e57-8f65-3a4c1de20001", "0b7a5f4e-9d1c-4e57-8f65-3a4c1de20002"},
			"0b7a5f4e-9d1c-4e57-8f65-3a4c1de20001", []any{"0b7a5f4e-9d1c-4e57-8f65-3a4c1de20003", 0}, "char(36)", []any{"\xff", "é", strings.Repeat("a", 37)}},
		"BINARY(16)": {Config{}, "BINARY(16) NOT NULL", []any{binary[:], make([]byte, 16)}, binary, []any{uuid{1}}, "binary(16)", []any{"", "ff002700000000000000000000000001", "ff002700-0000-0000-0000-000000000001", binary[:15]}},
		"VARCHAR":    {Config{}, "VARCHAR(64) NOT NULL", []any{"0", "alice"}, "0", []any{"0x", "al", "00", "ALICE", "älice", "alice "}, "varchar(64)", []any{"\xff", strings.Repeat("a", 65)}},
		"reserved":   {Config{UsersTable: "order", KeyColumn: "select", PasswordColumn: "group", TokenTable: "key"}, "INT NOT NULL", []any{1, 2}, 1, []any{3}, "int", nil},
		"odd":        {Config{UsersTable: "app-users$", KeyColumn: "käy", PasswordColumn: "pass-word", TokenTable: "0tokens"}, "INT NOT NULL", []any{1, 2}, 1, []any{3}, "int", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := testdb.DSN(t)
			db := open(t, dsn, "")
			cfg, err := test.cfg.withDefaults()
			noError(t, err)
			mustExec(t, db, "CREATE TABLE "+store.Quote(cfg.UsersTable)+" ("+store.Quote(cfg.KeyColumn)+" "+test.key+" PRIMARY KEY, email VARCHAR(255) NOT NULL, "+store.Quote(cfg.PasswordColumn)+" VARCHAR(255))")
			for i, c := range []Credentials{alice, bob} {
				mustExec(t, db, "INSERT INTO "+store.Quote(cfg.UsersTable)+" VALUES (?, ?, ?)", test.values[i], c["email"], hashOf(c["password"]))
			}
			f := newManager[Row](t, db, dsn, test.cfg)
			b, other := newBrowser("b"), newBrowser("other")
			credentials := Credentials{"email": alice["email"], cfg.PasswordColumn: alice["password"]}
			f.login(b, credentials)
			f.handle(other, func(w http.ResponseWriter, r *http.Request) {
				u, err := f.auth.LoginAs(w, r, test.asKey)
				if err != nil || u["email"] != alice["email"] {
					t.Fatalf("LoginAs: %v, %v", u, err)
				}
				for _, key := range test.notKeys {
					if _, err := f.auth.LoginAs(w, r, key); err != ErrUserNotFound {
						t.Errorf("LoginAs(%#v): %v", key, err)
					}
					if s, err := f.auth.Sessions(r.Context(), key); len(s) != 0 || err != nil {
						t.Errorf("Sessions(%#v): %v, %v", key, s, err)
					}
					if n, err := f.auth.LogoutAll(r.Context(), key); n != 0 || err != nil {
						t.Errorf("LogoutAll(%#v): %v, %v", key, n, err)
					}
				}
				for _, key := range test.impossible {
					_, err := f.auth.LoginAs(w, r, key)
					wantError(t, err, ErrInvalidArgument)
					_, err = f.auth.Sessions(r.Context(), key)
					wantError(t, err, ErrInvalidArgument)
					_, err = f.auth.LogoutAll(r.Context(), key)
					wantError(t, err, ErrInvalidArgument)
					wantError(t, f.auth.Revoke(r.Context(), key, ""), ErrInvalidArgument)
				}
			})
			f.wantLoggedIn(b)
			f.wantLoggedIn(other)
			var id string
			f.handle(b, func(w http.ResponseWriter, r *http.Request) {
				u, _ := f.auth.User(r)
				if u["email"] != alice["email"] {
					t.Errorf("%v", u)
				}
				for _, key := range []any{test.asKey, u[cfg.KeyColumn]} {
					sessions, err := f.auth.Sessions(r.Context(), key)
					if err != nil || len(sessions) != 2 {
						t.Fatalf("Sessions(%v): %v, %v", key, sessions, err)
					}
					id = sessions[0].ID
					if sessions[0].Current {
						id = sessions[1].ID
					}
				}
				wantError(t, f.auth.Revoke(r.Context(), test.notKeys[0], id), ErrSessionNotFound)
				noError(t, f.auth.Revoke(r.Context(), test.asKey, id))
			})
			f.wantRejected(other, ErrUnknownSession)
			f.login(other, credentials)
			f.handle(b, func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.LogoutOthers(w, r)) })
			f.wantRejected(other, ErrUnknownSession)
			n, err := f.auth.LogoutAll(t.Context(), test.asKey)
			if n != 1 || err != nil {
				t.Errorf("LogoutAll: %d, %v", n, err)
			}
			f.wantRejected(b, ErrUnknownSession)
			f.login(b, credentials)
			f.handle(b, func(w http.ResponseWriter, r *http.Request) {
				if n, err := f.auth.LogoutAll(r.Context(), test.asKey); n != 1 || err != nil || f.auth.Check(r) {
					t.Errorf("LogoutAll in a request: %d, %v, still in: %v", n, err, f.auth.Check(r))
				}
			})

			schema, err := f.auth.Schema(t.Context())
			if err != nil || !strings.Contains(strings.ReplaceAll(strings.ReplaceAll(schema, "(11)", ""), "(20)", ""), "\n  user "+test.column) {
				t.Errorf("%s\n%v", schema, err)
			}
		})
	}
}

func TestOtherDatabase(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	second := testdb.DSN(t)
	cfg, err := mysql.ParseDSN(f.dsn)
	noError(t, err)
	f = newManager[user](t, open(t, second, ""), second, Config{UsersTable: cfg.DBName + ".users"})
	b := newBrowser("")
	f.login(b, alice)
	f.wantLoggedIn(b)
}

func TestSchemaAndMigrate(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "keeps no table comments, and reports an unknown column as 1105")
	f := setup(t, Config{})
	ctx := t.Context()
	ran, err := f.auth.Migrate(ctx)
	if err != nil || len(ran) != 1 || !strings.HasPrefix(ran[0], "CREATE TABLE") {
		t.Fatalf("%v, %v", ran, err)
	}
	if ran, err = f.auth.Migrate(ctx); err != nil || len(ran) != 0 {
		t.Errorf("the second time: %v, %v", ran, err)
	}
	// Running the statement manually has the same result.
	schema, err := f.auth.Schema(ctx)
	noError(t, err)
	mustExec(t, f.db, "DROP TABLE user_tokens")
	mustExec(t, f.db, schema)
	if ran, err = f.auth.Migrate(ctx); err != nil || len(ran) != 0 {
		t.Errorf("after Schema: %v, %v", ran, err)
	}
	b := newBrowser("")
	f.login(b, alice)
	f.wantLoggedIn(b)

	// A table that CandyPack created is used, and gets indexes.
	f.waitForPurge()
	mustExec(t, f.db, "DROP TABLE user_tokens")
	mustExec(t, f.db, `CREATE TABLE user_tokens (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, user INT NOT NULL, token_x VARCHAR(255) NOT NULL, token_y VARCHAR(255) NOT NULL,
		browser VARCHAR(255) NOT NULL, ip VARCHAR(255) NOT NULL, date TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, active TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)
		DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci`)
	f.login(b, alice)
	f.wantLoggedIn(b)
	upper := newBrowser("")
	upper.cookies["__Host-session"] = strings.Replace(b.cookies["__Host-session"], selectorOf(b), strings.ToUpper(selectorOf(b)), 1)
	f.wantRejected(upper, ErrUnknownSession)
	mustExec(t, f.db, "INSERT INTO user_tokens (user, token_x, token_y, browser, ip) SELECT 2, UPPER(token_x), token_y, browser, ip FROM user_tokens")
	f.wantLoggedIn(b)
	mustExec(t, f.db, "DELETE FROM user_tokens WHERE user = 2")
	if ran, err = f.auth.Migrate(ctx); err != nil || len(ran) != 8 {
		t.Errorf("CandyPack's table: %v, %v", ran, err)
	}
	if ran, err = f.auth.Migrate(ctx); err != nil || len(ran) != 0 {
		t.Errorf("again: %v, %v", ran, err)
	}
	f.wantLoggedIn(b)

	// A selector that occurs twice is rejected, unless its token is in the
	// memo. Migrate explains it.
	mustExec(t, f.db, "ALTER TABLE user_tokens DROP INDEX token_x")
	mustExec(t, f.db, "INSERT INTO user_tokens (user, token_x, token_y, browser, ip) SELECT 2, token_x, token_y, browser, ip FROM user_tokens")
	newManager[user](t, f.db, f.dsn, Config{}).wantRejected(b, ErrUnknownSession)
	if _, err = f.auth.Migrate(ctx); err == nil || !strings.Contains(err.Error(), "token_x twice") {
		t.Error(err)
	}
}

// Several app servers may migrate concurrently.
func TestMigrateConcurrently(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "loses concurrent writes")
	f := setup(t, Config{})
	for _, made := range []string{"", `CREATE TABLE user_tokens (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, user INT NOT NULL, token_x VARCHAR(255) NOT NULL, token_y VARCHAR(255) NOT NULL,
		browser VARCHAR(255) NOT NULL, ip VARCHAR(255) NOT NULL, date TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, active TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)`} {
		if made != "" {
			mustExec(t, f.db, "DROP TABLE user_tokens")
			mustExec(t, f.db, made)
		}
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				if _, err := f.auth.Migrate(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

// Some character sets make the driver's escaping unsafe. Open does not allow
// them.
func TestOpenKeepsTheCharset(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	for _, params := range []string{"charset=gbk&interpolateParams=false", "charset=gbk", "charset=latin1,utf8mb4", "collation=utf8mb4_unicode_ci", "collation=latin1_swedish_ci"} {
		db := open(t, f.dsn, params)
		if charset := get[string](t, db, "SELECT @@character_set_client"); charset != "utf8mb4" {
			t.Errorf("%s: the connection speaks %s", params, charset)
		}
		attacked := newManager[user](t, db, f.dsn, Config{})
		attacked.handle(newBrowser(""), func(w http.ResponseWriter, r *http.Request) {
			_, err := logIn(attacked.auth, w, r, Credentials{"email": "\u4e2d' UNION SELECT 1, id, 0x" + hex.EncodeToString([]byte(hashOf("x"))) + ", email, id, NULL FROM users LIMIT 1 -- ", "password": "x"})
			wantError(t, err, ErrInvalidCredentials)
		})
	}
}

func TestTableIsCreatedOnFirstUse(t *testing.T) {
	t.Parallel()
	for name, need := range map[string]func(f *fixture[user]){
		"check":    func(f *fixture[user]) { f.wantRejected(withToken(token.New()), ErrUnknownSession) },
		"login":    func(f *fixture[user]) { f.login(newBrowser(""), alice) },
		"sessions": func(f *fixture[user]) { _, err := f.auth.Sessions(f.t.Context(), 1); noError(f.t, err) },
		"revoke":   func(f *fixture[user]) { wantError(f.t, f.auth.Revoke(f.t.Context(), 1, "1"), ErrSessionNotFound) },
		"purge":    func(f *fixture[user]) { _, err := f.auth.Purge(f.t.Context()); noError(f.t, err) },
		"stats":    func(f *fixture[user]) { _, err := f.auth.Stats(f.t.Context()); noError(f.t, err) },
		"all":      func(f *fixture[user]) { _, err := f.auth.LogoutAll(f.t.Context(), 1); noError(f.t, err) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, Config{})
			need(f)
			f.rows()
		})
	}
	// A table that is dropped while the app runs is created again. All users
	// are logged out, and no request fails.
	f := setup(t, Config{})
	b := newBrowser("")
	f.login(b, alice)
	f.wantLoggedIn(b)
	f.waitForPurge()
	mustExec(t, f.db, "DROP TABLE user_tokens")
	f.wantRejected(b, ErrUnknownSession)
	f.login(b, alice)
	f.wantLoggedIn(b)
}

// Without the privilege to create tables, errors contain the statement to run.
func TestWithoutDDLRights(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has no privileges")
	f := setup(t, Config{})
	cfg, err := mysql.ParseDSN(f.dsn)
	noError(t, err)
	name := cfg.DBName + "_app"
	name = name[max(0, len(name)-32):]
	for _, host := range []string{"localhost", "%"} {
		mustExec(t, f.db, fmt.Sprintf("CREATE USER '%s'@'%s' IDENTIFIED BY 'app'", name, host))
		t.Cleanup(func() { f.db.Exec(fmt.Sprintf("DROP USER '%s'@'%s'", name, host)) })
		mustExec(t, f.db, fmt.Sprintf("GRANT SELECT, INSERT, UPDATE, DELETE ON %s.* TO '%s'@'%s'", cfg.DBName, name, host))
	}
	cfg.User, cfg.Passwd = name, "app"
	poor := newManager[user](t, open(t, cfg.FormatDSN(), ""), "", Config{})
	schema, err := f.auth.Schema(t.Context())
	noError(t, err)
	says := func(err error, statement string) {
		t.Helper()
		if !errors.Is(err, ErrConfig) || errors.Is(err, ErrUnavailable) || !strings.Contains(realmKey.ReplaceAllString(err.Error(), ""), realmKey.ReplaceAllString(statement, "")) {
			t.Errorf("error is %v, want %s in it", err, statement)
		}
	}
	_, err = poor.auth.Sessions(t.Context(), 1)
	says(err, schema)
	_, err = poor.auth.Migrate(t.Context())
	says(err, schema)
	mustExec(t, f.db, schema)
	b := newBrowser("")
	poor.login(b, alice)
	poor.wantLoggedIn(b)
	poor.waitForPurge()
	mustExec(t, f.db, "ALTER TABLE user_tokens DROP INDEX active")
	_, err = poor.auth.Migrate(t.Context())
	says(err, "ALTER TABLE `user_tokens` ADD INDEX active (active)")
}

// Each token table has its own secret in the comment.
var realmKey = regexp.MustCompile(`, key [0-9a-f]{32}`)

func TestUsersTableIsExplained(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	mustExec(t, f.db, "CREATE TABLE events (at TIMESTAMP NOT NULL PRIMARY KEY, email VARCHAR(255))")
	for says, cfg := range map[string]Config{
		"there is no users table `people`; create it, or set Config.UsersTable": {UsersTable: "people"},
		"has no column `uid`; set Config.KeyColumn":                             {KeyColumn: "uid"},
		"it must be an integer, text or binary column":                          {UsersTable: "events", KeyColumn: "at"},
	} {
		bad := newManager[Row](t, f.db, f.dsn, cfg)
		_, err := bad.auth.Schema(t.Context())
		if !errors.Is(err, ErrConfig) || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), says) {
			t.Errorf("error is %v, want %s in it", err, says)
		}
	}
}

func TestDSN(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{"", "x", "root@tcp(localhost)/", "root@tcp(localhost/app", "root@/app?readTimeout=soon"} {
		if _, err := Open(dsn); !errors.Is(err, ErrConfig) {
			t.Errorf("%q: %v", dsn, err)
		}
	}
	db := open(t, testdb.DSN(t), "time_zone=%27%2B03:00%27")
	if zone := get[string](t, db, "SELECT @@time_zone"); zone != "+03:00" {
		t.Errorf("the DSN's time_zone was replaced by %s", zone)
	}
	db = open(t, testdb.DSN(t), "")
	if zone := get[string](t, db, "SELECT @@time_zone"); zone != "+00:00" {
		t.Errorf("time_zone is %s", zone)
	}
}

// Ages are right for all settings of the connection, also when clocks change.
func TestTimeZones(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	newYork := "America/New_York"
	if _, err := f.db.Exec("SET time_zone = '" + newYork + "'"); err != nil {
		// Without time zone tables, the test server's own zone is New York's.
		if newYork = "SYSTEM"; get[string](t, f.db, "SELECT @@system_time_zone")[0] != 'E' {
			newYork = ""
		}
	}
	moments := map[string]time.Time{
		"now":                     {},
		"before clocks go back":   time.Date(2026, 11, 1, 5, 30, 0, 0, time.UTC),
		"after clocks went back":  time.Date(2026, 11, 1, 6, 30, 0, 0, time.UTC),
		"before clocks go ahead":  time.Date(2026, 3, 8, 6, 30, 0, 0, time.UTC),
		"after clocks went ahead": time.Date(2026, 3, 8, 7, 30, 0, 0, time.UTC),
	}
	for _, zone := range []string{"+00:00", "+03:00", newYork} {
		for moment, at := range moments {
			for _, params := range []string{"parseTime=true&loc=UTC", "parseTime=false&loc=Asia%2FTokyo", "parseTime=true&loc=America%2FNew_York&interpolateParams=false", "sql_mode=''&clientFoundRows=true", "sql_mode='TRADITIONAL,ANSI,HIGH_NOT_PRECEDENCE'"} {
				at := at
				t.Run(zone+"/"+moment+"/"+params, func(t *testing.T) {
					t.Parallel()
					if zone == "" {
						t.Skip("the server knows no zone with summer time")
					}
					if !at.IsZero() {
						testdb.SkipEmbedded(t, "has one clock, which can't be set")
					}
					if zone != "+00:00" {
						testdb.SkipEmbedded(t, "ignores the time zone for TIMESTAMP")
					}
					f := setup(t, Config{})
					clock := func(at time.Time) *fixture[user] {
						params := params + "&time_zone=" + url.QueryEscape("'"+zone+"'")
						if !at.IsZero() {
							params += fmt.Sprintf("&timestamp=%d", at.Unix())
						}
						// A pool of the app, without Open.
						db := openRaw(t, f.dsn, params)
						return newManager[user](t, db, f.dsn, Config{MaxAge: 15 * time.Minute, UpdateAge: 5 * time.Minute})
					}
					b := newBrowser("")
					now := clock(at)
					now.login(b, alice)
					now.waitForPurge()
					response := now.handle(b, func(w http.ResponseWriter, r *http.Request) {
						if s := now.auth.Session(r); !at.IsZero() && (!s.Created.Equal(at) || !s.Active.Equal(at)) {
							t.Errorf("session of %v", s)
						}
						if s, err := now.auth.Sessions(r.Context(), 1); err != nil || len(s) != 1 {
							t.Errorf("%v, %v", s, err)
						}
					})
					if now.errOf(b) != nil || len(response.Cookies()) != 0 {
						t.Fatalf("right after login: %v, %v", now.errOf(b), response.Header)
					}
					later := func(by time.Duration) *fixture[user] {
						if at.IsZero() {
							now.age(by)
							return now
						}
						at = at.Add(by)
						return clock(at)
					}
					for range 8 { // 80 minutes, across the change of clocks
						then := later(10 * time.Minute)
						then.handle(b, func(w http.ResponseWriter, r *http.Request) { noError(t, then.auth.Err(r)) })
						if n := get[int](t, then.db, "SELECT COUNT(*) FROM user_tokens WHERE UNIX_TIMESTAMP() - UNIX_TIMESTAMP(active) BETWEEN 0 AND 60"); n != 1 {
							t.Error("not renewed")
						}
						if n, err := then.auth.Purge(t.Context()); n != 0 || err != nil {
							t.Fatalf("purged %d living sessions, %v", n, err)
						}
					}
					then := later(16 * time.Minute)
					then.wantRejected(b, ErrExpired)
					if s, err := then.auth.Sessions(t.Context(), 1); len(s) != 0 || err != nil {
						t.Errorf("an expired session is listed: %v, %v", s, err)
					}
					if s, err := then.auth.Stats(t.Context()); s.Expired != 1 || err != nil {
						t.Errorf("%+v, %v", s, err)
					}
					// The purge by range may be an hour late in autumn, but
					// never early.
					then = later(time.Hour)
					if n, err := then.auth.Purge(t.Context()); n != 1 || err != nil {
						t.Errorf("purged %d, %v", n, err)
					}
				})
			}
		}
	}
}

// A request with a session needs one statement, one without a token needs none,
// and nothing is written within UpdateAge. The server counts.
func TestStatementCount(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "does not count statements")
	f := setup(t, Config{})
	f.db.SetMaxOpenConns(1)
	b := newBrowser(chrome130)
	f.login(b, alice)
	f.wantLoggedIn(b)
	f.waitForPurge()
	// The status belongs to the connection, and this pool has one.
	status := func() (questions, writes int) {
		rows, err := f.db.Query("SHOW SESSION STATUS WHERE Variable_name IN ('Questions', 'Com_insert', 'Com_update', 'Com_delete', 'Com_begin')")
		noError(t, err)
		defer rows.Close()
		for rows.Next() {
			var name string
			var n int
			noError(t, rows.Scan(&name, &n))
			if name == "Questions" {
				questions = n
			} else {
				writes += n
			}
		}
		noError(t, rows.Err())
		return questions, writes
	}
	nested := f.auth.Middleware(f.auth.Require(f.auth.Switch(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.auth.Check(r)
		f.auth.User(r)
		f.auth.Session(r)
		if err := f.auth.Err(r); err != nil {
			t.Error(err)
		}
	})), http.NotFoundHandler())))
	count := func(n int, b *browser) (questions, writes int) {
		q1, w1 := status()
		for range n {
			b.do(nested, "GET", "/")
		}
		q2, w2 := status()
		return q2 - q1 - 1, w2 - w1 // without this statement itself
	}
	if q, w := count(1000, b); q != 1000 || w != 0 {
		t.Errorf("1000 checked requests: %d statements, %d writes", q, w)
	}
	if q, w := count(100, newBrowser(chrome130)); q != 0 || w != 0 {
		t.Errorf("100 requests without a cookie: %d statements, %d writes", q, w)
	}
	malformed := newBrowser(chrome130)
	malformed.cookies["__Host-session"] = "malformed"
	if q, w := count(100, malformed); q != 0 || w != 0 {
		t.Errorf("100 requests with a malformed cookie: %d statements, %d writes", q, w)
	}
	f.age(25 * time.Hour)
	if q, w := count(1000, b); q != 1001 || w != 1 {
		t.Errorf("1000 checked requests past UpdateAge: %d statements, %d writes", q, w)
	}
	// A session that has ended elsewhere is looked up once by id and once by
	// selector. The server is asked once whether it is a Galera node.
	mustExec(t, f.db, "DELETE FROM user_tokens")
	if q, w := count(10, b); q != 12 || w != 0 {
		t.Errorf("10 requests with a revoked session: %d statements, %d writes", q, w)
	}
}

// The row of a token that was verified before is read by its id. The current
// row counts, not the remembered one.
func TestKnownTokens(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b, other := newBrowser(chrome130), newBrowser(chrome130)
	f.login(b, alice)
	f.login(other, bob)
	f.wantLoggedIn(b)
	hash := get[string](t, f.db, "SELECT token_y FROM user_tokens WHERE id = 1")

	mustExec(t, f.db, "UPDATE user_tokens SET token_y = (SELECT token_y FROM (SELECT * FROM user_tokens) AS t WHERE id = 2) WHERE id = 1")
	f.wantRejected(b, ErrUnknownSession)
	mustExec(t, f.db, "UPDATE user_tokens SET token_y = ? WHERE id = 1", hash)
	f.wantLoggedIn(b)

	mustExec(t, f.db, "UPDATE user_tokens SET token_x = CONCAT(LEFT(token_x, 20), 'xx') WHERE id = 1")
	f.wantRejected(b, ErrUnknownSession)
	mustExec(t, f.db, "UPDATE user_tokens SET token_x = ? WHERE id = 1", selectorOf(b))
	f.wantLoggedIn(b)

	// The ids change, as after a restore of a dump.
	mustExec(t, f.db, "UPDATE user_tokens SET id = id + 100 ORDER BY id DESC")
	are := func(b *browser, id int64) {
		t.Helper()
		f.handle(b, func(_ http.ResponseWriter, r *http.Request) {
			if u, _ := f.auth.User(r); u.ID != id {
				t.Errorf("user %d is %+v", id, u)
			}
		})
	}
	are(b, 1)
	are(other, 2)
	mustExec(t, f.db, "UPDATE user_tokens SET id = 303 - id WHERE id = 101")
	mustExec(t, f.db, "UPDATE user_tokens SET id = 101 WHERE id = 102")
	are(b, 1)
	are(other, 2)
}

// Lookups use the indexes of both tables.
func TestCheckUsesTheIndexes(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "explains in another way")
	f := setup(t, Config{})
	for i := range 200 {
		mustExec(t, f.db, "INSERT INTO users (email, password) VALUES (?, '')", fmt.Sprint(i))
	}
	noError(t, errOnly(f.auth.Migrate(t.Context())))
	for range 10 {
		mustExec(t, f.db, "INSERT INTO user_tokens (user, token_x, token_y) SELECT id, CONCAT(RAND(), id, RAND()), '' FROM users")
	}
	mustExec(t, f.db, "ANALYZE TABLE users, user_tokens")
	for _, by := range []struct {
		column      store.LookupColumn
		name, index string
	}{{store.BySelector, "token_x", "token_x"}, {store.ByID, "id", "PRIMARY"}} {
		var several []any
		for range 3 {
			several = append(several, get[string](t, f.db, "SELECT "+by.name+" FROM user_tokens ORDER BY RAND() LIMIT 1"))
		}
		check := func(n int, args ...any) string {
			return strings.Join(explain(t, f.db, f.lookup(by.column, n), args...), " ")
		}
		if got := check(1, several[0]); got != "t:const:"+by.index+" u:const:PRIMARY" {
			t.Errorf("the check by %s: %s", by.name, got)
		}
		if got := check(4, append(several, nil)...); got != "t:range:"+by.index+" u:eq_ref:PRIMARY" {
			t.Errorf("the check by %s that several share: %s", by.name, got)
		}
	}
	if got := strings.Join(explain(t, f.db, "SELECT id FROM user_tokens WHERE user = ? AND id <> ?", 7, 0), " "); !strings.Contains(got, ":user") {
		t.Errorf("the list: %s", got)
	}
	if got := strings.Join(explain(t, f.db, f.auth.store.SelectIdle(), 100, 100, 1000), " "); got != "user_tokens:range:active" {
		t.Errorf("the purge: %s", got)
	}
}

// A canceled lookup does not fail the next one.
func TestCancelledRequest(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b := newBrowser("")
	f.login(b, alice)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			go cancel()
			f.auth.bySelector.Find(ctx, selectorOf(b), selectorOf(b))
		})
	}
	wg.Wait()
	f.wantLoggedIn(b)
}
