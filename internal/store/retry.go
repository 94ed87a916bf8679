package store

import (
	"context"
	"math/rand/v2"
	"time"
)

// A Retrier runs database operations with a deadline, creates the table if it is
// missing, and retries failures that are safe to retry.
//
// There are two kinds. Deadlocks, lock timeouts and write conflicts of a cluster
// were rolled back by the server. After a lost connection the outcome is
// unknown: the server may have executed the statement, or may execute it yet. So
// every operation must be idempotent, or use mayHaveRun.
type Retrier struct {
	Timeout time.Duration
	Create  func(context.Context) error
	Forget  func() // called when a column is unknown: a table has changed
}

// maxTries is how often an operation is tried. Of conflicting transactions one
// succeeds, so with each try fewer are left.
const maxTries = 4

// Do runs op, which must be idempotent.
func (r *Retrier) Do(ctx context.Context, op func(context.Context) error) error {
	return r.DoOnce(ctx, func(ctx context.Context, _ bool) error { return op(ctx) })
}

// DoOnce runs op. mayHaveRun reports that the outcome of an earlier try is
// unknown: op must not take effect twice.
func (r *Retrier) DoOnce(ctx context.Context, op func(ctx context.Context, mayHaveRun bool) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	return r.doWithin(ctx, op)
}

// doWithin is DoOnce for a context that has its deadline. It does not retry once
// half of the timeout has passed.
func (r *Retrier) doWithin(ctx context.Context, op func(ctx context.Context, mayHaveRun bool) error) error {
	started := time.Now()
	mayHaveRun, forgot := false, false
	for tries := 1; ; tries++ {
		err := op(ctx, mayHaveRun)
		if isMySQLError(err, erNoSuchTable) {
			if err := r.Create(ctx); err != nil {
				return err
			}
			err = op(ctx, mayHaveRun)
		}
		switch {
		case isMySQLError(err, erBadField) && r.Forget != nil && !forgot:
			r.Forget()
			forgot = true
			continue
		case isMySQLError(err, erLockDeadlock, erLockWaitTimeout):
		case connectionLost(err):
			mayHaveRun = true
		default:
			return err
		}
		if tries == maxTries || time.Since(started) > r.Timeout/2 {
			return err
		}
		select {
		case <-time.After(rand.N(time.Millisecond << tries)):
		case <-ctx.Done():
			return err
		}
	}
}
