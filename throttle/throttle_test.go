package throttle

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/candysession/session/internal/testdb"
	"github.com/jmoiron/sqlx"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// open returns a pool on an empty schema. params are added to the DSN.
func open(t testing.TB, params string) *sqlx.DB {
	t.Helper()
	db, err := sqlx.Open("mysql", testdb.DSN(t)+params)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(testdb.Connections())
	t.Cleanup(func() { db.Close() })
	return db
}

func newMySQL(t testing.TB, db *sqlx.DB) *MySQL {
	t.Helper()
	shared, err := NewMySQL(db, "attempts", nil)
	noError(t, err)
	return shared
}

func exec(t testing.TB, db *sqlx.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// forEach runs a test with each Throttle that counts. Their clocks stand still,
// but for what advance adds.
func forEach(t *testing.T, test func(t *testing.T, throttle Throttle, advance func(time.Duration))) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		memory := NewMemory()
		var passed atomic.Int64
		start := time.Now()
		memory.Now = func() time.Time { return start.Add(time.Duration(passed.Load())) }
		test(t, memory, func(d time.Duration) { passed.Add(int64(d)) })
	})
	t.Run("MySQL", func(t *testing.T) {
		t.Parallel()
		testdb.SkipEmbedded(t, "loses concurrent writes, and ignores time zones")
		db := open(t, "?timestamp=1795000000")
		test(t, newMySQL(t, db), func(d time.Duration) {
			exec(t, db, "UPDATE attempts SET last = FROM_UNIXTIME(UNIX_TIMESTAMP(last) - ?)", seconds(d))
		})
	})
}

var limit = Limit{FreeFailures: 3, BaseDelay: time.Second, MaxDelay: 5 * time.Second, ResetAfter: time.Minute}

// attempt starts and ends an attempt, or returns the time to wait.
func attempt(t testing.TB, throttle Throttle, key string, outcome Outcome) (wait time.Duration) {
	t.Helper()
	wait, err := throttle.Reserve(t.Context(), key, limit)
	noError(t, err)
	if wait == 0 {
		noError(t, throttle.Release(t.Context(), key, outcome))
	}
	return wait
}

func TestDelays(t *testing.T) {
	forEach(t, func(t *testing.T, throttle Throttle, advance func(time.Duration)) {
		failures := func(n int) {
			t.Helper()
			for i := range n {
				if wait := attempt(t, throttle, "a", Failed); wait != 0 {
					t.Fatalf("failure %d waits %v", i, wait)
				}
			}
		}
		waits := func(want time.Duration) {
			t.Helper()
			if wait := attempt(t, throttle, "a", Failed); wait != want {
				t.Fatalf("the wait is %v, want %v", wait, want)
			}
		}
		failures(3)
		for _, wait := range []time.Duration{1, 2, 4, 5, 5} {
			waits(wait * time.Second)
			advance(wait*time.Second - time.Second)
			waits(time.Second)
			advance(time.Second)
			failures(1)
		}
		if wait := attempt(t, throttle, "b", Failed); wait != 0 {
			t.Errorf("another key waits %v", wait)
		}
		advance(time.Minute)
		failures(1) // the last second of the old count
		waits(5 * time.Second)
		advance(time.Minute + time.Second)
		failures(3) // it was reset
		waits(time.Second)
		advance(time.Second)
		attempt(t, throttle, "a", Succeeded)
		failures(3)
		waits(time.Second)
	})
}

func TestCanceledCountsNothing(t *testing.T) {
	forEach(t, func(t *testing.T, throttle Throttle, _ func(time.Duration)) {
		for range 2 * limit.FreeFailures {
			if wait := attempt(t, throttle, "a", Canceled); wait != 0 {
				t.Fatalf("it waits %v", wait)
			}
		}
		for range limit.FreeFailures {
			attempt(t, throttle, "a", Failed)
		}
		if wait := attempt(t, throttle, "a", Canceled); wait == 0 {
			t.Error("there is no wait after failures")
		}
	})
}

// While attempts that could reach the limit are in progress, further ones wait.
func TestReserveBlocks(t *testing.T) {
	forEach(t, func(t *testing.T, throttle Throttle, _ func(time.Duration)) {
		for range limit.FreeFailures {
			wait, err := throttle.Reserve(t.Context(), "a", limit)
			if wait != 0 || err != nil {
				t.Fatal(wait, err)
			}
		}
		brief, end := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer end()
		if _, err := throttle.Reserve(brief, "a", limit); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrBusy) && !isMySQL(throttle) {
			t.Errorf("at the deadline: %v", err)
		}
		left, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := throttle.Reserve(left, "a", limit); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
		reserved := make(chan error, 1)
		go func() {
			_, err := throttle.Reserve(t.Context(), "a", limit)
			reserved <- err
		}()
		noError(t, throttle.Release(t.Context(), "a", Canceled))
		noError(t, <-reserved)
	})
}

// isMySQL reports whether the driver may return the error of a context that ends
// in a statement.
func isMySQL(throttle Throttle) bool { _, ok := throttle.(*MySQL); return ok }

// Concurrent attempts are limited as sequential ones are.
func TestConcurrentFailures(t *testing.T) {
	forEach(t, func(t *testing.T, throttle Throttle, _ func(time.Duration)) {
		var begun atomic.Int64
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				wait, err := throttle.Reserve(t.Context(), "a", limit)
				if err != nil {
					t.Error(err)
				}
				if err == nil && wait == 0 {
					begun.Add(1)
					if err := throttle.Release(t.Context(), "a", Failed); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if n := begun.Load(); n != int64(limit.FreeFailures) {
			t.Errorf("%d attempts began", n)
		}
	})
}

func TestRemember(t *testing.T) {
	forEach(t, func(t *testing.T, throttle Throttle, _ func(time.Duration)) {
		for _, want := range []bool{false, true, true} {
			for key, want := range map[string]bool{"a": want, "b": false} {
				if got, err := throttle.Remembers(t.Context(), key); got != want || err != nil {
					t.Errorf("%s: %t, %v", key, got, err)
				}
			}
			noError(t, throttle.Remember(t.Context(), "a"))
		}
	})
}

func TestNone(t *testing.T) {
	t.Parallel()
	for range 100 {
		if wait := attempt(t, None, "a", Failed); wait != 0 {
			t.Fatalf("None waits %v", wait)
		}
	}
	noError(t, None.Remember(t.Context(), "b"))
	if ok, err := None.Remembers(t.Context(), "b"); ok || err != nil {
		t.Error(ok, err)
	}
}

func TestOutcomeString(t *testing.T) {
	t.Parallel()
	for outcome, want := range map[Outcome]string{Failed: "failed", Canceled: "canceled", Succeeded: "succeeded", 7: "Outcome(7)"} {
		if got := outcome.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
