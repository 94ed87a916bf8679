package session

import (
	"context"
	"net/http"
	"slices"
	"time"
)

// LogoutOthers revokes every other session of the request's user, and replaces
// this one's token, which also locks out anyone who copied it. Call it before
// writing the response body. It returns [ErrNotLoggedIn] without a session.
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
	m.emitRevoked(ctx, key, n)
	return err
}

// emitRevoked emits EventRevoked if n > 0.
func (m *Manager[U]) emitRevoked(ctx context.Context, user any, n int64) {
	if n > 0 {
		m.cfg.event(ctx, Event{Kind: EventRevoked, User: user, Count: n})
	}
}

// LogoutAll revokes every session of a user, for example after a password reset,
// and returns how many it revoked. If ctx belongs to a request logged in as this
// user, that request is logged out as well.
func (m *Manager[U]) LogoutAll(ctx context.Context, userKey any) (n int64, err error) {
	ctx = steadfast(ctx)
	key, err := m.store.userArg(ctx, userKey)
	if err != nil {
		return 0, err
	}
	n, err = m.store.deleteAllOf(ctx, key, 0)
	m.forgetUser(ctx, key)
	m.emitRevoked(ctx, key, n)
	if err == nil {
		m.endIf(ctx, func(v *verdict[U]) bool { return m.isUser(ctx, v.record.owner, key) })
	}
	return n, err
}

// A Session describes a session to its user. It contains no credentials.
type Session struct {
	ID      string    // identifies the session to Revoke
	Created time.Time // time of login
	Active  time.Time // time of the last renewal, which may trail the last request by UpdateAge
	Browser string    // the User-Agent, or the text of Config.Fingerprint
	IP      string    // client address at login, by Config.ClientIP
	Current bool      // whether it is the calling request's session
	Stale   bool      // whether it was served from the cache because the database failed
}

// describe returns the Session of a row.
func (s *store) describe(r *record) Session {
	return Session{
		ID:      s.publicID(r),
		Created: time.Unix(r.created, 0).UTC(),
		Active:  time.Unix(r.active, 0).UTC(),
		Browser: r.browser,
		IP:      r.ip,
	}
}

// Sessions returns the sessions of a user that have not expired, most recently
// renewed first. With a request's context, the current one is marked.
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

// Revoke revokes one session of a user, by its [Session].ID. It returns
// [ErrSessionNotFound] if the user has no such session, so users cannot revoke
// each other's sessions.
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
