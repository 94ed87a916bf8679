package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/candysession/session/internal/store"
)

// An Event is something that an auditor or an alarm may want to know (OWASP ASVS 5.0 V16.3). It holds no secret: no
// token, password or hash.
type Event struct {
	Kind     EventKind
	Session  string // the ID that Sessions and Revoke know; "" if there is none
	User     any    // the user's key; nil if it is not known
	ClientIP string // the client's, by Config.ClientIP; "" outside of a request
	Err      error  // why, of EventRejected, EventBusy and EventUnavailable
	Count    int64  // how many sessions, of EventRevoked and EventPurged
}

// An EventKind names what has happened.
type EventKind string

// The kinds of events. EventTokenMismatch, EventFingerprintMismatch and EventRevokedTokenUsed may show a stolen cookie.
const (
	EventLogin               EventKind = "login"
	EventLogout              EventKind = "logout"
	EventRenewed             EventKind = "renewed"       // a slide, or a new token
	EventRevoked             EventKind = "revoked"       // one session or more were ended by Revoke, LogoutOthers, LogoutAll, SetPassword or MaxSessions
	EventPurged              EventKind = "purged"        // expired sessions were deleted
	EventLoginFailed         EventKind = "failed"        // a login with wrong credentials
	EventThrottled           EventKind = "throttled"     // a login that has to wait
	EventPasswordChanged     EventKind = "password"      // a password was changed
	EventRegistered          EventKind = "registered"    // a user was added
	EventRejected            EventKind = "refused"       // a session cookie that is malformed, unknown or expired, or whose user is gone or has changed
	EventTokenMismatch       EventKind = "wrong-token"   // a selector that exists, with a wrong verifier: somebody has read the table; beyond ten a second they are only refused
	EventFingerprintMismatch EventKind = "wrong-browser" // the token of another browser
	EventRevokedTokenUsed    EventKind = "ended"         // the token of a session that was valid here before it ended
	EventBusy                EventKind = "busy"          // a password or token was not looked at, as too many waited: an ErrBusy
	EventUnavailable         EventKind = "unavailable"   // the database failed, and the request was not served
)

// levels of the log; the others are for debugging.
var levels = map[EventKind]slog.Level{
	EventThrottled:     slog.LevelWarn,
	EventTokenMismatch: slog.LevelWarn,
	EventBusy:          slog.LevelWarn,
	EventUnavailable:   slog.LevelError,
}

// event tells Config.OnEvent and the log.
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
		attrs = append(attrs, slog.Any("user", store.PlainKey(e.User)))
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

// onEvent calls Config.OnEvent. If that panics, only it fails: what the event
// tells of is done, and outside of a request the panic would end the process.
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

// tell is an event of a request, and of a session if the record is of one.
func (m *Manager[U]) tell(r *http.Request, kind EventKind, of *store.Record, reason error) {
	if errors.Is(reason, ErrBusy) {
		kind = EventBusy
	}
	e := Event{Kind: kind, ClientIP: m.ip(r), Err: reason}
	if of != nil {
		e.User = of.Owner
		if of.ID != 0 {
			e.Session = m.store.PublicID(of)
		}
	}
	m.cfg.event(r.Context(), e)
}

// refusal is the event of a cookie that is refused for this reason.
func refusal(reason error) EventKind {
	switch {
	case errors.Is(reason, errWrongVerifier):
		return EventTokenMismatch
	case errors.Is(reason, errEnded):
		return EventRevokedTokenUsed
	case reason == ErrFingerprintMismatch:
		return EventFingerprintMismatch
	}
	return EventRejected
}

// What an ErrUnknownSession may be in more detail.
var (
	errWrongVerifier = fmt.Errorf("%w: wrong verifier", ErrUnknownSession)
	errForged        = fmt.Errorf("%w: made up", ErrUnknownSession)
	errEnded         = fmt.Errorf("%w: it was valid before", ErrUnknownSession)
)
