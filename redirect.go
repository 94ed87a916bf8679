package session

import (
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// maxNext is how long a page in the parameter next may be, in a URL: proxies
// take no more than a few kilobytes for all headers of an answer (4096 bytes is
// usual in nginx).
const maxNext = 1024

// withNext adds the page that was asked for to a URL, if it can be asked for
// again. A page that is too long is left out: the user gets to the login page
// all the same.
func withNext(target string, r *http.Request) string {
	page := r.RequestURI
	if r.Method != http.MethodGet || !localPath(page) {
		return target
	}
	next := url.QueryEscape(page)
	if len(next) > maxNext {
		return target
	}
	target, fragment, hasFragment := strings.Cut(target, "#")
	target, query, _ := strings.Cut(target, "?")
	separator := "?"
	for pair := range strings.SplitSeq(query, "&") {
		if name, _, _ := strings.Cut(pair, "="); pair != "" && name != returnParameter { // which would come before this one
			target += separator + pair
			separator = "&"
		}
	}
	target += separator + returnParameter + "=" + next
	if hasFragment {
		target += "#" + fragment
	}
	return target
}

const returnParameter = "next"

// ReturnTo tells where to send a user after login: the page that [Manager.Require] turned away, which stands in the
// parameter next of the query or form, or else the fallback. It is a path of this site, of at most 1024 bytes, whatever a link claims (OWASP
// Unvalidated Redirects and Forwards Cheat Sheet).
func ReturnTo(r *http.Request, fallback string) string {
	if target := r.FormValue(returnParameter); localPath(target) && escapedLen(target) <= maxNext {
		return target
	}
	return fallback
}

// escapedLen is how long http.Redirect makes a target, as it escapes what is
// not ASCII.
func escapedLen(target string) int {
	n := len(target)
	for i := range len(target) {
		if target[i] >= utf8.RuneSelf {
			n += 2
		}
	}
	return n
}

// localPath reports whether a browser takes the target for a path of the same site. It takes // and /\ for the
// beginning of a host, also where a tab or line feed, which it drops, stands between (WHATWG URL, "basic URL parser"),
// and http.Redirect resolves dot segments; so neither stands anywhere in a path.
func localPath(target string) bool {
	if !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//") || strings.ContainsFunc(target, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\\' }) {
		return false
	}
	u, err := url.Parse(target)
	return err == nil && u.Host == "" && !strings.Contains(u.Path, "//")
}
