package session

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/candysession/session/internal/store"
)

// LogoutOthers ends every other session of this request's user, and gives this one a new token: who had copied the
// old one is out too. Call it before writing the body. Without a session it returns [ErrNotLoggedIn].
func (m *Manager[U]) LogoutOthers(w http.ResponseWriter, r *http.Request) error {
	v, err := m.rotate(w, r)
	if err != nil {
		return err
	}
	ctx := detach(r.Context())
	key, err := m.store.KeyParam(ctx, v.record.Owner)
	if err != nil {
		return err
	}
	n, err := m.store.DeleteAllOf(ctx, key, v.record.ID)
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
	ctx = detach(ctx)
	key, err := m.store.KeyParam(ctx, userKey)
	if err != nil {
		return 0, err
	}
	n, err = m.store.DeleteAllOf(ctx, key, 0)
	m.forgetUser(ctx, key)
	m.revoked(ctx, key, n)
	if err == nil {
		m.endIf(ctx, func(v *verdict[U]) bool { return m.isUser(ctx, v.record.Owner, key) })
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
func (m *Manager[U]) describe(r *store.Record) Session {
	return Session{
		ID:      m.store.PublicID(r),
		Created: time.Unix(r.Created, 0).UTC(),
		Active:  time.Unix(r.Active, 0).UTC(),
		Browser: r.Browser,
		IP:      r.IP,
	}
}

// Sessions lists the sessions of a user that have not expired, the last used first. Give it the request's context to
// have the current one marked.
func (m *Manager[U]) Sessions(ctx context.Context, userKey any) ([]Session, error) {
	key, err := m.store.KeyParam(ctx, userKey)
	if err != nil {
		return nil, err
	}
	records, err := m.store.SessionsOf(ctx, key)
	if err != nil {
		return nil, err
	}
	current := m.stateFrom(ctx)
	sessions := make([]Session, len(records))
	for i := range records {
		sessions[i] = m.describe(&records[i])
		sessions[i].Current = current != nil && current.err == nil && current.record.ID == records[i].ID
	}
	return sessions, nil
}

// Revoke ends one session of a user, by the ID that [Manager.Sessions] tells. If the user has no such session, it
// returns [ErrSessionNotFound]; so a user cannot end the sessions of another.
func (m *Manager[U]) Revoke(ctx context.Context, userKey any, id string) error {
	ctx = detach(ctx)
	key, err := m.store.KeyParam(ctx, userKey)
	if err != nil {
		return err
	}
	records, err := m.store.RecordsOf(ctx, key)
	if err != nil {
		return err
	}
	m.forgetUser(ctx, key) // the session may have ended on another server
	i := slices.IndexFunc(records, func(r store.Record) bool { return m.store.PublicID(&r) == id })
	if i < 0 {
		return ErrSessionNotFound
	}
	found, err := m.store.Delete(ctx, records[i].ID)
	if err != nil {
		return err
	}
	if !found {
		return ErrSessionNotFound
	}
	m.cfg.event(ctx, Event{Kind: EventRevoked, User: key, Session: id, Count: 1})
	m.endIf(ctx, func(v *verdict[U]) bool { return v.record.ID == records[i].ID })
	return nil
}

// isUser reports whether a row's owner is the user with this key.
func (m *Manager[U]) isUser(ctx context.Context, owner, key any) bool {
	own, err := m.store.KeyParam(ctx, owner)
	return err == nil && store.SameKey(own, key)
}

// forgetUser drops what the cache knows of a user whose sessions were ended:
// also of those whose rows were gone already, by another server.
func (m *Manager[U]) forgetUser(ctx context.Context, key any) {
	if m.cache != nil {
		m.cache.forget(m.cache.ids(func(owner any) bool { return m.isUser(ctx, owner, key) })...)
	}
}
