package session

import (
	"context"
	"net/http"
	"slices"

	"github.com/candysession/session/internal/store"
)

// LogoutOthers revokes every other session of the request's user, and replaces
// this one's token, which also locks out anyone who copied it. Call it before
// writing the response body. It returns [ErrNotLoggedIn] without a session.
func (m *Manager[U]) LogoutOthers(w http.ResponseWriter, r *http.Request) error {
	v, err := m.rotate(w, r)
	if err != nil {
		return err
	}
	_, _, err = m.revokeAllOf(detach(r.Context()), v.record.Owner, v.record.ID)
	return err
}

// LogoutAll revokes every session of a user, for example after a password reset,
// and returns how many it revoked. If ctx belongs to a request logged in as this
// user, that request is logged out as well.
func (m *Manager[U]) LogoutAll(ctx context.Context, userKey any) (n int64, err error) {
	ctx = detach(ctx)
	key, n, err := m.revokeAllOf(ctx, userKey, 0)
	if err == nil {
		m.endIf(ctx, func(v *verdict[U]) bool { return m.isUser(ctx, v.record.Owner, key) })
	}
	return n, err
}

// revokeAllOf revokes the sessions of a user except one. It returns the user's
// key as a parameter, and how many sessions it revoked.
func (m *Manager[U]) revokeAllOf(ctx context.Context, userKey any, except uint64) (key any, n int64, err error) {
	if key, err = m.store.KeyParam(ctx, userKey); err != nil {
		return nil, 0, err
	}
	n, err = m.store.DeleteAllOf(ctx, key, except)
	m.forgetUser(ctx, key)
	m.emitRevoked(ctx, key, n)
	return key, n, err
}

// Sessions returns the sessions of a user that have not expired, most recently
// renewed first. With a request's context, the current one is marked.
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
		sessions[i].Current = current != nil && current.err == nil && m.isSession(current, &records[i])
	}
	return sessions, nil
}

// Revoke revokes one session of a user, by its [Session].ID. It returns
// [ErrSessionNotFound] if the user has no such session, so users cannot revoke
// each other's sessions.
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
	m.endIf(ctx, func(v *verdict[U]) bool { return m.isSession(v, &records[i]) })
	return nil
}

// isSession reports whether a verdict is on the session of a row.
func (m *Manager[U]) isSession(v *verdict[U], row *store.Record) bool {
	if v.given != nil {
		return v.given.ID == m.store.PublicID(row)
	}
	return v.record.ID == row.ID
}

// isUser reports whether a row's owner is the user with this key.
func (m *Manager[U]) isUser(ctx context.Context, owner, key any) bool {
	own, err := m.store.KeyParam(ctx, owner)
	return err == nil && store.SameKey(own, key)
}

// forgetUser removes a user's sessions from the cache, including those whose
// rows another server has deleted.
func (m *Manager[U]) forgetUser(ctx context.Context, key any) {
	if m.cache != nil {
		m.cache.forget(m.cache.ids(func(owner any) bool { return m.isUser(ctx, owner, key) })...)
	}
}
