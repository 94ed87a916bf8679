package session

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/candysession/session/internal/store"
)

// A verdict is what is known of a request's session.
type verdict[U any] struct {
	err    error // why the request is not logged in; nil if it is
	token  token
	record store.Record // its id is 0 unless the token is right, even if the session is refused for another reason
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
	if reason == ErrNoCookie && m.cfg.CandyPack != CandyPackOff { // CandyPack may have logged out
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
		if v.err == nil && !m.cookies.incomplete(r, t) {
			return nil
		}
	case ErrMalformedCookie:
		v.err, why = reason, refused{kind: EventRejected, reason: reason}
	default:
		v.err = reason
	}
	if why.alarming() {
		m.tell(r, why.kind, why.of, why.reason)
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
			m.tell(r, why.kind, why.of, why.reason)
		}
	}
	if why.kind == EventRejected {
		m.tell(r, why.kind, why.of, why.reason)
	}
	return nil
}

// refused is the event of a token that is refused, if that is to be told.
type refused struct {
	kind   EventKind
	of     *store.Record
	reason error
}

// alarming reports whether it may show a stolen cookie. Then it is told also
// where another cookie of the request is good.
func (r refused) alarming() bool { return r.kind != "" && r.kind != EventRejected }

func sameUser(a, b *store.Record) bool { return store.SameKey(a.Owner, b.Owner) }

// judge judges one token of a request, as authenticate does.
func (m *Manager[U]) judge(r *http.Request, t token, v *verdict[U]) (why refused, err error) {
	row, age, err := m.find(r.Context(), t)
	if errors.Is(err, ErrUnknownSession) {
		why = refused{kind: refusal(err), reason: ErrUnknownSession}
		if row != nil { // it exists, but this is not its token
			why.of = &row.Record
		}
		v.err = ErrUnknownSession
		return why, nil
	}
	v.token = t
	if err != nil {
		return why, err
	}
	v.record, v.cached, v.stale = row.Record, age.known, age.stale
	v.record.Now += seconds(age.since)
	switch {
	case m.expired(&v.record):
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
	return refused{refusal(v.err), &row.Record, v.err}, nil
}

// An age says of what was found whether it was read just now.
type age struct {
	known bool          // it was not: it comes from the cache
	since time.Duration // how long ago it was read
	stale bool          // and the database failed
}

// find finds the session of a token, in the cache if there is one and it knows, otherwise in the table. While the
// database fails, the cache may know what was so before: that is stale.
func (m *Manager[U]) find(ctx context.Context, t token) (*store.SessionRow[U], age, error) {
	key := m.verifier.of(t)
	if m.cache == nil {
		row, err := m.look(ctx, t, key)
		return row, age{}, err
	}
	now := time.Now()
	kept, since := m.cache.get(t.selector, now)
	if kept != nil && (kept.key != key || isWithoutCache(ctx)) {
		kept = nil // another verifier, or certainty is wanted: the table decides
	}
	if kept != nil && since <= m.cfg.Cache.Fresh {
		return &kept.SessionRow, age{known: true, since: since}, nil
	}
	generation := m.cache.begin()
	row, err := m.look(ctx, t, key)
	switch {
	case err == nil:
		m.cache.put(generation, row, key, now)
	case kept != nil && since <= m.cfg.Cache.Stale && errors.Is(err, ErrUnavailable) && ctx.Err() == nil:
		return &kept.SessionRow, age{known: true, since: since, stale: true}, nil
	}
	return row, age{}, err
}

// look reads the session of a token. Where a read may be late, a session that would be refused is read once more, by one
// that is not: it may have begun, or been renewed, just now and elsewhere.
func (m *Manager[U]) look(ctx context.Context, t token, key memoKey) (*store.SessionRow[U], error) {
	row, err := m.read(ctx, t, key)
	switch {
	case err == nil && row.Owner != nil && !row.Changed && !m.expired(&row.Record):
		return row, nil
	case err != nil && err != ErrUnknownSession && err != errEnded:
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
	late, ended := row, err
	if row, err = m.certainly.Find(ctx, t.selector, t.selector); err == nil {
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
// token is not of, for the event.
func (m *Manager[U]) read(ctx context.Context, t token, key memoKey) (*store.SessionRow[U], error) {
	memory := m.verifier.recall(key)
	if memory.id != 0 {
		row, err := m.byID.Find(ctx, memory.id, t.selector)
		if err == nil && memory.of(&row.Record) || err != nil && !errors.Is(err, ErrUnknownSession) {
			return row, err
		}
		m.verifier.forget(key)
	} else if t.forged() {
		return m.forgery(ctx, t)
	}
	row, err := m.bySelector.Find(ctx, t.selector, t.selector)
	if err == ErrUnknownSession && memory.id != 0 {
		return nil, errEnded
	}
	if err != nil {
		return nil, err
	}
	return m.verified(ctx, t, row)
}

// verified is the row of a token's selector, if its verifier matches the hash.
func (m *Manager[U]) verified(ctx context.Context, t token, row *store.SessionRow[U]) (*store.SessionRow[U], error) {
	ok, err := m.verifier.verify(ctx, t, &row.Record)
	if err != nil {
		return nil, m.wrap("verify the token", err)
	}
	if !ok {
		return row, errWrongVerifier
	}
	return row, nil
}

// forgery refuses a token whose verifier was made up. Whose session it is meant for is only of interest for the event,
// so a flood of them is looked up no more than maxForgeries times a second, and no failure of that matters.
func (m *Manager[U]) forgery(ctx context.Context, t token) (*store.SessionRow[U], error) {
	if m.forgeries.allows(time.Now()) {
		if row, err := m.bySelector.Find(ctx, t.selector, t.selector); err == nil {
			return row, errWrongVerifier
		}
	}
	return nil, errForged
}

// expired: idle for more than MaxAge, or older than MaxLifetime. Ages are the database's, in whole seconds.
func (m *Manager[U]) expired(r *store.Record) bool {
	return r.Now-r.Active > seconds(m.cfg.MaxAge) ||
		m.cfg.MaxLifetime > 0 && r.Now-r.Created > seconds(m.cfg.MaxLifetime)
}

func (m *Manager[U]) browser(r *http.Request) string {
	return fit(m.cfg.Fingerprint.Text(r), maxBrowser)
}

// slide renews the row of a session that rested for more than UpdateAge, and reports whether it did. Of the requests that
// come at once one does it. The session is valid either way, so a failure is only logged. The cookie stays as it is: it
// lasts longer than the row, and an answer that is late would put it in place of a newer one.
func (m *Manager[U]) slide(r *http.Request, v *verdict[U]) (renewed bool) {
	if v.err != nil || v.stale || v.record.Now-v.record.Active <= seconds(m.cfg.UpdateAge) || r.Context().Err() != nil {
		return false
	}
	browser := lasting(v.record.Browser, m.browser(r))
	won, err := m.store.Renew(detach(r.Context()), v.record.ID, browser, m.cfg.UpdateAge)
	if err != nil {
		m.cfg.Logger.WarnContext(r.Context(), "session: not renewed", "session", m.store.PublicID(&v.record), "error", err)
		return false
	}
	if won {
		v.record.Active, v.record.Browser = v.record.Now, browser
		m.tell(r, EventRenewed, &v.record, nil)
	}
	return won
}

// end deletes the row of a session that was rejected for good: its account has
// changed or is gone. In CandyPack's modes it also deletes an expired session of
// this browser, as CandyPack does. Otherwise the purge deletes that.
func (m *Manager[U]) end(r *http.Request, v *verdict[U]) {
	ctx := detach(r.Context())
	var err error
	switch {
	case v.stale:
	case v.err == ErrUserNotFound && m.cfg.CandyPack != CandyPackOff && v.record.Stamp == nil: // CandyPack's, which keeps it
	case v.err == ErrUserNotFound, v.err == ErrAccountChanged:
		err = m.store.DeleteRejected(ctx, &v.record)
	case v.err == ErrExpired && m.cfg.CandyPack != CandyPackOff && m.cfg.Fingerprint.Match(v.record.Browser, m.browser(r)):
		err = m.store.DeleteExpired(ctx, v.record.ID)
	}
	if err != nil {
		m.cfg.Logger.WarnContext(ctx, "session: rejected, but not deleted", "session", m.store.PublicID(&v.record), "error", err)
	}
}

// withUserOrNot is what ends a session needs to know of a request: also where
// the session's user can't be read.
func (m *Manager[U]) withUserOrNot(r *http.Request) (*verdict[U], error) {
	v, err := m.verdictOn(r)
	if !errors.Is(err, ErrConfig) {
		return v, err
	}
	first := &verdict[U]{}
	_, first.err = m.cookies.read(r)
	for i, t := range m.cookies.all(r) {
		one := &verdict[U]{}
		if err := m.judgeAlone(r, t, one); err != nil || one.record.ID != 0 {
			return one, err
		}
		if i == 0 {
			first = one
		}
	}
	return first, nil
}

// judgeAlone judges a token without its user.
func (m *Manager[U]) judgeAlone(r *http.Request, t token, v *verdict[U]) error {
	if err := m.store.CheckPool(r.Context()); err != nil {
		return err
	}
	row, err := m.store.FindRecord(r.Context(), t.selector)
	if err != nil {
		return err
	}
	v.err = ErrUnknownSession
	if row.ID != 0 {
		ok, err := m.verifier.verify(r.Context(), t, &row)
		if err != nil {
			return m.wrap("verify the token", err)
		}
		if ok {
			*v = verdict[U]{err: ErrUserNotFound, token: t, record: row}
		}
	}
	return nil
}
