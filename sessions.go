package session

import (
	"context"
	"net/http"
	"slices"
	"time"
)

// LogoutOthers ends every other session of this request's user, and gives this one a new token: who had copied the
// old one is out too. Call it before writing the body. Without a session it returns [ErrNotLoggedIn].
func (m *Manager[U]) LogoutOthers(w http.ResponseWriter, r *http.Request) error {
	v, err := m.rotate(w, r)
	if err != nil {
		return err
	}
	ctx := steadfast(r.Context())
	key, err := m.store.userArg(ctx, v.record.owner)
	if err != nil {
		return err
	}
	n, err := m.store.deleteAllOf(ctx, key, v.record.id)
	m.forgetUser(ctx, key)
	m.revoked(ctx, key, n)
	return err
}

// revoked is the event of sessions that were ended by another.
func (m *Manager[U]) revoked(ctx context.Context, user any, n int64) {
	if n > 0 {
		m.cfg.event(ctx, Event{Kind: EventRevoked, User: user, Count: n})
	}
}

// LogoutAll ends every session of a user, for example after a password was reset, and tells how many there were.
// A request that is logged in as this user and passes its context is logged out too.
func (m *Manager[U]) LogoutAll(ctx context.Context, userKey any) (n int64, err error) {
	ctx = steadfast(ctx)
	key, err := m.store.userArg(ctx, userKey)
	if err != nil {
		return 0, err
	}
	n, err = m.store.deleteAllOf(ctx, key, 0)
	m.forgetUser(ctx, key)
	m.revoked(ctx, key, n)
	if err == nil {
		m.endIf(ctx, func(v *verdict[U]) bool { return m.isUser(ctx, v.record.owner, key) })
	}
	return n, err
}

// A Session tells of one session what its user may know. It holds nothing that gives access.
type Session struct {
	ID      string    // names it for Revoke
	Created time.Time // the login
	Active  time.Time // the last renewal: up to UpdateAge before the last request
	Browser string    // the User-Agent, or what Config.Fingerprint made of the request
	IP      string    // the address of the login
	Current bool      // it is the session of the request whose context was given
	Stale   bool      // the database failed, and this is what was known at most Config.Cache.Stale ago
}

// describe returns what a user may know of a session.
func (s *store) describe(r *record) Session {
	return Session{
		ID:      s.publicID(r),
		Created: time.Unix(r.created, 0).UTC(),
		Active:  time.Unix(r.active, 0).UTC(),
		Browser: r.browser,
		IP:      r.ip,
	}
}

// Sessions lists the sessions of a user that have not expired, the last used first. Give it the request's context to
// have the current one marked.
func (m *Manager[U]) Sessions(ctx context.Context, userKey any) ([]Session, error) {
	key, err := m.store.userArg(ctx, userKey)
	if err != nil {
		return nil, err
	}
	records, err := m.store.sessionsOf(ctx, key)
	if err != nil {
		return nil, err
	}
	current := m.stateFrom(ctx)
	sessions := make([]Session, len(records))
	for i := range records {
		sessions[i] = m.store.describe(&records[i])
		sessions[i].Current = current != nil && current.err == nil && current.record.id == records[i].id
	}
	return sessions, nil
}

// Revoke ends one session of a user, by the ID that [Manager.Sessions] tells. If the user has no such session, it
// returns [ErrSessionNotFound]; so a user cannot end the sessions of another.
func (m *Manager[U]) Revoke(ctx context.Context, userKey any, id string) error {
	ctx = steadfast(ctx)
	key, err := m.store.userArg(ctx, userKey)
	if err != nil {
		return err
	}
	records, err := m.store.recordsOf(ctx, key, "", nil)
	if err != nil {
		return err
	}
	m.forgetUser(ctx, key) // the session may have ended on another server
	i := slices.IndexFunc(records, func(r record) bool { return m.store.publicID(&r) == id })
	if i < 0 {
		return ErrSessionNotFound
	}
	found, err := m.store.delete(ctx, records[i].id)
	if err != nil {
		return err
	}
	if !found {
		return ErrSessionNotFound
	}
	m.cfg.event(ctx, Event{Kind: EventRevoked, User: key, Session: id, Count: 1})
	m.endIf(ctx, func(v *verdict[U]) bool { return v.record.id == records[i].id })
	return nil
}
