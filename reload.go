package session

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"html"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/candysession/session/internal/store"
)

// setHeaders marks the response as dependent on the session, and gives the
// browser the hint that it has one. Cookies go only into responses to a page
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
		m.cookies.writeHint(w, m.cookies.template.MaxAge)
	}
}

// prepare sets the headers of a response before the handler writes it, or
// responds with a page that reloads itself, and reports whether it did.
func (m *Manager[U]) prepare(w http.ResponseWriter, r *http.Request, v *verdict[U], renewed bool) (answered bool) {
	page := opensPage(r)
	if page && m.mayReload(r) {
		switch {
		case v.err == ErrNoCookie && m.cookies.hinted(r):
			// The cookie may be withheld. Without the hint, the next
			// request is not reloaded.
			m.cookies.clearHint(w)
			reload(w, r)
			return true
		case v.err == nil && m.mustWrite(r, v, renewed):
			if transient, err := m.isTransient(r.Context(), &v.record); err == nil {
				m.cookies.write(w, v.token, transient)
				reload(w, r)
				return true
			}
		}
	}
	m.setHeaders(w, r, v, page)
	return false
}

// mustWrite reports whether the browser needs its session cookie again, because
// the cookie is old or the browser has only CandyPack's. The cookie goes into a
// page of this library: a handler could let caches store it, or respond after a
// newer cookie. It is not written twice in a row: one request wins a renewal,
// and completions are remembered.
func (m *Manager[U]) mustWrite(r *http.Request, v *verdict[U], renewed bool) bool {
	if renewed && m.cookies.isPersistent() && v.record.Now-v.record.Created > seconds(rewriteAge) {
		// A Rotate of another tab may have replaced the token just now.
		_, err := m.primary.Find(r.Context(), v.token.Selector, v.token.Selector)
		return err == nil
	}
	return m.cookies.shared.complete(m.cookies, r, v.token)
}

func (m *Manager[U]) mayReload(r *http.Request) bool {
	return m.cfg.Cookie.NoReload == nil || !m.cfg.Cookie.NoReload(r)
}

// opensPage reports whether r is a page load, not a request for a part of a
// page. A service worker that forwards a page load empties its destination, and
// in Firefox sets its mode to same-origin.
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

// reload responds with a page that loads the requested page again, this time
// from this site and so with the session cookie. A script does that, because it
// keeps the #fragment, which servers never see. It changes the page's URL first,
// since a browser would only scroll from a URL to the same one with a fragment.
// If scripts do not run, a meta refresh follows. It names only the end of the
// path, which proxies do not rewrite.
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
	// The policy is for this page only, and replaces the app's.
	w.Header().Set("Content-Security-Policy", reloadPolicy)
	io.WriteString(w, `<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="1; url=`+html.EscapeString(target)+`"><title>One moment</title><script>`+reloadScript+`</script>`)
}

const reloadScript = `var u=location.href;history.replaceState(null,"","?reload");location.replace(u)`

var reloadPolicy = func() string {
	sum := sha256.Sum256([]byte(reloadScript))
	return "default-src 'none'; script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}()

// isTransient reports whether the cookie of a session ends with the browser. A
// session that has ended keeps no cookie, so the answer does not matter.
func (m *Manager[U]) isTransient(ctx context.Context, r *store.Record) (bool, error) {
	transient, err := m.store.IsTransient(ctx, r)
	if errors.Is(err, store.ErrSessionEnded) {
		err = nil
	}
	return transient, err
}
