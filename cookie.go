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

// cookieAge is how long a browser keeps the session cookie: as long as any
// (RFC 6265bis section 5.5). The row alone decides how long the session lives.
const cookieAge = 400 * 24 * time.Hour

// rewriteAge is the age of a session whose next renewal gives the browser the
// cookie once more, so that it does not end before the row.
const rewriteAge = 200 * 24 * time.Hour

// A request may carry several cookies of one name. So many of them are looked
// at, and so many of these that hold a token are tried.
const (
	maxNamesakes  = 64
	maxCandidates = 4
)

// cookies puts tokens into responses and takes them from requests.
type cookies struct {
	candyPack CandyPackMode
	attribute http.Cookie // all but the value, of the cookie that holds the whole token
	hint      string      // the name of the hint; "" if there is none, as the cookie is lax itself
}

func newCookies(c Config) *cookies {
	attribute := http.Cookie{
		Name:     c.Cookie.Name,
		Path:     c.Cookie.Path,
		Domain:   c.Cookie.Domain,
		HttpOnly: true,
		Secure:   !c.Cookie.Insecure,
		SameSite: c.Cookie.SameSite,
	}
	if !c.Cookie.Transient {
		attribute.MaxAge = int(cookieAge / time.Second)
		if c.CandyPack == CandyPackShare {
			attribute.MaxAge = int(candyCookieAge / time.Second)
		}
	}
	hint := ""
	switch {
	case c.Cookie.SameSite == http.SameSiteLaxMode:
	case c.CandyPack == CandyPackShare:
		hint = candyHint
	default:
		hint = c.Cookie.Name + ".hint"
	}
	return &cookies{c.CandyPack, attribute, hint}
}

// read takes the token from a request: ErrNoCookie or ErrMalformedCookie if there is none. Empty cookies count as absent:
// CandyPack's logout leaves them behind. Of cookies with one name the first is read, as it has the longest path (RFC
// 6265 section 5.4); the rest are the others. While both layouts are in use, CandyPack's decides, empty or not: each login
// and logout of either app changes that, but CandyPack's own leave the other as it was.
func (c *cookies) read(r *http.Request) (token.Token, error) {
	if c.candyPack != CandyPackOff {
		selector, verifier, there := candyToken(r)
		switch {
		case selector == "" && verifier == "" && (there || c.candyPack == CandyPackShare):
			return token.Token{}, ErrNoCookie
		case there:
			return parsed(selector, verifier)
		}
	}
	selector, verifier := "", ""
	for value := range values(r, c.attribute.Name) {
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

// others are the further tokens of a request, in its order: a browser may have
// cookies of one name with several paths or domains (RFC 6265 section 4.2.2).
// With CandyPackSwitch they are those of the cookie that CandyPack has not. Of
// CandyPack's cookies the first counts, as it does there.
func (c *cookies) others(r *http.Request) (others []token.Token) {
	if c.candyPack == CandyPackShare {
		return nil
	}
	first, err := c.read(r)
	tries, seen := maxCandidates, 0
	if err == nil {
		tries--
	}
	for value := range values(r, c.attribute.Name) {
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

// all are the tokens of a request that are worth a look.
func (c *cookies) all(r *http.Request) []token.Token {
	others := c.others(r)
	if first, err := c.read(r); err == nil {
		return append([]token.Token{first}, others...)
	}
	return others
}

// incomplete reports whether the browser lacks the cookie that CandyPack has
// not: it is missing, or of another login.
func (c *cookies) incomplete(r *http.Request, t token.Token) bool {
	return c.candyPack == CandyPackSwitch && !c.holds(r, t)
}

// holds reports whether the cookie of this library is there with the token.
func (c *cookies) holds(r *http.Request, t token.Token) bool {
	for value := range values(r, c.attribute.Name) {
		if value == t.Selector+"."+t.Verifier {
			return true
		}
	}
	return false
}

// lasting reports whether the cookies outlive the browser's run.
func (c *cookies) lasting() bool { return c.attribute.MaxAge != 0 }

// values are the values of the cookies with this name, with quotes if they have some: we never quote, and CandyPack takes
// them for a part of the value. It reads as net/http does, without making a Cookie of everything that it passes.
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

// write gives the token to the browser, and the hint that it has one.
func (c *cookies) write(w http.ResponseWriter, t token.Token) {
	if c.candyPack != CandyPackOff {
		maxAge := min(c.attribute.MaxAge, int(candyCookieAge/time.Second))
		c.set(w, candySelector, t.Selector, maxAge)
		c.set(w, candyVerifier, t.Verifier, maxAge)
	}
	if c.candyPack != CandyPackShare {
		c.set(w, c.attribute.Name, t.Selector+"."+t.Verifier, c.attribute.MaxAge)
	}
	c.writeHint(w)
	neverCache(w.Header())
}

// clear takes the token and the hint from the browser.
func (c *cookies) clear(w http.ResponseWriter) {
	if c.candyPack != CandyPackOff {
		c.set(w, candySelector, "", -1)
		c.set(w, candyVerifier, "", -1)
	}
	if c.candyPack != CandyPackShare {
		c.set(w, c.attribute.Name, "", -1)
	}
	c.clearHint(w)
}

// The hint is a cookie without content that says that this browser has a
// session. A browser that follows a link of another site withholds the strictly
// same-site cookie, but sends this one: where it comes alone, the browser is
// worth asking once more.

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

// writeHint gives the hint to the browser. It is no secret, so it leaves to the
// caller what caches may keep.
func (c *cookies) writeHint(w http.ResponseWriter) {
	if c.hint != "" {
		c.set(w, c.hint, "1", c.attribute.MaxAge)
	}
}

// clearHint takes the hint from the browser. No cache may keep the answer.
func (c *cookies) clearHint(w http.ResponseWriter) {
	if c.hint != "" {
		c.set(w, c.hint, "", -1)
	}
	neverCache(w.Header())
}

// set replaces what this response already sets of the cookie: a login may be followed by a logout, and two Set-Cookie
// fields of one name are not allowed (RFC 6265bis section 4.1.1).
func (c *cookies) set(w http.ResponseWriter, name, value string, maxAge int) {
	header := w.Header()
	others := header["Set-Cookie"][:0:0]
	for _, line := range header["Set-Cookie"] {
		if !strings.HasPrefix(line, name+"=") {
			others = append(others, line)
		}
	}
	cookie := c.attribute
	cookie.Name, cookie.Value, cookie.MaxAge = name, value, maxAge
	if name == c.hint {
		cookie.SameSite = http.SameSiteLaxMode
	}
	header["Set-Cookie"] = append(others, cookie.String())
}

// neverCache keeps an answer out of all caches.
func neverCache(header http.Header) {
	header.Set("Cache-Control", "no-store")
	varyByCookie(header)
}

// Header values of every checked request, which share them: what is added to
// one goes into a copy.
var (
	onlyCookie  = []string{"Cookie"}
	onlyPrivate = []string{"private"}
)

// private keeps an answer out of the caches that people share (RFC 9111
// section 5.2.2.7), unless it is kept out already.
func private(header http.Header) {
	if lines := header["Cache-Control"]; len(lines) == 0 || !listed(lines, "no-store", "no-cache", "private") {
		header["Cache-Control"] = onlyPrivate
	}
}

// varyByCookie tells caches that another cookie may get another answer.
func varyByCookie(header http.Header) {
	if lines := header["Vary"]; len(lines) == 0 {
		header["Vary"] = onlyCookie
	} else if !listed(lines, "cookie", "*") {
		header.Add("Vary", "Cookie")
	}
}

// listed reports whether one of the words stands in a header's list.
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

// validateCookie finds what a browser would refuse (RFC 6265bis section 4.1).
func (c Config) validateCookie(bad func(field string, value any, allowed string) error) error {
	quoted := strconv.Quote
	valid := func(cookie http.Cookie) bool { return cookie.Valid() == nil }
	switch {
	case c.CandyPack < CandyPackOff || c.CandyPack > CandyPackSwitch:
		return bad("CandyPack", int(c.CandyPack), "must be CandyPackOff, CandyPackShare or CandyPackSwitch")
	case c.CandyPack == CandyPackShare && c.Cookie.Name != "":
		return bad("Cookie.Name", quoted(c.Cookie.Name), "must be empty with CandyPackShare, whose cookies are "+candySelector+" and "+candyVerifier)
	case c.CandyPack != CandyPackShare && !valid(http.Cookie{Name: c.Cookie.Name}):
		return bad("Cookie.Name", quoted(c.Cookie.Name), "must be a cookie name: no spaces, quotes, commas, semicolons, = or control characters")
	case c.CandyPack != CandyPackOff && (c.Cookie.Name == candySelector || c.Cookie.Name == candyVerifier):
		return bad("Cookie.Name", quoted(c.Cookie.Name), "is one of CandyPack's; choose another")
	case c.CandyPack != CandyPackOff && c.Cookie.Domain != "":
		return bad("Cookie.Domain", quoted(c.Cookie.Domain), "must be empty with CandyPack, whose cookies are for one host")
	case c.CandyPack != CandyPackOff && c.Cookie.Path != "/":
		return bad("Cookie.Path", quoted(c.Cookie.Path), "must be / with CandyPack, as that of its cookies is")
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
		return bad("Cookie.Name", quoted(c.Cookie.Name), "browsers take a __Host- cookie only with Secure, no domain and the path /")
	}
	if strings.HasPrefix(lower, "__secure-") && c.Cookie.Insecure {
		return bad("Cookie.Name", quoted(c.Cookie.Name), "browsers take a __Secure- cookie only with Secure")
	}
	return nil
}
