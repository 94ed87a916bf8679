package session

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"github.com/go-sql-driver/mysql"
)

// A runner gives what speaks SQL a deadline, makes the table if it is missing, and tries again where that is safe.
//
// Two kinds of failure are. A deadlock, a lock that was not granted and a write conflict of a cluster are undone by the
// server as a whole. After a connection was lost, nobody knows whether the statement was done: the server may have done
// it and only the answer be missing, or do it yet. So what is run is told, and must bear having been done before.
type runner struct {
	timeout time.Duration
	create  func(context.Context) error
	forget  func() // called when a table has changed: a column is unknown
}

// DefaultTimeout is Config.Timeout where that says nothing.
const DefaultTimeout = 10 * time.Second

// maxTries is how often something is tried: the more conflicts, the shorter the line of those who still have one.
const maxTries = 4

// run gives do the whole timeout, less what the context allows.
func (x *runner) run(ctx context.Context, do func(ctx context.Context, again bool) error) error {
	ctx, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	return x.try(ctx, do)
}

// try is run for a context that has its deadline. It tries no more once half of the timeout has passed.
func (x *runner) try(ctx context.Context, do func(ctx context.Context, again bool) error) error {
	begun := time.Now()
	again, forgot := false, false
	for tries := 1; ; tries++ {
		err := do(ctx, again)
		if isError(err, erNoTable) {
			if err := x.create(ctx); err != nil {
				return err
			}
			err = do(ctx, again)
		}
		switch {
		case isError(err, erUnknownColumn) && x.forget != nil && !forgot:
			x.forget()
			forgot = true
			continue
		case isError(err, erDeadlock, erLockWait):
		case connectionLost(err):
			again = true
		default:
			return err
		}
		if tries == maxTries || time.Since(begun) > x.timeout/2 {
			return err
		}
		select {
		case <-time.After(rand.N(time.Millisecond << tries)):
		case <-ctx.Done():
			return err
		}
	}
}

// connectionLost reports an error after which a statement may or may not have been done, and another connection may
// work. That the server could not even be reached is none.
func connectionLost(err error) bool {
	return errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.ErrUnexpectedEOF) ||
		isError(err, erShutdown, erInterrupted, erKilled)
}

// uncertain reports an error after which a statement may have been done, or may be yet.
func uncertain(err error) bool {
	var answer *mysql.MySQLError
	return err != nil && (!errors.As(err, &answer) || connectionLost(err))
}

// steadfast returns the context of a write that a request asks for. Neither a
// client that leaves nor a deadline of the request aborts the write: that would
// cost its connection, and leave open what has happened. Config.Timeout ends it.
func steadfast(ctx context.Context) context.Context { return context.WithoutCancel(ctx) }
