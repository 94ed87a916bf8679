package session

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/candysession/session/internal/testdb"
)

// try logs in from an address.
func (f *fixture[U]) try(address, email, password string) error {
	r := httptest.NewRequest("POST", "/", nil)
	r.RemoteAddr = address
	_, err := logIn(f.auth, httptest.NewRecorder(), r, Credentials{"email": email, "password": password})
	return err
}

const (
	attacker = "203.0.113.9:1234"
	owner    = "198.51.100.7:1234"
	right    = "alice's password"
)

// throttles are both, with a function that lets time pass, as nothing else does.
func throttles(t *testing.T) map[string]func(*fixture[user]) (Throttle, func(time.Duration)) {
	return map[string]func(*fixture[user]) (Throttle, func(time.Duration)){
		"memory": func(*fixture[user]) (Throttle, func(time.Duration)) {
			throttle := newMemoryThrottle()
			var passed atomic.Int64
			start := time.Now()
			throttle.now = func() time.Time { return start.Add(time.Duration(passed.Load())) }
			return throttle, func(d time.Duration) { passed.Add(int64(d)) }
		},
		"MySQL": func(f *fixture[user]) (Throttle, func(time.Duration)) {
			db := open(t, f.dsn, "timestamp=1795000000") // this clock stands still
			throttle, err := NewMySQLThrottle(db, "session_attempts")
			noError(t, err)
			return throttle, func(d time.Duration) {
				mustExec(t, db, "UPDATE session_attempts SET last = FROM_UNIXTIME(UNIX_TIMESTAMP(last) - ?)", seconds(d))
			}
		},
	}
}

// throttled is an app with such a throttle.
func throttled(t *testing.T, make func(*fixture[user]) (Throttle, func(time.Duration))) (f *fixture[user], pass func(time.Duration)) {
	t.Helper()
	base := setup(t, Config{})
	throttle, pass := make(base)
	return manage[user](t, base.db, base.dsn, Config{Throttle: throttle}), pass
}

func TestGuessingIsSlowedDown(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "ignores time zones")
	for name, make := range throttles(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, pass := throttled(t, make)
			waits := func(err error, least, most time.Duration) {
				t.Helper()
				var e *TooManyAttemptsError
				if !errors.Is(err, ErrTooManyAttempts) || !errors.Is(err, ErrInvalidCredentials) || !errors.As(err, &e) || e.RetryAfter < least || e.RetryAfter > most {
					t.Fatalf("%v, %+v; want a wait of %v to %v", err, e, least, most)
				}
				if !strings.HasPrefix(err.Error(), ErrTooManyAttempts.Error()+"; try again in ") {
					t.Errorf("throttled reads %q", err)
				}
			}
			wrong := func(err error) {
				t.Helper()
				if err != ErrInvalidCredentials {
					t.Fatal(err)
				}
			}
			for range 5 {
				wrong(f.try(attacker, "alice@example.com", "wrong"))
			}
			waits(f.try(attacker, "alice@example.com", right), 0, time.Second)
			waits(f.try(attacker, " Alice@EXAMPLE.com ", right), 0, time.Second)
			// The owner is elsewhere, and the attacker has other accounts to try.
			noError(t, f.try(owner, "alice@example.com", right))
			wrong(f.try(attacker, "bob@example.com", "wrong"))

			// The wait doubles with each failure, up to a quarter of an hour.
			for _, wait := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900} {
				waits(f.try(attacker, "alice@example.com", right), wait*time.Second-2*time.Second, wait*time.Second)
				pass(wait * time.Second)
				wrong(f.try(attacker, "alice@example.com", "wrong"))
			}
			// After a success, or an hour without a failure, it begins anew.
			pass(901 * time.Second)
			noError(t, f.try(attacker, "alice@example.com", right))
			for range 5 {
				wrong(f.try(attacker, "alice@example.com", "wrong"))
			}
			waits(f.try(attacker, "alice@example.com", right), 0, time.Second)
			pass(time.Hour + time.Second)
			for range 5 {
				wrong(f.try(attacker, "alice@example.com", "wrong"))
			}
			waits(f.try(attacker, "alice@example.com", right), 0, time.Second)
		})
	}
}

// Who tries one password with many accounts has to wait, too, whether there are such accounts or not; successes with an
// account of his own do not help him.
func TestSprayingIsSlowedDown(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "ignores time zones")
	for name, make := range throttles(t) {
		f, pass := throttled(t, make)
		for i := range 50 {
			if err := f.try(attacker, fmt.Sprintf("user%d@example.com", i), "wrong"); err != ErrInvalidCredentials {
				t.Fatalf("%s: %d: %v", name, i, err)
			}
			if i%10 == 0 {
				noError(t, f.try(attacker, "alice@example.com", right))
			}
		}
		wantError(t, f.try(attacker, "bob@example.com", "wrong"), ErrTooManyAttempts)
		noError(t, f.try(attacker, "alice@example.com", right)) // she has a count of her own
		wantError(t, f.try(attacker, "carol@example.com", "wrong"), ErrTooManyAttempts)
		pass(time.Second)
		noError(t, f.try(attacker, "alice@example.com", right))
		noError(t, f.try(owner, "alice@example.com", right))
	}
}

// Of guesses that come at once no more are tried than of those that come one after the other.
func TestGuessesAtOnce(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "loses concurrent writes")
	for name, make := range throttles(t) {
		f, _ := throttled(t, make)
		var wg sync.WaitGroup
		var tried atomic.Int64
		for range 40 {
			wg.Go(func() {
				switch err := f.try(attacker, "alice@example.com", "wrong"); {
				case err == ErrInvalidCredentials:
					tried.Add(1)
				case !errors.Is(err, ErrTooManyAttempts):
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		wg.Wait()
		if n := tried.Load(); n != 5 {
			t.Errorf("%s: %d of 40 guesses were tried", name, n)
		}
	}
}

func TestClientsOfAThrottle(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{Throttle: newMemoryThrottle()})
	fail := func(f *fixture[user], address string) (n int) {
		for n = range 10 {
			if errors.Is(f.try(address, "alice@example.com", "wrong"), ErrTooManyAttempts) {
				return n
			}
		}
		return -1
	}
	// A network of IPv6 is one client.
	if n := fail(f, "[2001:db8:1:2::1]:1"); n != 5 {
		t.Errorf("throttled after %d", n)
	}
	if n := fail(f, "[2001:db8:1:2:3:4:5:6]:1"); n != 0 {
		t.Errorf("another address of the network is throttled after %d", n)
	}
	if n := fail(f, "[2001:db8:1:3::1]:1"); n != 5 {
		t.Errorf("another network is throttled after %d", n)
	}
	// Behind a proxy that hides them, clients cannot be told apart. They share the count of an account, and the log says so, once.
	for i, address := range []string{"127.0.0.1:1", "10.1.2.3:1", "[fd00::1]:1", "192.168.7.7:1", "[::1]:1", ""} {
		if n := fail(f, address); n != 5 && i == 0 || n != 0 && i > 0 {
			t.Errorf("%q is throttled after %d", address, n)
		}
	}
	if n := strings.Count(f.log.String(), "set Config.ClientIP"); n != 1 {
		t.Errorf("said %d times: %s", n, f.log)
	}
	// With a function that knows them, they are.
	behind := manage[user](t, f.db, f.dsn, Config{ClientIP: remoteIP, Throttle: newMemoryThrottle()})
	if n := fail(behind, "10.1.2.3:1"); n != 5 {
		t.Errorf("throttled after %d", n)
	}
	off := manage[user](t, f.db, f.dsn, Config{})
	if n := fail(off, attacker); n != -1 {
		t.Errorf("NoThrottle throttles after %d", n)
	}
}

// Without a setting there is a throttle.
func TestThrottleIsOnByDefault(t *testing.T) {
	t.Parallel()
	cfg, err := Config{}.withDefaults()
	noError(t, err)
	if _, ok := cfg.Throttle.(*memoryThrottle); !ok {
		t.Errorf("%T", cfg.Throttle)
	}
}

type brokenThrottle struct{ noThrottle }

func (brokenThrottle) Reserve(context.Context, string, Limit) (time.Duration, error) {
	return 0, errors.New("is down")
}

func TestBrokenThrottle(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{Throttle: brokenThrottle{}})
	if err := f.try(attacker, "alice@example.com", right); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "is down") {
		t.Error(err)
	}
	for _, table := range []string{"", "a`b", "a.b.c"} {
		if _, err := NewMySQLThrottle(f.db, table); !errors.Is(err, ErrConfig) {
			t.Errorf("%q: %v", table, err)
		}
	}
	if _, err := NewMySQLThrottle(nil, "attempts"); !errors.Is(err, ErrConfig) {
		t.Error(err)
	}
}

// The table does not grow with those whose time has come.
func TestMySQLThrottleForgets(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "ignores time zones")
	f := setup(t, Config{})
	throttle, err := NewMySQLThrottle(f.db, "session_attempts")
	noError(t, err)
	for i := range 20 {
		noError(t, second(throttle.Reserve(t.Context(), throttleKey(fmt.Sprint(i)), accountLimits[0])))
	}
	mustExec(t, f.db, "UPDATE session_attempts SET last = FROM_UNIXTIME(UNIX_TIMESTAMP(last) - 3700)")
	for i := range 10 {
		noError(t, second(throttle.Reserve(t.Context(), throttleKey(fmt.Sprint("new", i)), accountLimits[0])))
	}
	if n := get[int](t, f.db, "SELECT COUNT(*) FROM session_attempts"); n != 10 {
		t.Errorf("%d rows", n)
	}
}

// With a secret, the table's names can't be computed from what they stand for.
func TestMySQLThrottleSecret(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "ignores time zones")
	f := setup(t, Config{})
	throttle, err := NewMySQLThrottle(f.db, "session_attempts", []byte("sixteen bytes, or more"))
	noError(t, err)
	key := throttleKey("network", "203.0.113.9")
	noError(t, second(throttle.Reserve(t.Context(), key, networkLimits[0])))
	noError(t, throttle.Remember(t.Context(), key))
	if name := get[string](t, f.db, "SELECT name FROM session_attempts"); name == key || len(name) != throttleKeyLength {
		t.Errorf("the name is %s", name)
	}
	for _, secret := range [][][]byte{{nil}, {[]byte("short")}, {key16, key16}} {
		if _, err := NewMySQLThrottle(f.db, "session_attempts", secret...); !errors.Is(err, ErrConfig) {
			t.Errorf("%q: %v", secret, err)
		}
	}
}

var key16 = []byte("0123456789abcdef")

// Who has to wait does not wait longer because the database's clock was set back; a second of difference between servers
// lets nobody in.
func TestThrottleOfAClockThatWentBack(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "ignores time zones")
	f := setup(t, Config{})
	throttle, err := NewMySQLThrottle(f.db, "session_attempts")
	noError(t, err)
	key := throttleKey("account")
	limit := Limit{FreeFailures: 1, BaseDelay: time.Minute, MaxDelay: time.Minute, ResetAfter: time.Hour}
	for _, test := range []struct {
		ahead int
		waits bool
	}{{0, true}, {5, true}, {3600, false}} {
		mustExec(t, f.db, "DROP TABLE IF EXISTS session_attempts")
		noError(t, second(throttle.Reserve(t.Context(), key, limit)))
		noError(t, throttle.Release(t.Context(), key, AttemptFailed))
		mustExec(t, f.db, "UPDATE session_attempts SET last = FROM_UNIXTIME(UNIX_TIMESTAMP(last) + ?)", test.ahead)
		wait, err := throttle.Reserve(t.Context(), key, limit)
		if err != nil || (wait > 0) != test.waits || wait > time.Minute+5*time.Second {
			t.Errorf("%d s ahead: %v, %v", test.ahead, wait, err)
		}
	}
}
