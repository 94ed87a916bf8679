// Package throttle limits how often attempts may fail, such as logins.
//
// A [Throttle] counts failures under keys and says how long to wait. Package
// session has one in session.Config.Throttle and chooses the keys. Its numbers
// are the [Limits] in session.Config.Limits.
//
// [NewMemory] counts in one process, [NewMySQL] in a table that many app
// servers share, and [None] does not count. An app can use a Throttle for
// attempts of its own too, such as second factors: call Reserve before each
// attempt, and Release after it.
package throttle

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Throttle counts the failed attempts under each key, and remembers keys.
//
// Any string is a key. Package session passes hashes, so that a Throttle gets
// to see neither addresses nor identifiers.
//
// The methods must be safe for concurrent use. Their errors mean that the
// Throttle itself has failed. Package session then rejects the attempt with
// session.ErrUnavailable, except for errors that match [ErrBusy], which it
// returns as session.ErrBusy.
type Throttle interface {
	// Reserve begins an attempt and returns 0, or returns how long to wait and
	// begins none.
	//
	// An attempt in progress is not a failure. If those in progress could
	// together exceed the free failures of the limit, Reserve blocks until one
	// of them is released. It returns an error that matches [ErrBusy] and the
	// error of ctx if ctx ends before.
	//
	// Each attempt that Reserve began needs one call of Release. If its process
	// ends before, a shared Throttle must count the attempt as a failure.
	Reserve(ctx context.Context, key string, limit Limit) (wait time.Duration, err error)

	// Release ends an attempt that Reserve has begun under this key. Its
	// context should outlive a client that disconnects.
	Release(ctx context.Context, key string, outcome Outcome) error

	// Remember stores a key for some months after the last call. The key must
	// not be one of attempts.
	Remember(ctx context.Context, key string) error

	// Remembers reports whether Remember has stored a key.
	Remembers(ctx context.Context, key string) (bool, error)
}

// An Outcome is the end of an attempt.
type Outcome int

// The outcomes of an attempt.
const (
	Failed    Outcome = iota // counts as a failure
	Canceled                 // counts as nothing: the attempt revealed nothing
	Succeeded                // forgets all failures under the key
)

// String returns the name of the outcome.
func (o Outcome) String() string {
	switch o {
	case Failed:
		return "failed"
	case Canceled:
		return "canceled"
	case Succeeded:
		return "succeeded"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// ErrBusy is returned by Reserve if its context ends while other attempts under
// the key are in progress. No attempt has begun then.
var ErrBusy = errors.New("throttle: other attempts are in progress")

// busy returns the error of a Reserve whose context has ended.
func busy(ctx context.Context) error {
	return fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
}

// None lets every attempt begin at any time. It serves tests, and apps that
// something in front of them protects.
var None Throttle = none{}

// none is the type of None.
type none struct{}

func (none) Reserve(context.Context, string, Limit) (time.Duration, error) { return 0, nil }
func (none) Release(context.Context, string, Outcome) error                { return nil }
func (none) Remember(context.Context, string) error                        { return nil }
func (none) Remembers(context.Context, string) (bool, error)               { return false, nil }
