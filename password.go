package session

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/text/unicode/norm"
)

// passwords makes and checks password hashes so that time tells nothing: a
// refusal does the work of the costliest hash in the users table, up to a
// bound, whether there was no user, an unusable hash or one of lower cost.
type passwords struct {
	cost    int
	legacy  func(stored, password string) bool // Config.VerifyPassword
	compare func(hash, password []byte) error  // bcrypt's
	timeout time.Duration                      // how long a password waits for its turn; 0 for ever
	told    func(context.Context, Event)       // nil if nobody listens

	// What the costliest hashes are. The sample of the users table is read
	// once, and what is seen later counts too.
	sample   func(context.Context) ([][]byte, error)
	learning sync.Mutex
	learned  atomic.Bool
	highest  atomic.Int64 // bcrypt cost, from cost to the limit
	slowest  atomic.Pointer[legacyText]

	slots    chan struct{} // one for each password at work: they leave a processor to others
	queued   atomic.Int64  // nanoseconds of work of the passwords that are at work or wait
	perRound atomic.Int64  // nanoseconds that a round of bcrypt took lately
}

// A legacyText is a stored text for VerifyPassword, and how long it took.
type legacyText struct {
	text  string
	takes time.Duration
}

// maxEqualized is the cost up to which one user's hash slows the refusals of
// all: a quarter of a second or so. A single hash of a higher cost must not
// make every failed login of everyone burn seconds.
const maxEqualized = 12

// firstGuess is how long a round takes where none was measured yet: cost 10 in
// a fifteenth of a second.
const firstGuess = 65 * time.Microsecond

func newPasswords(cost int, legacy func(stored, password string) bool) *passwords {
	p := &passwords{cost: cost, legacy: legacy, slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)), compare: bcrypt.CompareHashAndPassword}
	p.highest.Store(int64(cost))
	p.perRound.Store(int64(firstGuess))
	return p
}

// enter waits for a slot, no longer than the timeout. If those before have more
// work than fits into it, it does not wait at all.
func (p *passwords) enter(ctx context.Context, work time.Duration) (leave func(), err error) {
	ahead := time.Duration(p.queued.Add(int64(work))) - work
	forget := func() { p.queued.Add(-int64(work)) }
	var late <-chan time.Time
	if p.timeout > 0 {
		if ahead/time.Duration(cap(p.slots)) > p.timeout {
			forget()
			return nil, p.busy(ctx)
		}
		timer := time.NewTimer(p.timeout)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case p.slots <- struct{}{}:
		return func() { <-p.slots; forget() }, nil
	case <-late:
		forget()
		return nil, p.busy(ctx)
	case <-ctx.Done():
		forget()
		return nil, ctx.Err()
	}
}

func (p *passwords) busy(ctx context.Context) error {
	if p.told != nil {
		p.told(ctx, Event{Kind: EventBusy, Err: ErrBusy})
	}
	return ErrBusy
}

// takes estimates how long so many rounds of bcrypt take.
func (p *passwords) takes(cost int) time.Duration {
	return time.Duration(p.perRound.Load()) << cost
}

// normalized is a password as it is hashed: in Normalization Form C, as NIST SP
// 800-63B-4 section 3.1.1.2 and RFC 8265 section 4.2 have it, so that it does
// not matter which keyboard composes its accents. Form KC would take more
// passwords for equal. What is no UTF-8 stays as it is.
func normalized(password string) string {
	if !utf8.ValidString(password) {
		return password
	}
	return norm.NFC.String(password)
}

// formsOf returns the distinct forms in which a password may have been hashed,
// by this library or another program: normalized, as typed, decomposed. How
// many there are depends on what was typed alone.
func formsOf(password string) []string {
	forms := []string{normalized(password)}
	if isASCII(password) || !utf8.ValidString(password) {
		return forms
	}
	if password != forms[0] {
		forms = append(forms, password)
	}
	if nfd := norm.NFD.String(password); nfd != password && nfd != forms[0] {
		forms = append(forms, nfd)
	}
	return forms
}

func (p *passwords) hash(ctx context.Context, password string) (string, error) {
	leave, err := p.enter(ctx, p.takes(p.cost))
	if err == ErrBusy {
		return "", err
	}
	if err != nil {
		return "", fmt.Errorf("session: hash the password: %w: %w", ErrUnavailable, err)
	}
	defer leave()
	return p.generate(normalized(password))
}

func (p *passwords) generate(password string) (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), p.cost)
	if err == bcrypt.ErrPasswordTooLong {
		return "", fmt.Errorf("%w: bcrypt reads no more, so the rest would protect nothing", ErrPasswordTooLong)
	}
	return string(hash), err
}

// verify reports whether the hash is that of the password; none is nobody's. Other programs may have cut a long password when they
// hashed it, and bcrypt compares no more than 72 bytes, so long ones are not refused here.
func (p *passwords) verify(ctx context.Context, hash []byte, password string) (bool, error) {
	work := p.takes(int(p.highest.Load()))
	if slowest := p.slowest.Load(); slowest != nil {
		work += slowest.takes
	}
	leave, err := p.enter(ctx, work*time.Duration(len(formsOf(password))))
	if err != nil {
		return false, err
	}
	defer leave()
	p.learn(ctx)
	return p.matches(hash, password), nil
}

// usable reports whether a stored hash can be that of a password: bcrypt's, or
// with Config.VerifyPassword any text.
func (p *passwords) usable(hash []byte) bool {
	cost, isBcrypt := bcryptCost(unpadded(hash))
	if isBcrypt {
		return cost <= maxPasswordCost
	}
	return p.legacy != nil && len(unpadded(hash)) > 0
}

// unpadded is a hash without the blanks or zero bytes that a column of fixed
// width adds, or the line break of an import.
func unpadded(hash []byte) []byte { return bytes.TrimRight(hash, " \t\r\n\x00") }

// bcryptCost returns the cost of a bcrypt hash, and reports whether it is one
// to the letter: bcrypt.Cost also takes what cannot be compared with, or ends
// in anything, and comparing would end early.
func bcryptCost(hash []byte) (int, bool) {
	if !bcryptGrammar.Match(hash) {
		return 0, false
	}
	cost, err := bcrypt.Cost(hash)
	return cost, err == nil
}

var bcryptGrammar = regexp.MustCompile(`^\$2[abxy]?\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)

// matches does the same for every refusal of a password: bcrypt of the highest
// cost and VerifyPassword of the slowest text, for each form of the password.
func (p *passwords) matches(hash []byte, password string) bool {
	forms := formsOf(password)
	usable := p.usable(hash)
	cost, isBcrypt := bcryptCost(unpadded(hash))
	if usable && !isBcrypt {
		if p.matchesLegacy(string(hash), password, forms) {
			return true // and the new hash takes the time of a comparison
		}
	}
	if !usable || !isBcrypt {
		for _, form := range forms {
			p.refuse(form)
		}
		if !usable {
			p.refuseLegacy(forms)
		}
		return false
	}
	p.saw(cost)
	for _, form := range forms {
		if p.compared(unpadded(hash), cost, form) {
			return true
		}
	}
	for _, form := range forms {
		p.spend(cost, form)
	}
	p.refuseLegacy(forms)
	return false
}

// compared compares, and measures what a round takes.
func (p *passwords) compared(hash []byte, cost int, password string) bool {
	begun := time.Now()
	err := p.compare(hash, []byte(password))
	recent := int64(time.Since(begun)) >> cost
	p.perRound.Store((3*p.perRound.Load() + max(1, recent)) / 4)
	return err == nil
}

// saw takes note that somebody has a hash of this cost.
func (p *passwords) saw(cost int) {
	equal := int64(min(cost, p.limit()))
	for seen := p.highest.Load(); equal > seen && !p.highest.CompareAndSwap(seen, equal); {
		seen = p.highest.Load()
	}
}

// limit is the bcrypt cost up to which refusals take the same time.
func (p *passwords) limit() int { return max(maxEqualized, p.cost) }

// refuse takes as long as comparing with a hash of the highest cost.
func (p *passwords) refuse(password string) {
	highest := int(p.highest.Load())
	p.compared(dummy(highest), highest, password)
}

// spend makes up for a comparison at a lower cost: each step doubles the time, so once each of the costs from this one
// up to the highest, less one, is what was saved.
func (p *passwords) spend(cost int, password string) {
	for ; cost < int(p.highest.Load()); cost++ {
		p.compared(dummy(cost), cost, password)
	}
}

// dummy is a well-formed hash of this cost that no password has: comparing takes the full time and fails. The salt and
// the digest are 53 characters of bcrypt's base64.
func dummy(cost int) []byte {
	return fmt.Appendf(nil, "$2a$%02d$%s", cost, strings.Repeat(".", 53))
}

// matchesLegacy asks VerifyPassword, which gets the password as it was typed
// first. If it says no, it has taken as long as with the slowest text.
func (p *passwords) matchesLegacy(stored, password string, forms []string) bool {
	begun := time.Now()
	if p.legacy(stored, password) {
		return true
	}
	for _, form := range forms {
		if form != password && p.legacy(stored, form) {
			return true
		}
	}
	took := time.Since(begun) / time.Duration(len(forms))
	slowest := p.slowest.Load()
	switch {
	case slowest == nil:
		p.sawLegacy(stored, took)
	case legacyKind(stored) == legacyKind(slowest.text): // it was the same work
	case took > slowest.takes+slowest.takes/4:
		begun = time.Now() // perhaps the processor was busy
		p.legacy(slowest.text, password)
		if took > time.Since(begun)*5/4 {
			p.sawLegacy(stored, took)
		}
	case took < slowest.takes/4:
		p.refuseLegacy(forms)
	default:
		time.Sleep((slowest.takes - took) * time.Duration(len(forms)))
	}
	return false
}

// refuseLegacy takes as long as VerifyPassword does with the slowest text.
func (p *passwords) refuseLegacy(forms []string) {
	slowest := p.slowest.Load()
	if slowest == nil {
		return
	}
	begun := time.Now()
	for _, form := range forms {
		p.legacy(slowest.text, form)
	}
	took := time.Since(begun) / time.Duration(len(forms))
	p.slowest.CompareAndSwap(slowest, &legacyText{slowest.text, (3*slowest.takes + took) / 4})
}

// sawLegacy takes note of a stored text that VerifyPassword took this long for.
// One that takes much longer than bcrypt of the highest cost that all are made
// to wait for is left out.
func (p *passwords) sawLegacy(stored string, took time.Duration) {
	bound := p.takes(p.limit())
	slowest := p.slowest.Load()
	if took <= bound+bound/2 && (slowest == nil || took > slowest.takes) {
		p.slowest.CompareAndSwap(slowest, &legacyText{stored, took})
	}
}

// maxKinds is of how many kinds of stored texts the time is measured.
const maxKinds = 16

// learn looks once at what hashes the users have, so that the first refusal is
// like all others. After a failure the next password tries again.
func (p *passwords) learn(ctx context.Context) {
	if p.sample == nil || p.learned.Load() {
		return
	}
	p.learning.Lock()
	defer p.learning.Unlock()
	if p.learned.Load() {
		return
	}
	stored, err := p.sample(ctx)
	if err != nil {
		return
	}
	kinds := map[string]bool{}
	for _, hash := range stored {
		if !p.usable(hash) {
			continue
		}
		if cost, isBcrypt := bcryptCost(unpadded(hash)); isBcrypt {
			p.saw(cost)
			continue
		}
		kind := legacyKind(string(hash))
		if kinds[kind] || len(kinds) == maxKinds {
			continue
		}
		if len(kinds) == 0 {
			p.perRound.Store(int64(quicker(func() { bcrypt.CompareHashAndPassword(dummy(6), nil) }) >> 6))
		}
		kinds[kind] = true
		p.sawLegacy(string(hash), quicker(func() {
			defer func() { recover() }() // it is another user's login that would panic
			p.legacy(string(hash), "a password")
		}))
	}
	p.learned.Store(true)
}

// quicker is the time of the quicker of two tries.
func quicker(do func()) time.Duration {
	best := time.Duration(0)
	for try := range 2 {
		begun := time.Now()
		do()
		if took := time.Since(begun); try == 0 || took < best {
			best = took
		}
	}
	return best
}

// legacyKind is what the hashes of one function and setting have in common: all
// before the salt in $function$settings$salt$hash, a name in braces, or the
// length.
func legacyKind(stored string) string {
	if fields := strings.Split(stored, "$"); len(fields) > 2 {
		return strings.Join(fields[:len(fields)-2], "$")
	}
	name, _, _ := strings.Cut(stored, "}")
	if name == stored {
		name = ""
	}
	return fmt.Sprint(name, len(stored))
}

// upgraded is a hash to store in place of one that was just verified, if that
// is not bcrypt's, costs less than it should, or is of a password that was not
// normalized; empty if not, or if bcrypt would not read the whole password. It
// waits for nobody: where passwords are at work, there will be another login.
func (p *passwords) upgraded(hash []byte, password string) (string, error) {
	forms := formsOf(password)
	cost, isBcrypt := bcryptCost(unpadded(hash))
	enough := isBcrypt && cost >= p.cost
	if enough && len(forms) == 1 || len(forms[0]) > 72 {
		return "", nil
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	default:
		return "", nil
	}
	if enough && p.compared(unpadded(hash), cost, forms[0]) {
		return "", nil
	}
	return p.generate(forms[0])
}
