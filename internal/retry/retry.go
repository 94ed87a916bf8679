// Package retry runs SQL statements again after failures that allow it.
//
// Two kinds of failure do. The server undoes a whole transaction after a
// deadlock, a lock wait timeout or a write conflict of a cluster. After a lost
// connection it is unknown whether the statement was executed, so the caller
// must be prepared for both.
package retry

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/go-sql-driver/mysql"
)

// maxTries is how often a statement is tried.
const maxTries = 4

// MySQL and MariaDB error numbers.
const (
	shutdown    = 1053
	lockWait    = 1205
	deadlock    = 1213
	interrupted = 1317
	killed      = 1927 // MariaDB
)

// Do calls do, and calls it again after failures that allow it. mayHaveRun is
// true if an earlier call may have been executed by the server. The context that
// do gets ends after timeout. After half of the timeout Do begins no further
// try, and returns the last error.
func Do(ctx context.Context, timeout time.Duration, do func(ctx context.Context, mayHaveRun bool) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	begun := time.Now()
	mayHaveRun := false
	for tries := 1; ; tries++ {
		err := do(ctx, mayHaveRun)
		switch {
		case HasNumber(err, deadlock, lockWait):
		case ConnectionLost(err):
			mayHaveRun = true
		default:
			return err
		}
		if tries == maxTries || time.Since(begun) > timeout/2 {
			return err
		}
		select {
		case <-time.After(rand.N(time.Millisecond << tries)):
		case <-ctx.Done():
			return err
		}
	}
}

// ConnectionLost reports whether the connection was lost, so that a statement
// may or may not have been executed and another connection may work. It is false
// if the server could not be reached at all.
func ConnectionLost(err error) bool {
	return errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.ErrUnexpectedEOF) ||
		HasNumber(err, shutdown, interrupted, killed)
}

// HasNumber reports whether the server has answered with an error of one of
// these numbers.
func HasNumber(err error, numbers ...uint16) bool {
	var answer *mysql.MySQLError
	return errors.As(err, &answer) && slices.Contains(numbers, answer.Number)
}
