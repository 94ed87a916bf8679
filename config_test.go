package session

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/candysession/session/internal/token"
	"github.com/candysession/session/throttle"
	"github.com/go-sql-driver/mysql"
)

func TestSeedConfigurations(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		auth              string
		maxAge, updateAge time.Duration
	}{
		"standard":                  {`{"table": "users", "key": "id", "token": "user_tokens", "maxAge": 2592000000, "updateAge": 86400000}`, 30 * 24 * time.Hour, 24 * time.Hour},
		"banking":                   {`{"maxAge": 900000, "updateAge": 300000}`, 15 * time.Minute, 5 * time.Minute},
		"social":                    {`{"maxAge": 7776000000, "updateAge": 86400000}`, 90 * 24 * time.Hour, 24 * time.Hour},
		"nothing set":               {`{}`, 30 * 24 * time.Hour, 24 * time.Hour},
		"zero is the default":       {`{"maxAge": 0, "updateAge": 0}`, 30 * 24 * time.Hour, 24 * time.Hour},
		"a short maxAge alone":      {`{"maxAge": 3600000}`, time.Hour, 30 * time.Minute},
		"a maxAge of two days":      {`{"maxAge": 172800000}`, 48 * time.Hour, 24 * time.Hour},
		"numbers with an exponent":  {`{"maxAge": 9e5}`, 15 * time.Minute, 7*time.Minute + 30*time.Second},
		"the shortest maxAge":       {`{"maxAge": 1000}`, time.Second, 500 * time.Millisecond},
		"updateAge just below":      {`{"maxAge": 900000, "updateAge": 899999}`, 15 * time.Minute, 15*time.Minute - time.Millisecond},
		"an updateAge alone":        {`{"updateAge": 3600000}`, 30 * 24 * time.Hour, time.Hour},
		"the longest that is taken": {`{"maxAge": 1576800000000}`, maxDuration, 24 * time.Hour},
	} {
		c, _, err := LoadConfig(writeConfig(t, `{"auth": `+test.auth+`}`))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		full, err := c.withDefaults()
		if err != nil || full.MaxAge != test.maxAge || full.UpdateAge != test.updateAge || full.UsersTable != "users" || full.KeyColumn != "id" || full.TokenTable != "user_tokens" {
			t.Errorf("%s: %v, %v", name, full, err)
		}
	}
}

func TestZeroConfig(t *testing.T) {
	t.Parallel()
	c, err := Config{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if c.MaxAge != DefaultMaxAge || c.UpdateAge != DefaultUpdateAge || c.PasswordCost != 10 || c.TokenCost != 4 ||
		c.Cookie.Name != "__Host-session" || c.Cookie.Path != "/" || c.HomeURL != "/" || c.MaxLifetime != 0 || c.Cookie.Insecure {
		t.Errorf("%v", c)
	}
}

func TestEverySetting(t *testing.T) {
	const file = "\xef\xbb\xbf" + `{
		"server": {"port": 80},
		"auth": {
			"table": "app.people", "key": "uid", "password": "hash", "token": "app.logins", "accountColumns": ["created_at"], "ignorePasswordChanges": true,
			"maxAge": 3600000, "updateAge": 60000, "maxLifetime": 7200000, "timeout": 5000, "passwordCost": 12, "tokenCost": 5,
			"loginURL": "/login", "homeURL": "/home", "confirmURL": "/confirm", "maxSessions": 9, "cookieName": "sid", "cookieDomain": "example.com", "cookiePath": "/app", "sameSite": "lax",
			"candyPack": "off", "transient": true, "insecure": true, "fingerprint": "off",
			"cacheFresh": 1000, "cacheStale": 60000, "cacheEntries": 500
		},
		"mysql": {"host": "db.example.com", "port": 3307, "user": "app", "password": "p@ss/w:rd?", "database": "app"}
	}`
	c, loaded, err := LoadConfig(writeConfig(t, file))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.String(), `session.Config{UsersTable:"app.people" KeyColumn:"uid" PasswordColumn:"hash" TokenTable:"app.logins" MaxAge:1h0m0s UpdateAge:1m0s MaxLifetime:2h0m0s Timeout:5s`+
		` AccountColumns:["created_at"] IgnorePasswordChanges:true`+
		` PasswordCost:12 TokenCost:5 LoginURL:"/login" HomeURL:"/home" ConfirmURL:"/confirm" MaxSessions:9 Cookie.Name:"sid" Cookie.Domain:"example.com" Cookie.Path:"/app"`+
		` Cookie.SameSite:2 Cookie.NoReload:false CandyPack:off Cookie.Transient:true Cookie.Insecure:true Cache:{1s 1m0s 500} Fingerprint:true ClientIP:false Replica:false Throttle:false Limits:`+fmt.Sprint(throttle.Limits{})+` VerifyPassword:false OnError:false OnEvent:false Logger:false}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !c.Fingerprint.Match("a", "b") {
		t.Error("the fingerprint is not off")
	}
	dsn, err := mysql.ParseDSN(loaded)
	if err != nil || dsn.User != "app" || dsn.Passwd != "p@ss/w:rd?" || dsn.Addr != "db.example.com:3307" || dsn.DBName != "app" {
		t.Errorf("%+v, %v", dsn, err)
	}

	// The environment overrides the file, and works without one.
	configSettings.Each(func(_, _, env string) { t.Setenv(env, "") })
	t.Setenv("SESSION_MAX_AGE", " 900000 ")
	t.Setenv("SESSION_TABLE", "accounts")
	t.Setenv("SESSION_LOGIN_URL", "https://id.example.com/login")
	t.Setenv("SESSION_FINGERPRINT", "exact")
	t.Setenv("SESSION_INSECURE", "false")
	t.Setenv("SESSION_DSN", "root@/other")
	c, loaded, err = LoadConfig(writeConfig(t, file))
	if err != nil || c.MaxAge != 15*time.Minute || c.UpdateAge != time.Minute || c.UsersTable != "accounts" || c.LoginURL != "https://id.example.com/login" ||
		c.Fingerprint.Match("a", "b") || c.Cookie.Insecure || !c.Cookie.Transient || loaded != "root@/other" {
		t.Errorf("%v, %q, %v", c, loaded, err)
	}
	c, loaded, err = LoadConfig("")
	if err != nil || loaded != "root@/other" || c.MaxAge != 15*time.Minute || c.UpdateAge != 0 || c.UsersTable != "accounts" || c.TokenTable != "" {
		t.Errorf("%v, %v", c, err)
	}
	for name, value := range map[string]string{
		"SESSION_MAX_AGE": "15m", "SESSION_PASSWORD_COST": "high", "SESSION_TRANSIENT": "yes", "SESSION_FINGERPRINT": "none", "SESSION_UPDATE_AGE": "null",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			_, _, err := LoadConfig("")
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "environment: "+name+` = "`+value+`": must be`) {
				t.Error(err)
			}
		})
	}
}

// As in CandyPack's config.json, variables come from the environment, or from a
// .env file in the same directory.
func TestVariablesInTheFile(t *testing.T) {
	t.Setenv("SESSION_TEST_HOST", "db.example.com")
	t.Setenv("SESSION_TEST_EMPTY", "")
	t.Setenv("SESSION_TEST_SECRET", "secret")
	path := writeConfig(t, `{
		"mail": {"from": "${SESSION_TEST_NOBODY_SETS_THIS}"},
		"auth": {"token": "${SESSION_TEST_TABLE}_tokens", "key": "${SESSION_TEST_HASH}", "maxAge": "${SESSION_TEST_AGE}"},
		"mysql": {"host": "${SESSION_TEST_HOST}", "port": "${SESSION_TEST_PORT}", "user": "${SESSION_TEST_USER}", "password": "a$b${SESSION_TEST_PASSWORD}${SESSION_TEST_EMPTY}${", "database": "app"}
	}`)
	env := "# a comment = none\n\nSESSION_TEST_HOST=not this one\nexport\tSESSION_TEST_USER = 'app' # a comment\nSESSION_TEST_PORT=3307 # another\nSESSION_TEST_AGE=3600000\nSESSION_TEST_HASH=a#b\nSESSION_TEST_TABLE=web\r\nSESSION_TEST_PASSWORD=\"p#w=${x}\"\nbroken\n"
	noError(t, os.WriteFile(filepath.Join(filepath.Dir(path), ".env"), []byte(env), 0o600))
	t.Setenv("SESSION_KEY_COLUMN", "uid")
	c, loaded, err := LoadConfig(path)
	noError(t, err)
	dsn, err := mysql.ParseDSN(loaded)
	if err != nil || dsn.Addr != "db.example.com:3307" || c.MaxAge != time.Hour || c.KeyColumn != "uid" || dsn.User != "app" || dsn.Passwd != "a$bp#w=${x}${" || c.TokenTable != "web_tokens" {
		t.Errorf("%+v, %v, %v", dsn, c.TokenTable, err)
	}

	for text, want := range map[string]string{
		`{"auth": {}, "mysql": {"user": "app", "database": "app", "password": "secret ${SESSION_TEST_MISSING}"}}`: `mysql.password: the variable SESSION_TEST_MISSING is set neither in the environment nor in .env`,
		`{"auth": {"token": "${SESSION_TEST_MISSING}"}}`:                                                          `auth.token: the variable SESSION_TEST_MISSING is set`,
	} {
		if _, _, err := LoadConfig(writeConfig(t, text)); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// A setting that the environment overrides does not need the variable in the
// file.
func TestOverriddenVariables(t *testing.T) {
	t.Setenv("SESSION_TOKEN_TABLE", "tokens")
	t.Setenv("SESSION_DSN", "app:secret@tcp(db:3306)/app")
	c, dsn, err := LoadConfig(writeConfig(t, `{"auth": {"token": "${SESSION_TEST_MISSING}"}, "mysql": {"password": "${SESSION_TEST_MISSING}"}}`))
	if err != nil || c.TokenTable != "tokens" || dsn != "app:secret@tcp(db:3306)/app" {
		t.Errorf("%v, %v", c, err)
	}
}

// Every key of the file has a field in Config, and every field that a file can
// contain has a key.
func TestOptionsCoverConfig(t *testing.T) {
	t.Parallel()
	inGoOnly := map[string]bool{"Cache": true, "Cookie": true, "Replica": true, "ClientIP": true, "VerifyPassword": true, "Throttle": true, "Limits": true, "OnEvent": true, "OnError": true, "Logger": true}
	byField := map[string]string{}
	configSettings.Each(func(field, key, _ string) { byField[field] = key })
	config := reflect.TypeFor[Config]()
	for i := range config.NumField() {
		name := config.Field(i).Name
		if (byField[name] != "") == inGoOnly[name] {
			t.Errorf("Config.%s has the key %q", name, byField[name])
		}
		delete(byField, name)
	}
	for _, group := range []reflect.Type{reflect.TypeFor[Cache](), reflect.TypeFor[Cookie]()} {
		for i := range group.NumField() {
			name := group.Name() + "." + group.Field(i).Name
			if byField[name] == "" && name != "Cookie.NoReload" {
				t.Errorf("%s has no key", name)
			}
			delete(byField, name)
		}
	}
	if len(byField) != 0 {
		t.Errorf("keys without a field: %v", byField)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	configSettings.Each(func(_, key, _ string) {
		if !strings.Contains(string(readme), "| `"+key+"` |") {
			t.Errorf("README.md has no row for %s", key)
		}
	})
}

// An error names the variable if the value comes from the environment.
// Variables with the names of common secrets are not read.
func TestErrorsNameTheEnvironment(t *testing.T) {
	t.Setenv("SESSION_UPDATE_AGE", "900000")
	_, _, err := LoadConfig(writeConfig(t, `{"auth": {"maxAge": 900000, "updateAge": 300000}}`))
	if err == nil || !strings.HasPrefix(err.Error(), "session: environment: SESSION_UPDATE_AGE = 15m0s: must be less than MaxAge") {
		t.Error(err)
	}
	t.Setenv("SESSION_UPDATE_AGE", "")
	for _, name := range []string{"SESSION_KEY", "SESSION_PASSWORD", "SESSION_TOKEN"} {
		t.Setenv(name, "a secret of another program")
	}
	t.Setenv("SESSION_PASSWORD_COLUMN", "hash")
	t.Setenv("SESSION_KEY_COLUMN", "uid")
	t.Setenv("SESSION_TOKEN_TABLE", "logins")
	c, _, err := LoadConfig("")
	if err != nil || c.PasswordColumn != "hash" || c.KeyColumn != "uid" || c.TokenTable != "logins" {
		t.Errorf("%v, %v", c, err)
	}
}

var badConfigs = []struct{ file, says string }{
	// wrong types
	{`{"auth": {"table": 5}}`, `auth.table = 5: must be a string`},
	{`{"auth": {"table": null}}`, `auth.table = null: must be a string`},
	{`{"auth": {"maxAge": "900000"}}`, `auth.maxAge = "900000": must be a whole number of milliseconds`},
	{`{"auth": {"maxAge": 1000.5}}`, `auth.maxAge = 1000.5: must be a whole number of milliseconds`},
	{`{"auth": {"maxAge": null}}`, `auth.maxAge = null: must be a whole number of milliseconds`},
	{`{"auth": {"maxAge": true}}`, `auth.maxAge = true: must be a whole number of milliseconds`},
	{`{"auth": {"maxAge": 1e300}}`, `auth.maxAge = 1e300: must be a whole number of milliseconds, at most fifty years`},
	{`{"auth": {"passwordCost": "10"}}`, `auth.passwordCost = "10": must be a whole number`},
	{`{"auth": {"passwordCost": 10.5}}`, `auth.passwordCost = 10.5: must be a whole number`},
	{`{"auth": {"insecure": 1}}`, `auth.insecure = 1: must be true or false`},
	{`{"auth": {"fingerprint": "none"}}`, `auth.fingerprint = "none": must be "family" or "exact" or "off"`},
	{`{"auth": {"candyPack": 2}}`, `auth.candyPack = 2: must be "off" or "share" or "switch"`},
	{`{"auth": []}`, `auth: must be a JSON object`},
	{`{"auth": null}`, `auth: must be a JSON object`},
	{`[]`, `the file: must be a JSON object`},
	{`null`, `the file: must be a JSON object`},
	// negative, too small, too large, not below
	{`{"auth": {"maxAge": -1}}`, `auth.maxAge = -1: must be a whole number of milliseconds`},
	{`{"auth": {"updateAge": -1}}`, `auth.updateAge = -1: must be a whole number of milliseconds`},
	{`{"auth": {"maxLifetime": -1}}`, `auth.maxLifetime = -1: must be a whole number of milliseconds`},
	{`{"auth": {"maxAge": 999}}`, `auth.maxAge = 999ms: must be from one second to 50 years`},
	{`{"auth": {"timeout": 99}}`, `auth.timeout = 99ms: must be from 100ms to an hour (0 gives 10s)`},
	{`{"auth": {"maxLifetime": 999}}`, `auth.maxLifetime = 999ms: must be from one second to 50 years`},
	{`{"auth": {"maxAge": 900000, "updateAge": 900000}}`, `auth.updateAge = 15m0s: must be less than MaxAge (15m0s)`},
	{`{"auth": {"updateAge": 2592000001}}`, `auth.updateAge = 720h0m0.001s: must be less than MaxAge (720h0m0s)`},
	{`{"auth": {"passwordCost": 3}}`, `auth.passwordCost = 3: must be from 4 to 16`},
	{`{"auth": {"passwordCost": 17}}`, `auth.passwordCost = 17: must be from 4 to 16`},
	{`{"auth": {"tokenCost": 3}}`, `auth.tokenCost = 3: must be from 4 to 14`},
	{`{"auth": {"tokenCost": 15}}`, `auth.tokenCost = 15: must be from 4 to 14`},
	{`{"auth": {"cacheFresh": -1}}`, `auth.cacheFresh = -1: must be a whole number of milliseconds`},
	{`{"auth": {"cacheFresh": 2000, "cacheStale": 1000}}`, `auth.cacheStale = 1s: must be 0, or not below Cache.Fresh, 2s`},
	{`{"auth": {"cacheEntries": -1}}`, `auth.cacheEntries = -1: must not be negative`},
	// unknown keys
	{`{"auth": {"maxage": 900000}}`, `auth.maxage: is not a setting; did you mean maxAge?`},
	{`{"auth": {"ttl": 900000}}`, `auth.ttl: is not a setting; known are table, key, password`},
	{`{"Auth": {}}`, `block "auth": is missing`},
	// identifiers
	{`{"auth": {"table": "users; DROP TABLE users"}}`, `auth.table = "users; DROP TABLE users": must be a name`},
	{"{\"auth\": {\"table\": \"us`ers\"}}", "auth.table = \"us`ers\": must be a name"},
	{`{"auth": {"table": "a.b.c"}}`, `auth.table = "a.b.c": must be a name`},
	{`{"auth": {"table": "app."}}`, `auth.table = "app.": must be a name`},
	{`{"auth": {"table": ".users"}}`, `auth.table = ".users": must be a name`},
	{`{"auth": {"token": "my tokens"}}`, `auth.token = "my tokens": must be a name`},
	{`{"auth": {"key": "users.id"}}`, `auth.key = "users.id": must be a name`},
	{`{"auth": {"password": "pass word"}}`, `auth.password = "pass word": must be a name`},
	{`{"auth": {"table": "` + strings.Repeat("x", 65) + `"}}`, `at most 64 characters`},
	{`{"auth": {"token": "Users"}}`, `auth.token = "Users": must differ from UsersTable`},
	{`{"auth": {"password": "ID"}}`, `auth.password = "ID": must differ from KeyColumn`},
	// cookies
	{`{"auth": {"cookieName": "my session"}}`, `auth.cookieName = "my session": must be a cookie name: no spaces`},
	{`{"auth": {"cookieName": "a=b"}}`, `auth.cookieName = "a=b": must be a cookie name`},
	{`{"auth": {"cookieName": "sid", "candyPack": "share"}}`, `auth.cookieName = "sid": must be empty with CandyPackShare`},
	{`{"auth": {"confirmURL": "confirm"}}`, `auth.confirmURL = "confirm": must be a path such as /confirm`},
	{`{"auth": {"maxSessions": -1}}`, `auth.maxSessions = -1: must not be negative`},
	{`{"auth": {"cookieDomain": "example.com", "candyPack": "share"}}`, `auth.cookieDomain = "example.com": must be empty with CandyPack`},
	{`{"auth": {"cookiePath": "/app", "candyPack": "switch"}}`, `auth.cookiePath = "/app": must be / with CandyPack`},
	{`{"auth": {"cookieName": "candy_x", "candyPack": "switch"}}`, `auth.cookieName = "candy_x": is one of CandyPack's`},
	{`{"auth": {"cookieName": "__Host-sid", "insecure": true}}`, `auth.cookieName = "__Host-sid": a __Host- cookie requires Secure`},
	{`{"auth": {"cookieName": "__host-sid", "cookieDomain": "example.com"}}`, `auth.cookieName = "__host-sid": a __Host- cookie requires`},
	{`{"auth": {"cookieName": "__Host-sid", "cookiePath": "/app"}}`, `auth.cookieName = "__Host-sid": a __Host- cookie requires`},
	{`{"auth": {"cookieName": "__Secure-sid", "insecure": true}}`, `auth.cookieName = "__Secure-sid": a __Secure- cookie requires Secure`},
	{`{"auth": {"cookieDomain": "exa mple.com"}}`, `auth.cookieDomain = "exa mple.com": must be a host name`},
	{`{"auth": {"cookieDomain": ".example.com"}}`, `auth.cookieDomain = ".example.com": must be a host name such as example.com, without a dot`},
	{`{"auth": {"cookiePath": "app"}}`, `auth.cookiePath = "app": must begin with /`},
	{`{"auth": {"cookiePath": "/a;b"}}`, `auth.cookiePath = "/a;b": must begin with / and have no ;`},
	{`{"auth": {"sameSite": "none"}}`, `auth.sameSite = "none": must be "strict" or "lax"`},
	{`{"auth": {"sameSite": ""}}`, `auth.sameSite = "": must be "strict" or "lax"`},
	// URLs
	{`{"auth": {"loginURL": "login"}}`, `auth.loginURL = "login": must be a path such as /login, or an http(s) URL`},
	{`{"auth": {"loginURL": "//evil.example"}}`, `auth.loginURL = "//evil.example": must be a path`},
	{`{"auth": {"homeURL": "javascript:alert(1)"}}`, `auth.homeURL = "javascript:alert(1)": must be a path`},
	// the database
	{`{"auth": {}, "mysql": {"user": "app", "database": "app", "port": 0}}`, `mysql.port = 0: must be a number from 1 to 65535`},
	{`{"auth": {}, "mysql": {"user": "app", "database": "app", "port": 65536}}`, `mysql.port = 65536: must be a number from 1 to 65535`},
	{`{"auth": {}, "mysql": {"user": "app", "database": "app", "port": "3306"}}`, `mysql.port: must be a number from 1 to 65535`},
	{`{"auth": {}, "mysql": {"user": "app", "database": "app", "password": 12345}}`, `mysql.password: must be a string`},
	{`{"auth": {}, "mysql": {"database": "app"}}`, `mysql.user: is missing`},
	{`{"auth": {}, "mysql": {"user": "app"}}`, `mysql.database: is missing`},
	{`{"auth": {}, "mysql": {"user": "app", "database": "app", "pass": "x"}}`, `mysql.pass: is not a setting; known are host, port, user, password, database`},
	{`{"auth": {}, "mysql": "root@/app"}`, `mysql: must be a JSON object`},
	// broken JSON
	{"{\n  \"auth\": {\n    \"maxAge\": 9000 00\n  }\n}", `:3:20: JSON: invalid character '0' after object key:value pair`},
	{"{\"auth\": {},}", `:1:13: JSON: invalid character '}' looking for beginning of object key string`},
	{"{\"auth\": {}\n", `:2:1: JSON: unexpected end of JSON input`},
	{``, `:1:1: JSON: unexpected end of JSON input`},
	{"{\"auth\": {}} x", `:1:14: JSON: invalid character 'x' after top-level value`},
}

func TestBadConfigs(t *testing.T) {
	t.Parallel()
	for _, test := range badConfigs {
		path := writeConfig(t, test.file)
		_, _, err := LoadConfig(path)
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), test.says) || !strings.HasPrefix(err.Error(), "session: "+path) {
			t.Errorf("%s\n  error is %v\n  want it to say %s", test.file, err, test.says)
		}
		if err != nil && strings.Contains(err.Error(), "12345") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
	_, _, err := LoadConfig(filepath.Join(t.TempDir(), "none.json"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// Values that only a Config made in Go can have.
func TestBadConfigsInGo(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		cfg  Config
		says string
	}{
		{Config{MaxAge: -time.Hour}, "session: Config.MaxAge = -1h0m0s: must be from one second to 50 years"},
		{Config{MaxAge: maxDuration + 1}, "session: Config.MaxAge"},
		{Config{MaxLifetime: maxDuration + 1}, "session: Config.MaxLifetime"},
		{Config{UpdateAge: -time.Hour}, "session: Config.UpdateAge = -1h0m0s: must not be negative"},
		{Config{MaxLifetime: -1}, "session: Config.MaxLifetime = -1ns: must be from one second to 50 years"},
		{Config{MaxAge: time.Hour, UpdateAge: time.Hour}, "session: Config.UpdateAge = 1h0m0s: must be less than MaxAge"},
		{Config{CandyPack: 7}, "session: Config.CandyPack = 7: must be CandyPackOff, CandyPackShare or CandyPackSwitch"},
		{Config{Cookie: Cookie{SameSite: http.SameSiteNoneMode}}, "session: Config.Cookie.SameSite = 4: must be http.SameSiteStrictMode (or 0, which gives that) or http.SameSiteLaxMode"},
		{Config{Cookie: Cookie{SameSite: http.SameSiteDefaultMode}}, "session: Config.Cookie.SameSite = 1: must be"},
		{Config{Cache: Cache{Fresh: -1}}, "session: Config.Cache.Fresh = -1ns: must not be negative"},
		{Config{Cache: Cache{Stale: -1}}, "session: Config.Cache.Stale = -1ns: must be 0"},
		{Config{PasswordCost: -1}, "session: Config.PasswordCost = -1"},
		{Config{TokenCost: -1}, "session: Config.TokenCost = -1"},
		{Config{Limits: throttle.Limits{Everywhere: throttle.Limit{FreeFailures: -1}}}, "session: bad configuration: Config.Limits.Everywhere.FreeFailures = -1: must be from 1"},
	} {
		_, err := test.cfg.withDefaults()
		if !errors.Is(err, ErrConfig) || !strings.HasPrefix(err.Error(), test.says) {
			t.Errorf("error is %v, want %s", err, test.says)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, test := range badConfigs {
		f.Add([]byte(test.file))
	}
	f.Add([]byte(`{"auth": {"maxAge": 900000, "fingerprint": "exact"}, "mysql": {"user": "a", "database": "b"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c Config
		if _, err := configSettings.Parse("config.json", data, &c); err != nil {
			err = fileError(err)
			if !errors.Is(err, ErrConfig) {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		full, err := c.withDefaults()
		if err == nil && (full.UpdateAge >= full.MaxAge || full.MaxAge < time.Second || strings.Contains(full.UsersTable+full.TokenTable+full.KeyColumn+full.PasswordColumn, "`")) {
			t.Fatalf("%q gives %v", data, full)
		}
		if err == nil {
			w := recorder{}
			newCookies(full).write(w, token.New(), false)
			for _, line := range w["Set-Cookie"] {
				if _, err := http.ParseSetCookie(line); err != nil {
					t.Fatalf("%q gives the cookie %q", data, line)
				}
			}
			if len(w["Set-Cookie"]) == 0 || w["Set-Cookie"][0] == "" {
				t.Fatalf("%q gives no cookie", data)
			}
		}
		_ = fmt.Sprint(c)
	})
}

// A recorder is a response that keeps only the header.
type recorder http.Header

func (r recorder) Header() http.Header       { return http.Header(r) }
func (recorder) Write(p []byte) (int, error) { return len(p), nil }
func (recorder) WriteHeader(int)             {}
