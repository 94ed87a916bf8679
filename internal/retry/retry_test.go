package retry

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

func TestDo(t *testing.T) {
	t.Parallel()
	answer := func(number uint16) error {
		return fmt.Errorf("wrapped: %w", &mysql.MySQLError{Number: number})
	}
	duplicate := answer(1062)
	for name, test := range map[string]struct {
		errs       []error // of each call; nil after them
		want       error
		calls      int
		mayHaveRun bool // in the last call
	}{
		"success":           {nil, nil, 1, false},
		"deadlock":          {[]error{answer(deadlock)}, nil, 2, false},
		"lock wait":         {[]error{answer(lockWait), answer(lockWait)}, nil, 3, false},
		"invalid conn":      {[]error{mysql.ErrInvalidConn}, nil, 2, true},
		"bad conn":          {[]error{driver.ErrBadConn, answer(deadlock)}, nil, 3, true},
		"killed":            {[]error{answer(killed)}, nil, 2, true},
		"duplicate":         {[]error{duplicate, nil}, duplicate, 1, false},
		"duplicate at last": {[]error{mysql.ErrInvalidConn, duplicate}, duplicate, 2, true},
		"context":           {[]error{context.Canceled}, context.Canceled, 1, false},
		"always":            {[]error{mysql.ErrInvalidConn, mysql.ErrInvalidConn, mysql.ErrInvalidConn, mysql.ErrInvalidConn}, mysql.ErrInvalidConn, maxTries, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls, mayHaveRun := 0, false
			err := Do(t.Context(), time.Minute, func(_ context.Context, may bool) error {
				calls++
				mayHaveRun = may
				if calls <= len(test.errs) {
					return test.errs[calls-1]
				}
				return nil
			})
			if !errors.Is(err, test.want) || calls != test.calls || mayHaveRun != test.mayHaveRun {
				t.Errorf("%v after %d calls, may have run: %t", err, calls, mayHaveRun)
			}
		})
	}
}

// No further try begins once half of the timeout has passed.
func TestDoEnds(t *testing.T) {
	t.Parallel()
	calls := 0
	err := Do(t.Context(), time.Millisecond, func(ctx context.Context, _ bool) error {
		calls++
		<-ctx.Done()
		return mysql.ErrInvalidConn
	})
	if !errors.Is(err, mysql.ErrInvalidConn) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}
