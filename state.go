package session

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/candysession/session/internal/store"
)

// A stateContext carries a Manager's verdict in the context of a request. Its
// key is the Manager, so that Managers do not see each other's. Login and Logout
// replace the verdict, possibly while other goroutines of the handler read it.
type stateContext[U any] struct {
	context.Context
	manager *Manager[U]
	verdict atomic.Pointer[verdict[U]]
	first   verdict[U] // the verdict before Login and the like replace it
	reports bool       // whether the end of its request is reported to twins
}

// Value implements [context.Context].
func (s *stateContext[U]) Value(key any) any {
	if m, ok := key.(*Manager[U]); ok && m == s.manager {
		return s
	}
	return s.Context.Value(key)
}

// newState authenticates a request and returns the state for its context.
func (m *Manager[U]) newState(r *http.Request) (*stateContext[U], error) {
	s := &stateContext[U]{Context: r.Context(), manager: m}
	if err := m.authenticate(r, &s.first); err != nil {
		return nil, err
	}
	s.verdict.Store(&s.first)
	return s, nil
}

// stateIn returns the state that ctx carries, or nil.
func (m *Manager[U]) stateIn(ctx context.Context) *stateContext[U] {
	s, _ := ctx.Value(m).(*stateContext[U])
	return s
}

// stateFrom returns the verdict on the request that ctx belongs to, or nil.
func (m *Manager[U]) stateFrom(ctx context.Context) *verdict[U] {
	if s := m.stateIn(ctx); s != nil {
		return s.verdict.Load()
	}
	return nil
}

// verdictOn returns the verdict on a request. Without Middleware it
// authenticates the request.
func (m *Manager[U]) verdictOn(r *http.Request) (*verdict[U], error) {
	if v := m.stateFrom(r.Context()); v != nil {
		return v, nil
	}
	v := &verdict[U]{}
	return v, m.authenticate(r, v)
}

// certainVerdict returns the verdict on a request by the table: it reads the
// session if the verdict comes from the cache.
func (m *Manager[U]) certainVerdict(r *http.Request) (*verdict[U], error) {
	v, err := m.verdictOn(r)
	if err != nil || !v.cached {
		return v, err
	}
	read := &verdict[U]{}
	if err := m.authenticate(r.WithContext(withoutCache(r.Context())), read); err != nil {
		return nil, err
	}
	m.setVerdict(r, read)
	return read, nil
}

// setVerdict replaces the verdict on a request behind Middleware.
func (m *Manager[U]) setVerdict(r *http.Request, v *verdict[U]) {
	if s := m.stateIn(r.Context()); s != nil {
		s.verdict.Store(v)
	}
}

// stateOf returns the state of a request whose end is reported to twins, or nil.
func (m *Manager[U]) stateOf(r *http.Request) any {
	if s := m.stateIn(r.Context()); s != nil && s.reports {
		return s
	}
	return nil
}

// endIf replaces the verdict on the request that ctx belongs to if its session
// was revoked.
func (m *Manager[U]) endIf(ctx context.Context, revoked func(*verdict[U]) bool) {
	if s := m.stateIn(ctx); s != nil {
		if v := s.verdict.Load(); v.err == nil && revoked(v) {
			s.verdict.Store(&verdict[U]{err: ErrUnknownSession})
		}
	}
}

// A State is the result of authenticating a request.
type State[U any] struct {
	User    U       // the user; the zero U if Err is not nil
	Session Session // the session; the zero Session if Err is not nil
	Err     error   // why the request is not logged in; nil if it is
}

// FromContext returns the state of the request that ctx belongs to. Its Err is
// [ErrNoMiddleware] if no Middleware or Authenticate of this Manager has seen
// the request. FromContext does no I/O.
//
// It serves code that has a context and no request, such as a resolver of
// GraphQL or a handler of an RPC.
func (m *Manager[U]) FromContext(ctx context.Context) State[U] {
	v := m.stateFrom(ctx)
	switch {
	case v == nil:
		return State[U]{Err: ErrNoMiddleware}
	case v.err != nil:
		return State[U]{Err: v.err}
	}
	return State[U]{User: m.mapper.Clone(v.user), Session: m.sessionOf(v)}
}

// WithState returns a copy of ctx that carries a state, as if this Manager had
// authenticated its request. Tests use it to call a handler behind
// [Manager.Require] without a database, and adapters to pass on a state that
// they have. Nothing of it is saved, and nothing is verified.
//
// Methods that change a session return [ErrNotLoggedIn] for such a state, such
// as Rotate and SetPassword. It ends with Logout, and with Revoke of its
// Session.ID, but not with LogoutAll.
func (m *Manager[U]) WithState(ctx context.Context, state State[U]) context.Context {
	v := verdict[U]{err: state.Err}
	if state.Err == nil {
		now := time.Now().Unix()
		v.user = state.User
		v.record = store.Record{
			Browser: state.Session.Browser,
			IP:      state.Session.IP,
			Created: state.Session.Created.Unix(),
			Active:  state.Session.Active.Unix(),
			Now:     now,
		}
		v.given, v.stale = &state.Session, state.Session.Stale
	}
	s := &stateContext[U]{Context: ctx, manager: m, first: v}
	s.verdict.Store(&s.first)
	return s
}

// Check reports whether the request is logged in. It does no I/O.
func (m *Manager[U]) Check(r *http.Request) bool { return m.Err(r) == nil }

// User returns the user of the request. ok is false, and the user the zero U,
// if the request is not logged in.
func (m *Manager[U]) User(r *http.Request) (user U, ok bool) {
	if v := m.stateFrom(r.Context()); v != nil && v.err == nil {
		return m.mapper.Clone(v.user), true
	}
	return user, false
}

// Session returns the session of the request, or the zero Session if the
// request is not logged in.
func (m *Manager[U]) Session(r *http.Request) Session {
	v := m.stateFrom(r.Context())
	if v == nil || v.err != nil {
		return Session{}
	}
	return m.sessionOf(v)
}

func (m *Manager[U]) sessionOf(v *verdict[U]) Session {
	var s Session
	if v.given != nil {
		s = *v.given
	} else {
		s = m.describe(&v.record)
	}
	s.Current, s.Stale = true, v.stale
	return s
}

// Err returns the reason why the request is not logged in: [ErrNoCookie],
// [ErrMalformedCookie], [ErrUnknownSession], [ErrExpired],
// [ErrFingerprintMismatch], [ErrUserNotFound], [ErrAccountChanged] or
// [ErrNoMiddleware]. It returns nil if the request is logged in.
func (m *Manager[U]) Err(r *http.Request) error {
	v := m.stateFrom(r.Context())
	if v == nil {
		return ErrNoMiddleware
	}
	return v.err
}
