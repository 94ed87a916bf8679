package session

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Middleware loads, and if due renews, the session of each request before it
// calls next. [Manager.Check], [Manager.User], [Manager.Session] and
// [Manager.Err] then report the result without I/O. Requests without a session
// also reach next; use [Manager.Require] to reject them. If the database fails,
// next is not called and Config.OnError responds.
//
// Responses carry Vary: Cookie, and Cache-Control: private if the request is
// logged in. The handler may replace both.
//
// SameSite=Strict withholds the session cookie when a user follows a link from
// another site. A second, lax cookie without content, whose name ends in .hint,
// then says that the browser has a session. Middleware answers such a GET with
// a page that reloads itself once, from this site and so with the session
// cookie. Require, Guest and Switch do the same. Cookie.NoReload excludes
// requests, and a lax session cookie needs no reload. A POST from another site,
// for example from a payment provider, comes with neither cookie and is not
// logged in.
//
// The ResponseWriter is not wrapped.
func (m *Manager[U]) Middleware(next http.Handler) http.Handler {
	return m.Switch(next, next)
}

// Require calls next only for logged-in requests. Page loads by a browser are
// redirected to Config.LoginURL, for a GET with the original URL in the query
// parameter "next" (see [ReturnTo]) unless that is longer than 1024 bytes. Other
// requests get 401 Unauthorized.
func (m *Manager[U]) Require(next http.Handler) http.Handler {
	return m.Switch(next, http.HandlerFunc(m.reject))
}

// Guest calls next only for requests that are not logged in, such as those for
// the login page. It redirects others to the path in the parameter "next" (see
// [ReturnTo]), or to Config.HomeURL.
func (m *Manager[U]) Guest(next http.Handler) http.Handler {
	return m.Switch(http.HandlerFunc(m.redirectHome), next)
}

// Switch calls authed for logged-in requests and guest for others.
//
// Middleware, Switch, Require, RequireFresh and Guest can be used alone or
// nested: the outermost loads the session, the others use its result.
func (m *Manager[U]) Switch(authed, guest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := m.stateFrom(r.Context())
		if v == nil {
			s, renewed, err := m.load(r)
			if err != nil {
				m.fail(w, r, err)
				return
			}
			v = &s.first
			if m.prepare(w, r, v, renewed) {
				return
			}
			if m.twins != nil {
				s.reports = true
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

// load authenticates a request, renews its session if that is due, and returns
// the state for the request's context.
func (m *Manager[U]) load(r *http.Request) (s *stateContext[U], renewed bool, err error) {
	if s, err = m.newState(r); err != nil {
		return nil, false, err
	}
	renewed = m.renew(r, &s.first)
	m.deleteRejected(r, &s.first)
	return s, renewed, nil
}

// Authenticate does what [Manager.Middleware] does before it calls its next
// handler, and leaves the response to the caller: it serves frameworks whose
// handlers are no [http.Handler]. The request that it returns carries the
// state; pass it on, and let [Manager.Check] or [Manager.Err] decide whether it
// may pass. If w is nil, Authenticate sets no headers and no cookies.
//
// An error says nothing about the user: it matches [ErrUnavailable], [ErrBusy],
// [ErrConfig] or [ErrClosed]. Respond with 503 Service Unavailable, and neither
// as to a logged-in request nor as to one that is not.
//
// Unlike Middleware, Authenticate never responds with a page that reloads
// itself: a request that follows a link from another site is not logged in,
// unless Cookie.SameSite is lax.
func (m *Manager[U]) Authenticate(w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	if m.stateFrom(r.Context()) != nil {
		return r, nil
	}
	s, _, err := m.load(r)
	if err != nil {
		m.reportFailure(r, err)
		return r, err
	}
	if w != nil {
		m.setHeaders(w, r, &s.first, opensPage(r))
	}
	if m.twins != nil && r.Context().Done() != nil {
		s.reports = true
		context.AfterFunc(r.Context(), func() { m.twins.done(any(s)) })
	}
	return r.WithContext(s), nil
}

// Peek authenticates a request and changes nothing: it does not renew the
// session, delete its row or set a cookie. It serves checks that are not visits
// of the user, such as polls of a page or the handshake of a WebSocket. The
// errors are those of [Manager.Authenticate].
func (m *Manager[U]) Peek(r *http.Request) (State[U], error) {
	ctx := r.Context()
	if m.stateFrom(ctx) == nil {
		s, err := m.newState(r)
		if err != nil {
			m.reportFailure(r, err)
			return State[U]{Err: err}, err
		}
		ctx = s
	}
	return m.FromContext(ctx), nil
}

// fail responds to a request that could not be authenticated.
func (m *Manager[U]) fail(w http.ResponseWriter, r *http.Request, err error) {
	m.reportFailure(r, err)
	m.cfg.OnError(w, r, err)
}

// reportFailure emits the event of a request that could not be authenticated,
// unless the client has disconnected.
func (m *Manager[U]) reportFailure(r *http.Request, err error) {
	if !errors.Is(r.Context().Err(), context.Canceled) {
		m.emit(r, EventUnavailable, nil, err)
	}
}

func (m *Manager[U]) reject(w http.ResponseWriter, r *http.Request) {
	neverCache(w.Header())
	if m.cfg.LoginURL == "" || !wantsPage(r) {
		// RFC 9110 section 15.5.2 requires a challenge.
		w.Header().Set("WWW-Authenticate", `Cookie realm="session"`)
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	}
	http.Redirect(w, r, withNext(m.cfg.LoginURL, r), http.StatusSeeOther)
}

// Fresh reports whether the user logged in within the given duration. Renewals
// do not count.
//
// Fresh reads the session even if Config.Cache has it, and reports false if
// that fails. A login in the future, from before the database's clock was set
// back, is not fresh.
func (m *Manager[U]) Fresh(r *http.Request, within time.Duration) bool {
	if m.stateFrom(r.Context()) == nil {
		return false
	}
	v, err := m.certainVerdict(r)
	return err == nil && v.fresh(within)
}

func (v *verdict[U]) fresh(within time.Duration) bool {
	age := v.record.Now - v.record.Created
	return v.err == nil && !v.stale && age >= -1 && age <= seconds(within)
}

// RequireFresh returns a middleware that is [Manager.Require] for sensitive
// pages (OWASP ASVS 5.0 V7.5.3): it also requires a login within the given
// duration. Page loads by a browser whose login is older are redirected to
// Config.ConfirmURL, for a GET with the original URL in the parameter "next".
// Other requests, and all without that setting, get 403 Forbidden. The page at
// ConfirmURL asks for the password, calls Login and redirects to [ReturnTo]; it
// must not be behind Guest.
func (m *Manager[U]) RequireFresh(within time.Duration) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return m.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			v, err := m.certainVerdict(r)
			switch {
			case err != nil:
				m.fail(w, r, err)
			case v.err != nil: // revoked elsewhere
				m.reject(w, r)
			case v.fresh(within):
				next.ServeHTTP(w, r)
			default:
				m.confirmLogin(w, r)
			}
		}))
	}
}

// confirmLogin rejects a request whose login is too old.
func (m *Manager[U]) confirmLogin(w http.ResponseWriter, r *http.Request) {
	neverCache(w.Header())
	if m.cfg.ConfirmURL == "" || !wantsPage(r) {
		http.Error(w, "Forbidden: log in again", http.StatusForbidden)
		return
	}
	http.Redirect(w, r, withNext(m.cfg.ConfirmURL, r), http.StatusSeeOther)
}

func (m *Manager[U]) redirectHome(w http.ResponseWriter, r *http.Request) {
	neverCache(w.Header())
	http.Redirect(w, r, ReturnTo(r, m.cfg.HomeURL), http.StatusSeeOther)
}

// wantsPage reports whether r is a page load by a browser, not a request of a
// script.
func wantsPage(r *http.Request) bool {
	if mode := header(r, "Sec-Fetch-Mode"); mode != "" && mode != "navigate" && mode != "same-origin" {
		return false
	}
	return acceptsPage(r) && header(r, "X-Requested-With") == ""
}
