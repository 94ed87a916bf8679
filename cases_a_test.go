package session

import (
	"context"
	"database/sql/driver"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/candysession/session/internal/testdb"
	"github.com/jmoiron/sqlx"
)

// The cases of group A: a user gets the session of another user, or keeps a
// revoked one.
var casesA = slices.Concat(accountCases, cacheCases, webCasesA)

// The cases of accounts, keys and passwords.
var accountCases = []testCase{
	{"A1_two_users_tables", caseTwoUsersTables},
	{"A2_next_owner_of_a_key", caseNextOwner},
	{"A3_key_changes_its_type", caseKeyChangesItsType},
	{"A4_password_changed_by_SQL", casePasswordChangedBySQL},
	{"A4_changes_that_keep_sessions", caseChangesThatKeepSessions},
	{"A5_set_password_without_the_old_one", caseSetPasswordWithoutTheOldOne},
	{"A10_keys_the_column_cannot_hold", caseKeysTheColumnCannotHold},
	{"A11_keys_to_the_letter", caseKeysToTheLetter},
	{"A16_what_was_begun_is_finished", caseWhatWasBegunIsFinished},
	{"C11_session_ids", caseSessionIDs},
}

// setupKeyed returns an app whose users table has a key of the given type. Alice and
// Bob have the given keys.
func setupKeyed(t *testing.T, key string, cfg Config, keys ...any) *fixture[Row] {
	t.Helper()
	dsn := testdb.DSN(t)
	db := open(t, dsn, "")
	mustExec(t, db, "CREATE TABLE users (id "+key+" NOT NULL PRIMARY KEY, email VARCHAR(255) NOT NULL, password VARCHAR(255) NULL, created_at TIMESTAMP NOT NULL DEFAULT '2026-01-01 00:00:00')")
	for i, c := range []Credentials{alice, bob}[:len(keys)] {
		mustExec(t, db, "INSERT INTO users (id, email, password) VALUES (?, ?, ?)", keys[i], c["email"], hashOf(c["password"]))
	}
	return newManager[Row](t, db, dsn, cfg)
}

// wantDeleted checks that the next request of b is rejected with want, and that the
// row is deleted.
func (f *fixture[U]) wantDeleted(b *browser, want error) {
	f.t.Helper()
	f.wantRejected(b, want)
	if n := get[int](f.t, f.db, "SELECT COUNT(*) FROM user_tokens WHERE token_x = ?", selectorOf(b)); n != 0 {
		f.t.Errorf("the row of a session with %v is still there", want)
	}
	f.wantRejected(b, ErrUnknownSession)
}

func caseTwoUsersTables(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "keeps no table comments")
	dsn := testdb.DSN(t)
	db := open(t, dsn, "")
	for _, table := range []string{"users", "customers", "admins"} {
		mustExec(t, db, strings.Replace(usersTableInt, "TABLE users", "TABLE "+table, 1))
		mustExec(t, db, "INSERT INTO "+table+" (email, password) VALUES (?, ?)", alice["email"], hashOf(alice["password"]))
	}
	customers := newManager[user](t, db, dsn, Config{UsersTable: "customers"})
	admins := newManager[user](t, db, dsn, Config{UsersTable: "admins"})
	users := newManager[user](t, db, dsn, Config{})

	// With all defaults, both work in one browser, and neither accepts the
	// other's cookie.
	b := newBrowser(chrome130)
	customers.login(b, alice)
	admins.wantRejected(b, ErrNoCookie)
	users.wantRejected(b, ErrNoCookie)
	admins.login(b, alice)
	users.login(b, alice)
	for name, f := range map[string]*fixture[user]{"customers": customers, "admins": admins, "users": users} {
		f.wantLoggedIn(b)
		for other, cookie := range b.cookies {
			stranger := newBrowser(chrome130)
			stranger.cookies[f.auth.cfg.Cookie.Name] = cookie
			if other != f.auth.cfg.Cookie.Name && !strings.Contains(other, ".") {
				if err := f.errOf(stranger); err == nil {
					t.Errorf("the cookie %s is good for %s", other, name)
				}
			}
		}
	}
	n, err := customers.auth.LogoutAll(t.Context(), 1)
	if n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	customers.wantRejected(b, ErrUnknownSession)
	admins.wantLoggedIn(b)

	// If two users tables share a token table, every call returns an error that
	// names both.
	for _, cfg := range []Config{
		{UsersTable: "customers", TokenTable: "user_tokens"},
		{UsersTable: "users", KeyColumn: "email"},
		{UsersTable: "admins", TokenTable: "customers_session_tokens"},
	} {
		shared := newManager[Row](t, db, dsn, cfg)
		calls := map[string]error{}
		shared.auth.Middleware(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), requestWith(b, "__Host-session"))
		w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil)
		_, calls["Login"] = logIn(shared.auth, w, r, alice)
		_, calls["LogoutAll"] = shared.auth.LogoutAll(t.Context(), "1")
		_, calls["Sessions"] = shared.auth.Sessions(t.Context(), "1")
		calls["Revoke"] = shared.auth.Revoke(t.Context(), "1", "x")
		_, calls["Purge"] = shared.auth.Purge(t.Context())
		_, calls["Stats"] = shared.auth.Stats(t.Context())
		_, calls["Migrate"] = shared.auth.Migrate(t.Context())
		for call, err := range calls {
			if !strings.Contains(fmt.Sprint(err), ErrConfig.Error()) || !strings.Contains(err.Error(), shared.auth.cfg.UsersTable+"."+shared.auth.cfg.KeyColumn) || strings.Contains(err.Error(), "unavailable") {
				t.Errorf("%s with %+v: %v", call, cfg, err)
			}
		}
	}
	users.wantLoggedIn(b)
	admins.wantLoggedIn(b)

	// CandyPack's table has no comment. Migrate adds one.
	mustExec(t, db, "CREATE TABLE candy_auth LIKE user_tokens")
	mustExec(t, db, "ALTER TABLE candy_auth DROP COLUMN stamp, DROP COLUMN method, COMMENT = 'logins'")
	candy := newManager[user](t, db, dsn, Config{CandyPack: CandyPackShare})
	candy.login(newBrowser(chrome130), alice)
	noError(t, errOnly(candy.auth.Migrate(t.Context())))
	_, err = newManager[user](t, db, dsn, Config{CandyPack: CandyPackShare, UsersTable: "admins"}).auth.LogoutAll(t.Context(), 1)
	wantError(t, err, ErrConfig)

	// The default names differ for any two tables.
	seen := map[string]string{}
	long := strings.Repeat("x", 63)
	for _, table := range []string{"users", "user", "Users", "crm.users", "crm__user", "kund_innen", "kunden", "käufer", "kaufer", long + "a", long + "b"} {
		cfg, err := Config{UsersTable: table}.withDefaults()
		noError(t, err)
		for _, name := range []string{cfg.TokenTable, "cookie " + cfg.Cookie.Name} {
			if seen[name] != "" {
				t.Errorf("%s is the default of %s and %s", name, table, seen[name])
			}
			seen[name] = table
		}
	}
}

// requestWith returns a request with the browser's cookie of the given name.
func requestWith(b *browser, name string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("User-Agent", b.userAgent)
	r.AddCookie(&http.Cookie{Name: name, Value: b.cookies[name]})
	return r
}

func caseNextOwner(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "enforces no uniqueness under collations")
	for _, key := range []string{"VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", "VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci", "CHAR(36) CHARACTER SET latin1"} {
		f := setupKeyed(t, key, Config{}, "bob", "eve")
		deleted, renamed, recased := newBrowser(chrome130), newBrowser(chrome130), newBrowser(firefox)
		f.loginAs(deleted, "bob")
		f.loginAs(renamed, "eve")
		f.loginAs(recased, "eve")
		// Deleted and registered again, with the same key.
		mustExec(t, f.db, "DELETE FROM users WHERE id = 'bob'")
		mustExec(t, f.db, "INSERT INTO users (id, email, password) VALUES ('bob', 'b2@example.com', ?)", strings.Replace(hashOf("other"), "$2a$", "$2b$", 1))
		f.wantDeleted(deleted, ErrAccountChanged)
		// Renamed in case only: another key.
		mustExec(t, f.db, "UPDATE users SET id = 'Eve' WHERE id = 'eve'")
		f.wantDeleted(recased, ErrUserNotFound)
		// Renamed, and the old key is given to another user.
		mustExec(t, f.db, "UPDATE users SET id = 'eva' WHERE id = 'Eve'")
		mustExec(t, f.db, "INSERT INTO users (id, email, password) VALUES ('Eve', 'e2@example.com', ?)", hashOf("another"))
		f.wantDeleted(renamed, ErrUserNotFound)
	}
	// AUTO_INCREMENT starts again.
	f := setupKeyed(t, "INT AUTO_INCREMENT", Config{}, 1)
	b := newBrowser(chrome130)
	f.login(b, alice)
	f.waitForPurge()
	mustExec(t, f.db, "TRUNCATE users")
	mustExec(t, f.db, "INSERT INTO users (email, password) VALUES ('m@example.com', ?)", hashOf("mallory"))
	f.wantDeleted(b, ErrAccountChanged)

	// Accounts without a password differ in AccountColumns.
	f = setupKeyed(t, "INT AUTO_INCREMENT", Config{AccountColumns: []string{"created_at", "email"}})
	mustExec(t, f.db, "INSERT INTO users (id, email) VALUES (7, 'a@example.com')")
	f.loginAs(b, 7)
	f.wantLoggedIn(b)
	mustExec(t, f.db, "DELETE FROM users")
	mustExec(t, f.db, "INSERT INTO users (id, email, created_at) VALUES (7, 'a@example.com', '2026-02-02 00:00:00')")
	f.wantDeleted(b, ErrAccountChanged)

	// Register revokes older sessions under the new user's key.
	g := setup(t, Config{})
	g.loginAs(b, 2)
	g.waitForPurge()
	mustExec(t, g.db, "DELETE FROM users WHERE id = 2")
	g.handle(newBrowser(firefox), func(w http.ResponseWriter, r *http.Request) {
		_, err := register(g.auth, w, r, Fields{"id": 2, "email": "new@example.com", "password": "new password"}, formOptions{Columns: []string{"id", "email"}})
		noError(t, err)
	})
	if n := g.rows(); n != 1 {
		t.Errorf("%d sessions", n)
	}
	g.wantRejected(b, ErrUnknownSession)
}

func caseKeyChangesItsType(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "alters columns in another way")
	for _, test := range []struct{ from, to, prepare string }{
		{"INT", "CHAR(36)", "UPDATE users SET id = CONCAT(id, 'a1d4c5e')"},
		{"INT", "BIGINT", "UPDATE users SET id = id + 3000000000"},
		{"INT", "INT UNSIGNED", ""},
		{"VARCHAR(10)", "VARCHAR(20)", ""},
		{"VARCHAR(10) CHARACTER SET latin1", "VARCHAR(10) CHARACTER SET utf8mb4", ""},
		{"VARCHAR(10) COLLATE utf8mb4_general_ci", "VARCHAR(10) COLLATE utf8mb4_unicode_ci", ""},
		{"BINARY(8)", "VARBINARY(8)", ""},
	} {
		f := setupKeyed(t, test.from, Config{}, "7", "8")
		b := newBrowser(chrome130)
		f.loginAs(b, key8(test.from))
		f.waitForPurge()
		mustExec(t, f.db, "ALTER TABLE users MODIFY id "+test.to+" NOT NULL")
		if test.prepare != "" {
			mustExec(t, f.db, test.prepare)
			// A running Manager does not accept the row as this user's.
			f.wantDeleted(b, ErrUserNotFound)
		}
		// A new Manager returns an error with both types and the statement.
		fresh := newManager[Row](t, f.db, f.dsn, Config{})
		_, err := fresh.auth.Stats(t.Context())
		wantError(t, err, ErrConfig)
		if !strings.Contains(err.Error(), "ALTER TABLE `user_tokens` MODIFY user") {
			t.Error(err)
		}
		ran, err := fresh.auth.Migrate(t.Context())
		if err != nil || len(ran) != 1 {
			t.Errorf("%s to %s: %q, %v", test.from, test.to, ran, err)
		}
		noError(t, errOnly(fresh.auth.Stats(t.Context())))
		if ran, err = fresh.auth.Migrate(t.Context()); err != nil || len(ran) != 0 {
			t.Errorf("again: %q, %v", ran, err)
		}
	}

	// A conversion that would truncate keys is not run, even if the server
	// would accept it.
	f := setupKeyed(t, "BIGINT", Config{}, 3000000000)
	f.db = open(t, f.dsn, "sql_mode=''")
	b := newBrowser(chrome130)
	f.loginAs(b, 3000000000)
	f.waitForPurge()
	mustExec(t, f.db, "UPDATE users SET id = 5")
	mustExec(t, f.db, "ALTER TABLE users MODIFY id SMALLINT NOT NULL")
	lax := newManager[Row](t, f.db, f.dsn, Config{})
	ran, err := lax.auth.Migrate(t.Context())
	if len(ran) != 0 {
		t.Errorf("%q", ran)
	}
	wantError(t, err, ErrConfig)
	if got := get[string](t, f.db, "SELECT user FROM user_tokens"); got != "3000000000" {
		t.Errorf("the row is of user %s", got)
	}
	if mode := get[string](t, f.db, "SELECT @@SESSION.sql_mode"); mode != "" {
		t.Errorf("sql_mode is %q after Migrate", mode)
	}
	// The column is too narrow from the start.
	mustExec(t, f.db, "ALTER TABLE users MODIFY id INT NOT NULL")
	mustExec(t, f.db, "DELETE FROM user_tokens")
	mustExec(t, f.db, "ALTER TABLE user_tokens MODIFY user SMALLINT NOT NULL")
	_, err = newManager[Row](t, f.db, f.dsn, Config{}).auth.LoginAs(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil), 5)
	wantError(t, err, ErrConfig)
}

// key8 returns the key '7' as a column of this type returns it.
func key8(definition string) any {
	if strings.HasPrefix(definition, "BINARY") {
		return []byte("7\x00\x00\x00\x00\x00\x00\x00")
	}
	return "7"
}

func casePasswordChangedBySQL(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ before, after any }{
		"another":          {hashOf("one"), hashOf("two")},
		"set":              {nil, hashOf("one")},
		"taken away":       {hashOf("one"), nil},
		"emptied":          {hashOf("one"), ""},
		"from NULL":        {nil, ""},
		"disabled":         {hashOf("one"), "!" + hashOf("one")},
		"the salt only":    {hashOf("one"), hashOf("one")[:10] + "A" + hashOf("one")[11:]},
		"another's scheme": {"5f4dcc3b5aa765d61d8327deb882cf99", hashOf("password")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, Config{})
			mustExec(t, f.db, "UPDATE users SET password = ? WHERE id = 1", test.before)
			alices, bobs := newBrowser(chrome130), newBrowser(chrome130)
			f.loginAs(alices, 1)
			f.loginAs(bobs, 2)
			f.wantLoggedIn(alices)
			mustExec(t, f.db, "UPDATE users SET password = ? WHERE id = 1", test.after)
			f.wantDeleted(alices, ErrAccountChanged)
			f.wantLoggedIn(bobs)
		})
	}
	// Turned off and on again.
	off := setup(t, Config{IgnorePasswordChanges: true})
	b := newBrowser(chrome130)
	off.login(b, alice)
	mustExec(t, off.db, "UPDATE users SET password = ? WHERE id = 1", hashOf("two"))
	off.wantLoggedIn(b)
	on := newManager[user](t, off.db, off.dsn, Config{})
	on.wantDeleted(b, ErrAccountChanged)
	// Rows without a stamp, such as CandyPack's, are not compared.
	on.login(b, Credentials{"email": alice["email"], "password": "two"})
	on.waitForPurge()
	mustExec(t, on.db, "UPDATE user_tokens SET stamp = NULL")
	mustExec(t, on.db, "UPDATE users SET password = ? WHERE id = 1", hashOf("three"))
	on.wantLoggedIn(b)
}

func caseChangesThatKeepSessions(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{PasswordCost: 5}) // the next login rehashes
	tab, laptop := newBrowser(chrome130), newBrowser(firefox)
	f.loginAs(laptop, 1)
	hash := func() string { return get[string](t, f.db, "SELECT password FROM users WHERE id = 1") }
	before := hash()
	f.login(tab, alice)
	if hash() == before {
		t.Error("the hash was not renewed")
	}
	f.wantLoggedIn(tab)
	f.wantLoggedIn(laptop)

	// The app changes the password itself, and calls Rotate in the same
	// request.
	f.handle(tab, func(w http.ResponseWriter, r *http.Request) {
		mustExec(t, f.db, "UPDATE users SET password = ? WHERE id = 1", hashOf("two"))
		noError(t, f.auth.Rotate(w, r))
	})
	f.wantLoggedIn(tab)
	f.wantDeleted(laptop, ErrAccountChanged)
	f.loginAs(laptop, 1)
	f.handle(tab, func(w http.ResponseWriter, r *http.Request) {
		mustExec(t, f.db, "UPDATE users SET password = ? WHERE id = 1", hashOf("three"))
		noError(t, f.auth.LogoutOthers(w, r))
	})
	f.wantLoggedIn(tab)
	f.wantRejected(laptop, ErrUnknownSession)

	// SetPassword keeps the session that calls it.
	f.loginAs(laptop, 1)
	f.handle(tab, func(w http.ResponseWriter, r *http.Request) {
		noError(t, f.auth.SetPassword(w, r, "three", "four"))
	})
	f.wantLoggedIn(tab)
	f.wantRejected(laptop, ErrUnknownSession)
}

func caseSetPasswordWithoutTheOldOne(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b := newBrowser(chrome130)
	set := func(do func(http.ResponseWriter, *http.Request) error) (err error) {
		t.Helper()
		f.handle(b, func(w http.ResponseWriter, r *http.Request) { err = do(w, r) })
		return err
	}
	without := func(w http.ResponseWriter, r *http.Request) error {
		return f.auth.SetPassword(w, r, r.PostFormValue("old"), "stolen")
	}
	reset := func(w http.ResponseWriter, r *http.Request) error { return f.auth.ResetPassword(w, r, "stolen") }
	f.login(b, alice)
	wantError(t, set(without), ErrInvalidCredentials)
	wantError(t, set(reset), ErrReauthRequired)
	f.loginAs(b, 1)
	wantError(t, set(without), ErrInvalidCredentials)
	f.waitForPurge()
	mustExec(t, f.db, "UPDATE user_tokens SET date = FROM_UNIXTIME(UNIX_TIMESTAMP() - 601)")
	wantError(t, set(reset), ErrReauthRequired)
	mustExec(t, f.db, "UPDATE user_tokens SET date = FROM_UNIXTIME(UNIX_TIMESTAMP() + 86400)")
	wantError(t, set(reset), ErrReauthRequired)
	if hash := get[string](t, f.db, "SELECT password FROM users WHERE id = 1"); hash != hashOf(alice["password"]) {
		t.Fatal("the password was changed")
	}
	thief := newBrowser(firefox)
	f.loginAs(thief, 1)
	f.loginAs(b, 1)
	noError(t, set(reset))
	f.wantLoggedIn(b)
	f.wantRejected(thief, ErrUnknownSession)
	wantError(t, set(reset), ErrReauthRequired) // only once
	f.login(newBrowser(chrome130), Credentials{"email": alice["email"], "password": "stolen"})

	// For a table without the columns, the error contains the statement to run.
	f.waitForPurge()
	mustExec(t, f.db, "ALTER TABLE user_tokens DROP COLUMN method")
	old := newManager[user](t, f.db, f.dsn, Config{})
	old.handle(b, func(w http.ResponseWriter, r *http.Request) {
		err := old.auth.ResetPassword(w, r, "x")
		wantError(t, err, ErrConfig)
		if !strings.Contains(err.Error(), "ADD COLUMN method") {
			t.Error(err)
		}
	})
}

// A lowercased is a key type of an app.
type lowercased string

func (s lowercased) Value() (driver.Value, error) { return strings.ToLower(string(s)), nil }

func caseKeysTheColumnCannotHold(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		key      string
		is       any
		good     []any
		unknown  []any
		unusable []any
	}{
		{"BINARY(16)", uuid{1, 15: 2}, []any{uuid{1, 15: 2}, []byte("\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02")}, []any{uuid{3}},
			[]any{"01000000-0000-0000-0000-000000000002", "01000000000000000000000000000002", []byte{1}, nil}},
		{"INT", 7, []any{7, "7", int8(7), uint64(7), []byte("7")}, []any{8, -7}, []any{"07", "7 ", "7.0", "0x7", "VII", 1 << 40, 7.0, time.Now(), nil, struct{}{}}},
		{"TINYINT UNSIGNED", 200, []any{200}, []any{201}, []any{-1, 256, 300}},
		{"VARCHAR(8) CHARACTER SET ascii", "admin", []any{"admin", lowercased("ADMIN"), []byte("admin")}, []any{"adm"}, []any{"ädmin", "administrator", "\xff"}},
		{"VARBINARY(4)", "abc", []any{"abc"}, []any{"ABC"}, []any{"abcde"}},
	} {
		if id, ok := test.is.(uuid); ok {
			test.is = id[:]
		}
		f := setupKeyed(t, test.key, Config{}, test.is)
		for _, key := range test.good {
			f.loginAs(newBrowser(chrome130), key)
			if s, err := f.auth.Sessions(t.Context(), key); len(s) != 1 || err != nil {
				t.Errorf("%s: Sessions(%v): %v, %v", test.key, key, s, err)
			}
			if n, err := f.auth.LogoutAll(t.Context(), key); n != 1 || err != nil {
				t.Errorf("%s: LogoutAll(%v): %d, %v", test.key, key, n, err)
			}
		}
		for _, key := range test.unknown {
			if n, err := f.auth.LogoutAll(t.Context(), key); n != 0 || err != nil {
				t.Errorf("%s: LogoutAll(%v): %d, %v", test.key, key, n, err)
			}
		}
		for _, key := range test.unusable {
			_, err := f.auth.LogoutAll(t.Context(), key)
			wantError(t, err, ErrInvalidArgument)
			_, err = f.auth.Sessions(t.Context(), key)
			wantError(t, err, ErrInvalidArgument)
			wantError(t, f.auth.Revoke(t.Context(), key, "x"), ErrInvalidArgument)
			_, err = f.auth.LoginAs(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil), key)
			wantError(t, err, ErrInvalidArgument)
		}
	}
}

func caseKeysToTheLetter(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has other collations")
	for _, collation := range []string{"utf8mb4_general_ci", "utf8mb4_unicode_ci", "utf8mb4_unicode_520_ci"} {
		f := setupKeyed(t, "VARCHAR(64) COLLATE "+collation, Config{}, "admin")
		b := newBrowser(chrome130)
		f.loginAs(b, "admin")
		for _, key := range []string{"ADMIN", "Admin", "ädmin", "admin ", "ADMÍN"} {
			_, err := f.auth.LoginAs(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil), key)
			wantError(t, err, ErrUserNotFound)
			n, err := f.auth.LogoutAll(t.Context(), key)
			if n != 0 || err != nil {
				t.Errorf("LogoutAll(%q): %d, %v", key, n, err)
			}
		}
		f.wantLoggedIn(b)
	}
}

func caseWhatWasBegunIsFinished(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has no row locks")
	f := setup(t, Config{})
	for name, do := range map[string]func(w http.ResponseWriter, r *http.Request) error{
		"Logout":       f.auth.Logout,
		"Rotate":       f.auth.Rotate,
		"LogoutOthers": f.auth.LogoutOthers,
		"LogoutAll":    func(_ http.ResponseWriter, r *http.Request) error { return errOnly(f.auth.LogoutAll(r.Context(), 1)) },
		"SetPassword": func(w http.ResponseWriter, r *http.Request) error {
			return f.auth.SetPassword(w, r, alice["password"], alice["password"])
		},
	} {
		b, thief := newBrowser(chrome130), newBrowser(firefox)
		f.login(b, alice)
		copied := *b
		copied.cookies = map[string]string{"__Host-session": b.cookies["__Host-session"]}
		f.login(thief, alice)
		f.waitForPurge()
		// Another transaction locks the row until the client has disconnected.
		lock := f.db.MustBegin()
		defer lock.Rollback()
		lock.MustExec("SELECT * FROM user_tokens FOR UPDATE")
		f.handle(b, func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithCancel(r.Context())
			ctx, end := context.WithDeadline(ctx, time.Now().Add(time.Hour))
			defer end()
			done := make(chan error)
			go func() { done <- do(w, r.WithContext(ctx)) }()
			waitForLock(t, f.db)
			cancel()
			noError(t, lock.Rollback())
			if err := <-done; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		f.wantRejected(&copied, ErrUnknownSession)
		if name != "Logout" && name != "Rotate" {
			f.wantRejected(thief, ErrUnknownSession)
		}
	}
}

// waitForLock waits until a second connection is in use: its statement waits
// for the lock.
func waitForLock(t *testing.T, db *sqlx.DB) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for seen := 0; seen < 20; <-time.After(5 * time.Millisecond) {
		if seen++; db.Stats().InUse < 2 {
			seen = 0
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing waits for the lock")
		}
	}
}

func caseSessionIDs(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "keeps no table comments")
	f := setup(t, Config{})
	b, other := newBrowser(chrome130), newBrowser(firefox)
	f.login(other, bob)
	f.login(b, alice)
	id := func(b *browser) (id string) {
		f.handle(b, func(w http.ResponseWriter, r *http.Request) { id = f.auth.Session(r).ID })
		return id
	}
	first := id(b)
	if len(first) != 16 || strings.HasPrefix(first, get[string](t, f.db, "SELECT id FROM user_tokens WHERE user = 1")+"-") || first == id(other) {
		t.Errorf("%q", first)
	}
	f.handle(b, func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.Rotate(w, r)) })
	restarted := newManager[user](t, f.db, f.dsn, Config{}) // on another app server
	noError(t, errOnly(restarted.auth.Stats(t.Context())))
	var there string
	restarted.handle(b, func(w http.ResponseWriter, r *http.Request) { there = restarted.auth.Session(r).ID })
	if id(b) != first || there != first {
		t.Errorf("%q is %q after Rotate, %q on another server", first, id(b), there)
	}
	sessions, err := f.auth.Sessions(t.Context(), 1)
	if err != nil || len(sessions) != 1 || sessions[0].ID != first {
		t.Errorf("%v, %v", sessions, err)
	}
	wantError(t, f.auth.Revoke(t.Context(), 2, first), ErrSessionNotFound)
	wantError(t, f.auth.Revoke(t.Context(), 1, get[string](t, f.db, "SELECT id FROM user_tokens WHERE user = 1")), ErrSessionNotFound)
	noError(t, f.auth.Revoke(t.Context(), 1, first))
	f.wantRejected(b, ErrUnknownSession)
	f.wantLoggedIn(other)
}
