package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
)

// An Event is a security-relevant occurrence, for audit logs and alerting (OWASP
// ASVS 5.0 V16.3). It contains no token, password or hash.
type Event struct {
	Kind     EventKind
	Session  string // session ID, as in Session.ID; "" if there is none
	User     any    // the user's key; nil if unknown
	ClientIP string // by Config.ClientIP; "" outside of a request
	Err      error  // the reason of EventRejected, EventBusy and EventUnavailable
	Count    int64  // number of sessions, of EventRevoked and EventPurged
}

// An EventKind names an occurrence.
type EventKind string

// The kinds of events. EventTokenMismatch, EventFingerprintMismatch and
// EventRevokedTokenUsed may indicate a stolen cookie.
const (
	EventLogin               EventKind = "login"
	EventLogout              EventKind = "logout"
	EventRenewed             EventKind = "renewed"              // a session was renewed
	EventRotated             EventKind = "rotated"              // a session got a new token
	EventRevoked             EventKind = "revoked"              // sessions were ended by Revoke, LogoutOthers, LogoutAll, SetPassword or MaxSessions
	EventPurged              EventKind = "purged"               // expired sessions were deleted
	EventLoginFailed         EventKind = "login-failed"         // wrong credentials
	EventThrottled           EventKind = "throttled"            // a login has to wait
	EventPasswordChanged     EventKind = "password-changed"     // by SetPassword or ResetPassword
	EventRegistered          EventKind = "registered"           // a user was added
	EventRejected            EventKind = "rejected"             // a malformed, unknown or expired session cookie, or its account is gone or changed
	EventTokenMismatch       EventKind = "token-mismatch"       // known selector with a wrong verifier, which suggests a leaked table
	EventFingerprintMismatch EventKind = "fingerprint-mismatch" // the token of another browser
	EventRevokedTokenUsed    EventKind = "revoked-token-used"   // the token of a session that was valid here before it ended
	EventBusy                EventKind = "busy"                 // a password or token was not checked because of overload; see ErrBusy
	EventUnavailable         EventKind = "unavailable"          // the database failed, and the request was not served
)

// levels are the log levels; other events are logged at Debug.
var levels = map[EventKind]slog.Level{
	EventThrottled:     slog.LevelWarn,
	EventTokenMismatch: slog.LevelWarn,
	EventBusy:          slog.LevelWarn,
	EventUnavailable:   slog.LevelError,
}

// event calls OnEvent and logs the event.
func (c *Config) event(ctx context.Context, e Event) {
	c.onEvent(ctx, e)
	level, ok := levels[e.Kind]
	if !ok {
		level = slog.LevelDebug
	}
	if !c.Logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.String("event", string(e.Kind))}
	if e.Session != "" {
		attrs = append(attrs, slog.String("session", e.Session))
	}
	if e.User != nil {
		attrs = append(attrs, slog.Any("user", plainValue(e.User, textColumn)))
	}
	if e.ClientIP != "" {
		attrs = append(attrs, slog.String("address", e.ClientIP))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.Any("error", e.Err))
	}
	if e.Count != 0 {
		attrs = append(attrs, slog.Int64("count", e.Count))
	}
	c.Logger.LogAttrs(ctx, level, "session: "+string(e.Kind), attrs...)
}

// onEvent calls Config.OnEvent and recovers from a panic in it: the event has
// already happened, and outside of a request the panic would end the process.
func (c *Config) onEvent(ctx context.Context, e Event) {
	if c.OnEvent == nil {
		return
	}
	defer func() {
		if reason := recover(); reason != nil {
			c.Logger.ErrorContext(ctx, "session: Config.OnEvent panics", "event", string(e.Kind), "panic", fmt.Sprint(reason), "stack", string(debug.Stack()))
		}
	}()
	c.OnEvent(ctx, e)
}

// emit emits an event for r and rec, if not nil.
func (m *Manager[U]) emit(r *http.Request, kind EventKind, of *record, reason error) {
	if errors.Is(reason, ErrBusy) {
		kind = EventBusy
	}
	e := Event{Kind: kind, ClientIP: m.ip(r), Err: reason}
	if of != nil {
		e.User = of.owner
		if of.id != 0 {
			e.Session = m.store.publicID(of)
		}
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
	errForged          = fmt.Errorf("%w: verifier does not belong to the selector", ErrUnknownSession)
	errPreviouslyValid = fmt.Errorf("%w: it was valid before", ErrUnknownSession)
)
