package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// A Throttle slows down who guesses passwords. It counts what fails under a key: the Manager asks under one key for the
// client's address, and under one for that address and the identifier that it tries. So nobody can keep the owner of an
// account, who is elsewhere, from logging in (OWASP Authentication Cheat Sheet, "Account Lockout").
//
// The default counts in this process. [NewMySQLThrottle] counts in a table that many app servers share.
type Throttle interface {
	// Try asks for an attempt. It returns 0 and counts the attempt as failed until Forgive takes it back, or it returns
	// how long to wait, and counts nothing. An error fails the login as an [ErrUnavailable].
	Try(ctx context.Context, key string, limit Limit) (wait time.Duration, err error)

	// Forgive takes back what was counted under a key: everything, or one attempt.
	Forgive(ctx context.Context, key string, everything bool) error
}

// A Limit says when a Throttle makes somebody wait.
type Limit struct {
	Free    int           // so many failures cost nothing
	First   time.Duration // the wait after the next one; each further one doubles it
	Longest time.Duration // the wait does not grow beyond
	Forget  time.Duration // without a failure for so long, all are forgotten
}

// wait is how long after the last of so many failures the next attempt may be.
func (l Limit) wait(failed int) time.Duration {
	if failed < l.Free {
		return 0
	}
	wait := l.First
	for range failed - l.Free {
		if wait *= 2; wait >= l.Longest {
			return l.Longest
		}
	}
	return wait
}

// The limits: an address may be that of many people, so it has more attempts.
var (
	accountLimit = Limit{Free: 5, First: time.Second, Longest: 15 * time.Minute, Forget: time.Hour}
	addressLimit = Limit{Free: 50, First: time.Second, Longest: time.Minute, Forget: time.Hour}
)

// A TooManyAttemptsError refuses a login before the password is looked at. It is an [ErrTooManyAttempts], and reads like
// the [ErrInvalidCredentials] that it also is: a program that does not tell them apart shows the same to everyone.
type TooManyAttemptsError struct {
	RetryAfter time.Duration // for the header Retry-After
}

func (e *TooManyAttemptsError) Error() string { return ErrInvalidCredentials.Error() }

// Is reports whether the target is ErrTooManyAttempts or ErrInvalidCredentials.
func (e *TooManyAttemptsError) Is(target error) bool {
	return target == ErrTooManyAttempts || target == ErrInvalidCredentials
}

// An attempt at a login was counted under these keys.
type attempt struct {
	throttle         Throttle
	account, address string
}

// attempt asks whether this client may try this identifier now.
func (m *Manager[U]) attempt(r *http.Request, conditions []condition) (*attempt, error) {
	network, ok := m.network(r)
	if !ok {
		return nil, nil
	}
	identifier := "account"
	for _, c := range conditions {
		// Whatever their collation takes for equal, most of it is equal so.
		identifier += "\x00" + strings.ToLower(c.column.name) + "\x00" + strings.ToLower(strings.TrimSpace(fmt.Sprint(c.arg)))
	}
	a := &attempt{m.cfg.Throttle, throttleKey(identifier, network), throttleKey("address", network)}
	wait, err := a.throttle.Try(r.Context(), a.address, addressLimit)
	if err == nil && wait == 0 {
		if wait, err = a.throttle.Try(r.Context(), a.account, accountLimit); wait != 0 {
			a.throttle.Forgive(r.Context(), a.address, false) // it was no attempt
		}
	}
	if err != nil {
		return nil, m.store.explain("throttle the login", err)
	}
	if wait != 0 {
		m.tell(r, EventThrottled, nil, nil)
		return nil, &TooManyAttemptsError{wait}
	}
	return a, nil
}

// succeeded forgets the failures of this account from this address. Those of the address stay: who guesses may have an
// account of his own.
func (a *attempt) succeeded(ctx context.Context) {
	if a != nil {
		a.throttle.Forgive(ctx, a.account, true)
		a.throttle.Forgive(ctx, a.address, false)
	}
}

// network is where a client is: its IPv4 address, or the /64 network that one customer has of IPv6. It is not known, and
// nobody is slowed down, behind a proxy that hides it: all the world would be one client.
func (m *Manager[U]) network(r *http.Request) (string, bool) {
	address, err := netip.ParseAddr(m.ip(r))
	hidden := err != nil || !m.knowsClients && (address.IsPrivate() || address.IsLoopback() || address.IsLinkLocalUnicast())
	if hidden {
		m.hidden.Do(func() {
			m.cfg.Logger.Warn("session: logins are not throttled, as they come from a proxy or a private address; set Config.ClientIP to tell clients apart")
		})
		return "", false
	}
	if address = address.Unmap().WithZone(""); address.Is6() {
		network, _ := address.Prefix(64)
		return network.String(), true
	}
	return address.String(), true
}

// throttleKey names what is counted, and tells nothing of it: the keys may be stored.
func throttleKey(what, network string) string {
	sum := sha256.Sum256([]byte(network + "\x00" + what))
	return hex.EncodeToString(sum[:throttleKeyLength/2])
}

const throttleKeyLength = 32

// NoThrottle lets everyone try at any time, for tests, or where something before the app does the work.
var NoThrottle Throttle = noThrottle{}

type noThrottle struct{}

func (noThrottle) Try(context.Context, string, Limit) (time.Duration, error) { return 0, nil }
func (noThrottle) Forgive(context.Context, string, bool) error               { return nil }

// memoryThrottle counts in this process.
type memoryThrottle struct {
	mu      sync.Mutex
	entries *simplelru.LRU[string, failures]
	now     func() time.Time
}

type failures struct {
	count int
	last  time.Time
}

// Some 20 MB. Who has one address fills a few of them before it must wait.
const throttleEntries = 100_000

func newMemoryThrottle() *memoryThrottle {
	entries, _ := simplelru.NewLRU[string, failures](throttleEntries, nil)
	return &memoryThrottle{entries: entries, now: time.Now}
}

func (t *memoryThrottle) Try(_ context.Context, key string, limit Limit) (time.Duration, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	f, _ := t.entries.Get(key)
	since := now.Sub(f.last)
	if since > limit.Forget {
		f.count = 0
	}
	if wait := limit.wait(f.count) - since; wait > 0 {
		return wait, nil
	}
	t.entries.Add(key, failures{f.count + 1, now})
	return 0, nil
}

func (t *memoryThrottle) Forgive(_ context.Context, key string, everything bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	f, ok := t.entries.Peek(key)
	switch {
	case !ok:
	case everything || f.count <= 1:
		t.entries.Remove(key)
	default:
		t.entries.Add(key, failures{f.count - 1, f.last})
	}
	return nil
}

// A pace is so many of something in a second, and no more.
type pace struct {
	mu    sync.Mutex
	since time.Time
	n     int
}

// maxForgeries is how many forged tokens are looked up in a second, to tell whose they are not.
const maxForgeries = 10

func (p *pace) allows(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.since) >= time.Second {
		p.since, p.n = now, 0
	}
	p.n++
	return p.n <= maxForgeries
}
