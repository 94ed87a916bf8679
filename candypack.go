package session

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/candysession/session/internal/store"
)

// CandyPackMode says whether the logins are shared with a CandyPack app on the same site and database:
// docs/migrating-from-candypack.md tells how to move from one to the other.
type CandyPackMode int

const (
	// CandyPackOff shares nothing.
	CandyPackOff CandyPackMode = iota

	// CandyPackShare accepts the sessions that CandyPack writes and writes such as it accepts: it has the cookies candy_x
	// and candy_y and, unless Config says otherwise, the table candy_auth and the whole User-Agent for a fingerprint.
	// Expired sessions are deleted when their browser comes, as CandyPack does.
	CandyPackShare

	// CandyPackSwitch is CandyPackShare that also writes the cookie of CandyPackOff, to every browser that opens a page without
	// it. When it has run for MaxAge with CandyPack gone, everyone who is still logged in has that cookie. CandyPack's cookies
	// decide, unless that cookie has the valid session of another user: a subdomain can plant CandyPack's, but not a __Host-
	// cookie, which is then the session of the request and stays as it is.
	CandyPackSwitch
)

// CandyPack's cookies, with selector and verifier, and the hint beside them.
const (
	candySelector = "candy_x"
	candyVerifier = "candy_y"
	candyHint     = "candy_hint"
)

// candyCookieAge is how long the browser keeps them: a year, as CandyPack has it.
const candyCookieAge = 365 * 24 * time.Hour

// candyToken takes the token from a Cookie header, as CandyPack reads it, and reports whether one of its cookies is
// there at all: cookies stand between "; ", the first of a name counts, and a value ends at a second "=". Spaces after
// the selector are what the collation of its column overlooks. What it would take for JSON or quoted is no token in
// parseToken.
func candyToken(r *http.Request) (selector, verifier string, there bool) {
	x, y := false, false
	for pair := range strings.SplitSeq(strings.Join(r.Header["Cookie"], "; "), "; ") {
		name, value, _ := strings.Cut(pair, "=")
		value, _, _ = strings.Cut(value, "=")
		switch {
		case name == candySelector && !x:
			selector, x = strings.TrimRight(value, " "), true
		case name == candyVerifier && !y:
			verifier, y = value, true
		}
	}
	return selector, verifier, x || y
}

// fingerprintCandyPack stores and compares what CandyPack does: the User-Agent's bytes as Latin-1, all of it.
var fingerprintCandyPack = Fingerprint{candyBrowser, FingerprintExact.Match}

// candyBrowser is the User-Agent where it fits into the column. With a longer one nobody can log in to CandyPack, so its
// sessions are not shared: it is cut, with a mark that no User-Agent has, so that it is not taken for a shorter one.
func candyBrowser(r *http.Request) string {
	text := userAgent(r)
	if utf8.RuneCountInString(text) > maxBrowser {
		text = fit(text, maxBrowser-1) + cutMark
	}
	return text
}

// cutMark is not in Latin-1.
const cutMark = "…"

// skewed returns what warns once that CandyPack writes times of another time zone
// than the database's; nil without CandyPack.
func (m *Manager[U]) skewed() func(*store.Record, time.Duration) {
	if m.cfg.CandyPack == CandyPackOff {
		return nil
	}
	return func(r *store.Record, by time.Duration) {
		m.cfg.Logger.Warn("session: the CandyPack app writes times of another time zone than the database's; start Node with the zone of its connections (TZ=UTC where they have time_zone '+00:00')",
			"off by at least", by, "session", m.store.PublicID(r), "table", m.cfg.TokenTable)
	}
}

// completions remembers which sessions were given the cookie that CandyPack has
// not, so that a browser which does not take it is not asked to reload again
// and again. It is for CandyPackSwitch alone.
type completions struct {
	mu   sync.Mutex
	seen map[string]bool
}

// first reports whether the session with this selector is new to it.
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
