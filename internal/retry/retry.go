// Package retry runs SQL statements again after failures that allow it, and
// recognizes the errors of the server by their numbers.
//
// Two kinds of failure allow another try. The server rolls back a whole
// transaction after a deadlock, a lock wait timeout or a write conflict of a
// cluster. After a lost connection the outcome is unknown: the server may have
// executed the statement, or may execute it yet.
//
// The package knows no table and no statement.
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

// maxTries is the largest number of tries. Of conflicting transactions one
// succeeds, so with each try fewer are left.
const maxTries = 4

// The numbers of the errors that allow another try, by the symbols of MySQL's
// and MariaDB's documentation.
const (
	erServerShutdown   = 1053
	erLockWaitTimeout  = 1205
	erLockDeadlock     = 1213
	erQueryInterrupted = 1317
	erConnectionKilled = 1927 // MariaDB
)

// Do calls op, and calls it again after failures that allow it. mayHaveRun
// reports that the outcome of an earlier try is unknown: op must not take
// effect twice.
//
// Do makes no further try, and returns the last error, once the given time has
// passed or ctx has ended. It does not bound a try, so ctx should have a
// deadline.
func Do(ctx context.Context, within time.Duration, op func(ctx context.Context, mayHaveRun bool) error) error {
	started := time.Now()
	mayHaveRun := false
	for tries := 1; ; tries++ {
		err := op(ctx, mayHaveRun)
		switch {
		case HasNumber(err, erLockDeadlock, erLockWaitTimeout):
		case ConnectionLost(err):
			mayHaveRun = true
		default:
			return err
		}
		if tries == maxTries || time.Since(started) > within {
			return err
		}
		select {
		case <-time.After(rand.N(time.Millisecond << tries)):
		case <-ctx.Done():
			return err
		}
	}
}

// ConnectionLost reports whether a statement may or may not have been executed,
// and another connection may work. It reports false if the server could not be
// reached at all.
func ConnectionLost(err error) bool {
	return errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.ErrUnexpectedEOF) ||
		HasNumber(err, erServerShutdown, erQueryInterrupted, erConnectionKilled)
}

// HasNumber reports whether err is an error of the server with one of the
// numbers.
func HasNumber(err error, numbers ...uint16) bool {
	if err == nil {
		return false // without the allocation below
	}
	var answer *mysql.MySQLError
	return errors.As(err, &answer) && slices.Contains(numbers, answer.Number)
}
