package session

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
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
// The ResponseWriter is passed on as it is.
func (m *Manager[U]) Middleware(next http.Handler) http.Handler {
	return m.Switch(next, next)
}

// Require lets only those pass who are logged in. A browser that asks for a page is sent to Config.LoginURL, with the
// page in the parameter next (see [ReturnTo]) if it was a GET; everyone else gets 401 Unauthorized.
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
			var err error
			if *v, err = m.authenticate(r); err != nil {
				m.unknown(w, r, err)
				return
			}
			m.slide(w, r, v)
			m.end(r, v)
			s.verdict.Store(v)
			r = r.WithContext(s)
		}
		if v.err == nil {
			authed.ServeHTTP(w, r)
		} else {
			guest.ServeHTTP(w, r)
		}
	})
}

// unknown answers a request of which nothing is known, as the database failed. A client that left is no news.
func (m *Manager[U]) unknown(w http.ResponseWriter, r *http.Request, err error) {
	if !errors.Is(r.Context().Err(), context.Canceled) {
		m.cfg.Logger.ErrorContext(r.Context(), "session: request not served", "error", err)
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
	target := m.cfg.LoginURL
	if page := r.RequestURI; r.Method == http.MethodGet && localPath(page) {
		separator := "?"
		if strings.Contains(target, "?") {
			separator = "&"
		}
		target += separator + url.Values{returnParameter: {page}}.Encode()
	}
	http.Redirect(w, r, target, http.StatusSeeOther)
}

func (m *Manager[U]) welcome(w http.ResponseWriter, r *http.Request) {
	neverCache(w.Header())
	http.Redirect(w, r, ReturnTo(r, m.cfg.HomeURL), http.StatusSeeOther)
}

// wantsPage tells a browser that opens a page from a program or script, which wants a status.
func wantsPage(r *http.Request) bool {
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" && mode != "navigate" {
		return false
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html") && r.Header.Get("X-Requested-With") == ""
}

const returnParameter = "next"

// ReturnTo tells where to send a user after login: the page that [Manager.Require] turned away, which stands in the
// parameter next of the query or form, or else the fallback. It is a path of this site, whatever a link claims (OWASP
// Unvalidated Redirects and Forwards Cheat Sheet).
func ReturnTo(r *http.Request, fallback string) string {
	if target := r.FormValue(returnParameter); localPath(target) {
		return target
	}
	return fallback
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
	s := v.record.session()
	s.Current, s.Stale = true, v.stale
	return s
}

// Err tells why the request is not logged in: [ErrNoCookie], [ErrMalformed], [ErrUnknown], [ErrExpired],
// [ErrWrongBrowser], [ErrUserGone], or [ErrNoMiddleware]. It is nil for a request that is logged in.
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
	v, err := m.authenticate(r)
	return &v, err
}

// remember changes what is known of the request from now on.
func (m *Manager[U]) remember(r *http.Request, v *verdict[U]) {
	if s, ok := r.Context().Value(m).(*state[U]); ok {
		s.verdict.Store(v)
	}
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
