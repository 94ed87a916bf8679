package session

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/candysession/session/internal/configfile"
	"github.com/candysession/session/internal/password"
	"github.com/candysession/session/internal/store"
	"github.com/candysession/session/internal/token"
	"golang.org/x/crypto/bcrypt"
)

// maxDuration keeps ages positive: UNIX_TIMESTAMP starts in 1970, and statements
// subtract ages from the present.
const maxDuration = configfile.MaxDuration

// Hashes of higher cost are rejected, so that a planted hash cannot exhaust the
// CPU.
const (
	maxPasswordCost = password.MaxCost
	maxTokenCost    = token.MaxCost
)

// A configError reports an invalid setting: its name, value and allowed values.
type configError configfile.Error

func (e *configError) Error() string { return "session: " + (*configfile.Error)(e).Error() }

func (e *configError) Unwrap() error { return ErrConfig }

// identifier matches allowed table and column names: those valid when quoted,
// minus characters that only appear by mistake or attack.
var identifier = regexp.MustCompile(`^[0-9A-Za-z_$\x{80}-\x{ffff}-]{1,64}$`)

func isTable(name string) bool {
	database, table := store.SplitName(name)
	return identifier.MatchString(table) && (database == nil || identifier.MatchString(database.(string)))
}

// validate returns an error for the first setting that is not allowed.
func (c Config) validate() error {
	invalid := func(field string, value any, allowed string) error {
		return &configError{"", "Config." + field, fmt.Sprint(value), allowed}
	}
	const name = "must be a name of letters, digits, _, $ and -, at most 64 characters"
	switch {
	case !isTable(c.UsersTable):
		return invalid("UsersTable", strconv.Quote(c.UsersTable), name+", or database.name")
	case !isTable(c.TokenTable):
		return invalid("TokenTable", strconv.Quote(c.TokenTable), name+", or database.name")
	case !identifier.MatchString(c.KeyColumn):
		return invalid("KeyColumn", strconv.Quote(c.KeyColumn), name)
	case !identifier.MatchString(c.PasswordColumn):
		return invalid("PasswordColumn", strconv.Quote(c.PasswordColumn), name)
	case strings.EqualFold(c.TokenTable, c.UsersTable):
		return invalid("TokenTable", strconv.Quote(c.TokenTable), "must differ from UsersTable")
	case strings.EqualFold(c.PasswordColumn, c.KeyColumn):
		return invalid("PasswordColumn", strconv.Quote(c.PasswordColumn), "must differ from KeyColumn")
	case slices.ContainsFunc(c.AccountColumns, func(name string) bool { return !identifier.MatchString(name) }):
		return invalid("AccountColumns", fmt.Sprintf("%q", c.AccountColumns), name)
	case slices.ContainsFunc(c.AccountColumns, func(name string) bool { return strings.EqualFold(name, c.PasswordColumn) }):
		return invalid("AccountColumns", fmt.Sprintf("%q", c.AccountColumns), "must not name the password column, which is always compared")
	case c.MaxAge < time.Second || c.MaxAge > maxDuration:
		return invalid("MaxAge", c.MaxAge, "must be from one second to 50 years (0 gives 30 days)")
	case c.UpdateAge < 0:
		return invalid("UpdateAge", c.UpdateAge, "must not be negative (0 gives one day, or half of MaxAge)")
	case c.UpdateAge >= c.MaxAge:
		return invalid("UpdateAge", c.UpdateAge, fmt.Sprintf("must be less than MaxAge (%v), or active users are logged out", c.MaxAge))
	case c.MaxLifetime != 0 && (c.MaxLifetime < time.Second || c.MaxLifetime > maxDuration):
		return invalid("MaxLifetime", c.MaxLifetime, "must be from one second to 50 years (0 gives no limit)")
	case c.Timeout < 100*time.Millisecond || c.Timeout > time.Hour:
		return invalid("Timeout", c.Timeout, fmt.Sprintf("must be from 100ms to an hour (0 gives %v)", DefaultTimeout))
	case c.PasswordCost < bcrypt.MinCost || c.PasswordCost > maxPasswordCost:
		return invalid("PasswordCost", c.PasswordCost, fmt.Sprintf("must be from %d to %d (0 gives %d)", bcrypt.MinCost, maxPasswordCost, bcrypt.DefaultCost))
	case c.TokenCost < bcrypt.MinCost || c.TokenCost > maxTokenCost:
		return invalid("TokenCost", c.TokenCost, fmt.Sprintf("must be from %d to %d (0 gives %d)", bcrypt.MinCost, maxTokenCost, bcrypt.MinCost))
	case c.Cache.Fresh < 0:
		return invalid("Cache.Fresh", c.Cache.Fresh, "must not be negative (0 reads every session on every request)")
	case c.Cache.Stale < 0 || c.Cache.Stale > 0 && c.Cache.Stale < c.Cache.Fresh:
		return invalid("Cache.Stale", c.Cache.Stale, fmt.Sprintf("must be 0, or not below Cache.Fresh, %v", c.Cache.Fresh))
	case c.Cache.Entries < 0:
		return invalid("Cache.Entries", c.Cache.Entries, "must not be negative (0 gives 100000)")
	case c.LoginURL != "" && !isRedirectTarget(c.LoginURL):
		return invalid("LoginURL", strconv.Quote(c.LoginURL), "must be a path such as /login, or an http(s) URL")
	case c.ConfirmURL != "" && !isRedirectTarget(c.ConfirmURL):
		return invalid("ConfirmURL", strconv.Quote(c.ConfirmURL), "must be a path such as /confirm, or an http(s) URL")
	case c.MaxSessions < 0:
		return invalid("MaxSessions", c.MaxSessions, "must not be negative (0 gives no limit)")
	case !isRedirectTarget(c.HomeURL):
		return invalid("HomeURL", strconv.Quote(c.HomeURL), "must be a path such as /, or an http(s) URL")
	}
	return c.validateCookie(invalid)
}

// isRedirectTarget reports whether target is a local path or an http(s) URL.
func isRedirectTarget(target string) bool {
	if localPath(target) {
		return true
	}
	u, err := url.Parse(target)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }
