package session

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/candysession/session/internal/store"
	"github.com/candysession/session/internal/token"
)

// A verdict is the result of authenticating a request.
type verdict[U any] struct {
	err    error // the reason of a rejection; nil if the request is logged in
	token  token.Token
	record store.Record // its ID is set if the token was valid, even if the session was rejected
	user   U
	cached bool     // whether the session comes from the cache
	stale  bool     // whether it does because the database failed
	given  *Session // instead of the record, in a state from WithState
}

// authenticate checks, in order, the request's cookies, and of each the session
// of its token, the session's age, the account and the fingerprint. The first
// cookie with a valid session decides; without one, the reason is that of the
// first cookie. Rejection is not an error: the reason is in the verdict. A
// non-nil error means that the database could not answer.
func (m *Manager[U]) authenticate(r *http.Request, v *verdict[U]) error {
	t, reason := m.cookies.read(r)
	v.err = reason
	if m.cookies.isLoggedOut(reason) {
		return nil
	}
	var first rejection
	switch reason {
	case nil:
		var err error
		if first, err = m.authenticateToken(r, t, v); err != nil {
			return err
		}
		if v.err == nil && !m.cookies.lacksOwn(r, t) {
			return nil
		}
	case ErrMalformedCookie:
		first = rejection{kind: EventRejected, reason: reason}
	}
	m.emitAlarm(r, first)
	for _, t := range m.cookies.others(r) {
		var other verdict[U]
		why, err := m.authenticateToken(r, t, &other)
		if err != nil {
			*v = other
			return err
		}
		if other.err == nil && (v.err != nil || !store.SameKey(v.record.Owner, other.record.Owner)) {
			*v = other
			return nil
		}
		m.emitAlarm(r, why)
	}
	if first.kind == EventRejected {
		m.emit(r, first.kind, first.record, first.reason)
	}
	return nil
}

// authenticateToken authenticates a request by one of its tokens.
func (m *Manager[U]) authenticateToken(r *http.Request, t token.Token, v *verdict[U]) (why rejection, err error) {
	row, age, err := m.cachedSession(r.Context(), t)
	if errors.Is(err, ErrUnknownSession) {
		v.err = ErrUnknownSession
		why = rejection{kind: rejectKind(err), reason: ErrUnknownSession}
		if row != nil { // selector exists, verifier is wrong
			why.record = &row.Record
		}
		return why, nil
	}
	v.token = t
	if err != nil {
		return why, err
	}
	v.record, v.cached, v.stale = row.Record, age.cached, age.stale
	v.record.Now += seconds(age.since)
	switch {
	case m.isExpired(&v.record):
		v.err = ErrExpired
	case row.Owner == nil:
		v.err = ErrUserNotFound
	case row.Changed:
		v.err = ErrAccountChanged
	case !m.cfg.Fingerprint.Match(row.Browser, m.browser(r)):
		v.err = ErrFingerprintMismatch
	default:
		v.user = row.User
		return why, nil
	}
	return rejection{rejectKind(v.err), &row.Record, v.err}, nil
}

// A rejection is the event of a rejected token.
type rejection struct {
	kind   EventKind
	record *store.Record
	reason error
}

// emitAlarm emits the event of a rejection that may indicate a stolen cookie.
// It does so even if another cookie of the request is valid.
func (m *Manager[U]) emitAlarm(r *http.Request, why rejection) {
	if why.kind != "" && why.kind != EventRejected {
		m.emit(r, why.kind, why.record, why.reason)
	}
}

// An age is the age of a session that was looked up.
type age struct {
	cached bool          // whether it comes from the cache
	since  time.Duration // since it was read
	stale  bool          // whether it comes from there because the database failed
}

// cachedSession returns the session for t from the cache if it is fresh,
// otherwise from the table. If the database fails, it may return a cached
// session no older than Cache.Stale.
func (m *Manager[U]) cachedSession(ctx context.Context, t token.Token) (*store.SessionRow[U], age, error) {
	key := m.verifier.KeyFor(t)
	if m.cache == nil {
		row, err := m.consistentSession(ctx, t, key)
		return row, age{}, err
	}
	now := time.Now()
	entry, since := m.cache.get(t.Selector, now)
	if entry != nil && (entry.key != key || isWithoutCache(ctx)) {
		entry = nil // different verifier, or no cache allowed: read the table
	}
	if entry != nil && since <= m.cfg.Cache.Fresh {
		return &entry.SessionRow, age{cached: true, since: since}, nil
	}
	generation := m.cache.begin()
	row, err := m.consistentSession(ctx, t, key)
	switch {
	case err == nil:
		m.cache.put(generation, row, key, now)
	case entry != nil && since <= m.cfg.Cache.Stale && errors.Is(err, ErrUnavailable) && ctx.Err() == nil:
		return &entry.SessionRow, age{cached: true, since: since, stale: true}, nil
	}
	return row, age{}, err
}

// consistentSession returns the session for t. Where reads can lag (a replica,
// another Galera node), it reads again causally before a rejection, because the
// session may just have been created or renewed elsewhere.
func (m *Manager[U]) consistentSession(ctx context.Context, t token.Token, key token.Key) (*store.SessionRow[U], error) {
	row, err := m.sessionByToken(ctx, t, key)
	switch {
	case err == nil && row.Owner != nil && !row.Changed && !m.isExpired(&row.Record):
		return row, nil
	case err != nil && err != ErrUnknownSession && err != errPreviouslyValid:
		return row, err
	}
	if m.cfg.Replica == nil {
		galera, unknown := m.store.IsGalera(ctx)
		if unknown != nil {
			return nil, unknown
		}
		if !galera {
			return row, err
		}
	}
	staleRow, staleErr := row, err
	if row, err = m.primary.Find(ctx, t.Selector, t.Selector); err == nil {
		return m.verifyRow(ctx, t, row)
	}
	if staleRow == nil && err == ErrUnknownSession {
		return nil, staleErr
	}
	return nil, err
}

// sessionByToken returns the row for t's selector if the verifier matches its
// hash. Tokens in the memo are read by primary key, which is cheaper; if that row
// no longer matches, the selector decides. A forged token is rejected without a
// lookup. With errWrongVerifier it also returns the row, for the event.
func (m *Manager[U]) sessionByToken(ctx context.Context, t token.Token, key token.Key) (*store.SessionRow[U], error) {
	entry := m.verifier.Get(key)
	if entry.ID != 0 {
		row, err := m.byID.Find(ctx, entry.ID, t.Selector)
		if err == nil && entry.Matches(tokenRow(&row.Record)) || err != nil && !errors.Is(err, ErrUnknownSession) {
			return row, err
		}
		m.verifier.Delete(key)
	} else if t.IsForged() {
		return nil, errWrongVerifier
	}
	row, err := m.bySelector.Find(ctx, t.Selector, t.Selector)
	if err == ErrUnknownSession && entry.ID != 0 {
		return nil, errPreviouslyValid
	}
	if err != nil {
		return nil, err
	}
	return m.verifyRow(ctx, t, row)
}

// verifyRow returns row if t's verifier matches its hash.
func (m *Manager[U]) verifyRow(ctx context.Context, t token.Token, row *store.SessionRow[U]) (*store.SessionRow[U], error) {
	ok, err := m.verify(ctx, t, &row.Record)
	if err != nil {
		return nil, err
	}
	if !ok {
		return row, errWrongVerifier
	}
	return row, nil
}

// verify reports whether t is the token of a record.
func (m *Manager[U]) verify(ctx context.Context, t token.Token, r *store.Record) (bool, error) {
	ok, err := m.verifier.Verify(ctx, t, tokenRow(r))
	switch {
	case errors.Is(err, token.ErrBusy):
		return false, ErrBusy
	case err != nil:
		return false, m.wrap("verify the token", err)
	}
	return ok, nil
}

// tokenRow returns the part of a record that a token is verified against.
func tokenRow(r *store.Record) token.Row {
	return token.Row{ID: r.ID, Selector: r.Selector, Hash: r.Hash}
}

// isExpired reports whether r has been idle longer than its idle timeout or is
// older than MaxLifetime. Ages are in whole seconds, by the database clock.
func (m *Manager[U]) isExpired(r *store.Record) bool {
	return r.Now-r.Active > m.idleTimeout(r) ||
		m.cfg.MaxLifetime > 0 && r.Now-r.Created > seconds(m.cfg.MaxLifetime)
}

// idleTimeout returns MaxAge, or less if the login asked for less, in seconds.
func (m *Manager[U]) idleTimeout(r *store.Record) int64 {
	if r.Life > 0 {
		return min(r.Life, seconds(m.cfg.MaxAge))
	}
	return seconds(m.cfg.MaxAge)
}

// updateAge returns UpdateAge, or less for a session with a short idle timeout.
func (m *Manager[U]) updateAge(r *store.Record) time.Duration {
	if r.Life > 0 {
		return min(m.cfg.UpdateAge, time.Duration(m.idleTimeout(r))*time.Second/2)
	}
	return m.cfg.UpdateAge
}

// browser returns the fingerprint of a request.
func (m *Manager[U]) browser(r *http.Request) string {
	return fit(m.cfg.Fingerprint.Text(r), maxBrowser)
}

// renew renews the row of a session that has been idle longer than UpdateAge, and
// reports whether it did. Of concurrent requests, one renews. The session is
// valid either way, so a failure is only logged. The cookie is not written: it
// lasts longer than the row, and a late response could replace a newer cookie.
func (m *Manager[U]) renew(r *http.Request, v *verdict[U]) (renewed bool) {
	if v.err != nil || v.stale || v.record.Now-v.record.Active <= seconds(m.updateAge(&v.record)) || r.Context().Err() != nil {
		return false
	}
	browser := lasting(v.record.Browser, m.browser(r))
	won, err := m.store.Renew(detach(r.Context()), v.record.ID, browser, m.updateAge(&v.record))
	if err != nil {
		m.cfg.Logger.WarnContext(r.Context(), "session: not renewed", "session", m.store.PublicID(&v.record), "error", err)
		return false
	}
	if won {
		v.record.Active, v.record.Browser = v.record.Now, browser
		m.emit(r, EventRenewed, &v.record, nil)
	}
	return won
}

// deleteRejected deletes the row of a session that was rejected permanently,
// because its account is gone or has changed. If another app shares the
// sessions, it also deletes an expired session of this browser. Otherwise the
// purge deletes that.
func (m *Manager[U]) deleteRejected(r *http.Request, v *verdict[U]) {
	var err error
	switch ctx := r.Context(); {
	case v.stale:
	case v.err == ErrUserNotFound && m.cookies.shared.keepsOrphan(&v.record):
	case v.err == ErrUserNotFound, v.err == ErrAccountChanged:
		err = m.store.DeleteRejected(detach(ctx), &v.record)
	case v.err == ErrExpired && m.cookies.shared.deletesExpired() && m.cfg.Fingerprint.Match(v.record.Browser, m.browser(r)):
		err = m.store.DeleteExpired(detach(ctx), v.record.ID)
	}
	if err != nil {
		m.cfg.Logger.WarnContext(r.Context(), "session: rejected, but not deleted", "session", m.store.PublicID(&v.record), "error", err)
	}
}
