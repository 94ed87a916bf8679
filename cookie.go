package session

import (
	"iter"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/candysession/session/internal/token"
)

// cookieAge is how long browsers keep the session cookie: as long as they keep
// any (RFC 6265bis section 5.5). Only the row decides how long the session
// lasts.
const cookieAge = 400 * 24 * time.Hour

// rewriteAge is the age of a session whose next renewal writes the cookie again,
// so that the cookie does not expire before the row.
const rewriteAge = 200 * 24 * time.Hour

// Limits of cookies with one name in a request: at most maxNamesakes are parsed,
// and at most maxCandidates tokens are looked up.
const (
	maxNamesakes  = 64
	maxCandidates = 4
)

// cookies reads and writes token cookies.
type cookies struct {
	shared   *sharing    // nil unless another app shares the sessions
	template http.Cookie // the session cookie without its value
	hint     string      // the name of the hint; "" if the session cookie is lax
}

func newCookies(c Config) *cookies {
	shared := newSharing(c.CandyPack)
	template := http.Cookie{
		Name:     c.Cookie.Name,
		Path:     c.Cookie.Path,
		Domain:   c.Cookie.Domain,
		HttpOnly: true,
		Secure:   !c.Cookie.Insecure,
		SameSite: c.Cookie.SameSite,
	}
	if !c.Cookie.Transient {
		template.MaxAge = int(shared.cookieAge() / time.Second)
	}
	hint := ""
	if c.Cookie.SameSite != http.SameSiteLaxMode {
		hint = shared.hint(c.Cookie.Name)
	}
	return &cookies{shared, template, hint}
}

// read returns the token of a request, ErrNoCookie or ErrMalformedCookie. An
// empty cookie counts as absent. Of cookies with one name it reads the first,
// which has the longest path (RFC 6265 section 5.4); the rest are the others.
func (c *cookies) read(r *http.Request) (token.Token, error) {
	if t, decided, err := c.shared.read(r); decided {
		return t, err
	}
	selector, verifier := "", ""
	for value := range values(r, c.template.Name) {
		selector, verifier, _ = strings.Cut(value, ".")
		break
	}
	if selector == "" && verifier == "" {
		return token.Token{}, ErrNoCookie
	}
	return parsed(selector, verifier)
}

func parsed(selector, verifier string) (token.Token, error) {
	if t, ok := token.Parse(selector, verifier); ok {
		return t, nil
	}
	return token.Token{}, ErrMalformedCookie
}

// others returns the further tokens of a request, in its order: a browser may
// have cookies of one name with several paths or domains (RFC 6265 section
// 4.2.2).
func (c *cookies) others(r *http.Request) (others []token.Token) {
	if !c.shared.hasOwn() {
		return nil
	}
	first, err := c.read(r)
	tries, seen := maxCandidates, 0
	if err == nil {
		tries--
	}
	for value := range values(r, c.template.Name) {
		if seen++; seen > maxNamesakes || len(others) == tries {
			break
		}
		selector, verifier, _ := strings.Cut(value, ".")
		if t, ok := token.Parse(selector, verifier); ok && t != first && !slices.Contains(others, t) {
			others = append(others, t)
		}
	}
	return others
}

// all returns the tokens of a request that may be looked up.
func (c *cookies) all(r *http.Request) []token.Token {
	others := c.others(r)
	if first, err := c.read(r); err == nil {
		return append([]token.Token{first}, others...)
	}
	return others
}

// isLoggedOut reports whether a request without a token was logged out by another
// app, so that no further cookie is read.
func (c *cookies) isLoggedOut(reason error) bool { return c.shared.isLoggedOut(reason) }

// lacksOwn reports whether the standard cookie is missing, or belongs to another
// login, although another app's cookie holds the token.
func (c *cookies) lacksOwn(r *http.Request, t token.Token) bool { return c.shared.lacksOwn(c, r, t) }

// holds reports whether the session cookie of a request holds the token.
func (c *cookies) holds(r *http.Request, t token.Token) bool {
	for value := range values(r, c.template.Name) {
		if value == t.Selector+"."+t.Verifier {
			return true
		}
	}
	return false
}

// isPersistent reports whether browsers keep the cookies when they exit.
func (c *cookies) isPersistent() bool { return c.template.MaxAge != 0 }

// values returns the values of the cookies with this name, quotes included. It
// parses as net/http does, but allocates nothing.
func values(r *http.Request, name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range r.Header["Cookie"] {
			for line != "" {
				var pair string
				pair, line, _ = strings.Cut(line, ";")
				key, value, _ := strings.Cut(textproto.TrimString(pair), "=")
				if textproto.TrimString(key) == name && !yield(value) {
					return
				}
			}
		}
	}
}

// write sets the token cookies, and the hint. If they are transient, browsers
// delete them when they exit.
func (c *cookies) write(w http.ResponseWriter, t token.Token, transient bool) {
	maxAge := c.template.MaxAge
	if transient {
		maxAge = 0
	}
	c.shared.write(c, w, t, maxAge)
	if c.shared.hasOwn() {
		c.set(w, c.template.Name, t.Selector+"."+t.Verifier, maxAge)
	}
	c.writeHint(w, maxAge)
	neverCache(w.Header())
}

// clear deletes the token cookies and the hint.
func (c *cookies) clear(w http.ResponseWriter) {
	c.shared.clear(c, w)
	if c.shared.hasOwn() {
		c.set(w, c.template.Name, "", -1)
	}
	c.clearHint(w)
}

// The hint is a cookie without content that says that this browser has a
// session. A browser that follows a link from another site withholds the
// SameSite=Strict session cookie, but sends the hint. If the hint arrives alone,
// a reload brings the session cookie.

// hinted reports whether a request carries the hint.
func (c *cookies) hinted(r *http.Request) bool {
	if c.hint != "" {
		for value := range values(r, c.hint) {
			if value != "" {
				return true
			}
		}
	}
	return false
}

// writeHint sets the hint. The hint is no secret, so caches may store it.
func (c *cookies) writeHint(w http.ResponseWriter, maxAge int) {
	if c.hint != "" {
		c.set(w, c.hint, "1", maxAge)
	}
}

// clearHint deletes the hint. No cache may store the response.
func (c *cookies) clearHint(w http.ResponseWriter) {
	if c.hint != "" {
		c.set(w, c.hint, "", -1)
	}
	neverCache(w.Header())
}

// set replaces any Set-Cookie for name already in the response: a login may be
// followed by a logout, and two Set-Cookie fields of one name are not allowed
// (RFC 6265bis section 4.1.1).
func (c *cookies) set(w http.ResponseWriter, name, value string, maxAge int) {
	header := w.Header()
	others := header["Set-Cookie"][:0:0]
	for _, line := range header["Set-Cookie"] {
		if !strings.HasPrefix(line, name+"=") {
			others = append(others, line)
		}
	}
	cookie := c.template
	cookie.Name, cookie.Value, cookie.MaxAge = name, value, maxAge
	if name == c.hint {
		cookie.SameSite = http.SameSiteLaxMode
	}
	header["Set-Cookie"] = append(others, cookie.String())
}

// neverCache forbids all caches to store the response.
func neverCache(header http.Header) {
	header.Set("Cache-Control", "no-store")
	varyByCookie(header)
}

// Header values that all responses share. Header.Add copies them before it
// appends.
var (
	onlyCookie  = []string{"Cookie"}
	onlyPrivate = []string{"private"}
)

// private forbids shared caches to store the response (RFC 9111 section
// 5.2.2.7), unless a header already does.
func private(header http.Header) {
	if lines := header["Cache-Control"]; len(lines) == 0 || !listed(lines, "no-store", "no-cache", "private") {
		header["Cache-Control"] = onlyPrivate
	}
}

// varyByCookie declares to caches that the response depends on the cookies.
func varyByCookie(header http.Header) {
	if lines := header["Vary"]; len(lines) == 0 {
		header["Vary"] = onlyCookie
	} else if !listed(lines, "cookie", "*") {
		header.Add("Vary", "Cookie")
	}
}

// listed reports whether a header's list contains one of the words.
func listed(lines []string, words ...string) bool {
	for _, line := range lines {
		for word := range strings.SplitSeq(line, ",") {
			if slices.Contains(words, strings.ToLower(textproto.TrimString(word))) {
				return true
			}
		}
	}
	return false
}

// validateCookie reports a setting with which browsers would reject the cookie
// (RFC 6265bis section 4.1).
func (c Config) validateCookie(bad func(field string, value any, allowed string) error) error {
	quoted := strconv.Quote
	valid := func(cookie http.Cookie) bool { return cookie.Valid() == nil }
	if err := c.validateSharing(bad); err != nil {
		return err
	}
	if newSharing(c.CandyPack).hasOwn() && !valid(http.Cookie{Name: c.Cookie.Name}) {
		return bad("Cookie.Name", quoted(c.Cookie.Name), "must be a cookie name: no spaces, quotes, commas, semicolons, = or control characters")
	}
	if c.Cookie.SameSite != http.SameSiteStrictMode && c.Cookie.SameSite != http.SameSiteLaxMode {
		return bad("Cookie.SameSite", int(c.Cookie.SameSite), "must be http.SameSiteStrictMode (or 0, which gives that) or http.SameSiteLaxMode")
	}
	if !valid(http.Cookie{Name: "x", Domain: c.Cookie.Domain}) || strings.HasPrefix(c.Cookie.Domain, ".") {
		return bad("Cookie.Domain", quoted(c.Cookie.Domain), "must be a host name such as example.com, without a dot before it")
	}
	if !valid(http.Cookie{Name: "x", Path: c.Cookie.Path}) || !strings.HasPrefix(c.Cookie.Path, "/") {
		return bad("Cookie.Path", quoted(c.Cookie.Path), "must begin with / and have no ; or control characters")
	}
	lower := strings.ToLower(c.Cookie.Name)
	if strings.HasPrefix(lower, "__host-") && (c.Cookie.Insecure || c.Cookie.Domain != "" || c.Cookie.Path != "/") {
		return bad("Cookie.Name", quoted(c.Cookie.Name), "a __Host- cookie requires Secure, no Domain and Path=/")
	}
	if strings.HasPrefix(lower, "__secure-") && c.Cookie.Insecure {
		return bad("Cookie.Name", quoted(c.Cookie.Name), "a __Secure- cookie requires Secure")
	}
	return nil
}
