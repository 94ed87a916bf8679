package session

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/candysession/session/internal/store"
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
	EventLogin  EventKind = "login"
	EventLogout EventKind = "logout"

	// EventRenewed reports that a session was renewed.
	EventRenewed EventKind = "renewed"

	// EventRotated reports that a session got a new token.
	EventRotated EventKind = "rotated"

	// EventRevoked reports sessions that Revoke, LogoutOthers, LogoutAll,
	// SetPassword or MaxSessions ended.
	EventRevoked EventKind = "revoked"

	// EventPurged reports that expired sessions were deleted.
	EventPurged EventKind = "purged"

	// EventLoginFailed reports a login with wrong credentials.
	EventLoginFailed EventKind = "login-failed"

	// EventThrottled reports a login that has to wait.
	EventThrottled EventKind = "throttled"

	// EventPasswordChanged reports a call of SetPassword or ResetPassword.
	EventPasswordChanged EventKind = "password-changed"

	// EventRegistered reports that a user was added.
	EventRegistered EventKind = "registered"

	// EventRejected reports a malformed, unknown or expired session cookie, or
	// one whose account is gone or changed.
	EventRejected EventKind = "rejected"

	// EventTokenMismatch reports a wrong verifier for a selector, which suggests
	// a leaked table. It names a session only if the selector is CandyPack's.
	EventTokenMismatch EventKind = "token-mismatch"

	// EventFingerprintMismatch reports the token of another browser.
	EventFingerprintMismatch EventKind = "fingerprint-mismatch"

	// EventRevokedTokenUsed reports the token of a session that was valid in
	// this process before it ended.
	EventRevokedTokenUsed EventKind = "revoked-token-used"

	// EventBusy reports a password or token that was not checked because of
	// overload; see [ErrBusy].
	EventBusy EventKind = "busy"

	// EventUnavailable reports a request that was not served because the
	// database failed.
	EventUnavailable EventKind = "unavailable"
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
	level, ok := levels[e.Kind]
	if !ok {
		level = slog.LevelDebug
	}
	c.eventAt(ctx, level, e)
}

// eventAt calls Config.OnEvent and logs the event at the given level.
func (c *Config) eventAt(ctx context.Context, level slog.Level, e Event) {
	c.onEvent(ctx, e)
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

// A rateLimit allows a few events per second.
type rateLimit struct {
	mu    sync.Mutex
	since time.Time
	n     int // events in the second that began at since
}

// maxWarnings is the number of warnings per second about forged tokens.
const maxWarnings = 10

// allows reports whether another event is allowed, and counts it.
func (l *rateLimit) allows(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.since) >= time.Second {
		l.since, l.n = now, 0
	}
	l.n++
	return l.n <= maxWarnings
}
