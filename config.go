package session

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/candysession/session/throttle"
	"github.com/jmoiron/sqlx"
)

// Config configures a Manager. The zero value is ready to use: sessions expire
// after 30 days of inactivity and are renewed at most once a day. [LoadConfig]
// reads a Config from a config.json, under the key that each field names.
type Config struct {
	// UsersTable is the users table, as name or database.name.
	//
	// Defaults to "users". JSON: "table".
	UsersTable string `config:"table"`

	// KeyColumn is the primary key of the users table: an integer, text or
	// binary column.
	//
	// Defaults to "id". JSON: "key".
	KeyColumn string `config:"key" env:"SESSION_KEY_COLUMN"`

	// PasswordColumn is the column of the users table that holds the bcrypt
	// hash. It is never read into a user.
	//
	// Defaults to "password". JSON: "password".
	PasswordColumn string `config:"password" env:"SESSION_PASSWORD_COLUMN"`

	// TokenTable is the token table, created on first use. It holds the
	// sessions of one users table.
	//
	// Defaults to "user_tokens", for another UsersTable than users to its name
	// and "_session_tokens", and with CandyPack to "candy_auth". JSON: "token".
	TokenTable string `config:"token" env:"SESSION_TOKEN_TABLE"`

	// AccountColumns are further columns of the users table that identify the
	// account, such as created_at. A session ends when one of them changes, as
	// it does when the password changes. They distinguish accounts without a
	// password that succeed each other under one key. A change of this list
	// ends the sessions that began before.
	//
	// Defaults to none. JSON: "accountColumns".
	AccountColumns []string `config:"accountColumns"`

	// IgnorePasswordChanges keeps sessions whose user's password hash was
	// changed by another program. Set it if such a program rehashes passwords
	// at its own logins, and call [Manager.LogoutAll] when a password changes.
	//
	// Defaults to false. JSON: "ignorePasswordChanges".
	IgnorePasswordChanges bool `config:"ignorePasswordChanges"`

	// MaxAge is the idle timeout (OWASP ASVS: inactivity timeout). Because a
	// request renews a session only after UpdateAge, the session expires
	// between MaxAge-UpdateAge and MaxAge after the last request. MaxAge must be
	// at least one second, the resolution of the database clock.
	//
	// Defaults to 30 days. JSON: "maxAge" (milliseconds).
	MaxAge time.Duration `config:"maxAge"`

	// UpdateAge is how long after its last renewal a request renews a session,
	// so an active session costs at most one write per UpdateAge. A renewal
	// writes no cookie. UpdateAge must be less than MaxAge.
	//
	// Defaults to 1 day, or half of MaxAge if that is less. JSON: "updateAge"
	// (milliseconds).
	UpdateAge time.Duration `config:"updateAge"`

	// MaxLifetime is the absolute lifetime of a session, counted from its login
	// (OWASP ASVS: absolute timeout).
	//
	// Defaults to 0 (none). JSON: "maxLifetime" (milliseconds).
	MaxLifetime time.Duration `config:"maxLifetime"`

	// PasswordCost is the bcrypt cost of password hashes, 4 to 16; each step
	// doubles the time. A login replaces a stored hash of lower cost. It should
	// be at least the cost of the existing hashes: wrong passwords take as long
	// as with the costliest of them up to cost 12, or PasswordCost if that is
	// higher, so users with costlier hashes can be identified by the response
	// time.
	//
	// Defaults to 10 (OWASP Password Storage Cheat Sheet: at least 10). JSON:
	// "passwordCost".
	PasswordCost int `config:"passwordCost"`

	// TokenCost is the bcrypt cost of stored tokens, 4 to 14. Tokens have 256
	// random bits, so a higher cost adds no security.
	//
	// Defaults to 4. JSON: "tokenCost".
	TokenCost int `config:"tokenCost"`

	// LoginURL is where Require redirects browsers that are not logged in: a
	// path of this site or an http(s) URL. If empty, Require always responds
	// with 401 Unauthorized.
	//
	// Defaults to "". JSON: "loginURL".
	LoginURL string `config:"loginURL"`

	// HomeURL is where Guest redirects logged-in browsers.
	//
	// Defaults to "/". JSON: "homeURL".
	HomeURL string `config:"homeURL"`

	// ConfirmURL is where RequireFresh redirects browsers whose login is too
	// old. If empty, RequireFresh responds with 403 Forbidden.
	//
	// Defaults to "". JSON: "confirmURL".
	ConfirmURL string `config:"confirmURL"`

	// MaxSessions is the maximum number of sessions per user (OWASP ASVS 5.0
	// V7.1.2). A further login ends the session with the oldest login.
	//
	// Defaults to 0 (unlimited). JSON: "maxSessions".
	MaxSessions int `config:"maxSessions"`

	// Cookie configures the session cookie.
	Cookie Cookie

	// CandyPack enables session sharing with a CandyPack app.
	//
	// Defaults to [CandyPackOff]. JSON: "candyPack" ("off", "share" or
	// "switch").
	CandyPack CandyPackMode `config:"candyPack"`

	// Fingerprint binds a session to a browser.
	//
	// Defaults to [FingerprintFamily], or with CandyPack to the whole
	// User-Agent, as CandyPack compares it. JSON: "fingerprint" ("family",
	// "exact" or "off").
	Fingerprint Fingerprint `config:"fingerprint"`

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
	Timeout time.Duration `config:"timeout"`

	// Replica is an optional pool of read replicas. Sessions are looked up
	// there, and once more on the primary before one is rejected. A login is
	// therefore visible immediately, and a logout after the replication lag. A
	// Galera cluster needs none.
	//
	// Defaults to nil: lookups use the primary.
	Replica *sqlx.DB

	// Throttle counts failed logins and makes clients wait that fail too often.
	// Attempts are counted by account and network, by network, and by account
	// from everywhere. Clients that were logged in to the account before,
	// recognized by session cookie or network, are counted on their own.
	// Register counts duplicates by network. Behind a proxy, set ClientIP;
	// otherwise only the limits per account apply. App servers share the counts
	// of [throttle.NewMySQL]. [throttle.None] turns it off.
	//
	// Defaults to [throttle.NewMemory], which counts in this process.
	Throttle throttle.Throttle

	// Limits are the numbers of failures and delays that Throttle applies. Each
	// number that is 0 takes its default, which [throttle.Limits] documents.
	//
	// Defaults to 5 failures for an account from one address and 50 from one
	// address, and then delays of a second, doubled by each further failure.
	Limits throttle.Limits

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
	Name string `config:"cookieName"`

	// Domain lets subdomains share the session.
	//
	// Defaults to "": this host only. JSON: "cookieDomain".
	Domain string `config:"cookieDomain"`

	// Path limits the cookie to a part of the site.
	//
	// Defaults to "/". JSON: "cookiePath".
	Path string `config:"cookiePath"`

	// SameSite decides whether browsers send the cookie when a user follows a
	// link from another site: http.SameSiteStrictMode or http.SameSiteLaxMode.
	// With strict, such a link leads to a page that reloads itself; see
	// NoReload. With lax, protect every POST with http.CrossOriginProtection. A
	// POST from another site comes without the cookie either way.
	//
	// Defaults to http.SameSiteStrictMode. JSON: "sameSite" ("strict" or "lax").
	SameSite http.SameSite `config:"sameSite"`

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
	Transient bool `config:"transient"`

	// Insecure omits the Secure attribute, so that sessions work over plain
	// HTTP, where anyone on the network path can read the cookie. Use it for
	// development only.
	//
	// Defaults to false. JSON: "insecure".
	Insecure bool `config:"insecure"`
}

// Default values of a Config.
const (
	DefaultMaxAge    = 30 * 24 * time.Hour
	DefaultUpdateAge = 24 * time.Hour
	DefaultTimeout   = 10 * time.Second
)

// String returns every setting, and of functions and pools whether they are set.
func (c Config) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "session.Config{UsersTable:%q KeyColumn:%q PasswordColumn:%q TokenTable:%q MaxAge:%v UpdateAge:%v MaxLifetime:%v Timeout:%v", c.UsersTable, c.KeyColumn, c.PasswordColumn, c.TokenTable, c.MaxAge, c.UpdateAge, c.MaxLifetime, c.Timeout)
	fmt.Fprintf(&b, " AccountColumns:%q IgnorePasswordChanges:%t", c.AccountColumns, c.IgnorePasswordChanges)
	fmt.Fprintf(&b, " PasswordCost:%d TokenCost:%d LoginURL:%q HomeURL:%q ConfirmURL:%q MaxSessions:%d Cookie.Name:%q Cookie.Domain:%q Cookie.Path:%q", c.PasswordCost, c.TokenCost, c.LoginURL, c.HomeURL, c.ConfirmURL, c.MaxSessions, c.Cookie.Name, c.Cookie.Domain, c.Cookie.Path)
	fmt.Fprintf(&b, " Cookie.SameSite:%d Cookie.NoReload:%t", c.Cookie.SameSite, c.Cookie.NoReload != nil)
	fmt.Fprintf(&b, " CandyPack:%v Cookie.Transient:%t Cookie.Insecure:%t Cache:%v", c.CandyPack, c.Cookie.Transient, c.Cookie.Insecure, c.Cache)
	fmt.Fprintf(&b, " Fingerprint:%t ClientIP:%t Replica:%t Throttle:%t Limits:%v VerifyPassword:%t OnError:%t OnEvent:%t Logger:%t}", c.Fingerprint.Text != nil || c.Fingerprint.Match != nil,
		c.ClientIP != nil, c.Replica != nil, c.Throttle != nil, c.Limits, c.VerifyPassword != nil, c.OnError != nil, c.OnEvent != nil, c.Logger != nil)
	return b.String()
}

// GoString implements [fmt.GoStringer].
func (c Config) GoString() string { return c.String() }

// LogValue implements [slog.LogValuer].
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }
