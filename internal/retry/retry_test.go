package retry

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

func TestDo(t *testing.T) {
	t.Parallel()
	answer := func(number uint16) error {
		return fmt.Errorf("wrapped: %w", &mysql.MySQLError{Number: number})
	}
	duplicate, conflict := answer(1062), answer(erLockDeadlock)
	unreachable := &net.OpError{Op: "dial", Err: errors.New("refused")}
	for name, test := range map[string]struct {
		errs  []error // of each try; nil after them
		tries string  // for each try, y if mayHaveRun is true, or n
		want  error
	}{
		"success":           {nil, "n", nil},
		"deadlock":          {[]error{conflict}, "nn", nil},
		"lock wait":         {[]error{answer(erLockWaitTimeout), conflict}, "nnn", nil},
		"invalid conn":      {[]error{mysql.ErrInvalidConn}, "ny", nil},
		"bad conn":          {[]error{driver.ErrBadConn, conflict}, "nyy", nil},
		"lost answers":      {[]error{mysql.ErrInvalidConn, conflict, io.ErrUnexpectedEOF}, "nyyy", nil},
		"shutdown":          {[]error{answer(erServerShutdown)}, "ny", nil},
		"interrupted":       {[]error{answer(erQueryInterrupted)}, "ny", nil},
		"killed":            {[]error{answer(erConnectionKilled)}, "ny", nil},
		"unreachable":       {[]error{unreachable}, "n", unreachable},
		"duplicate":         {[]error{duplicate}, "n", duplicate},
		"duplicate at last": {[]error{mysql.ErrInvalidConn, duplicate}, "ny", duplicate},
		"context":           {[]error{context.Canceled}, "n", context.Canceled},
		"always conflicts":  {[]error{conflict, conflict, conflict, conflict}, "nnnn", conflict},
		"always lost":       {[]error{mysql.ErrInvalidConn, mysql.ErrInvalidConn, mysql.ErrInvalidConn, mysql.ErrInvalidConn}, "nyyy", mysql.ErrInvalidConn},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tries := ""
			err := Do(t.Context(), time.Minute, func(_ context.Context, mayHaveRun bool) error {
				tries += map[bool]string{true: "y", false: "n"}[mayHaveRun]
				if len(tries) <= len(test.errs) {
					return test.errs[len(tries)-1]
				}
				return nil
			})
			if !errors.Is(err, test.want) || tries != test.tries {
				t.Errorf("tried %q, %v", tries, err)
			}
		})
	}
}

// No further try begins once the time has passed, or the context has ended.
func TestDoEnds(t *testing.T) {
	t.Parallel()
	tries := 0
	err := Do(t.Context(), 0, func(context.Context, bool) error {
		tries++
		return mysql.ErrInvalidConn
	})
	if !errors.Is(err, mysql.ErrInvalidConn) || tries != 1 {
		t.Errorf("%v after %d tries, too late", err, tries)
	}
	ctx, cancel := context.WithCancel(t.Context())
	tries = 0
	err = Do(ctx, time.Hour, func(context.Context, bool) error {
		tries++
		cancel()
		return mysql.ErrInvalidConn
	})
	if !errors.Is(err, mysql.ErrInvalidConn) || tries != 1 {
		t.Errorf("%v after %d tries, canceled", err, tries)
	}
}
