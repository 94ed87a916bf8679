package session

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/candysession/session/throttle"
	"golang.org/x/crypto/bcrypt"
)

// withDefaults returns a copy with defaults applied, or an error if it is
// invalid.
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
		c.Throttle = throttle.NewMemory()
	}
	limits, err := c.Limits.WithDefaults()
	if err != nil {
		return c, fmt.Errorf("%w: Config.%w", ErrConfig, err)
	}
	c.Limits = limits
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

// unavailable responds as Config.OnError does by default.
func unavailable(w http.ResponseWriter, _ *http.Request, _ error) {
	neverCache(w.Header())
	w.Header().Set("Retry-After", "1")
	http.Error(w, "Service Unavailable", http.StatusServiceUnavailable)
}
