package session

import (
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// A CookieLayout is how a token stands in cookies.
type CookieLayout int

const (
	// CookieSingle is one cookie, selector.verifier, named by Config.CookieName.
	CookieSingle CookieLayout = iota

	// CookieCandyPack is two cookies, candy_x with the selector and candy_y with the verifier, as CandyPack has them.
	CookieCandyPack
)

const (
	candySelector = "candy_x"
	candyVerifier = "candy_y"
)

// Browsers keep no cookie for longer (RFC 6265bis section 5.5).
const maxCookieAge = 400 * 24 * time.Hour

// cookies puts tokens into responses and takes them from requests.
type cookies struct {
	layout    CookieLayout
	attribute http.Cookie // all but the value
}

func newCookies(c Config) cookies {
	attribute := http.Cookie{
		Name:     c.CookieName,
		Path:     c.CookiePath,
		Domain:   c.CookieDomain,
		HttpOnly: true,
		Secure:   !c.Insecure,
		SameSite: http.SameSiteStrictMode,
	}
	if !c.Transient {
		attribute.MaxAge = int(min(c.MaxAge, maxCookieAge) / time.Second)
	}
	return cookies{c.CookieLayout, attribute}
}

// read takes the token from a request: ErrNoCookie or ErrMalformed if there is none. Empty cookies count as absent:
// CandyPack's logout leaves them behind. Of cookies with one name the first counts, as it has the longest path (RFC
// 6265 section 5.4).
func (c cookies) read(r *http.Request) (token, error) {
	var selector, verifier string
	if c.layout == CookieCandyPack {
		selector, verifier = value(r, candySelector), value(r, candyVerifier)
	} else {
		selector, verifier, _ = strings.Cut(value(r, c.attribute.Name), ".")
	}
	if selector == "" && verifier == "" {
		return token{}, ErrNoCookie
	}
	if t, ok := parseToken(selector, verifier); ok {
		return t, nil
	}
	return token{}, ErrMalformed
}

// value is the cookie's value, with quotes if it has some: we never quote, and CandyPack takes them for a part of the
// value. It reads as net/http does, without making a Cookie of everything that it passes.
func value(r *http.Request, name string) string {
	for _, line := range r.Header["Cookie"] {
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			key, value, _ := strings.Cut(textproto.TrimString(pair), "=")
			if textproto.TrimString(key) == name {
				return value
			}
		}
	}
	return ""
}

// write gives the token to the browser, for MaxAge from now.
func (c cookies) write(w http.ResponseWriter, t token) {
	if c.layout == CookieCandyPack {
		c.set(w, candySelector, t.selector, c.attribute.MaxAge)
		c.set(w, candyVerifier, t.verifier, c.attribute.MaxAge)
		return
	}
	c.set(w, c.attribute.Name, t.selector+"."+t.verifier, c.attribute.MaxAge)
}

// clear takes the token from the browser.
func (c cookies) clear(w http.ResponseWriter) {
	if c.layout == CookieCandyPack {
		c.set(w, candySelector, "", -1)
		c.set(w, candyVerifier, "", -1)
		return
	}
	c.set(w, c.attribute.Name, "", -1)
}

// set replaces what this response already sets of the cookie: a slide may be followed by a logout, and two Set-Cookie
// fields of one name are not allowed (RFC 6265bis section 4.1.1). No cache may keep or share the answer.
func (c cookies) set(w http.ResponseWriter, name, value string, maxAge int) {
	header := w.Header()
	others := header["Set-Cookie"][:0:0]
	for _, line := range header["Set-Cookie"] {
		if !strings.HasPrefix(line, name+"=") {
			others = append(others, line)
		}
	}
	cookie := c.attribute
	cookie.Name, cookie.Value, cookie.MaxAge = name, value, maxAge
	header["Set-Cookie"] = append(others, cookie.String())
	neverCache(header)
}

func neverCache(header http.Header) {
	header.Set("Cache-Control", "no-store")
	for _, line := range header["Vary"] {
		if strings.Contains(strings.ToLower(line), "cookie") {
			return
		}
	}
	header.Add("Vary", "Cookie")
}

// validateCookie finds what a browser would refuse (RFC 6265bis section 4.1).
func (c Config) validateCookie(bad func(field string, value any, allowed string) error) error {
	quoted := strconv.Quote
	valid := func(cookie http.Cookie) bool { return cookie.Valid() == nil }
	if c.CookieLayout == CookieCandyPack {
		if c.CookieName != "" {
			return bad("CookieName", quoted(c.CookieName), "must be empty with the candypack layout, whose names are "+candySelector+" and "+candyVerifier)
		}
	} else if c.CookieLayout != CookieSingle {
		return bad("CookieLayout", int(c.CookieLayout), "must be CookieSingle or CookieCandyPack")
	} else if !valid(http.Cookie{Name: c.CookieName}) {
		return bad("CookieName", quoted(c.CookieName), "must be a cookie name: no spaces, quotes, commas, semicolons, = or control characters")
	}
	if !valid(http.Cookie{Name: "x", Domain: c.CookieDomain}) || strings.HasPrefix(c.CookieDomain, ".") {
		return bad("CookieDomain", quoted(c.CookieDomain), "must be a host name such as example.com, without a dot before it")
	}
	if !valid(http.Cookie{Name: "x", Path: c.CookiePath}) || !strings.HasPrefix(c.CookiePath, "/") {
		return bad("CookiePath", quoted(c.CookiePath), "must begin with / and have no ; or control characters")
	}
	lower := strings.ToLower(c.CookieName)
	if strings.HasPrefix(lower, "__host-") && (c.Insecure || c.CookieDomain != "" || c.CookiePath != "/") {
		return bad("CookieName", quoted(c.CookieName), "browsers take a __Host- cookie only with Secure, no domain and the path /")
	}
	if strings.HasPrefix(lower, "__secure-") && c.Insecure {
		return bad("CookieName", quoted(c.CookieName), "browsers take a __Secure- cookie only with Secure")
	}
	return nil
}
