package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/internal/token"
)

// insertIdle inserts n sessions of no user that were last active idle ago.
func (f *fixture[U]) insertIdle(n int, idle time.Duration) {
	f.t.Helper()
	noError(f.t, errOnly(f.auth.Migrate(f.t.Context())))
	for n > 0 {
		k := min(n, 500)
		values := make([]string, k)
		for i := range values {
			values[i] = fmt.Sprintf("(0, '%s', '', FROM_UNIXTIME(UNIX_TIMESTAMP() - %d))", token.New().Selector, seconds(idle))
		}
		mustExec(f.t, f.db, "INSERT INTO user_tokens (user, token_x, token_y, active) VALUES "+strings.Join(values, ", "))
		n -= k
	}
}

func TestLoginPurges(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	f.insertIdle(2500, 31*24*time.Hour)
	f.insertIdle(5, 29*24*time.Hour)
	b := newBrowser("")
	f.login(b, alice)
	f.waitForPurge()
	if n := f.rows(); n != 6 {
		t.Errorf("%d rows are left, want 6", n)
	}
	f.wantLoggedIn(b)
}

func TestPurge(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{MaxAge: time.Hour})
	ctx := t.Context()
	if n, err := f.auth.Purge(ctx); n != 0 || err != nil {
		t.Errorf("an empty table: %d, %v", n, err)
	}
	f.insertIdle(2001, 61*time.Minute)
	f.insertIdle(3, 59*time.Minute)
	f.insertIdle(2, 29*time.Minute)
	if n, err := f.auth.Purge(ctx); n != 2001 || err != nil {
		t.Errorf("Purge: %d, %v", n, err)
	}
	if n, err := f.auth.PurgeIdle(ctx, 30*time.Minute); n != 3 || err != nil {
		t.Errorf("PurgeIdle: %d, %v", n, err)
	}
	for _, d := range []time.Duration{0, -time.Hour, time.Millisecond, maxDuration + 1} {
		_, err := f.auth.PurgeIdle(ctx, d)
		wantError(t, err, ErrInvalidArgument)
	}
	if f.rows() != 2 {
		t.Errorf("%d rows are left", f.rows())
	}

	// Purges run one at a time. A waiting call can be canceled.
	f.auth.purge.turn <- struct{}{}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := f.auth.Purge(cancelled); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	f.auth.purge.start() // does nothing while a purge runs
	<-f.auth.purge.turn
}

// A session that is renewed after the purge has selected it survives.
func TestPurgeKeepsRenewedSessions(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	f.insertIdle(1, 40*24*time.Hour)
	id := get[uint64](t, f.db, "SELECT id FROM user_tokens")
	mustExec(t, f.db, "UPDATE user_tokens SET active = DEFAULT")
	n, err := f.auth.store.DeleteIdle(t.Context(), []uint64{id}, 30*24*time.Hour)
	if n != 0 || err != nil || f.rows() != 1 {
		t.Errorf("deleted %d, %v", n, err)
	}
}

func TestPurgeFailureIsLogged(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	testdb.SkipEmbedded(t, "has no triggers that fail a delete")
	f.insertIdle(1, 40*24*time.Hour)
	mustExec(t, f.db, "CREATE TRIGGER no_delete BEFORE DELETE ON user_tokens FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'read only'")
	f.login(newBrowser(""), alice)
	f.waitForPurge()
	if !strings.Contains(f.log.String(), "not purged") {
		t.Error("nothing was logged")
	}
	_, err := f.auth.Purge(t.Context())
	wantError(t, err, ErrUnavailable)
}

func TestStats(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{MaxAge: time.Hour})
	s, err := f.auth.Stats(t.Context())
	if err != nil || s.Rows != 0 || s.Active != 0 || s.Expired != 0 || !s.Oldest.IsZero() {
		t.Errorf("an empty table: %+v, %v", s, err)
	}
	f.insertIdle(3, 2*time.Hour)
	f.insertIdle(4, 50*time.Minute)
	s, err = f.auth.Stats(t.Context())
	if err != nil || s.Rows != 7 || s.Active != 4 || s.Expired != 3 || s.Bytes <= 0 || (time.Since(s.Oldest)-2*time.Hour).Abs() > time.Minute {
		t.Errorf("%+v, %v", s, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = f.auth.Stats(ctx)
	wantError(t, err, ErrUnavailable)
}
