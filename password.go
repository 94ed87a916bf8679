package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/bcrypt"
)

// passwords makes and checks password hashes so that time tells nothing: a refusal takes as long as the costliest
// hash that was seen, up to a bound, whether there was no user, an unusable hash or one of lower cost.
type passwords struct {
	cost    int
	legacy  func(stored, password string) bool // Config.VerifyPassword
	highest atomic.Int64                       // the highest cost seen of a user's hash; from cost to maxEqualized
	slots   chan struct{}                      // one for each login at work: they leave a processor to others
	queue   atomic.Int64                       // those at work, and those that wait for it
	compare func(hash, password []byte) error  // bcrypt's
}

// maxQueue is how many logins may be at work or wait, for each slot: the last has to wait for some seconds.
const maxQueue = 128

var errBusy = errors.New("too many logins at once")

// maxEqualized is the cost up to which one user's hash slows the refusals of all: a quarter of a second or so. A single
// hash of a higher cost must not make every failed login of everyone burn seconds.
const maxEqualized = 12

func newPasswords(cost int, legacy func(stored, password string) bool) *passwords {
	p := &passwords{cost: cost, legacy: legacy, slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)), compare: bcrypt.CompareHashAndPassword}
	p.highest.Store(int64(cost))
	return p
}

// enter waits for a slot, as long as the context allows and the queue is not too long.
func (p *passwords) enter(ctx context.Context) error {
	if p.queue.Add(1) > int64(maxQueue*cap(p.slots)) {
		p.queue.Add(-1)
		return errBusy
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		p.queue.Add(-1)
		return ctx.Err()
	}
}

func (p *passwords) leave() {
	<-p.slots
	p.queue.Add(-1)
}

func (p *passwords) hash(ctx context.Context, password string) (string, error) {
	if err := p.enter(ctx); err != nil {
		return "", fmt.Errorf("session: hash the password: %w: %w", ErrUnavailable, err)
	}
	defer p.leave()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), p.cost)
	if err == bcrypt.ErrPasswordTooLong {
		return "", fmt.Errorf("%w: bcrypt reads no more, so the rest would protect nothing", ErrPasswordTooLong)
	}
	return string(hash), err
}

// verify reports whether the hash is that of the password; none is nobody's. Other programs may have cut a long password when they
// hashed it, and bcrypt compares no more than 72 bytes, so long ones are not refused here.
func (p *passwords) verify(ctx context.Context, hash []byte, password string) (bool, error) {
	if err := p.enter(ctx); err != nil {
		return false, err
	}
	defer p.leave()
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

func (p *passwords) matches(hash []byte, password string) bool {
	usable := p.usable(hash)
	cost, isBcrypt := bcryptCost(unpadded(hash))
	if usable && !isBcrypt && p.legacy(string(hash), password) {
		return true // and the new hash takes the time of a comparison
	}
	if !usable || !isBcrypt {
		p.refuse(password)
		return false
	}
	equal := int64(min(cost, maxEqualized))
	for seen := p.highest.Load(); equal > seen && !p.highest.CompareAndSwap(seen, equal); {
		seen = p.highest.Load()
	}
	if p.compare(unpadded(hash), []byte(password)) == nil {
		return true
	}
	p.spend(cost, password)
	return false
}

// refuse takes as long as comparing with a hash of the highest cost.
func (p *passwords) refuse(password string) {
	highest := int(p.highest.Load())
	p.compare(dummy(highest), []byte(password))
}

// spend makes up for a comparison at a lower cost: each step doubles the time, so once each of the costs from this one
// up to the highest, less one, is what was saved.
func (p *passwords) spend(cost int, password string) {
	for ; cost < int(p.highest.Load()); cost++ {
		p.compare(dummy(cost), []byte(password))
	}
}

// dummy is a well-formed hash of this cost that no password has: comparing takes the full time and fails. The salt and
// the digest are 53 characters of bcrypt's base64.
func dummy(cost int) []byte {
	return fmt.Appendf(nil, "$2a$%02d$%s", cost, strings.Repeat(".", 53))
}

// upgraded is a hash to store in place of one that was just verified, if that is not bcrypt's or costs less than it
// should; empty if not, or if bcrypt would not read the whole password.
func (p *passwords) upgraded(ctx context.Context, hash []byte, password string) (string, error) {
	if cost, ok := bcryptCost(unpadded(hash)); ok && cost >= p.cost || len(password) > 72 {
		return "", nil
	}
	return p.hash(ctx, password)
}
