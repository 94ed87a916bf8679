// Package password hashes and verifies passwords in uniform time, with a bound
// on the passwords that are hashed concurrently. It knows neither users nor the
// database.
package password

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"
)

var (
	// ErrBusy is returned when a password would not get its turn within the
	// timeout.
	ErrBusy = errors.New("too busy to hash a password")

	// ErrTooLong is returned for a password longer than the 72 bytes that
	// bcrypt uses.
	ErrTooLong = errors.New("password longer than 72 bytes")
)

// MaxCost is the highest bcrypt cost of a hash that is compared.
const MaxCost = 16

// A Hasher hashes and verifies passwords in uniform time: every failure takes
// as long as the costliest hash seen (bounded), whether the user is unknown,
// the hash unusable or its cost lower.
type Hasher struct {
	cost    int
	legacy  func(stored, password string) bool
	sample  func(context.Context) ([][]byte, error)
	compare func(hash, password []byte) error
	queue   *queue

	// The costliest hashes: of the sample, which is read once, and of those
	// seen later.
	learning    sync.Mutex
	learned     atomic.Bool
	maxSeenCost atomic.Int64 // of bcrypt, from cost to maxEqualized
	slowest     atomic.Pointer[legacyHash]

	perRound atomic.Int64 // nanoseconds of a bcrypt round, as recently measured
}

// Options configure a [Hasher].
type Options struct {
	// Cost is the bcrypt cost of new hashes.
	Cost int

	// Legacy verifies a stored hash that is not bcrypt's. Nil means that such
	// hashes are unusable.
	Legacy func(stored, password string) bool

	// Sample returns some of the stored hashes. It is called before the first
	// password is verified, and again after a failure. It may be nil.
	Sample func(context.Context) ([][]byte, error)

	// Timeout is how long a password waits for its turn. Zero means forever.
	Timeout time.Duration

	// Slots is the number of passwords hashed concurrently. Zero means one for
	// each CPU, leaving one free.
	Slots int

	// Compare compares a bcrypt hash with a password. Nil means
	// [bcrypt.CompareHashAndPassword]; tests count or delay comparisons.
	Compare func(hash, password []byte) error
}

// initialPerRound is the duration of a bcrypt round until one was measured:
// cost 10 takes a fifteenth of a second.
const initialPerRound = 65 * time.Microsecond

// New returns a Hasher.
func New(o Options) *Hasher {
	if o.Slots == 0 {
		o.Slots = max(1, runtime.GOMAXPROCS(0)-1)
	}
	if o.Compare == nil {
		o.Compare = bcrypt.CompareHashAndPassword
	}
	h := &Hasher{cost: o.Cost, legacy: o.Legacy, sample: o.Sample, compare: o.Compare, queue: newQueue(o.Slots, o.Timeout)}
	h.maxSeenCost.Store(int64(o.Cost))
	h.perRound.Store(int64(initialPerRound))
	return h
}

// Hash returns the bcrypt hash of a password, in its normalized form. It
// returns [ErrTooLong], [ErrBusy] or the context's error.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	leave, err := h.queue.enter(ctx, h.durationOf(h.cost))
	if err != nil {
		return "", err
	}
	defer leave()
	return h.generate(normalized(password))
}

// generate returns the bcrypt hash of a normalized password.
func (h *Hasher) generate(password string) (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), h.cost)
	if err == bcrypt.ErrPasswordTooLong {
		return "", ErrTooLong
	}
	return string(hash), err
}

// Verify reports whether hash matches password; a nil hash matches nothing. It
// returns [ErrBusy] or the context's error.
//
// Long passwords are verified as well: other programs may have truncated them
// before hashing, and bcrypt compares no more than 72 bytes.
func (h *Hasher) Verify(ctx context.Context, hash []byte, password string) (bool, error) {
	work := h.durationOf(int(h.maxSeenCost.Load()))
	if slowest := h.slowest.Load(); slowest != nil {
		work += slowest.duration
	}
	leave, err := h.queue.enter(ctx, work*time.Duration(len(formsOf(password))))
	if err != nil {
		return false, err
	}
	defer leave()
	h.learn(ctx)
	return h.matches(hash, password), nil
}

// Usable reports whether a password can match a stored hash: it is a bcrypt
// hash or, if there is a Legacy function, any text.
func (h *Hasher) Usable(hash []byte) bool {
	cost, isBcrypt := bcryptCost(unpadded(hash))
	if isBcrypt {
		return cost <= MaxCost
	}
	return h.legacy != nil && len(unpadded(hash)) > 0
}

// Upgraded returns a hash to store in place of one that was just verified, if
// that is not a bcrypt hash, has a lower cost or is of a password that was not
// normalized. It returns "" if no other hash is needed, or if bcrypt would not
// use the whole password.
//
// It does not wait for its turn. It returns "" if other passwords are being
// hashed, and a later login tries again.
func (h *Hasher) Upgraded(hash []byte, password string) (string, error) {
	forms := formsOf(password)
	cost, isBcrypt := bcryptCost(unpadded(hash))
	costsEnough := isBcrypt && cost >= h.cost
	if costsEnough && len(forms) == 1 || len(forms[0]) > 72 {
		return "", nil
	}
	leave, ok := h.queue.tryEnter()
	if !ok {
		return "", nil
	}
	defer leave()
	if costsEnough && h.matchesBcrypt(unpadded(hash), cost, forms[0]) {
		return "", nil
	}
	return h.generate(forms[0])
}

// unpadded returns a hash without trailing blanks or zero bytes, which a column
// of fixed width adds, and without the line break of an import.
func unpadded(hash []byte) []byte { return bytes.TrimRight(hash, " \t\r\n\x00") }

// bcryptCost returns the cost of a bcrypt hash, and reports whether it is a
// well-formed one. bcrypt.Cost also accepts malformed hashes, for which a
// comparison would return early.
func bcryptCost(hash []byte) (int, bool) {
	if !bcryptGrammar.Match(hash) {
		return 0, false
	}
	cost, err := bcrypt.Cost(hash)
	return cost, err == nil
}

// bcryptGrammar matches a well-formed bcrypt hash.
var bcryptGrammar = regexp.MustCompile(`^\$2[abxy]?\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)
