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

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
	"golang.org/x/crypto/bcrypt"
)

// Config says how sessions are kept. The zero value is the standard session: it ends after 30 days without a visit,
// and is renewed at most once a day. [LoadConfig] reads one from a config.json; the key of each field is in its comment.
type Config struct {
	// Table is the users table, as name or database.name. Key "table", default "users".
	Table string

	// Key is the primary key column of the users table: an integer, text or binary column. Key "key", default "id".
	Key string

	// Password is the column of the users table that holds the bcrypt hash. It is never read into a user.
	// Key "password", default "password".
	Password string

	// Token is the token table, created when it is first needed. It has the
	// sessions of one users table. Key "token", default "user_tokens", for another
	// Table than users its name and "_session_tokens", and with CandyPack
	// "candy_auth".
	Token string

	// AccountColumns are further columns of the users table that belong to the
	// account, such as created_at. A session ends when one of them changes, as it
	// does when the password changes. They tell apart two accounts without a
	// password that follow each other under one key. A change of this list ends
	// the sessions that were begun before. Key "accountColumns", default none.
	AccountColumns []string

	// IgnorePasswordChanges keeps sessions whose user's stored password hash has
	// changed other than by this package. Set it where another program renews
	// hashes at its own logins, and call [Manager.LogoutAll] when a password
	// changes. Key "ignorePasswordChanges", default false.
	IgnorePasswordChanges bool

	// MaxAge is how long a session lives without being renewed (OWASP ASVS: inactivity timeout). As a request renews it
	// only when UpdateAge has passed, it ends between MaxAge - UpdateAge and MaxAge after the last request. At least a
	// second: the database's clock, which decides, counts whole seconds. Key "maxAge" in milliseconds, default 30 days.
	MaxAge time.Duration

	// UpdateAge is how long a session rests before a request renews its row: a session costs at most one write per
	// UpdateAge. The cookie lasts for 400 days and needs no renewal. It must be below MaxAge. Key "updateAge" in milliseconds, default 1 day, or half
	// of MaxAge where that is less.
	UpdateAge time.Duration

	// MaxLifetime ends a session this long after its login, however active it is (OWASP ASVS: absolute timeout).
	// Key "maxLifetime" in milliseconds, default 0: no such end.
	MaxLifetime time.Duration

	// PasswordCost is the bcrypt cost of password hashes, 4 to 16; each step doubles the time. A stored hash of lower
	// cost is replaced when its user logs in. It should not be below the cost of the hashes that you have: wrong
	// passwords take as long as with the costliest of them up to cost 12, or PasswordCost if that is higher, and a user
	// whose hash costs more could be told by the time. Key "passwordCost", default 10 (OWASP Password Storage Cheat
	// Sheet: at least 10).
	PasswordCost int

	// TokenCost is the bcrypt cost of stored tokens, 4 to 14. A token has 256 random bits, which no number of guesses
	// finds, so the cost buys nothing. Key "tokenCost", default 4.
	TokenCost int

	// LoginURL is where Require sends browsers that are not logged in: a path of this site or an http(s) URL.
	// Key "loginURL", default "": everyone gets 401.
	LoginURL string

	// HomeURL is where Guest sends those who are logged in. Key "homeURL", default "/".
	HomeURL string

	// ConfirmURL is where RequireFresh sends browsers whose user has to log in again. Key "confirmURL", default "":
	// everyone gets 403.
	ConfirmURL string

	// MaxSessions is how many sessions a user may have; with one more login the one that logged in first ends (OWASP ASVS
	// 5.0 V7.1.2). Key "maxSessions", default 0: as many as they like.
	MaxSessions int

	// CookieName is the name of the session cookie. Key "cookieName", default "__Host-session" where its rules
	// (Secure, Path=/, no Domain; RFC 6265bis section 4.1.3.2) hold, otherwise "__Secure-session" (OWASP ASVS 5.0 V3.3.1),
	// or "session" with Insecure. For another Table than users the default ends with
	// its name, as in "__Host-session-customers".
	CookieName string

	// CookieDomain lets subdomains share the session. Key "cookieDomain", default "": this host only.
	CookieDomain string

	// CookiePath limits the cookie to a part of the site. Key "cookiePath", default "/".
	CookiePath string

	// SameSite is whether the browser sends the session cookie with links from other sites: http.SameSiteStrictMode (no) or
	// http.SameSiteLaxMode (yes). With strict, a link leads to a page that reloads itself, see NoReload. With lax, guard every
	// POST with http.CrossOriginProtection. A POST from another site, as payment providers send it, comes without the cookie
	// either way. Key "sameSite" ("strict" or "lax"), default http.SameSiteStrictMode.
	SameSite http.SameSite

	// NoReload reports whether a request keeps strict: it is served as not logged in instead of being reloaded. A GET that
	// changes something should not be done because of a link on another site. The reload lets such a link act as the user,
	// as a lax cookie would. Default nil: every page that a browser with a session opens without its cookie is reloaded
	// once.
	NoReload func(*http.Request) bool

	// CandyPack shares the logins with a CandyPack app. Key "candyPack" ("off", "share" or "switch"), default
	// CandyPackOff.
	CandyPack CandyPackMode

	// Transient makes the cookie end with the browser, although the session in the table lives on until MaxAge.
	// Key "transient", default false.
	Transient bool

	// Insecure leaves out the Secure attribute, so that sessions work over plain http, and can be read by everyone on
	// the way. For development only. Key "insecure", default false.
	Insecure bool

	// Fingerprint is what ties a session to a browser. Key "fingerprint" ("family", "exact" or "off"), default
	// FingerprintFamily, or with CandyPack the whole User-Agent, as CandyPack compares it.
	Fingerprint Fingerprint

	// ClientIP tells the client's address, for Throttle and the list of sessions. Behind a proxy, have it read the header
	// that the proxy sets, and no header that clients can set. A port, brackets and a zone are removed. Of a
	// list, such as X-Forwarded-For, the last address counts, as clients can make up the others. Of what is no
	// address at most 45 ASCII characters are kept, and the log names it. Default: the host of RemoteAddr.
	ClientIP func(*http.Request) string

	// Cache spares queries, or bridges failures, at the price of knowing less. Default off.
	Cache Cache

	// Timeout ends whatever the database has not answered: the request gets OnError. It also bounds how long a look-up waits
	// for a connection. Purge and PurgeIdle have it for each chunk; Migrate and Stats, which may take long, have only their
	// context. A password or token that waits longer for its turn to be hashed or compared is an [ErrBusy], at once if the
	// others before it take longer than that. With a pool that is not of Open, or has a longer readTimeout, a look-up costs a tenth more for it. Key
	// "timeout" in milliseconds, default 10 seconds: longer than a Galera cluster needs to part with a dead server.
	Timeout time.Duration

	// Replica is a pool of servers that have what the database has a moment later. Sessions are looked up there, and only
	// one that would be refused is looked up once more in the database: so a login is seen at once, and a logout with the
	// replica's delay. Default nil: they are looked up in the database. A Galera cluster needs none.
	Replica *sqlx.DB

	// Throttle limits login attempts. After 5 failures for an identifier from one address or IPv6 /64 (20 from a
	// /56, 50 from a /48), each further attempt has to wait, from a second to 15 minutes. After 50 failures from one
	// address for all identifiers (200, 500) it waits up to a minute. After 100 failures for an account from
	// everywhere, a client that was never logged in to it waits from one to 15 minutes. Only a client that was
	// logged in to the account before, by its session cookie or its network, has a count of its own. Register
	// counts values that are taken, by network. Behind a proxy set ClientIP, or only the counts of accounts hold.
	// Default: it counts in this process. [NoThrottle] turns it off.
	Throttle Throttle

	// VerifyPassword reports whether a password is that of a stored text which is not a bcrypt hash, such as the hex
	// digits of an MD5 sum: for users from another program. At their next login the text is replaced by a bcrypt hash.
	// Compare in constant time. A sample of the users table, read at the first login, tells which of these texts takes
	// longest: every wrong password then takes as long, also that of an unknown user, as the function is called with that
	// text too and its answer ignored. A text that takes longer than bcrypt of cost 12, or of PasswordCost if that is
	// higher, is left out, and its user could be told by the time. The function gets the password as it was typed, and
	// then its other Unicode forms (NFC, NFD). A password beyond 72 bytes stays as it is. Default: such users cannot log
	// in with a password.
	VerifyPassword func(stored, password string) bool

	// OnError answers a request whose session could not be looked up because the database failed; the handler does
	// not run and no cookie changes. err is an ErrUnavailable, or an ErrBusy if the processor was too busy. Default: 503 Service Unavailable.
	OnError func(w http.ResponseWriter, r *http.Request, err error)

	// OnEvent is called for logins, logouts, refusals and the like, as they happen: it must be quick, and safe for use by
	// many goroutines. If it panics, that is logged and nothing else fails. Default: the events are only logged.
	OnEvent func(context.Context, Event)

	// Logger gets every Event, the usual ones at level Debug, and what goes wrong without failing a call: a
	// slide, purge or hash upgrade that did not work. It never gets a secret. Default slog.Default().
	Logger *slog.Logger

	// DSN is what the file's "mysql" block or SESSION_DSN says, for Open. New does not read it.
	DSN string
}

// What a Config holds where it says nothing.
const (
	DefaultMaxAge    = 30 * 24 * time.Hour
	DefaultUpdateAge = 24 * time.Hour
)

// The database counts seconds from 1970, and subtracts ages from today.
const maxDuration = 50 * 365 * 24 * time.Hour

// Hashes beyond these costs are refused, wherever they come from: a planted one must not burn a CPU.
const (
	maxPasswordCost = 16
	maxTokenCost    = 14
)

// A configError names the setting, what it was and what it may be.
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
	case "Key", "Password":
		return name + "_COLUMN"
	case "Token":
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
	{"table", "Table", text(func(c *Config) *string { return &c.Table })},
	{"key", "Key", text(func(c *Config) *string { return &c.Key })},
	{"password", "Password", text(func(c *Config) *string { return &c.Password })},
	{"token", "Token", text(func(c *Config) *string { return &c.Token })},
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
	{"cookieName", "CookieName", text(func(c *Config) *string { return &c.CookieName })},
	{"cookieDomain", "CookieDomain", text(func(c *Config) *string { return &c.CookieDomain })},
	{"cookiePath", "CookiePath", text(func(c *Config) *string { return &c.CookiePath })},
	{"candyPack", "CandyPack", choice(
		func(c *Config, v CandyPackMode) { c.CandyPack = v },
		[]string{"off", "share", "switch"}, []CandyPackMode{CandyPackOff, CandyPackShare, CandyPackSwitch})},
	{"sameSite", "SameSite", choice(
		func(c *Config, v http.SameSite) { c.SameSite = v },
		[]string{"strict", "lax"}, []http.SameSite{http.SameSiteStrictMode, http.SameSiteLaxMode})},
	{"transient", "Transient", flag(func(c *Config) *bool { return &c.Transient })},
	{"insecure", "Insecure", flag(func(c *Config) *bool { return &c.Insecure })},
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
	setDefault(&c.Table, defaultTable)
	setDefault(&c.Key, "id")
	setDefault(&c.Password, "password")
	if c.CandyPack == CandyPackOff {
		setDefault(&c.Token, defaultToken(c.Table))
	} else {
		setDefault(&c.Token, "candy_auth")
	}
	setDefault(&c.MaxAge, DefaultMaxAge)
	setDefault(&c.UpdateAge, min(DefaultUpdateAge, c.MaxAge/2))
	setDefault(&c.PasswordCost, bcrypt.DefaultCost)
	setDefault(&c.TokenCost, bcrypt.MinCost)
	setDefault(&c.Timeout, DefaultTimeout)
	setDefault(&c.HomeURL, "/")
	setDefault(&c.CookiePath, "/")
	setDefault(&c.SameSite, http.SameSiteStrictMode)
	setDefault(&c.Cache.Entries, 100_000)
	if c.CookieName == "" && c.CandyPack != CandyPackShare {
		switch {
		case c.Insecure:
			c.CookieName = "session"
		case c.CookieDomain != "" || c.CookiePath != "/":
			c.CookieName = "__Secure-session"
		default:
			c.CookieName = "__Host-session"
		}
		c.CookieName += cookieSuffix(c.Table)
	}
	if c.Fingerprint.Text == nil && c.Fingerprint.Match == nil {
		c.Fingerprint = FingerprintFamily
		if c.CandyPack != CandyPackOff {
			c.Fingerprint = fingerprintCandyPack
		}
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

// defaultToken returns the default of Config.Token. No two users tables have the
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

// cookieSuffix returns what the default of Config.CookieName ends with, so that
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
	case !isTable(c.Table):
		return bad("Table", strconv.Quote(c.Table), name+", or database.name")
	case !isTable(c.Token):
		return bad("Token", strconv.Quote(c.Token), name+", or database.name")
	case !identifier.MatchString(c.Key):
		return bad("Key", strconv.Quote(c.Key), name)
	case !identifier.MatchString(c.Password):
		return bad("Password", strconv.Quote(c.Password), name)
	case strings.EqualFold(c.Token, c.Table):
		return bad("Token", strconv.Quote(c.Token), "must be another table than Table")
	case strings.EqualFold(c.Password, c.Key):
		return bad("Password", strconv.Quote(c.Password), "must be another column than Key")
	case slices.ContainsFunc(c.AccountColumns, func(name string) bool { return !identifier.MatchString(name) }):
		return bad("AccountColumns", fmt.Sprintf("%q", c.AccountColumns), name)
	case slices.ContainsFunc(c.AccountColumns, func(name string) bool { return strings.EqualFold(name, c.Password) }):
		return bad("AccountColumns", fmt.Sprintf("%q", c.AccountColumns), "must not name the password column, which is always compared")
	case c.MaxAge < time.Second || c.MaxAge > maxDuration:
		return bad("MaxAge", c.MaxAge, "must be from one second to 50 years (0 gives 30 days)")
	case c.UpdateAge < 0:
		return bad("UpdateAge", c.UpdateAge, "must not be negative (0 gives one day, or half of MaxAge)")
	case c.UpdateAge >= c.MaxAge:
		return bad("UpdateAge", c.UpdateAge, fmt.Sprintf("must be below MaxAge, %v, or active users are logged out", c.MaxAge))
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
	fmt.Fprintf(&b, "session.Config{Table:%q Key:%q Password:%q Token:%q MaxAge:%v UpdateAge:%v MaxLifetime:%v Timeout:%v", c.Table, c.Key, c.Password, c.Token, c.MaxAge, c.UpdateAge, c.MaxLifetime, c.Timeout)
	fmt.Fprintf(&b, " AccountColumns:%q IgnorePasswordChanges:%t", c.AccountColumns, c.IgnorePasswordChanges)
	fmt.Fprintf(&b, " PasswordCost:%d TokenCost:%d LoginURL:%q HomeURL:%q ConfirmURL:%q MaxSessions:%d CookieName:%q CookieDomain:%q CookiePath:%q", c.PasswordCost, c.TokenCost, c.LoginURL, c.HomeURL, c.ConfirmURL, c.MaxSessions, c.CookieName, c.CookieDomain, c.CookiePath)
	fmt.Fprintf(&b, " SameSite:%d NoReload:%t", c.SameSite, c.NoReload != nil)
	fmt.Fprintf(&b, " CandyPack:%d Transient:%t Insecure:%t Cache:%v", c.CandyPack, c.Transient, c.Insecure, c.Cache)
	fmt.Fprintf(&b, " Fingerprint:%t ClientIP:%t Replica:%t Throttle:%t VerifyPassword:%t OnError:%t OnEvent:%t Logger:%t}", c.Fingerprint.Text != nil || c.Fingerprint.Match != nil,
		c.ClientIP != nil, c.Replica != nil, c.Throttle != nil, c.VerifyPassword != nil, c.OnError != nil, c.OnEvent != nil, c.Logger != nil)
	return b.String()
}

// GoString is String: %#v must not show the DSN either.
func (c Config) GoString() string { return c.String() }

// LogValue is String, for slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }
