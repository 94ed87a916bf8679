package session

import (
	"crypto/sha256"
	"encoding/base64"
	"html"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// setHeaders tells caches that the response depends on the session, and gives
// the browser the hint that it has one. Cookies go only into responses to a page
// load: caches often keep what pages consist of.
func (m *Manager[U]) setHeaders(w http.ResponseWriter, r *http.Request, v *verdict[U], page bool) {
	varyByCookie(w.Header())
	if v.err == nil {
		private(w.Header())
	}
	if !page || v.err == ErrNoCookie {
		return
	}
	switch hinted := m.cookies.hinted(r); {
	case v.err != nil && hinted:
		m.cookies.clearHint(w)
	case v.err == nil && !hinted:
		m.cookies.writeHint(w)
	}
}

// prepare sets the headers of a response before the handler writes it, or
// responds with a page that reloads itself, and reports whether it did.
func (m *Manager[U]) prepare(w http.ResponseWriter, r *http.Request, v *verdict[U], renewed bool) (answered bool) {
	page := opensPage(r)
	if page && m.mayReload(r) {
		switch {
		case v.err == ErrNoCookie && m.cookies.hinted(r): // withheld, perhaps; without the hint the next request is not reloaded
			m.cookies.clearHint(w)
			reload(w, r)
			return true
		case v.err == nil && m.mustWrite(r, v, renewed):
			m.cookies.write(w, v.token)
			reload(w, r)
			return true
		}
	}
	m.setHeaders(w, r, v, page)
	return false
}

// mustWrite reports whether the browser needs the cookie of its session once
// more: as it gets old, or as it has only CandyPack's. It goes into a page of
// this library, as a handler could let caches keep it, or take so long that a
// newer one is there before it. Neither happens twice in a row: a renewal is
// won once, and completions are remembered.
func (m *Manager[U]) mustWrite(r *http.Request, v *verdict[U], renewed bool) bool {
	if renewed && m.cookies.lasting() && v.record.Now-v.record.Created > seconds(rewriteAge) {
		// A Rotate of another tab may have replaced the token just now.
		_, err := m.certainly.Find(r.Context(), v.token.selector, v.token.selector)
		return err == nil
	}
	return m.cookies.incomplete(r, v.token) && m.completed.first(v.token.selector)
}

func (m *Manager[U]) mayReload(r *http.Request) bool {
	return m.cfg.Cookie.NoReload == nil || !m.cfg.Cookie.NoReload(r)
}

// opensPage reports whether a browser opens a page with the request, and not
// something for a page. A service worker that passes such a request on makes
// its destination empty, and in Firefox its mode same-origin.
func opensPage(r *http.Request) bool {
	if r.Method != http.MethodGet || header(r, "X-Requested-With") != "" {
		return false
	}
	mode := header(r, "Sec-Fetch-Mode")
	switch header(r, "Sec-Fetch-Dest") {
	case "document":
		return true
	case "empty":
		return mode == "navigate" || mode == "same-origin" && acceptsPage(r)
	case "":
		return (mode == "" || mode == "navigate") && acceptsPage(r)
	}
	return false
}

func acceptsPage(r *http.Request) bool { return strings.Contains(header(r, "Accept"), "text/html") }

// header is the first value of a header whose canonical name is given, which
// saves the search for that name.
func header(r *http.Request, canonical string) string {
	if values := r.Header[canonical]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// reload has the browser ask again, this time from a page of this site and so
// with the cookie. A script does that, as it keeps the #fragment, which servers
// never see. It changes the page's URL before, since a browser would only
// scroll from a URL to the same one with a fragment. Where a script may not run, a meta
// refresh asks instead. Of the path that one names the end, which proxies leave
// as it was.
func reload(w http.ResponseWriter, r *http.Request) {
	page := r.URL
	if asked, err := url.ParseRequestURI(r.RequestURI); err == nil {
		page = asked
	}
	path := page.EscapedPath()
	target := "./" + path[strings.LastIndexByte(path, '/')+1:]
	if page.RawQuery != "" {
		target += "?" + page.RawQuery
	}
	neverCache(w.Header())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", reloadPolicy) // of this page alone, also where the app's is in place
	io.WriteString(w, `<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="1; url=`+html.EscapeString(target)+`"><title>One moment</title><script>`+reloadScript+`</script>`)
}

const reloadScript = `var u=location.href;history.replaceState(null,"","?reload");location.replace(u)`

var reloadPolicy = func() string {
	sum := sha256.Sum256([]byte(reloadScript))
	return "default-src 'none'; script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}()
