package session

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/candysession/session/internal/token"
)

// A verdict is what is known of a request's session.
type verdict[U any] struct {
	err    error // why the request is not logged in; nil if it is
	token  token.Token
	record record // its id is 0 unless the token is right, even if the session is refused for another reason
	user   U
	cached bool     // this is what was known before
	stale  bool     // and the database failed
	given  *Session // instead of the record, in a state from WithState
}

// authenticate judges a request: its cookie, the session of that token, the ages, the user, the browser. Of several
// cookies the first that is a valid session counts; without one, the reason is the first cookie's. A request that is
// refused has a verdict; an error means that nothing is known, because the database failed.
func (m *Manager[U]) authenticate(r *http.Request, v *verdict[U]) error {
	t, reason := m.cookies.read(r)
	if m.cookies.shared.isLoggedOut(reason) {
		v.err = reason
		return nil
	}
	var why refused
	switch reason {
	case nil:
		var err error
		if why, err = m.judge(r, t, v); err != nil {
			return err
		}
		if v.err == nil && !m.cookies.shared.lacksOwn(m.cookies, r, t) {
			return nil
		}
	case ErrMalformedCookie:
		v.err, why = reason, refused{kind: EventRejected, reason: reason}
	default:
		v.err = reason
	}
	if why.alarming() {
		m.emit(r, why.kind, why.of, why.reason)
	}
	for _, t := range m.cookies.others(r) {
		var other verdict[U]
		why, err := m.judge(r, t, &other)
		if err != nil {
			*v = other
			return err
		}
		if other.err == nil && (v.err != nil || !sameUser(&v.record, &other.record)) {
			*v = other
			return nil
		}
		if why.alarming() {
			m.emit(r, why.kind, why.of, why.reason)
		}
	}
	if why.kind == EventRejected {
		m.emit(r, why.kind, why.of, why.reason)
	}
	return nil
}

// refused is the event of a token that is refused, if that is to be told.
type refused struct {
	kind   EventKind
	of     *record
	reason error
}

// alarming reports whether it may show a stolen cookie. Then it is told also
// where another cookie of the request is good.
func (r refused) alarming() bool { return r.kind != "" && r.kind != EventRejected }

func sameUser(a, b *record) bool { return sameKey(a.owner, b.owner) }

// judge judges one token of a request, as authenticate does.
func (m *Manager[U]) judge(r *http.Request, t token.Token, v *verdict[U]) (why refused, err error) {
	row, age, err := m.find(r.Context(), t)
	if errors.Is(err, ErrUnknownSession) {
		why = refused{kind: rejectKind(err), reason: ErrUnknownSession}
		if row != nil { // it exists, but this is not its token
			why.of = &row.record
		}
		v.err = ErrUnknownSession
		return why, nil
	}
	v.token = t
	if err != nil {
		return why, err
	}
	v.record, v.cached, v.stale = row.record, age.known, age.stale
	v.record.now += seconds(age.since)
	switch {
	case m.expired(&v.record):
		v.err = ErrExpired
	case row.owner == nil:
		v.err = ErrUserNotFound
	case row.changed:
		v.err = ErrAccountChanged
	case !m.cfg.Fingerprint.Match(row.browser, m.browser(r)):
		v.err = ErrFingerprintMismatch
	default:
		v.user = row.user
		return why, nil
	}
	return refused{rejectKind(v.err), &row.record, v.err}, nil
}

// An age says of what was found whether it was read just now.
type age struct {
	known bool          // it was not: it comes from the cache
	since time.Duration // how long ago it was read
	stale bool          // and the database failed
}

// find finds the session of a token, in the cache if there is one and it knows, otherwise in the table. While the
// database fails, the cache may know what was so before: that is stale.
func (m *Manager[U]) find(ctx context.Context, t token.Token) (*found[U], age, error) {
	key := m.verifier.KeyFor(t)
	if m.cache == nil {
		row, err := m.look(ctx, t, key)
		return row, age{}, err
	}
	now := time.Now()
	kept, since := m.cache.get(t.Selector, now)
	if kept != nil && (kept.key != key || isWithoutCache(ctx)) {
		kept = nil // another verifier, or certainty is wanted: the table decides
	}
	if kept != nil && since <= m.cfg.Cache.Fresh {
		return &kept.found, age{known: true, since: since}, nil
	}
	generation := m.cache.begin()
	row, err := m.look(ctx, t, key)
	switch {
	case err == nil:
		m.cache.put(generation, row, key, now)
	case kept != nil && since <= m.cfg.Cache.Stale && errors.Is(err, ErrUnavailable) && ctx.Err() == nil:
		return &kept.found, age{known: true, since: since, stale: true}, nil
	}
	return row, age{}, err
}

// look reads the session of a token. Where a read may be late, a session that would be refused is read once more, by one
// that is not: it may have begun, or been renewed, just now and elsewhere.
func (m *Manager[U]) look(ctx context.Context, t token.Token, key token.Key) (*found[U], error) {
	row, err := m.read(ctx, t, key)
	switch {
	case err == nil && row.owner != nil && !row.changed && !m.expired(&row.record):
		return row, nil
	case err != nil && err != ErrUnknownSession && err != errPreviouslyValid:
		return row, err
	}
	if m.cfg.Replica == nil {
		galera, unknown := m.store.isGalera(ctx)
		if unknown != nil {
			return nil, unknown
		}
		if !galera {
			return row, err
		}
	}
	late, ended := row, err
	if row, err = m.certainly.find(ctx, t.Selector, t.Selector); err == nil {
		return m.verified(ctx, t, row)
	}
	if late == nil && err == ErrUnknownSession {
		return nil, ended
	}
	return nil, err
}

// read reads the session of a token from the table: the row that the selector selects, if the verifier matches its hash.
// Of a token that was verified before, the row is read by its id, which costs the database less. If that is not the row
// any more, the selector decides. The key is the verifier's, of the token. With errWrongVerifier comes the row that the
// token is not of, for the event; a forged token is rejected without a lookup, so without a row.
func (m *Manager[U]) read(ctx context.Context, t token.Token, key token.Key) (*found[U], error) {
	entry := m.verifier.Get(key)
	if entry.ID != 0 {
		row, err := m.byID.find(ctx, entry.ID, t.Selector)
		if err == nil && entry.Matches(row.tokenRow()) || err != nil && !errors.Is(err, ErrUnknownSession) {
			return row, err
		}
		m.verifier.Delete(key)
	} else if t.IsForged() {
		return nil, errWrongVerifier
	}
	row, err := m.bySelector.find(ctx, t.Selector, t.Selector)
	if err == ErrUnknownSession && entry.ID != 0 {
		return nil, errPreviouslyValid
	}
	if err != nil {
		return nil, err
	}
	return m.verified(ctx, t, row)
}

// verified is the row of a token's selector, if its verifier matches the hash.
func (m *Manager[U]) verified(ctx context.Context, t token.Token, row *found[U]) (*found[U], error) {
	ok, err := m.verify(ctx, t, &row.record)
	if err != nil {
		return nil, err
	}
	if !ok {
		return row, errWrongVerifier
	}
	return row, nil
}

// verify reports whether the token is that of the record.
func (m *Manager[U]) verify(ctx context.Context, t token.Token, r *record) (bool, error) {
	ok, err := m.verifier.Verify(ctx, t, r.tokenRow())
	switch {
	case errors.Is(err, token.ErrBusy):
		return false, ErrBusy
	case err != nil:
		return false, m.store.explain("verify the token", err)
	}
	return ok, nil
}

// tokenRow returns the part of the record that a token is verified with.
func (r *record) tokenRow() token.Row { return token.Row{ID: r.id, Selector: r.selector, Hash: r.hash} }

// expired: idle for more than MaxAge, or older than MaxLifetime. Ages are the database's, in whole seconds.
func (m *Manager[U]) expired(r *record) bool {
	return r.now-r.active > seconds(m.cfg.MaxAge) ||
		m.cfg.MaxLifetime > 0 && r.now-r.created > seconds(m.cfg.MaxLifetime)
}

func (m *Manager[U]) browser(r *http.Request) string {
	return fit(m.cfg.Fingerprint.Text(r), maxBrowser)
}

// slide renews the row of a session that rested for more than UpdateAge, and reports whether it did. Of the requests that
// come at once one does it. The session is valid either way, so a failure is only logged. The cookie stays as it is: it
// lasts longer than the row, and an answer that is late would put it in place of a newer one.
func (m *Manager[U]) slide(r *http.Request, v *verdict[U]) (renewed bool) {
	if v.err != nil || v.stale || v.record.now-v.record.active <= seconds(m.cfg.UpdateAge) || r.Context().Err() != nil {
		return false
	}
	browser := lasting(v.record.browser, m.browser(r))
	won, err := m.store.slide(steadfast(r.Context()), v.record.id, browser, m.cfg.UpdateAge)
	if err != nil {
		m.cfg.Logger.WarnContext(r.Context(), "session: not renewed", "session", m.store.publicID(&v.record), "error", err)
		return false
	}
	if won {
		v.record.active, v.record.browser = v.record.now, browser
		m.emit(r, EventRenewed, &v.record, nil)
	}
	return won
}

// end deletes the row of a session that was rejected for good: its account has
// changed or is gone. In CandyPack's modes it also deletes an expired session of
// this browser, as CandyPack does. Otherwise the purge deletes that.
func (m *Manager[U]) end(r *http.Request, v *verdict[U]) {
	ctx := steadfast(r.Context())
	var err error
	switch {
	case v.stale:
	case v.err == ErrUserNotFound && m.cookies.shared.keepsOrphan(&v.record):
	case v.err == ErrUserNotFound, v.err == ErrAccountChanged:
		err = m.store.deleteRejected(ctx, &v.record)
	case v.err == ErrExpired && m.cookies.shared.deletesExpired() && m.cfg.Fingerprint.Match(v.record.browser, m.browser(r)):
		err = m.store.deleteExpired(ctx, v.record.id)
	}
	if err != nil {
		m.cfg.Logger.WarnContext(ctx, "session: rejected, but not deleted", "session", m.store.publicID(&v.record), "error", err)
	}
}
