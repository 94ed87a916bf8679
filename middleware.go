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
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// A state is the context of a request that a Manager has judged. Its key is the Manager itself, so two of them do not
// see each other. Login and Logout replace the verdict, possibly while other goroutines of the handler read it.
type state[U any] struct {
	context.Context
	manager *Manager[U]
	verdict atomic.Pointer[verdict[U]]
	first   verdict[U] // what verdict points to at the beginning
}

// Value finds the state itself by its Manager, and all else further out.
func (s *state[U]) Value(key any) any {
	if m, ok := key.(*Manager[U]); ok && m == s.manager {
		return s
	}
	return s.Context.Value(key)
}

// Middleware looks up the session of each request before the handler runs, and renews it when it is time, so that
// Check, User and the others only tell what is known. A request without a session passes too: [Manager.Require] turns
// those away. If the database fails, the handler does not run, and Config.OnError answers.
//
// Answers vary by cookie, and are private (Cache-Control) where the request is logged in. The handler may replace both.
//
// A browser that follows a link from another site withholds the session cookie, which is strictly same-site, but sends
// a second one that holds nothing, whose name ends in hint. It then gets, in place of the page, a small page that asks for
// it once more, from this site and so with the cookie. So do Require, Guest and Switch. Config.NoReload excludes
// requests, and with a lax cookie there is none of this. A POST from another site, such as one by a payment
// provider, comes with neither cookie and is not logged in.
//
// The ResponseWriter is passed on as it is.
func (m *Manager[U]) Middleware(next http.Handler) http.Handler {
	return m.Switch(next, next)
}

// Require lets only those pass who are logged in. A browser that asks for a page is sent to Config.LoginURL, with the
// page in the parameter next (see [ReturnTo]) if it was a GET and its URL is no longer than 1024 bytes; everyone else gets
// 401 Unauthorized.
func (m *Manager[U]) Require(next http.Handler) http.Handler {
	return m.Switch(next, http.HandlerFunc(m.refuse))
}

// Guest lets only those pass who are not logged in: the login page. Others are sent on to the page in the parameter
// next, or Config.HomeURL.
func (m *Manager[U]) Guest(next http.Handler) http.Handler {
	return m.Switch(http.HandlerFunc(m.welcome), next)
}

// Switch serves a page that differs: authed for those who are logged in, guest for all others.
//
// Switch, Middleware, Require and Guest work alone and inside each other: the first that a request meets looks up the
// session, the others use what it found.
func (m *Manager[U]) Switch(authed, guest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := m.known(r.Context())
		if v == nil {
			s := &state[U]{Context: r.Context(), manager: m}
			v = &s.first
			if err := m.authenticate(r, v); err != nil {
				m.unknown(w, r, err)
				return
			}
			renewed := m.slide(r, v)
			if v.err == ErrUserGone || v.err == ErrAccountChanged || v.err == ErrExpired {
				m.end(r, v)
			}
			if m.prepare(w, r, v, renewed) {
				return
			}
			s.verdict.Store(v)
			if m.twins != nil {
				defer m.twins.done(any(s))
			}
			r = r.WithContext(s)
		}
		if v.err == nil {
			authed.ServeHTTP(w, r)
		} else {
			guest.ServeHTTP(w, r)
		}
	})
}

// prepare says to caches and to the browser what they need to know of the
// session, before the handler writes, and reports whether that was the whole
// answer. Cookies go only into answers to a browser that opens a page: what
// pages consist of is often kept by caches.
func (m *Manager[U]) prepare(w http.ResponseWriter, r *http.Request, v *verdict[U], renewed bool) (answered bool) {
	varyByCookie(w.Header())
	if v.err == nil {
		private(w.Header())
	}
	if !opensPage(r) {
		return false
	}
	hinted := m.cookies.hinted(r)
	switch {
	case v.err == ErrNoCookie && hinted && m.mayReload(r): // withheld, perhaps; without the hint this ends
		m.cookies.clearHint(w)
		reload(w, r)
		return true
	case v.err == ErrNoCookie:
	case v.err != nil && hinted:
		m.cookies.clearHint(w)
	case v.err == nil && m.mayReload(r) && m.mustWrite(r, v, renewed):
		m.cookies.write(w, v.token)
		reload(w, r)
		return true
	case v.err == nil && !hinted:
		m.cookies.writeHint(w)
	}
	return false
}

// mustWrite reports whether the browser needs the cookie of its session once
// more: as it gets old, or as it has only CandyPack's. It goes into a page of
// this library, as a handler could let caches keep it, or take so long that a
// newer one is there before it. Neither happens twice in a row: a renewal is
// won once, and completions are remembered.
func (m *Manager[U]) mustWrite(r *http.Request, v *verdict[U], renewed bool) bool {
	if renewed && m.cookies.lasting() && v.record.now-v.record.created > seconds(rewriteAge) {
		// A Rotate of another tab may have replaced the token just now.
		_, err := m.certainly.find(r.Context(), v.token.selector, v.token.selector)
		return err == nil
	}
	return m.cookies.incomplete(r, v.token) && m.completed.first(v.token.selector)
}

func (m *Manager[U]) mayReload(r *http.Request) bool {
	return m.cfg.NoReload == nil || !m.cfg.NoReload(r)
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

// unknown answers a request of which nothing is known, as the database failed. A client that left is no news.
func (m *Manager[U]) unknown(w http.ResponseWriter, r *http.Request, err error) {
	if !errors.Is(r.Context().Err(), context.Canceled) {
		m.tell(r, EventUnavailable, nil, err)
	}
	m.cfg.OnError(w, r, err)
}

// unavailable is the default of Config.OnError.
func unavailable(w http.ResponseWriter, _ *http.Request, _ error) {
	neverCache(w.Header())
	w.Header().Set("Retry-After", "1")
	http.Error(w, "Service Unavailable", http.StatusServiceUnavailable)
}

func (m *Manager[U]) refuse(w http.ResponseWriter, r *http.Request) {
	neverCache(w.Header())
	if m.cfg.LoginURL == "" || !wantsPage(r) {
		w.Header().Set("WWW-Authenticate", `Cookie realm="session"`) // RFC 9110 section 15.5.2 asks for a challenge
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	}
	http.Redirect(w, r, withNext(m.cfg.LoginURL, r), http.StatusSeeOther)
}

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

// Fresh reports whether the user of this request logged in no longer ago than this: gave a password, or whatever else
// the app asks before LoginAs. Visits, which renew a session, do not count.
//
// It reads the session whatever Config.Cache says: if that fails, it reports
// false. A login in the future, of before the database's clock was set back, is
// not fresh.
func (m *Manager[U]) Fresh(r *http.Request, within time.Duration) bool {
	if m.known(r.Context()) == nil {
		return false
	}
	v, err := m.certain(r)
	return err == nil && v.fresh(within)
}

func (v *verdict[U]) fresh(within time.Duration) bool {
	age := v.record.now - v.record.created
	return v.err == nil && !v.stale && age >= -1 && age <= seconds(within)
}

// RequireFresh is [Manager.Require] for dangerous pages (OWASP ASVS 5.0 V7.5.3): who has not logged in for longer than
// this has to do so again. A browser that asks for a page is sent to Config.ConfirmURL, with the page in the parameter
// next if it was a GET; everyone else, or without that setting, gets 403 Forbidden. The page at ConfirmURL asks for the
// password, calls Login, and goes on to [ReturnTo]; it must not be behind Guest.
func (m *Manager[U]) RequireFresh(within time.Duration, next http.Handler) http.Handler {
	return m.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := m.certain(r)
		switch {
		case err != nil:
			m.unknown(w, r, err)
			return
		case v.err != nil: // it was ended elsewhere
			m.refuse(w, r)
			return
		case v.fresh(within):
			next.ServeHTTP(w, r)
			return
		}
		neverCache(w.Header())
		if m.cfg.ConfirmURL == "" || !wantsPage(r) {
			http.Error(w, "Forbidden: log in again", http.StatusForbidden)
			return
		}
		http.Redirect(w, r, withNext(m.cfg.ConfirmURL, r), http.StatusSeeOther)
	}))
}

func (m *Manager[U]) welcome(w http.ResponseWriter, r *http.Request) {
	neverCache(w.Header())
	http.Redirect(w, r, ReturnTo(r, m.cfg.HomeURL), http.StatusSeeOther)
}

// wantsPage tells a browser that opens a page from a program or script, which wants a status.
func wantsPage(r *http.Request) bool {
	if mode := header(r, "Sec-Fetch-Mode"); mode != "" && mode != "navigate" && mode != "same-origin" {
		return false
	}
	return acceptsPage(r) && header(r, "X-Requested-With") == ""
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

// Check reports whether the request is logged in. It asks nothing: Middleware did.
func (m *Manager[U]) Check(r *http.Request) bool { return m.Err(r) == nil }

// User is the user whom the request is logged in as; false, and the zero U, if there is none.
func (m *Manager[U]) User(r *http.Request) (user U, ok bool) {
	if v := m.known(r.Context()); v != nil && v.err == nil {
		return m.plan.copy(v.user), true
	}
	return user, false
}

// Session tells of the session of the request; it is the zero Session if the request is not logged in.
func (m *Manager[U]) Session(r *http.Request) Session {
	v := m.known(r.Context())
	if v == nil || v.err != nil {
		return Session{}
	}
	s := m.store.describe(&v.record)
	s.Current, s.Stale = true, v.stale
	return s
}

// Err tells why the request is not logged in: [ErrNoCookie], [ErrMalformed], [ErrUnknown], [ErrExpired],
// [ErrWrongBrowser], [ErrUserGone], [ErrAccountChanged], or [ErrNoMiddleware]. It is nil for a request that is logged in.
func (m *Manager[U]) Err(r *http.Request) error {
	v := m.known(r.Context())
	if v == nil {
		return ErrNoMiddleware
	}
	return v.err
}

// known is what is known of the request with this context; nil if that is nothing.
func (m *Manager[U]) known(ctx context.Context) *verdict[U] {
	if s, ok := ctx.Value(m).(*state[U]); ok {
		return s.verdict.Load()
	}
	return nil
}

// verdict is what is known of a request, or else what a look tells.
func (m *Manager[U]) verdict(r *http.Request) (*verdict[U], error) {
	if v := m.known(r.Context()); v != nil {
		return v, nil
	}
	v := &verdict[U]{}
	return v, m.authenticate(r, v)
}

// certain is verdict for what must not be let in by the cache: it reads the
// session if what is known of the request came from there.
func (m *Manager[U]) certain(r *http.Request) (*verdict[U], error) {
	v, err := m.verdict(r)
	if err != nil || !v.cached {
		return v, err
	}
	read := &verdict[U]{}
	if err := m.authenticate(r.WithContext(withoutCache(r.Context())), read); err != nil {
		return nil, err
	}
	m.remember(r, read)
	return read, nil
}

// remember changes what is known of the request from now on.
func (m *Manager[U]) remember(r *http.Request, v *verdict[U]) {
	if s, ok := r.Context().Value(m).(*state[U]); ok {
		s.verdict.Store(v)
	}
}

// stateOf is the state of a request, or nil.
func (m *Manager[U]) stateOf(r *http.Request) any {
	if s, ok := r.Context().Value(m).(*state[U]); ok {
		return s
	}
	return nil
}

// forget is remember for a session that was ended by way of a list: if it is that of the request with this context,
// the request is no longer logged in.
func (m *Manager[U]) forget(ctx context.Context, ended func(*verdict[U]) bool) {
	if s, ok := ctx.Value(m).(*state[U]); ok {
		if v := s.verdict.Load(); v.err == nil && ended(v) {
			s.verdict.Store(&verdict[U]{err: ErrUnknown})
		}
	}
}
