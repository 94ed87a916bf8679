package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/candysession/session/internal/store"
)

// emit emits an event for r and rec, if not nil.
func (m *Manager[U]) emit(r *http.Request, kind EventKind, rec *store.Record, reason error) {
	if errors.Is(reason, ErrBusy) {
		kind = EventBusy
	}
	e := Event{Kind: kind, ClientIP: m.ip(r), Err: reason}
	if rec != nil {
		e.User = rec.Owner
		if rec.ID != 0 {
			e.Session = m.store.PublicID(rec)
		}
	}
	if kind == EventTokenMismatch && e.Session == "" && !m.forgeries.allows(time.Now()) {
		m.cfg.eventAt(r.Context(), slog.LevelDebug, e) // anyone can send forged tokens
		return
	}
	m.cfg.event(r.Context(), e)
}

// rejectKind returns the event kind for a rejection.
func rejectKind(reason error) EventKind {
	switch {
	case errors.Is(reason, errWrongVerifier):
		return EventTokenMismatch
	case errors.Is(reason, errPreviouslyValid):
		return EventRevokedTokenUsed
	case reason == ErrFingerprintMismatch:
		return EventFingerprintMismatch
	}
	return EventRejected
}

// Internal causes of ErrUnknownSession.
var (
	errWrongVerifier   = fmt.Errorf("%w: wrong verifier", ErrUnknownSession)
	errPreviouslyValid = fmt.Errorf("%w: it was valid before", ErrUnknownSession)
)

// emitRevoked emits EventRevoked if n > 0.
func (m *Manager[U]) emitRevoked(ctx context.Context, user any, n int64) {
	if n > 0 {
		m.cfg.event(ctx, Event{Kind: EventRevoked, User: user, Count: n})
	}
}
