package session

import (
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// Browsers keep no cookie for longer (RFC 6265bis section 5.5).
const maxCookieAge = 400 * 24 * time.Hour

// cookies puts tokens into responses and takes them from requests.
type cookies struct {
	candyPack CandyPackMode
	attribute http.Cookie // all but the value, of the cookie that holds the whole token
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
	return cookies{c.CandyPack, attribute}
}

// read takes the token from a request: ErrNoCookie or ErrMalformed if there is none. Empty cookies count as absent:
// CandyPack's logout leaves them behind. Of cookies with one name the first counts, as it has the longest path (RFC
// 6265 section 5.4). While both layouts are in use, CandyPack's decides, empty or not: each login and logout of either
// app changes that, but CandyPack's own leave the other as it was.
func (c cookies) read(r *http.Request) (token, error) {
	var selector, verifier string
	candy := false
	if c.candyPack != CandyPackOff {
		selector, verifier, candy = candyToken(r)
	}
	if !candy && c.candyPack != CandyPackShare {
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

// complete gives the browser the cookie that CandyPack has not: it is missing, or of another login.
func (c cookies) complete(w http.ResponseWriter, r *http.Request, t token) {
	if c.candyPack == CandyPackSwitch && value(r, c.attribute.Name) != t.selector+"."+t.verifier {
		c.write(w, t)
	}
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
	if c.candyPack != CandyPackOff {
		maxAge := c.attribute.MaxAge
		if maxAge != 0 {
			maxAge = max(maxAge, int(candyCookieAge/time.Second))
		}
		c.set(w, candySelector, t.selector, maxAge)
		c.set(w, candyVerifier, t.verifier, maxAge)
	}
	if c.candyPack != CandyPackShare {
		c.set(w, c.attribute.Name, t.selector+"."+t.verifier, c.attribute.MaxAge)
	}
}

// clear takes the token from the browser.
func (c cookies) clear(w http.ResponseWriter) {
	if c.candyPack != CandyPackOff {
		c.set(w, candySelector, "", -1)
		c.set(w, candyVerifier, "", -1)
	}
	if c.candyPack != CandyPackShare {
		c.set(w, c.attribute.Name, "", -1)
	}
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
	switch {
	case c.CandyPack < CandyPackOff || c.CandyPack > CandyPackSwitch:
		return bad("CandyPack", int(c.CandyPack), "must be CandyPackOff, CandyPackShare or CandyPackSwitch")
	case c.CandyPack == CandyPackShare && c.CookieName != "":
		return bad("CookieName", quoted(c.CookieName), "must be empty with CandyPackShare, whose cookies are "+candySelector+" and "+candyVerifier)
	case c.CandyPack != CandyPackShare && !valid(http.Cookie{Name: c.CookieName}):
		return bad("CookieName", quoted(c.CookieName), "must be a cookie name: no spaces, quotes, commas, semicolons, = or control characters")
	case c.CandyPack != CandyPackOff && (c.CookieName == candySelector || c.CookieName == candyVerifier):
		return bad("CookieName", quoted(c.CookieName), "is one of CandyPack's; choose another")
	case c.CandyPack != CandyPackOff && c.CookieDomain != "":
		return bad("CookieDomain", quoted(c.CookieDomain), "must be empty with CandyPack, whose cookies are for one host")
	case c.CandyPack != CandyPackOff && c.CookiePath != "/":
		return bad("CookiePath", quoted(c.CookiePath), "must be / with CandyPack, as that of its cookies is")
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
