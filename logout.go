package session

import (
	"errors"
	"net/http"

	"github.com/candysession/session/internal/token"
)

// Logout deletes the request's session and its cookie, even if the session was
// rejected for its age or fingerprint. If the request carries several session
// cookies, Logout deletes the session of each. It does nothing if there is no
// session. Call it before writing the response body.
//
// If it returns [ErrUnavailable], the session may still exist and the cookie is
// kept, so Logout can be retried.
func (m *Manager[U]) Logout(w http.ResponseWriter, r *http.Request) error {
	v, err := m.sessionToEnd(r.WithContext(detach(r.Context())))
	if err != nil {
		return err
	}
	if v.record.ID != 0 {
		if _, err := m.store.Delete(detach(r.Context()), v.record.ID); err != nil {
			return err
		}
		m.emit(r, EventLogout, &v.record, nil)
	}
	further, err := m.logoutOthersOf(r, v)
	if err != nil {
		return err
	}
	if v.err != ErrNoCookie || further {
		m.cookies.clear(w)
	}
	m.setVerdict(r, &verdict[U]{err: ErrNoCookie})
	return nil
}

// logoutOthersOf deletes the sessions of a request's cookies except that of the
// verdict, and reports whether there was such a cookie.
func (m *Manager[U]) logoutOthersOf(r *http.Request, v *verdict[U]) (found bool, err error) {
	for _, t := range m.cookies.all(r) {
		if t == v.token {
			continue
		}
		found = true
		var other verdict[U]
		_, err := m.authenticateToken(r, t, &other)
		if errors.Is(err, ErrConfig) {
			err = m.recordOf(r, t, &other)
		}
		if err != nil {
			return found, err
		}
		if id := other.record.ID; id != 0 && id != v.record.ID {
			if _, err := m.store.Delete(detach(r.Context()), id); err != nil {
				return found, err
			}
			m.emit(r, EventLogout, &other.record, nil)
		}
	}
	return found, nil
}

// sessionToEnd returns the verdict on a request whose session is to be deleted.
// Unlike verdictOn it succeeds if the session's user cannot be read.
func (m *Manager[U]) sessionToEnd(r *http.Request) (*verdict[U], error) {
	v, err := m.verdictOn(r)
	if !errors.Is(err, ErrConfig) {
		return v, err
	}
	first := &verdict[U]{}
	_, first.err = m.cookies.read(r)
	for i, t := range m.cookies.all(r) {
		one := &verdict[U]{}
		if err := m.recordOf(r, t, one); err != nil || one.record.ID != 0 {
			return one, err
		}
		if i == 0 {
			first = one
		}
	}
	return first, nil
}

// recordOf authenticates a token without its user.
func (m *Manager[U]) recordOf(r *http.Request, t token.Token, v *verdict[U]) error {
	if err := m.store.CheckPool(r.Context()); err != nil {
		return err
	}
	row, err := m.store.FindRecord(r.Context(), t.Selector)
	if err != nil {
		return err
	}
	v.err = ErrUnknownSession
	if row.ID == 0 {
		return nil
	}
	ok, err := m.verify(r.Context(), t, &row)
	if ok {
		*v = verdict[U]{err: ErrUserNotFound, token: t, record: row}
	}
	return err
}
