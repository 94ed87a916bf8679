package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// A Throttle limits login attempts. It counts the failures under each key that
// the Manager gives it, and remembers where users have logged in from.
//
// The default counts in this process. [NewMySQLThrottle] counts in a table that
// many app servers share.
type Throttle interface {
	// Reserve begins an attempt and returns 0, or returns how long to wait and
	// begins none. Attempts that are in progress are no failures, but if they
	// could become more failures than the limit allows, Reserve blocks until
	// one of them is released, or returns an [ErrBusy] when the context ends.
	// A reservation that is never released counts as a failure. Another error
	// fails the login with an [ErrUnavailable].
	Reserve(ctx context.Context, key string, limit Limit) (wait time.Duration, err error)

	// Release ends an attempt that Reserve has begun under this key.
	Release(ctx context.Context, key string, outcome Outcome) error

	// Remember keeps a key for some months after its last use.
	Remember(ctx context.Context, key string) error

	// Remembers reports whether a key was given to Remember.
	Remembers(ctx context.Context, key string) (bool, error)
}

// A Limit says when a Throttle makes a client wait.
type Limit struct {
	FreeFailures int           // failures that cost nothing
	BaseDelay    time.Duration // the wait after the next one; each further one doubles it
	MaxDelay     time.Duration // the wait does not grow beyond
	ResetAfter   time.Duration // after this long without a failure, all are forgotten
}

// An Outcome is the end of an attempt.
type Outcome int

// The outcomes of an attempt.
const (
	AttemptFailed    Outcome = iota // counts as a failure
	AttemptCanceled                 // counts as nothing
	AttemptSucceeded                // all failures under the key are forgotten
)

// wait returns how long after the last failure the next attempt may be.
func (l Limit) wait(failed int) time.Duration {
	if failed < l.FreeFailures {
		return 0
	}
	wait := l.BaseDelay
	for range failed - l.FreeFailures {
		if wait *= 2; wait >= l.MaxDelay {
			return l.MaxDelay
		}
	}
	return wait
}

// The limits. Those of an account at one network and of a network have an entry
// for each size of network, from an address (or an IPv6 /64) to a /48. Many
// people may share a network, so it has more attempts, and a larger one more.
//
// everywhereLimit is that of an account from all networks: 100 failures, as in
// NIST SP 800-63B, and then 96 attempts a day at most.
var (
	accountLimits = [...]Limit{
		{FreeFailures: 5, BaseDelay: time.Second, MaxDelay: 15 * time.Minute, ResetAfter: time.Hour},
		{FreeFailures: 20, BaseDelay: time.Second, MaxDelay: 15 * time.Minute, ResetAfter: time.Hour},
		{FreeFailures: 50, BaseDelay: time.Second, MaxDelay: 15 * time.Minute, ResetAfter: time.Hour},
	}
	networkLimits = [...]Limit{
		{FreeFailures: 50, BaseDelay: time.Second, MaxDelay: time.Minute, ResetAfter: time.Hour},
		{FreeFailures: 200, BaseDelay: time.Second, MaxDelay: time.Minute, ResetAfter: time.Hour},
		{FreeFailures: 500, BaseDelay: time.Second, MaxDelay: time.Minute, ResetAfter: time.Hour},
	}
	everywhereLimit = Limit{FreeFailures: 100, BaseDelay: time.Minute, MaxDelay: 15 * time.Minute, ResetAfter: 24 * time.Hour}
)

// A TooManyAttemptsError refuses an attempt before the password is looked at.
// It matches [ErrTooManyAttempts], and also [ErrInvalidCredentials], so that a
// program which knows only the latter refuses the login too.
type TooManyAttemptsError struct {
	RetryAfter time.Duration // for the header Retry-After
}

// Error says how long to wait.
func (e *TooManyAttemptsError) Error() string {
	wait := (e.RetryAfter + time.Second - 1).Truncate(time.Second)
	return fmt.Sprintf("%v; try again in %v", ErrTooManyAttempts, max(wait, time.Second))
}

// Is reports whether the target is ErrTooManyAttempts or ErrInvalidCredentials.
func (e *TooManyAttemptsError) Is(target error) bool {
	return target == ErrTooManyAttempts || target == ErrInvalidCredentials
}

// An attempt holds what was reserved for a login.
type attempt struct {
	throttle Throttle
	reserved []reservation
	leave    func() // gives the network's place back
	over     bool
}

type reservation struct {
	key       string
	limit     Limit
	ofAccount bool // a success forgets its failures
}

// attempt asks whether this client may try this account now. The user's key is
// nil if there is no such user. The work is the same for both, so that it shows
// nothing. Whoever gets an attempt must end it.
func (m *Manager[U]) attempt(r *http.Request, conditions []condition, user any) (*attempt, error) {
	if m.cfg.Throttle == NoThrottle {
		return nil, nil
	}
	identifier, err := m.store.identifier(r.Context(), conditions)
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
	a := &attempt{throttle: m.cfg.Throttle}
	own, err := m.ownCount(r, identifier, account, user, networks)
	if err != nil {
		return nil, err
	}
	if own != "" {
		a.reserved = []reservation{{own, accountLimits[0], true}}
	} else {
		for i := len(networks) - 1; i >= 0; i-- {
			a.reserved = append(a.reserved, reservation{throttleKey("network", networks[i]), networkLimits[i], false})
		}
		for i := len(networks) - 1; i > 0; i-- {
			a.reserved = append(a.reserved, reservation{throttleKey("account", identifier, networks[i]), accountLimits[i], false})
		}
		a.reserved = append(a.reserved,
			reservation{throttleKey("account", identifier, smallest(networks)), accountLimits[0], true},
			reservation{throttleKey("everywhere", account), everywhereLimit, true})
	}
	return m.reserve(r, a, networks)
}

// ownCount returns the key of a client that was logged in to this account
// before, so that nobody else can lock it out: by a session cookie of the
// account, even an expired one, or by its network. It returns "" for others.
func (m *Manager[U]) ownCount(r *http.Request, identifier, account string, user any, networks []string) (string, error) {
	v, err := m.verdictOn(r)
	if err != nil {
		return "", err
	}
	known := false
	client := clientKey(account, networks)
	if client != "" {
		if known, err = m.cfg.Throttle.Remembers(r.Context(), client); err != nil {
			return "", m.store.explain("throttle the login", err)
		}
	}
	switch {
	case user != nil && v.record.id != 0 && v.record.owner != nil && plainKey(v.record.owner) == plainKey(user) && m.cfg.Fingerprint.Match(v.record.browser, m.browser(r)):
		return throttleKey("session", identifier, account, fmt.Sprint(v.record.id)), nil
	case known:
		return throttleKey("own", identifier, client), nil
	}
	return "", nil
}

// rememberClient remembers that a client was logged in to this account.
func (m *Manager[U]) rememberClient(r *http.Request, user any) {
	if m.cfg.Throttle == NoThrottle {
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

// clientKey returns the key for an account and a network; "" if it is not known.
func clientKey(account string, networks []string) string {
	if len(networks) == 0 {
		return ""
	}
	return throttleKey("client", account, networks[0])
}

// accountName returns the name under which a user is counted.
func accountName(user any) string { return "user\x00" + plainKey(user) }

// plainKey returns a user's key as text, however the driver gave it.
func plainKey(key any) string { return fmt.Sprint(plainValue(key, textColumn)) }

// attemptToRegister asks whether this client may register a user now.
func (m *Manager[U]) attemptToRegister(r *http.Request) (*attempt, error) {
	if m.cfg.Throttle == NoThrottle {
		return nil, nil
	}
	networks := m.networks(r)
	a := &attempt{throttle: m.cfg.Throttle}
	for i := len(networks) - 1; i >= 0; i-- {
		a.reserved = append(a.reserved, reservation{throttleKey("register", networks[i]), networkLimits[i], false})
	}
	return m.reserve(r, a, networks)
}

// reserve reserves all that the attempt needs, or nothing. Every attempt has its
// reservations in the same order, from networks to accounts, so none waits for
// another in a circle.
func (m *Manager[U]) reserve(r *http.Request, a *attempt, networks []string) (*attempt, error) {
	ctx, cancel := context.WithTimeout(r.Context(), m.cfg.Timeout)
	defer cancel()
	all := a.reserved
	for i, of := range all {
		wait, err := a.throttle.Reserve(ctx, of.key, of.limit)
		if wait == 0 && err == nil {
			continue
		}
		a.reserved = all[:i]
		a.canceled(r.Context())
		if err == nil {
			m.emit(r, EventThrottled, nil, nil)
			return nil, &TooManyAttemptsError{wait}
		}
		return nil, m.noTurn(r, err)
	}
	if len(networks) > 0 {
		leave, err := m.places.enter(ctx, networks[len(networks)-1])
		if err != nil {
			a.canceled(r.Context())
			return nil, m.noTurn(r, err)
		}
		a.leave = leave
	}
	return a, nil
}

// noTurn returns the error of an attempt that did not get its turn: other
// attempts took all of Config.Timeout, the client left, or the throttle failed.
func (m *Manager[U]) noTurn(r *http.Request, err error) error {
	if errors.Is(err, ErrBusy) && !errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, ErrBusy) {
		err = context.Canceled
	}
	return m.store.explain("throttle the login", err)
}

// busy returns the error of an attempt whose context has ended while others
// were in progress.
func busy(ctx context.Context) error {
	return fmt.Errorf("%w: other attempts from this network or for this account are in progress: %w", ErrBusy, ctx.Err())
}

// succeeded forgets the failures of this account from this client. Those of the network stay: an attacker may have an account.
func (a *attempt) succeeded(ctx context.Context) { a.end(ctx, AttemptSucceeded) }

// failed counts the failure.
func (a *attempt) failed(ctx context.Context) { a.end(ctx, AttemptFailed) }

// canceled takes back an attempt that has told the client nothing.
func (a *attempt) canceled(ctx context.Context) { a.end(ctx, AttemptCanceled) }

// end releases what the attempt holds; only the first call counts. A client that
// leaves does not prevent it, and its failure is none of the login: what is not
// released counts as failed.
func (a *attempt) end(ctx context.Context, outcome Outcome) {
	if a == nil || a.over {
		return
	}
	a.over = true
	if a.leave != nil {
		a.leave()
	}
	ctx = context.WithoutCancel(ctx)
	for _, of := range a.reserved {
		its := outcome
		if outcome == AttemptSucceeded && !of.ofAccount {
			its = AttemptCanceled
		}
		a.throttle.Release(ctx, of.key, its)
	}
}

// throttleKey returns a key for what is counted.
func throttleKey(what ...string) string {
	h := sha256.New()
	for _, s := range what {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil)[:throttleKeyLength/2])
}

const throttleKeyLength = 32

// Networks.

// ip returns the client's address as it is stored and reported: without port and
// zone, or if it can't be read, the text that Config.ClientIP returned.
func (m *Manager[U]) ip(r *http.Request) string {
	text := m.cfg.ClientIP(r)
	if address, ok := parseClient(text); ok {
		return address.String()
	}
	return fit(asciiOnly(text), maxIP)
}

// networks returns the networks that a client is in, the smallest first: the
// IPv4 address, or the IPv6 /64, /56 and /48. It returns none if the client's
// address can't be read, or is a proxy's. Such clients are not told apart, so
// they have no counts of a network: one could lock out all.
func (m *Manager[U]) networks(r *http.Request) []string {
	text := m.cfg.ClientIP(r)
	address, ok := parseClient(text)
	switch {
	case !m.knowsClients && (!ok || address.IsPrivate() || address.IsLoopback() || address.IsLinkLocalUnicast()):
		m.hidden.Do(func() {
			m.cfg.Logger.WarnContext(r.Context(), "session: logins are throttled by account only, as they come from a proxy or a private address; set Config.ClientIP to tell clients apart", "address", fit(asciiOnly(text), maxIP))
		})
		return nil
	case !ok:
		if text = fit(asciiOnly(text), maxIP); m.unread.first(text) {
			m.cfg.Logger.WarnContext(r.Context(), "session: Config.ClientIP returned no address, so this login is throttled by account only", "text", text)
		}
		return nil
	}
	if address.Is4() {
		return []string{address.String()}
	}
	networks := make([]string, 0, len(networkLimits))
	for _, bits := range []int{64, 56, 48} {
		network, _ := address.Prefix(bits)
		networks = append(networks, network.String())
	}
	return networks
}

// smallest returns the first network, or a name for all that are not known.
func smallest(networks []string) string {
	if len(networks) == 0 {
		return "unknown"
	}
	return networks[0]
}

// nat64 is the prefix under which translators show IPv4 clients to IPv6 servers.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// parseClient reads an address in the forms that proxies write it: with a port,
// in brackets or quotes, with a zone, as an element of the header Forwarded. Of
// a list it takes the last element, which the nearest proxy has added: clients
// can make up the others.
func parseClient(text string) (netip.Addr, bool) {
	text = strings.TrimRight(text, ", \t\r\n")
	text = text[strings.LastIndexByte(text, ',')+1:]
	for part := range strings.SplitSeq(text, ";") {
		if name, value, ok := strings.Cut(part, "="); ok && strings.EqualFold(strings.TrimSpace(name), "for") {
			text = value
			break
		}
	}
	text = strings.TrimSpace(strings.Trim(strings.TrimSpace(text), `"`))
	if inside, ok := strings.CutPrefix(text, "["); ok {
		var after string
		if text, after, ok = strings.Cut(inside, "]"); !ok || after != "" && after[0] != ':' {
			return netip.Addr{}, false
		}
	} else if strings.Count(text, ":") == 1 {
		text, _, _ = strings.Cut(text, ":")
	}
	text, _, _ = strings.Cut(text, "%")
	address, err := netip.ParseAddr(strings.TrimSpace(text))
	dot, colon := strings.LastIndexByte(text, '.'), strings.LastIndexByte(text, ':')
	if err != nil && 0 < dot && dot < colon { // a port after ::ffff:192.0.2.1
		address, err = netip.ParseAddr(strings.TrimSpace(text[:colon]))
	}
	if err != nil || address.IsUnspecified() {
		return netip.Addr{}, false
	}
	if nat64.Contains(address) {
		ipv6 := address.As16()
		return netip.AddrFrom4([4]byte(ipv6[12:])), true
	}
	return address.Unmap(), true
}

// unreadTexts remembers a few texts that were logged.
type unreadTexts struct {
	mu   sync.Mutex
	seen map[string]bool
}

// first reports whether a text is new, of the first few.
func (t *unreadTexts) first(text string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen[text] || len(t.seen) == 10 {
		return false
	}
	if t.seen == nil {
		t.seen = map[string]bool{}
	}
	t.seen[text] = true
	return true
}

// places keeps the clients of one network from filling the queue for bcrypt:
// only a few of their attempts may be in it. Further ones wait outside of it.
type places struct {
	mu sync.Mutex
	of map[string]*networkPlaces
}

type networkPlaces struct {
	taken   chan struct{}
	present int // attempts that have a place or wait for one
}

// maxWaiting is how many attempts of one network may be present.
const maxWaiting = 256

// enter takes a place, and returns what gives it back.
func (p *places) enter(ctx context.Context, network string) (leave func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.of[network]
	if n == nil {
		n = &networkPlaces{taken: make(chan struct{}, 4*max(1, runtime.GOMAXPROCS(0)-1))}
		if p.of == nil {
			p.of = map[string]*networkPlaces{}
		}
		p.of[network] = n
	}
	if n.present == maxWaiting {
		return nil, fmt.Errorf("%w: too many attempts from one network", ErrBusy)
	}
	n.present++
	p.mu.Unlock()
	select {
	case n.taken <- struct{}{}:
	case <-ctx.Done():
		err = busy(ctx)
	}
	p.mu.Lock()
	if err != nil {
		p.gone(network, n)
		return nil, err
	}
	return func() {
		<-n.taken
		p.mu.Lock()
		defer p.mu.Unlock()
		p.gone(network, n)
	}, nil
}

// gone counts an attempt out, with p.mu held.
func (p *places) gone(network string, n *networkPlaces) {
	if n.present--; n.present == 0 {
		delete(p.of, network)
	}
}

// NoThrottle lets every client try at any time, for tests, or where something
// before the app does the work.
var NoThrottle Throttle = noThrottle{}

type noThrottle struct{}

func (noThrottle) Reserve(context.Context, string, Limit) (time.Duration, error) { return 0, nil }
func (noThrottle) Release(context.Context, string, Outcome) error                { return nil }
func (noThrottle) Remember(context.Context, string) error                        { return nil }
func (noThrottle) Remembers(context.Context, string) (bool, error)               { return false, nil }

// memoryThrottle counts in this process.
type memoryThrottle struct {
	mu      sync.Mutex
	entries *simplelru.LRU[string, failures]
	clients *simplelru.LRU[string, struct{}] // apart, so that failures can't push them out
	pending map[string]*pending
	now     func() time.Time
}

type failures struct {
	count int
	last  time.Time
}

// pending are the attempts in progress under a key. changed is closed when one
// of them ends.
type pending struct {
	count   int
	changed chan struct{}
}

// Some 20 MB. A client fills a few of them before it must wait.
const throttleEntries = 100_000

func newMemoryThrottle() *memoryThrottle {
	entries, _ := simplelru.NewLRU[string, failures](throttleEntries, nil)
	clients, _ := simplelru.NewLRU[string, struct{}](throttleEntries, nil)
	return &memoryThrottle{entries: entries, clients: clients, pending: map[string]*pending{}, now: time.Now}
}

func (t *memoryThrottle) Reserve(ctx context.Context, key string, limit Limit) (time.Duration, error) {
	for {
		wait, changed := t.try(key, limit)
		if changed == nil {
			return wait, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, busy(ctx)
		}
	}
}

// try reserves an attempt, or returns how long to wait, or else what is closed
// once an attempt in progress has ended.
func (t *memoryThrottle) try(key string, limit Limit) (wait time.Duration, changed chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	f, _ := t.entries.Get(key)
	since := now.Sub(f.last)
	if since > limit.ResetAfter {
		f.count = 0
		t.entries.Remove(key)
	}
	if wait := limit.wait(f.count) - since; wait > 0 {
		return wait, nil
	}
	p := t.pending[key]
	if p == nil {
		p = &pending{changed: make(chan struct{})}
		t.pending[key] = p
	}
	if p.count > 0 && f.count+p.count >= limit.FreeFailures {
		return 0, p.changed
	}
	p.count++
	return 0, nil
}

func (t *memoryThrottle) Release(_ context.Context, key string, outcome Outcome) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch outcome {
	case AttemptFailed:
		f, _ := t.entries.Get(key)
		t.entries.Add(key, failures{f.count + 1, t.now()})
	case AttemptSucceeded:
		t.entries.Remove(key)
	}
	p := t.pending[key]
	if p == nil {
		return nil
	}
	close(p.changed)
	p.changed = make(chan struct{})
	if p.count--; p.count == 0 {
		delete(t.pending, key)
	}
	return nil
}

func (t *memoryThrottle) Remember(_ context.Context, key string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clients.Add(key, struct{}{})
	return nil
}

func (t *memoryThrottle) Remembers(_ context.Context, key string) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.clients.Get(key)
	return ok, nil
}
