package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

func TestRetries(t *testing.T) {
	t.Parallel()
	deadlock := &mysql.MySQLError{Number: erLockDeadlock}
	lockWait := fmt.Errorf("wrapped: %w", &mysql.MySQLError{Number: erLockWaitTimeout})
	other := &mysql.MySQLError{Number: erDupEntry}
	missing := &mysql.MySQLError{Number: erNoSuchTable}
	for _, test := range []struct {
		name   string
		errs   []error // of each try
		tries  string  // whether each try knew that an earlier one may have run
		result error
	}{
		{"the first try", []error{nil}, "n", nil},
		{"conflicts are undone", []error{deadlock, lockWait, nil}, "nnn", nil},
		{"lost responses are not", []error{mysql.ErrInvalidConn, deadlock, io.ErrUnexpectedEOF, nil}, "nyyy", nil},
		{"not forever", []error{deadlock, deadlock, deadlock, deadlock, nil}, "nnnn", deadlock},
		{"other errors are final", []error{other, nil}, "n", other},
		{"a missing table is created", []error{missing, nil}, "nn", nil},
		{"once", []error{missing, missing, nil}, "nn", missing},
		{"a server that can't be reached", []error{&net.OpError{Op: "dial", Err: errors.New("refused")}, nil}, "n", &net.OpError{}},
	} {
		made, tries := 0, ""
		r := Retrier{Timeout: time.Minute, Create: func(context.Context) error { made++; return nil }}
		err := r.DoOnce(t.Context(), func(ctx context.Context, mayHaveRun bool) error {
			if _, ok := ctx.Deadline(); !ok {
				t.Errorf("%s: no deadline", test.name)
			}
			tries += map[bool]string{true: "y", false: "n"}[mayHaveRun]
			return test.errs[len(tries)-1]
		})
		if tries != test.tries || (err == nil) != (test.result == nil) || made > 0 != (test.errs[0] == error(missing)) {
			t.Errorf("%s: tried %q, %v, %d tables", test.name, tries, err, made)
		}
	}

	// After half of the timeout, or if the caller has disconnected, there is no
	// further try.
	tries := 0
	r := Retrier{Timeout: time.Nanosecond}
	r.doWithin(t.Context(), func(context.Context, bool) error { tries++; return deadlock })
	ctx, cancel := context.WithCancel(t.Context())
	r.Timeout = time.Hour
	r.doWithin(ctx, func(context.Context, bool) error { tries++; cancel(); return deadlock })
	if tries != 2 {
		t.Errorf("%d tries", tries)
	}
}
