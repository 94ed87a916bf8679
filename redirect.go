package session

import (
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// maxNext is the maximum length of the parameter next in a URL: proxies accept
// only a few kilobytes of response headers (4096 bytes by default in nginx).
const maxNext = 1024

// withNext adds the requested page to a URL, if it can be requested again. It
// omits a page that is too long.
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
		// An earlier parameter of the same name would win.
		if name, _, _ := strings.Cut(pair, "="); pair != "" && name != returnParameter {
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

// ReturnTo returns the path to redirect to after login: the parameter "next" that
// [Manager.Require] sets, from the query or the form, if it is a path of this
// site of at most 1024 bytes, and otherwise fallback (OWASP Unvalidated
// Redirects and Forwards Cheat Sheet).
func ReturnTo(r *http.Request, fallback string) string {
	if target := r.FormValue(returnParameter); localPath(target) && escapedLen(target) <= maxNext {
		return target
	}
	return fallback
}

// escapedLen returns the length of a target after http.Redirect has escaped
// its non-ASCII bytes.
func escapedLen(target string) int {
	n := len(target)
	for i := range len(target) {
		if target[i] >= utf8.RuneSelf {
			n += 2
		}
	}
	return n
}

// localPath reports whether target is a path of the same site to a browser.
// Browsers treat // and /\ as the start of a host, and drop tabs and line feeds
// between them (WHATWG URL, "basic URL parser"). http.Redirect resolves dot
// segments. So localPath accepts none of these anywhere in a path.
func localPath(target string) bool {
	if !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//") || strings.ContainsFunc(target, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\\' }) {
		return false
	}
	u, err := url.Parse(target)
	return err == nil && u.Host == "" && !strings.Contains(u.Path, "//")
}
