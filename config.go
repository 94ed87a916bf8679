package session

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/candysession/session/internal/password"
	"github.com/candysession/session/internal/token"
	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
	"golang.org/x/crypto/bcrypt"
)

// Config configures a Manager. The zero value is ready to use: sessions expire
// after 30 days of inactivity and are renewed at most once a day. [LoadConfig]
// reads a Config from a config.json, under the key that each field names.
type Config struct {
	// UsersTable is the users table, as name or database.name.
	//
	// Defaults to "users". JSON: "table".
	UsersTable string

	// KeyColumn is the primary key of the users table: an integer, text or
	// binary column.
	//
	// Defaults to "id". JSON: "key".
	KeyColumn string

	// PasswordColumn is the column of the users table that holds the bcrypt
	// hash. It is never read into a user.
	//
	// Defaults to "password". JSON: "password".
	PasswordColumn string

	// TokenTable is the token table, created on first use. It holds the
	// sessions of one users table.
	//
	// Defaults to "user_tokens", for another UsersTable than users to its name
	// and "_session_tokens", and with CandyPack to "candy_auth". JSON: "token".
	TokenTable string

	// AccountColumns are further columns of the users table that identify the
	// account, such as created_at. A session ends when one of them changes, as
	// it does when the password changes. They distinguish accounts without a
	// password that succeed each other under one key. A change of this list
	// ends the sessions that began before.
	//
	// Defaults to none. JSON: "accountColumns".
	AccountColumns []string

	// IgnorePasswordChanges keeps sessions whose user's password hash was
	// changed by another program. Set it if such a program rehashes passwords
	// at its own logins, and call [Manager.LogoutAll] when a password changes.
	//
	// Defaults to false. JSON: "ignorePasswordChanges".
	IgnorePasswordChanges bool

	// MaxAge is the idle timeout (OWASP ASVS: inactivity timeout). Because a
	// request renews a session only after UpdateAge, the session expires
	// between MaxAge-UpdateAge and MaxAge after the last request. MaxAge must be
	// at least one second, the resolution of the database clock.
	//
	// Defaults to 30 days. JSON: "maxAge" (milliseconds).
	MaxAge time.Duration

	// UpdateAge is how long after its last renewal a request renews a session,
	// so an active session costs at most one write per UpdateAge. A renewal
	// writes no cookie. UpdateAge must be less than MaxAge.
	//
	// Defaults to 1 day, or half of MaxAge if that is less. JSON: "updateAge"
	// (milliseconds).
	UpdateAge time.Duration

	// MaxLifetime is the absolute lifetime of a session, counted from its login
	// (OWASP ASVS: absolute timeout).
	//
	// Defaults to 0 (none). JSON: "maxLifetime" (milliseconds).
	MaxLifetime time.Duration

	// PasswordCost is the bcrypt cost of password hashes, 4 to 16; each step
	// doubles the time. A login replaces a stored hash of lower cost. It should
	// be at least the cost of the existing hashes: wrong passwords take as long
	// as with the costliest of them up to cost 12, or PasswordCost if that is
	// higher, so users with costlier hashes can be identified by the response
	// time.
	//
	// Defaults to 10 (OWASP Password Storage Cheat Sheet: at least 10). JSON:
	// "passwordCost".
	PasswordCost int

	// TokenCost is the bcrypt cost of stored tokens, 4 to 14. Tokens have 256
	// random bits, so a higher cost adds no security.
	//
	// Defaults to 4. JSON: "tokenCost".
	TokenCost int

	// LoginURL is where Require redirects browsers that are not logged in: a
	// path of this site or an http(s) URL. If empty, Require always responds
	// with 401 Unauthorized.
	//
	// Defaults to "". JSON: "loginURL".
	LoginURL string

	// HomeURL is where Guest redirects logged-in browsers.
	//
	// Defaults to "/". JSON: "homeURL".
	HomeURL string

	// ConfirmURL is where RequireFresh redirects browsers whose login is too
	// old. If empty, RequireFresh responds with 403 Forbidden.
	//
	// Defaults to "". JSON: "confirmURL".
	ConfirmURL string

	// MaxSessions is the maximum number of sessions per user (OWASP ASVS 5.0
	// V7.1.2). A further login ends the session with the oldest login.
	//
	// Defaults to 0 (unlimited). JSON: "maxSessions".
	MaxSessions int

	// Cookie configures the session cookie.
	Cookie Cookie

	// CandyPack enables session sharing with a CandyPack app.
	//
	// Defaults to [CandyPackOff]. JSON: "candyPack" ("off", "share" or
	// "switch").
	CandyPack CandyPackMode

	// Fingerprint binds a session to a browser.
	//
	// Defaults to [FingerprintFamily], or with CandyPack to the whole
	// User-Agent, as CandyPack compares it. JSON: "fingerprint" ("family",
	// "exact" or "off").
	Fingerprint Fingerprint

	// ClientIP returns the client's IP address, which Throttle uses and which
	// is stored with the session. Behind a proxy, read a header that the proxy
	// overwrites, never one that clients can set. A port, brackets and a zone
	// are removed. Of a list, such as X-Forwarded-For, the last address counts,
	// because clients can make up the others. A text that is no address is
	// stored with at most 45 ASCII characters, and logged.
	//
	// Defaults to the host of RemoteAddr.
	ClientIP func(*http.Request) string

	// Cache trades freshness for fewer queries and for availability during
	// database outages. It is off by default.
	Cache Cache

	// Timeout bounds every database operation, including the wait for a
	// connection. It applies to each chunk of a purge; Migrate and Stats are
	// bounded only by their context. It also bounds the wait for bcrypt, which
	// then returns [ErrBusy], immediately if the calls ahead take longer. It
	// should exceed the time that a Galera cluster needs to evict a failed
	// node. With a pool that is not from [Open], or that has a longer
	// readTimeout, enforcing it makes a lookup about a tenth slower.
	//
	// Defaults to 10 seconds. JSON: "timeout" (milliseconds).
	Timeout time.Duration

	// Replica is an optional pool of read replicas. Sessions are looked up
	// there, and once more on the primary before one is rejected. A login is
	// therefore visible immediately, and a logout after the replication lag. A
	// Galera cluster needs none.
	//
	// Defaults to nil: lookups use the primary.
	Replica *sqlx.DB

	// Throttle limits login attempts. After 5 failures for an identifier from
	// one address or IPv6 /64 (20 from a /56, 50 from a /48), each further
	// attempt has to wait, from one second to 15 minutes. After 50 failures
	// from one address for all identifiers (200, 500) it waits up to a minute.
	// After 100 failures for an account from everywhere, a client that was
	// never logged in to it waits from one to 15 minutes. Clients that were
	// logged in to the account before, recognized by session cookie or network,
	// are counted on their own. Register counts duplicates by network. Behind a
	// proxy, set ClientIP; otherwise only the limits per account apply.
	//
	// Defaults to a Throttle that counts in this process. [NoThrottle] turns it
	// off.
	Throttle Throttle

	// VerifyPassword verifies stored passwords that are not bcrypt hashes, such
	// as hex MD5, migrated from another program. After a successful login the
	// stored value is replaced by a bcrypt hash, unless the password exceeds 72
	// bytes. VerifyPassword must compare in constant time. It is called with the
	// password as typed, and then with its other Unicode forms (NFC, NFD).
	//
	// A sample of the users table, read at the first login, shows which stored
	// value takes longest to verify. Every wrong password then takes as long:
	// VerifyPassword is called with that value too, and its result ignored.
	// Values that take longer than bcrypt of cost 12, or of PasswordCost if
	// that is higher, are not equalized, so response times reveal their users.
	//
	// Defaults to nil: such users cannot log in by password.
	VerifyPassword func(stored, password string) bool

	// OnError responds to a request whose session could not be looked up. The
	// handler does not run, and no cookie changes. err matches
	// [ErrUnavailable]; [ErrBusy] if the processor is overloaded; [ErrConfig] if
	// a table or pool cannot serve; or [ErrClosed].
	//
	// Defaults to 503 Service Unavailable.
	OnError func(w http.ResponseWriter, r *http.Request, err error)

	// OnEvent is called synchronously for each [Event]. It must not block, and
	// must be safe for concurrent use. A panic in it is logged and fails nothing
	// else.
	//
	// Defaults to nil: events are only logged.
	OnEvent func(context.Context, Event)

	// Logger receives every Event, routine ones at Debug, and errors that do
	// not fail a call, such as a failed renewal, purge or hash upgrade. Secrets
	// are never logged.
	//
	// Defaults to [slog.Default].
	Logger *slog.Logger

	// DSN is what the "mysql" block of the file or SESSION_DSN says, for [Open].
	// New does not read it.
	DSN string
}

// Cookie configures the session cookie. The zero value is ready to use.
type Cookie struct {
	// Name is the name of the session cookie.
	//
	// Defaults to "__Host-session" if its rules hold (Secure, Path=/, no
	// Domain; RFC 6265bis section 4.1.3.2), otherwise to "__Secure-session"
	// (OWASP ASVS 5.0 V3.3.1), or to "session" with Insecure. For another
	// UsersTable than users, the default ends with its name, as in
	// "__Host-session-customers". JSON: "cookieName".
	Name string

	// Domain lets subdomains share the session.
	//
	// Defaults to "": this host only. JSON: "cookieDomain".
	Domain string

	// Path limits the cookie to a part of the site.
	//
	// Defaults to "/". JSON: "cookiePath".
	Path string

	// SameSite decides whether browsers send the cookie when a user follows a
	// link from another site: http.SameSiteStrictMode or http.SameSiteLaxMode.
	// With strict, such a link leads to a page that reloads itself; see
	// NoReload. With lax, protect every POST with http.CrossOriginProtection. A
	// POST from another site comes without the cookie either way.
	//
	// Defaults to http.SameSiteStrictMode. JSON: "sameSite" ("strict" or "lax").
	SameSite http.SameSite

	// NoReload reports whether a request is served as not logged in instead of
	// being reloaded, if it comes from a link on another site. Exclude GET
	// requests that change something: the reload lets a link on another site
	// act as the user, as a lax cookie would.
	//
	// Defaults to nil: every page load without the session cookie is reloaded
	// once, if the browser has a session.
	NoReload func(*http.Request) bool

	// Transient omits Max-Age, so that the browser deletes the cookie when it
	// exits. The session itself still lasts MaxAge.
	//
	// Defaults to false: browsers keep the cookie for 400 days. JSON:
	// "transient".
	Transient bool

	// Insecure omits the Secure attribute, so that sessions work over plain
	// HTTP, where anyone on the network path can read the cookie. Use it for
	// development only.
	//
	// Defaults to false. JSON: "insecure".
	Insecure bool
}

// Default values of a Config.
const (
	DefaultMaxAge    = 30 * 24 * time.Hour
	DefaultUpdateAge = 24 * time.Hour
)

// maxDuration keeps ages positive: UNIX_TIMESTAMP starts in 1970, and statements
// subtract ages from the present.
const maxDuration = 50 * 365 * 24 * time.Hour

// Hashes of higher cost are rejected, so that a planted hash cannot exhaust the
// CPU.
const (
	maxPasswordCost = password.MaxCost
	maxTokenCost    = token.MaxCost
)

// A configError reports an invalid setting: its name, value and allowed values.
type configError struct {
	where   string // file or "environment", empty for a Config made in Go
	name    string // as the user wrote it there
	value   string
	allowed string
}

func (e *configError) Error() string {
	text := "session: "
	if e.where != "" {
		text += e.where + ": "
	}
	text += e.name
	if e.value != "" {
		text += " = " + e.value
	}
	return text + ": " + e.allowed
}

func (e *configError) Unwrap() error { return ErrConfig }

// An option is one key of the config file, and of the environment as SESSION_ and the key in capitals.
type option struct {
	key   string
	field string
	setter
}

// env is the option's variable. Those that name a column or table say so: a SESSION_PASSWORD would be given a secret.
func (o option) env() string {
	name := "SESSION_" + strings.ToUpper(capital.ReplaceAllString(o.key, "${1}_${2}"))
	switch o.field {
	case "KeyColumn", "PasswordColumn":
		return name + "_COLUMN"
	case "TokenTable":
		return name + "_TABLE"
	}
	return name
}

var capital = regexp.MustCompile(`([a-z])([A-Z])`)

// A setter reads a setting from JSON.
type setter struct {
	quoted bool // a JSON string: the environment has it without the quotes
	set    func(*Config, json.RawMessage) (allowed string)
}

var options = []option{
	{"table", "UsersTable", text(func(c *Config) *string { return &c.UsersTable })},
	{"key", "KeyColumn", text(func(c *Config) *string { return &c.KeyColumn })},
	{"password", "PasswordColumn", text(func(c *Config) *string { return &c.PasswordColumn })},
	{"token", "TokenTable", text(func(c *Config) *string { return &c.TokenTable })},
	{"accountColumns", "AccountColumns", list(func(c *Config) *[]string { return &c.AccountColumns })},
	{"ignorePasswordChanges", "IgnorePasswordChanges", flag(func(c *Config) *bool { return &c.IgnorePasswordChanges })},
	{"maxAge", "MaxAge", milliseconds(func(c *Config) *time.Duration { return &c.MaxAge })},
	{"updateAge", "UpdateAge", milliseconds(func(c *Config) *time.Duration { return &c.UpdateAge })},
	{"timeout", "Timeout", milliseconds(func(c *Config) *time.Duration { return &c.Timeout })},
	{"maxLifetime", "MaxLifetime", milliseconds(func(c *Config) *time.Duration { return &c.MaxLifetime })},
	{"passwordCost", "PasswordCost", number(func(c *Config) *int { return &c.PasswordCost })},
	{"tokenCost", "TokenCost", number(func(c *Config) *int { return &c.TokenCost })},
	{"loginURL", "LoginURL", text(func(c *Config) *string { return &c.LoginURL })},
	{"homeURL", "HomeURL", text(func(c *Config) *string { return &c.HomeURL })},
	{"confirmURL", "ConfirmURL", text(func(c *Config) *string { return &c.ConfirmURL })},
	{"maxSessions", "MaxSessions", number(func(c *Config) *int { return &c.MaxSessions })},
	{"cookieName", "Cookie.Name", text(func(c *Config) *string { return &c.Cookie.Name })},
	{"cookieDomain", "Cookie.Domain", text(func(c *Config) *string { return &c.Cookie.Domain })},
	{"cookiePath", "Cookie.Path", text(func(c *Config) *string { return &c.Cookie.Path })},
	{"candyPack", "CandyPack", choice(
		func(c *Config, v CandyPackMode) { c.CandyPack = v },
		[]string{"off", "share", "switch"}, []CandyPackMode{CandyPackOff, CandyPackShare, CandyPackSwitch})},
	{"sameSite", "Cookie.SameSite", choice(
		func(c *Config, v http.SameSite) { c.Cookie.SameSite = v },
		[]string{"strict", "lax"}, []http.SameSite{http.SameSiteStrictMode, http.SameSiteLaxMode})},
	{"transient", "Cookie.Transient", flag(func(c *Config) *bool { return &c.Cookie.Transient })},
	{"insecure", "Cookie.Insecure", flag(func(c *Config) *bool { return &c.Cookie.Insecure })},
	{"cacheFresh", "Cache.Fresh", milliseconds(func(c *Config) *time.Duration { return &c.Cache.Fresh })},
	{"cacheStale", "Cache.Stale", milliseconds(func(c *Config) *time.Duration { return &c.Cache.Stale })},
	{"cacheEntries", "Cache.Entries", number(func(c *Config) *int { return &c.Cache.Entries })},
	{"fingerprint", "Fingerprint", choice(
		func(c *Config, v Fingerprint) { c.Fingerprint = v },
		[]string{"family", "exact", "off"}, []Fingerprint{FingerprintFamily, FingerprintExact, FingerprintOff})},
}

func text(field func(*Config) *string) setter {
	return setter{true, func(c *Config, raw json.RawMessage) string {
		return decode(raw, field(c), "must be a string")
	}}
}

func list(field func(*Config) *[]string) setter {
	return setter{false, func(c *Config, raw json.RawMessage) string {
		return decode(raw, field(c), `must be a list of strings, such as ["created_at"]`)
	}}
}

func number(field func(*Config) *int) setter {
	return setter{false, func(c *Config, raw json.RawMessage) string {
		return decode(raw, field(c), "must be a whole number")
	}}
}

func flag(field func(*Config) *bool) setter {
	return setter{false, func(c *Config, raw json.RawMessage) string {
		return decode(raw, field(c), "must be true or false")
	}}
}

func milliseconds(field func(*Config) *time.Duration) setter {
	return setter{false, func(c *Config, raw json.RawMessage) string {
		const allowed = "must be a whole number of milliseconds, at most fifty years, such as 2592000000 for 30 days"
		var ms float64
		if decode(raw, &ms, allowed) != "" || ms != math.Trunc(ms) || ms < 0 || ms > float64(maxDuration/time.Millisecond) {
			return allowed
		}
		*field(c) = time.Duration(ms) * time.Millisecond
		return ""
	}}
}

func choice[T any](set func(*Config, T), names []string, values []T) setter {
	return setter{true, func(c *Config, raw json.RawMessage) string {
		allowed := `must be "` + strings.Join(names, `" or "`) + `"`
		var name string
		if decode(raw, &name, allowed) != "" || !slices.Contains(names, name) {
			return allowed
		}
		set(c, values[slices.Index(names, name)])
		return ""
	}}
}

// decode is json.Unmarshal that takes no null, which would silently be no setting at all.
func decode(raw json.RawMessage, into any, allowed string) string {
	if string(raw) == "null" || json.Unmarshal(raw, into) != nil {
		return allowed
	}
	return ""
}

// LoadConfig reads the "auth" block of a config.json, and its optional "mysql" block (host, port, user, password,
// database) into Config.DSN. Times are in milliseconds; a setting that is absent or 0 has its default; other blocks
// of the file are left alone.
//
//	{
//	  "auth":  { "table": "users", "key": "id", "token": "user_tokens", "maxAge": 2592000000, "updateAge": 86400000 },
//	  "mysql": { "host": "localhost", "port": 3306, "user": "app", "password": "${MYSQL_PASSWORD}", "database": "app" }
//	}
//
// In both blocks ${NAME} stands for a variable of the environment, or of a file .env beside this one.
//
// The environment overrides the file: SESSION_ and the key in capitals with underscores (SESSION_MAX_AGE,
// SESSION_LOGIN_URL), in the same units, and SESSION_DSN for the whole mysql block; for key, password and token it is
// SESSION_KEY_COLUMN, SESSION_PASSWORD_COLUMN and SESSION_TOKEN_TABLE. An empty variable counts as unset. With an empty
// path there is no file, only the environment.
//
// An error is an [ErrConfig] or comes from reading the file.
func LoadConfig(path string) (Config, error) {
	var c Config
	if path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return Config{}, fmt.Errorf("session: read the configuration: %w", err)
		}
		if c, err = parseConfig(path, data); err != nil {
			return Config{}, err
		}
	}
	if err := c.readEnv(os.Getenv); err != nil {
		return Config{}, err
	}
	if _, err := c.withDefaults(); err != nil {
		var bad *configError
		if errors.As(err, &bad) {
			bad.where = path
			for _, o := range options {
				if bad.name != "Config."+o.field {
					continue
				}
				bad.name = "auth." + o.key
				if os.Getenv(o.env()) != "" || path == "" {
					bad.where, bad.name = "environment", o.env()
				}
			}
		}
		return Config{}, err
	}
	return c, nil
}

func parseConfig(path string, data []byte) (Config, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var file map[string]json.RawMessage
	if err := unmarshalBlock(path, "the file", data, data, &file); err != nil {
		return Config{}, err
	}
	if _, ok := file["auth"]; !ok {
		return Config{}, &configError{where: path, name: `block "auth"`, allowed: `is missing; "auth": {} gives the defaults`}
	}
	var c Config
	var auth map[string]json.RawMessage
	if err := unmarshalBlock(path, "auth", data, file["auth"], &auth); err != nil {
		return Config{}, err
	}
	getenv, err := environment(filepath.Join(filepath.Dir(path), ".env"))
	if err != nil {
		return Config{}, err
	}
	for _, o := range options {
		if os.Getenv(o.env()) != "" {
			delete(auth, o.key) // the environment decides
		}
	}
	expanded, err := expand(path, "auth", auth, getenv, func(key string) bool {
		return slices.ContainsFunc(options, func(o option) bool { return o.key == key && !o.quoted })
	})
	if err != nil {
		return Config{}, err
	}
	for _, o := range options {
		if raw, ok := auth[o.key]; ok {
			if allowed := o.set(&c, raw); allowed != "" {
				value := string(raw)
				if expanded[o.key] {
					value = "" // what a variable holds may be a secret
				}
				return Config{}, &configError{path, "auth." + o.key, value, allowed}
			}
			delete(auth, o.key)
		}
	}
	if err := unknownKey(path, "auth", auth, optionKeys()); err != nil {
		return Config{}, err
	}
	if raw, ok := file["mysql"]; ok && os.Getenv("SESSION_DSN") == "" {
		if c.DSN, err = parseMySQL(path, data, raw, getenv); err != nil {
			return Config{}, err
		}
	}
	return c, nil
}

// unmarshalBlock reads a JSON object, and says where in the file its syntax is broken.
func unmarshalBlock(path, name string, file, block []byte, into *map[string]json.RawMessage) error {
	err := json.Unmarshal(block, into)
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax): // only the whole file can have one: its blocks were parsed with it
		before := file[:min(int(syntax.Offset), len(file))]
		line := 1 + bytes.Count(before, []byte("\n"))
		column := max(1, len(before)-(bytes.LastIndexByte(before, '\n')+1))
		return &configError{where: fmt.Sprintf("%s:%d:%d", path, line, column), name: "JSON", allowed: syntax.Error()}
	case err != nil || *into == nil:
		return &configError{where: path, name: name, allowed: "must be a JSON object"}
	}
	return nil
}

// expand puts variables into the strings of a block, and tells into which. What is bare is no string with its variables.
func expand(path, block string, keys map[string]json.RawMessage, getenv func(string) (string, bool), bare func(key string) bool) (expanded map[string]bool, err error) {
	expanded = map[string]bool{}
	for key, raw := range keys {
		var text string
		if json.Unmarshal(raw, &text) != nil || !variable.MatchString(text) {
			continue
		}
		var missing string
		text = variable.ReplaceAllStringFunc(text, func(match string) string {
			name := match[2 : len(match)-1]
			value, ok := getenv(name)
			if !ok && missing == "" {
				missing = name
			}
			return value
		})
		if missing != "" {
			return nil, &configError{where: path, name: block + "." + key, allowed: "the variable " + missing + " is set neither in the environment nor in .env"}
		}
		if bare(key) {
			keys[key] = json.RawMessage(text)
		} else {
			keys[key], _ = json.Marshal(text)
		}
		expanded[key] = true
	}
	return expanded, nil
}

var variable = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]*\}`)

// environment looks up variables: those of the process, then those of a .env file, if there is one. Its lines are
// NAME=value, with "export" before or not. A value in quotes is what is between them; another ends before a comment.
func environment(path string) (func(string) (string, bool), error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("session: read the variables: %w", err)
	}
	file := parseEnv(text)
	return func(name string) (string, bool) {
		if value, ok := os.LookupEnv(name); ok {
			return value, true
		}
		value, ok := file[name]
		return value, ok
	}, nil
}

// parseEnv reads the lines of a file .env.
func parseEnv(text []byte) map[string]string {
	file := map[string]string{}
	for line := range strings.Lines(string(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")))) {
		name, value, _ := strings.Cut(line, "=")
		if words := strings.Fields(name); len(words) == 2 && words[0] == "export" {
			name = words[1]
		}
		file[strings.TrimSpace(name)] = envValue(strings.TrimSpace(value))
	}
	return file
}

func envValue(text string) string {
	if text != "" && (text[0] == '"' || text[0] == '\'') {
		if value, _, ok := strings.Cut(text[1:], text[:1]); ok {
			return value
		}
	}
	for i := 1; i < len(text); i++ {
		if text[i] == '#' && (text[i-1] == ' ' || text[i-1] == '\t') {
			return strings.TrimSpace(text[:i])
		}
	}
	return text
}

func unknownKey(path, block string, rest map[string]json.RawMessage, known []string) error {
	for key := range rest {
		allowed := "is not a setting; known are " + strings.Join(known, ", ")
		for _, k := range known {
			if strings.EqualFold(k, key) {
				allowed = "is not a setting; did you mean " + k + "?"
			}
		}
		return &configError{where: path, name: block + "." + key, allowed: allowed}
	}
	return nil
}

func optionKeys() []string {
	keys := make([]string, len(options))
	for i, o := range options {
		keys[i] = o.key
	}
	return keys
}

// parseMySQL makes a DSN of the "mysql" block. Its errors show no value: one of them is the password.
func parseMySQL(path string, file, block []byte, getenv func(string) (string, bool)) (string, error) {
	var keys map[string]json.RawMessage
	if err := unmarshalBlock(path, "mysql", file, block, &keys); err != nil {
		return "", err
	}
	if _, err := expand(path, "mysql", keys, getenv, func(key string) bool { return key == "port" }); err != nil {
		return "", err
	}
	host, port := "localhost", 3306
	dsn := mysql.NewConfig()
	for _, k := range []struct {
		key     string
		into    any
		allowed string
	}{
		{"host", &host, "must be a string: a host name, an address, or the path of a socket"},
		{"port", &port, "must be a number from 1 to 65535"},
		{"user", &dsn.User, "must be a string"},
		{"password", &dsn.Passwd, "must be a string"},
		{"database", &dsn.DBName, "must be a string"},
	} {
		if raw, ok := keys[k.key]; ok && decode(raw, k.into, k.allowed) != "" {
			return "", &configError{where: path, name: "mysql." + k.key, allowed: k.allowed}
		}
		delete(keys, k.key)
	}
	if err := unknownKey(path, "mysql", keys, []string{"host", "port", "user", "password", "database"}); err != nil {
		return "", err
	}
	switch {
	case port < 1 || port > 65535:
		return "", &configError{where: path, name: "mysql.port", value: strconv.Itoa(port), allowed: "must be a number from 1 to 65535"}
	case dsn.User == "":
		return "", &configError{where: path, name: "mysql.user", allowed: "is missing"}
	case dsn.DBName == "":
		return "", &configError{where: path, name: "mysql.database", allowed: "is missing"}
	}
	dsn.Net, dsn.Addr = "tcp", net.JoinHostPort(host, strconv.Itoa(port))
	if strings.HasPrefix(host, "/") {
		dsn.Net, dsn.Addr = "unix", host
	}
	return dsn.FormatDSN(), nil
}

// readEnv sets what the environment says.
func (c *Config) readEnv(getenv func(string) string) error {
	for _, o := range options {
		name := o.env()
		value := strings.TrimSpace(getenv(name))
		if value == "" {
			continue
		}
		raw := json.RawMessage(value)
		if o.quoted {
			raw, _ = json.Marshal(value)
		}
		if allowed := o.set(c, raw); allowed != "" {
			return &configError{"environment", name, strconv.Quote(value), allowed}
		}
	}
	if dsn := getenv("SESSION_DSN"); dsn != "" {
		c.DSN = dsn
	}
	return nil
}

// identifier is what a table or column may be called: what MySQL and MariaDB take in a quoted name, less the
// characters that are only ever found in one by mistake or malice.
var identifier = regexp.MustCompile(`^[0-9A-Za-z_$\x{80}-\x{ffff}-]{1,64}$`)

func isTable(name string) bool {
	database, table := splitName(name)
	return identifier.MatchString(table) && (database == nil || identifier.MatchString(database.(string)))
}

// withDefaults is the Config with every default filled in, or what is wrong with it.
func (c Config) withDefaults() (Config, error) {
	setDefault(&c.UsersTable, defaultTable)
	setDefault(&c.KeyColumn, "id")
	setDefault(&c.PasswordColumn, "password")
	c.setSharingDefaults()
	setDefault(&c.TokenTable, defaultToken(c.UsersTable))
	setDefault(&c.MaxAge, DefaultMaxAge)
	setDefault(&c.UpdateAge, min(DefaultUpdateAge, c.MaxAge/2))
	setDefault(&c.PasswordCost, bcrypt.DefaultCost)
	setDefault(&c.TokenCost, bcrypt.MinCost)
	setDefault(&c.Timeout, DefaultTimeout)
	setDefault(&c.HomeURL, "/")
	setDefault(&c.Cookie.Path, "/")
	setDefault(&c.Cookie.SameSite, http.SameSiteStrictMode)
	setDefault(&c.Cache.Entries, 100_000)
	if c.Cookie.Name == "" && newSharing(c.CandyPack).hasOwn() {
		switch {
		case c.Cookie.Insecure:
			c.Cookie.Name = "session"
		case c.Cookie.Domain != "" || c.Cookie.Path != "/":
			c.Cookie.Name = "__Secure-session"
		default:
			c.Cookie.Name = "__Host-session"
		}
		c.Cookie.Name += cookieSuffix(c.UsersTable)
	}
	if c.Fingerprint.Text == nil && c.Fingerprint.Match == nil {
		c.Fingerprint = FingerprintFamily
	}
	if c.Fingerprint.Text == nil {
		c.Fingerprint.Text = userAgent
	}
	if c.Fingerprint.Match == nil {
		c.Fingerprint.Match = FingerprintExact.Match
	}
	if c.ClientIP == nil {
		c.ClientIP = remoteIP
	}
	if c.Throttle == nil {
		c.Throttle = newMemoryThrottle()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.OnError == nil {
		c.OnError = unavailable
	}
	return c, c.validate()
}

// defaultToken returns the default of Config.TokenTable. No two users tables have the
// same, as a number would then stand for a user of either.
func defaultToken(table string) string {
	if table == defaultTable {
		return "user_tokens"
	}
	const suffix = "_session_tokens"
	name := strings.Replace(table, ".", "__", 1)
	if len([]rune(name+suffix)) > maxNameLength {
		sum := sha256.Sum256([]byte(table))
		name = string([]rune(name)[:maxNameLength-len(suffix)-9]) + "_" + hex.EncodeToString(sum[:4])
	}
	return name + suffix
}

// cookieSuffix returns what the default of Config.Cookie.Name ends with, so that
// two users tables can be used in one browser.
func cookieSuffix(table string) string {
	switch {
	case table == defaultTable:
		return ""
	case (&http.Cookie{Name: table}).Valid() == nil:
		return "-" + table
	}
	sum := sha256.Sum256([]byte(table))
	return "-" + hex.EncodeToString(sum[:8])
}

const (
	defaultTable  = "users"
	maxNameLength = 64 // characters, by MySQL and MariaDB
)

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c Config) validate() error {
	bad := func(field string, value any, allowed string) error {
		return &configError{"", "Config." + field, fmt.Sprint(value), allowed}
	}
	const name = "must be a name of letters, digits, _, $ and -, at most 64 characters"
	switch {
	case !isTable(c.UsersTable):
		return bad("UsersTable", strconv.Quote(c.UsersTable), name+", or database.name")
	case !isTable(c.TokenTable):
		return bad("TokenTable", strconv.Quote(c.TokenTable), name+", or database.name")
	case !identifier.MatchString(c.KeyColumn):
		return bad("KeyColumn", strconv.Quote(c.KeyColumn), name)
	case !identifier.MatchString(c.PasswordColumn):
		return bad("PasswordColumn", strconv.Quote(c.PasswordColumn), name)
	case strings.EqualFold(c.TokenTable, c.UsersTable):
		return bad("TokenTable", strconv.Quote(c.TokenTable), "must differ from UsersTable")
	case strings.EqualFold(c.PasswordColumn, c.KeyColumn):
		return bad("PasswordColumn", strconv.Quote(c.PasswordColumn), "must differ from KeyColumn")
	case slices.ContainsFunc(c.AccountColumns, func(name string) bool { return !identifier.MatchString(name) }):
		return bad("AccountColumns", fmt.Sprintf("%q", c.AccountColumns), name)
	case slices.ContainsFunc(c.AccountColumns, func(name string) bool { return strings.EqualFold(name, c.PasswordColumn) }):
		return bad("AccountColumns", fmt.Sprintf("%q", c.AccountColumns), "must not name the password column, which is always compared")
	case c.MaxAge < time.Second || c.MaxAge > maxDuration:
		return bad("MaxAge", c.MaxAge, "must be from one second to 50 years (0 gives 30 days)")
	case c.UpdateAge < 0:
		return bad("UpdateAge", c.UpdateAge, "must not be negative (0 gives one day, or half of MaxAge)")
	case c.UpdateAge >= c.MaxAge:
		return bad("UpdateAge", c.UpdateAge, fmt.Sprintf("must be less than MaxAge (%v), or active users are logged out", c.MaxAge))
	case c.MaxLifetime != 0 && (c.MaxLifetime < time.Second || c.MaxLifetime > maxDuration):
		return bad("MaxLifetime", c.MaxLifetime, "must be from one second to 50 years (0 gives no limit)")
	case c.Timeout < 100*time.Millisecond || c.Timeout > time.Hour:
		return bad("Timeout", c.Timeout, fmt.Sprintf("must be from 100ms to an hour (0 gives %v)", DefaultTimeout))
	case c.PasswordCost < bcrypt.MinCost || c.PasswordCost > maxPasswordCost:
		return bad("PasswordCost", c.PasswordCost, fmt.Sprintf("must be from %d to %d (0 gives %d)", bcrypt.MinCost, maxPasswordCost, bcrypt.DefaultCost))
	case c.TokenCost < bcrypt.MinCost || c.TokenCost > maxTokenCost:
		return bad("TokenCost", c.TokenCost, fmt.Sprintf("must be from %d to %d (0 gives %d)", bcrypt.MinCost, maxTokenCost, bcrypt.MinCost))
	case c.Cache.Fresh < 0:
		return bad("Cache.Fresh", c.Cache.Fresh, "must not be negative (0 reads every session on every request)")
	case c.Cache.Stale < 0 || c.Cache.Stale > 0 && c.Cache.Stale < c.Cache.Fresh:
		return bad("Cache.Stale", c.Cache.Stale, fmt.Sprintf("must be 0, or not below Cache.Fresh, %v", c.Cache.Fresh))
	case c.Cache.Entries < 0:
		return bad("Cache.Entries", c.Cache.Entries, "must not be negative (0 gives 100000)")
	case c.LoginURL != "" && !linkable(c.LoginURL):
		return bad("LoginURL", strconv.Quote(c.LoginURL), "must be a path such as /login, or an http(s) URL")
	case c.ConfirmURL != "" && !linkable(c.ConfirmURL):
		return bad("ConfirmURL", strconv.Quote(c.ConfirmURL), "must be a path such as /confirm, or an http(s) URL")
	case c.MaxSessions < 0:
		return bad("MaxSessions", c.MaxSessions, "must not be negative (0 gives no limit)")
	case !linkable(c.HomeURL):
		return bad("HomeURL", strconv.Quote(c.HomeURL), "must be a path such as /, or an http(s) URL")
	}
	return c.validateCookie(bad)
}

// linkable reports whether a redirect may go to this configured place.
func linkable(target string) bool {
	if localPath(target) {
		return true
	}
	u, err := url.Parse(target)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// String returns every setting, and of functions and pools whether they are set. It
// does not return the DSN, which contains a password.
func (c Config) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "session.Config{UsersTable:%q KeyColumn:%q PasswordColumn:%q TokenTable:%q MaxAge:%v UpdateAge:%v MaxLifetime:%v Timeout:%v", c.UsersTable, c.KeyColumn, c.PasswordColumn, c.TokenTable, c.MaxAge, c.UpdateAge, c.MaxLifetime, c.Timeout)
	fmt.Fprintf(&b, " AccountColumns:%q IgnorePasswordChanges:%t", c.AccountColumns, c.IgnorePasswordChanges)
	fmt.Fprintf(&b, " PasswordCost:%d TokenCost:%d LoginURL:%q HomeURL:%q ConfirmURL:%q MaxSessions:%d Cookie.Name:%q Cookie.Domain:%q Cookie.Path:%q", c.PasswordCost, c.TokenCost, c.LoginURL, c.HomeURL, c.ConfirmURL, c.MaxSessions, c.Cookie.Name, c.Cookie.Domain, c.Cookie.Path)
	fmt.Fprintf(&b, " Cookie.SameSite:%d Cookie.NoReload:%t", c.Cookie.SameSite, c.Cookie.NoReload != nil)
	fmt.Fprintf(&b, " CandyPack:%v Cookie.Transient:%t Cookie.Insecure:%t Cache:%v", c.CandyPack, c.Cookie.Transient, c.Cookie.Insecure, c.Cache)
	fmt.Fprintf(&b, " Fingerprint:%t ClientIP:%t Replica:%t Throttle:%t VerifyPassword:%t OnError:%t OnEvent:%t Logger:%t}", c.Fingerprint.Text != nil || c.Fingerprint.Match != nil,
		c.ClientIP != nil, c.Replica != nil, c.Throttle != nil, c.VerifyPassword != nil, c.OnError != nil, c.OnEvent != nil, c.Logger != nil)
	return b.String()
}

// GoString implements [fmt.GoStringer]: %#v must not show the DSN either.
func (c Config) GoString() string { return c.String() }

// LogValue implements [slog.LogValuer].
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }
