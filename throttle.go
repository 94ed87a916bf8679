package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/candysession/session/internal/store"
	"github.com/candysession/session/throttle"
)

// A TooManyAttemptsError rejects an attempt before the password is checked.
// errors.Is finds [ErrTooManyAttempts] in it, and also [ErrInvalidCredentials],
// so that a program that handles only the latter rejects the login too.
type TooManyAttemptsError struct {
	RetryAfter time.Duration // suitable for the Retry-After header
}

// Error implements error.
func (e *TooManyAttemptsError) Error() string {
	wait := (e.RetryAfter + time.Second - 1).Truncate(time.Second)
	return fmt.Sprintf("%v; try again in %v", ErrTooManyAttempts, max(wait, time.Second))
}

// Is reports whether target is ErrTooManyAttempts or ErrInvalidCredentials.
func (e *TooManyAttemptsError) Is(target error) bool {
	return target == ErrTooManyAttempts || target == ErrInvalidCredentials
}

// An attempt holds the reservations of a login or registration. A nil attempt
// holds none.
type attempt struct {
	throttle throttle.Throttle
	reserved []reservation
	leave    func() // gives back the place in the network's queue
	over     bool
}

type reservation struct {
	key       string
	limit     throttle.Limit
	ofAccount bool // a success forgets its failures
}

// attempt begins an attempt of this client to log in to an account, or returns a
// *TooManyAttemptsError. The caller must end it. The user's key is nil if no user
// has the identifiers. The work is the same for both, so that response times do
// not reveal which accounts exist.
func (m *Manager[U]) attempt(r *http.Request, conditions []store.Condition, user any) (*attempt, error) {
	if m.cfg.Throttle == throttle.None {
		return nil, nil
	}
	identifier, err := m.store.Identifier(r.Context(), conditions)
	if err != nil {
		return nil, err
	}
	account := identifier
	if user != nil {
		account = accountName(user)
	}
	if len(conditions) == 0 {
		identifier = account
	}
	networks := m.networks(r)
	own, err := m.knownClientKey(r, identifier, account, user, networks)
	if err != nil {
		return nil, err
	}
	limits := m.cfg.Limits
	if own != "" {
		return m.reserve(r, networks, []reservation{{own, limits.Account.Address, true}})
	}
	reservations := ofNetworks(networks, limits.Network, "network")
	for i := len(networks) - 1; i > 0; i-- {
		reservations = append(reservations, reservation{throttleKey("account", identifier, networks[i]), bySize(limits.Account)[i], false})
	}
	return m.reserve(r, networks, append(reservations,
		reservation{throttleKey("account", identifier, smallest(networks)), limits.Account.Address, true},
		reservation{throttleKey("everywhere", account), limits.Everywhere, true}))
}

// attemptToRegister begins an attempt of this client to register a user, or
// returns a *TooManyAttemptsError. The caller must end it.
func (m *Manager[U]) attemptToRegister(r *http.Request) (*attempt, error) {
	if m.cfg.Throttle == throttle.None {
		return nil, nil
	}
	networks := m.networks(r)
	return m.reserve(r, networks, ofNetworks(networks, m.cfg.Limits.Registration, "register"))
}

// ofNetworks returns a reservation for each network, the largest first.
func ofNetworks(networks []string, limits throttle.PerNetwork, kind string) (reservations []reservation) {
	for i := len(networks) - 1; i >= 0; i-- {
		reservations = append(reservations, reservation{throttleKey(kind, networks[i]), bySize(limits)[i], false})
	}
	return reservations
}

// bySize returns limits in the order of [Manager.networks].
func bySize(l throttle.PerNetwork) [networkSizes]throttle.Limit {
	return [...]throttle.Limit{l.Address, l.Prefix56, l.Prefix48}
}

// knownClientKey returns the key of a client that was logged in to this account
// before. Such a client is counted apart, so that nobody else can lock it out. It
// is recognized by a session cookie of the account, even an expired one, or by
// its network. knownClientKey returns "" for other clients.
func (m *Manager[U]) knownClientKey(r *http.Request, identifier, account string, user any, networks []string) (string, error) {
	v, err := m.verdictOn(r)
	if err != nil {
		return "", err
	}
	known := false
	client := clientKey(account, networks)
	if client != "" {
		if known, err = m.cfg.Throttle.Remembers(r.Context(), client); err != nil {
			return "", m.wrap("throttle the login", err)
		}
	}
	switch {
	case user != nil && v.record.ID != 0 && v.record.Owner != nil && plainKey(v.record.Owner) == plainKey(user) && m.cfg.Fingerprint.Match(v.record.Browser, m.browser(r)):
		return throttleKey("session", identifier, account, fmt.Sprint(v.record.ID)), nil
	case known:
		return throttleKey("own", identifier, client), nil
	}
	return "", nil
}

// rememberClient remembers that a client was logged in to this account.
func (m *Manager[U]) rememberClient(r *http.Request, user any) {
	if m.cfg.Throttle == throttle.None {
		return
	}
	client := clientKey(accountName(user), m.networks(r))
	if client == "" {
		return
	}
	if err := m.cfg.Throttle.Remember(context.WithoutCancel(r.Context()), client); err != nil {
		m.cfg.Logger.WarnContext(r.Context(), "session: client not remembered", "error", err)
	}
}

// clientKey returns the key of an account and a network, or "" if the network is
// unknown.
func clientKey(account string, networks []string) string {
	if len(networks) == 0 {
		return ""
	}
	return throttleKey("client", account, networks[0])
}

// accountName returns the name under which a user's attempts are counted.
func accountName(user any) string { return "user\x00" + plainKey(user) }

// plainKey returns a user's key as text, of whatever type the driver returned it.
func plainKey(key any) string { return fmt.Sprint(store.PlainKey(key)) }

// throttleKey returns the key of a counter. It is a hash, so that a Throttle
// gets no addresses and identifiers, and short keys.
func throttleKey(parts ...string) string {
	h := sha256.New()
	for _, s := range parts {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// reserve makes all reservations or none. Every attempt has them in the same
// order, from networks to accounts, so attempts that block each other can't
// deadlock.
func (m *Manager[U]) reserve(r *http.Request, networks []string, reservations []reservation) (*attempt, error) {
	ctx, cancel := context.WithTimeout(r.Context(), m.cfg.Timeout)
	defer cancel()
	a := &attempt{throttle: m.cfg.Throttle}
	for _, next := range reservations {
		wait, err := a.throttle.Reserve(ctx, next.key, next.limit)
		if err != nil {
			a.canceled(r.Context())
			return nil, m.notReserved(err)
		}
		if wait > 0 {
			a.canceled(r.Context())
			m.emit(r, EventThrottled, nil, nil)
			return nil, &TooManyAttemptsError{wait}
		}
		a.reserved = append(a.reserved, next)
	}
	if len(networks) > 0 {
		leave, err := m.places.enter(ctx, networks[len(networks)-1])
		if err != nil {
			a.canceled(r.Context())
			return nil, m.notReserved(err)
		}
		a.leave = leave
	}
	return a, nil
}

// notReserved returns the error of an attempt that could not begin: because other
// attempts took all of Config.Timeout, the client disconnected, or the throttle
// failed.
func (m *Manager[U]) notReserved(err error) error {
	if !errors.Is(err, throttle.ErrBusy) {
		return m.wrap("throttle the login", err)
	}
	if errors.Is(err, context.Canceled) {
		return m.wrap("throttle the login", context.Canceled)
	}
	return fmt.Errorf("%w: attempts from this network or for this account: %w", ErrBusy, err)
}

// succeeded forgets the failures of this account from this client. Those of the
// network stay, as an attacker may have an account.
func (a *attempt) succeeded(ctx context.Context) { a.end(ctx, throttle.Succeeded) }

// failed counts the failure.
func (a *attempt) failed(ctx context.Context) { a.end(ctx, throttle.Failed) }

// canceled takes back an attempt that has revealed nothing to the client.
func (a *attempt) canceled(ctx context.Context) { a.end(ctx, throttle.Canceled) }

// end releases the reservations. Only the first call has an effect. A client that
// disconnects does not prevent it. An error of the throttle does not fail the
// login: a reservation that is not released counts as a failure.
func (a *attempt) end(ctx context.Context, outcome throttle.Outcome) {
	if a == nil || a.over {
		return
	}
	a.over = true
	if a.leave != nil {
		a.leave()
	}
	ctx = context.WithoutCancel(ctx)
	for _, reserved := range a.reserved {
		if outcome == throttle.Succeeded && !reserved.ofAccount {
			a.throttle.Release(ctx, reserved.key, throttle.Canceled)
			continue
		}
		a.throttle.Release(ctx, reserved.key, outcome)
	}
}
