package session

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/candysession/session/internal/store"
	"github.com/candysession/session/internal/token"
)

// CandyPackMode selects whether sessions are shared with a CandyPack app on the
// same site and database. docs/migrating-from-candypack.md describes how to
// migrate.
type CandyPackMode int

const (
	// CandyPackOff shares nothing.
	CandyPackOff CandyPackMode = iota

	// CandyPackShare reads and writes CandyPack's cookies, table and
	// fingerprints: the cookies candy_x and candy_y and, unless Config says
	// otherwise, the table candy_auth and the whole User-Agent. A request with an
	// expired session deletes its row, as in CandyPack.
	CandyPackShare

	// CandyPackSwitch is CandyPackShare that also sets the standard cookie, for
	// every browser that loads a page without it. After running for MaxAge with
	// CandyPack shut down, every active session has it. CandyPack's cookies take
	// precedence, unless the standard cookie holds a valid session of another
	// user: a subdomain can plant CandyPack's cookies, but not a __Host- cookie.
	CandyPackSwitch
)

// String returns the mode's name in a config file: off, share or switch.
func (m CandyPackMode) String() string {
	switch m {
	case CandyPackOff:
		return "off"
	case CandyPackShare:
		return "share"
	case CandyPackSwitch:
		return "switch"
	}
	return "CandyPackMode(" + strconv.Itoa(int(m)) + ")"
}

// Names of CandyPack's cookies, of the hint beside them, and of its table.
const (
	candySelector = "candy_x"
	candyVerifier = "candy_y"
	candyHint     = "candy_hint"
	candyTable    = "candy_auth"
)

// candyCookieAge is how long browsers keep CandyPack's cookies: a year, as
// CandyPack sets it.
const candyCookieAge = 365 * 24 * time.Hour

// A sharing changes how a Manager works while CandyPack shares its sessions. A
// nil *sharing changes nothing.
type sharing struct {
	switches  bool // to the standard cookie
	completed completions
}

func newSharing(mode CandyPackMode) *sharing {
	if mode == CandyPackOff {
		return nil
	}
	return &sharing{switches: mode == CandyPackSwitch}
}

// hasOwn reports whether the standard cookie is in use.
func (s *sharing) hasOwn() bool { return s == nil || s.switches }

// cookieAge returns how long browsers keep the session cookie.
func (s *sharing) cookieAge() time.Duration {
	if s.hasOwn() {
		return cookieAge
	}
	return candyCookieAge
}

// hint returns the name of the hint for a session cookie.
func (s *sharing) hint(cookie string) string {
	if s.hasOwn() {
		return cookie + ".hint"
	}
	return candyHint
}

// read returns the token of CandyPack's cookies. decided is false if the standard
// cookie has to be read instead. If both are present, CandyPack's take
// precedence, even if they are empty: both apps set them on every login and
// logout, whereas CandyPack does not touch the standard cookie.
func (s *sharing) read(r *http.Request) (t token.Token, decided bool, err error) {
	if s == nil {
		return token.Token{}, false, nil
	}
	selector, verifier, present := candyToken(r)
	switch {
	case selector == "" && verifier == "" && (present || !s.switches):
		return token.Token{}, true, ErrNoCookie
	case present:
		t, err = parsed(selector, verifier)
		return t, true, err
	}
	return token.Token{}, false, nil
}

// write sets CandyPack's cookies.
func (s *sharing) write(c *cookies, w http.ResponseWriter, t token.Token, maxAge int) {
	if s != nil {
		maxAge = min(maxAge, int(candyCookieAge/time.Second))
		c.set(w, candySelector, t.Selector, maxAge)
		c.set(w, candyVerifier, t.Verifier, maxAge)
	}
}

// clear deletes CandyPack's cookies.
func (s *sharing) clear(c *cookies, w http.ResponseWriter) {
	if s != nil {
		c.set(w, candySelector, "", -1)
		c.set(w, candyVerifier, "", -1)
	}
}

// isLoggedOut reports whether the other app may have logged out a request
// without a token, so that no further cookie is read.
func (s *sharing) isLoggedOut(reason error) bool { return s != nil && reason == ErrNoCookie }

// lacksOwn reports whether the standard cookie is missing or belongs to another
// login.
func (s *sharing) lacksOwn(c *cookies, r *http.Request, t token.Token) bool {
	return s != nil && s.switches && !c.holds(r, t)
}

// complete reports whether the response is to set the standard cookie. It does
// so once per token.
func (s *sharing) complete(c *cookies, r *http.Request, t token.Token) bool {
	return s.lacksOwn(c, r, t) && s.completed.first(t.Selector)
}

// keepsOrphan reports whether the row of a missing user stays: the other app
// keeps its own rows.
func (s *sharing) keepsOrphan(r *store.Record) bool { return s != nil && r.Stamp == nil }

// deletesExpired reports whether a request deletes the row of its expired
// session, as the other app does. Otherwise the purge deletes it.
func (s *sharing) deletesExpired() bool { return s != nil }

// setSharingDefaults sets the defaults of the mode.
func (c *Config) setSharingDefaults() {
	if c.CandyPack == CandyPackOff {
		return
	}
	if c.TokenTable == "" {
		c.TokenTable = candyTable
	}
	if c.Fingerprint.Text == nil && c.Fingerprint.Match == nil {
		c.Fingerprint = fingerprintCandyPack
	}
}

// validateSharing reports a setting that the mode excludes.
func (c Config) validateSharing(bad func(field string, value any, allowed string) error) error {
	quoted := strconv.Quote
	switch {
	case c.CandyPack == CandyPackOff:
		return nil
	case c.CandyPack < CandyPackOff || c.CandyPack > CandyPackSwitch:
		return bad("CandyPack", int(c.CandyPack), "must be CandyPackOff, CandyPackShare or CandyPackSwitch")
	case c.CandyPack == CandyPackShare && c.Cookie.Name != "":
		return bad("Cookie.Name", quoted(c.Cookie.Name), "must be empty with CandyPackShare, whose cookies are "+candySelector+" and "+candyVerifier)
	case c.Cookie.Name == candySelector || c.Cookie.Name == candyVerifier:
		return bad("Cookie.Name", quoted(c.Cookie.Name), "is one of CandyPack's; choose another")
	case c.Cookie.Domain != "":
		return bad("Cookie.Domain", quoted(c.Cookie.Domain), "must be empty with CandyPack, whose cookies are for one host")
	case c.Cookie.Path != "/":
		return bad("Cookie.Path", quoted(c.Cookie.Path), "must be / with CandyPack, as that of its cookies is")
	}
	return nil
}

// candyToken returns the token of CandyPack's cookies, read as CandyPack does,
// and reports whether one of them is present: cookies are separated by "; ", the
// first of a name counts, and a value ends at a second "=". The collation of its
// column ignores spaces after the selector. Values that CandyPack would decode as
// JSON, or that are quoted, are rejected by token.Parse.
func candyToken(r *http.Request) (selector, verifier string, present bool) {
	hasSelector, hasVerifier := false, false
	for pair := range strings.SplitSeq(strings.Join(r.Header["Cookie"], "; "), "; ") {
		name, value, _ := strings.Cut(pair, "=")
		value, _, _ = strings.Cut(value, "=")
		switch {
		case name == candySelector && !hasSelector:
			selector, hasSelector = strings.TrimRight(value, " "), true
		case name == candyVerifier && !hasVerifier:
			verifier, hasVerifier = value, true
		}
	}
	return selector, verifier, hasSelector || hasVerifier
}

// fingerprintCandyPack is CandyPack's: the bytes of the whole User-Agent as
// Latin-1.
var fingerprintCandyPack = Fingerprint{candyBrowser, FingerprintExact.Match}

// candyBrowser returns the User-Agent if it fits into the column. A longer one is
// truncated with a marker character, so that it does not equal a shorter one;
// CandyPack rejects logins with it.
func candyBrowser(r *http.Request) string {
	text := userAgent(r)
	if utf8.RuneCountInString(text) > maxBrowser {
		text = fit(text, maxBrowser-1) + cutMark
	}
	return text
}

// cutMark is a character that Latin-1 lacks.
const cutMark = "…"

// skewWarning returns a function that warns that CandyPack writes times of
// another time zone than the database's, or nil without CandyPack.
func (c Config) skewWarning() func(session string, by time.Duration) {
	if c.CandyPack == CandyPackOff {
		return nil
	}
	return func(session string, by time.Duration) {
		c.Logger.Warn("session: the CandyPack app writes times of another time zone than the database's; start Node with the zone of its connections (TZ=UTC where they have time_zone '+00:00')",
			"off by at least", by, "session", session, "table", c.TokenTable)
	}
}

// completions remembers which sessions were given the standard cookie, so that a
// browser that rejects it does not reload repeatedly.
type completions struct {
	mu   sync.Mutex
	seen map[string]bool
}

// first reports whether this is the first call with this selector.
func (c *completions) first(selector string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen[selector] {
		return false
	}
	if c.seen == nil || len(c.seen) >= 10_000 {
		c.seen = map[string]bool{}
	}
	c.seen[selector] = true
	return true
}
