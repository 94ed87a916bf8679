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
	"github.com/candysession/session/throttle"
)

func TestGuessingIsSlowedDown(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "ignores time zones")
	for name, create := range throttles(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, advance := setupThrottle(t, create)
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

			// The wait doubles with each failure, up to 15 minutes.
			for _, wait := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900} {
				waits(f.try(attacker, "alice@example.com", right), wait*time.Second-2*time.Second, wait*time.Second)
				advance(wait * time.Second)
				wrong(f.try(attacker, "alice@example.com", "wrong"))
			}
			// It is reset by a success, or by an hour without a failure.
			advance(901 * time.Second)
			noError(t, f.try(attacker, "alice@example.com", right))
			for range 5 {
				wrong(f.try(attacker, "alice@example.com", "wrong"))
			}
			waits(f.try(attacker, "alice@example.com", right), 0, time.Second)
			advance(time.Hour + time.Second)
			for range 5 {
				wrong(f.try(attacker, "alice@example.com", "wrong"))
			}
			waits(f.try(attacker, "alice@example.com", right), 0, time.Second)
		})
	}
}

// An attacker who tries one password with many accounts has to wait, whether or
// not they exist. Successful logins to an account of the attacker do not help.
func TestSprayingIsSlowedDown(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "ignores time zones")
	for name, create := range throttles(t) {
		f, advance := setupThrottle(t, create)
		for i := range 50 {
			if err := f.try(attacker, fmt.Sprintf("user%d@example.com", i), "wrong"); err != ErrInvalidCredentials {
				t.Fatalf("%s: %d: %v", name, i, err)
			}
			if i%10 == 0 {
				noError(t, f.try(attacker, "alice@example.com", right))
			}
		}
		wantError(t, f.try(attacker, "bob@example.com", "wrong"), ErrTooManyAttempts)
		noError(t, f.try(attacker, "alice@example.com", right)) // the account has its own count
		wantError(t, f.try(attacker, "carol@example.com", "wrong"), ErrTooManyAttempts)
		advance(time.Second)
		noError(t, f.try(attacker, "alice@example.com", right))
		noError(t, f.try(owner, "alice@example.com", right))
	}
}

// Concurrent guesses get no more attempts than sequential ones.
func TestThrottleConcurrent(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "loses concurrent writes")
	for name, create := range throttles(t) {
		f, _ := setupThrottle(t, create)
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

func TestThrottleClientIPs(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{Throttle: throttle.NewMemory()})
	fail := func(f *fixture[user], address string) (n int) {
		for n = range 10 {
			if errors.Is(f.try(address, "alice@example.com", "wrong"), ErrTooManyAttempts) {
				return n
			}
		}
		return -1
	}
	// An IPv6 network is one client.
	if n := fail(f, "[2001:db8:1:2::1]:1"); n != 5 {
		t.Errorf("throttled after %d", n)
	}
	if n := fail(f, "[2001:db8:1:2:3:4:5:6]:1"); n != 0 {
		t.Errorf("another address of the network is throttled after %d", n)
	}
	if n := fail(f, "[2001:db8:1:3::1]:1"); n != 5 {
		t.Errorf("another network is throttled after %d", n)
	}
	// Behind a proxy, clients cannot be distinguished. They share the count of an
	// account, and that is logged once.
	for i, address := range []string{"127.0.0.1:1", "10.1.2.3:1", "[fd00::1]:1", "192.168.7.7:1", "[::1]:1", ""} {
		if n := fail(f, address); n != 5 && i == 0 || n != 0 && i > 0 {
			t.Errorf("%q is throttled after %d", address, n)
		}
	}
	if n := strings.Count(f.log.String(), "set Config.ClientIP"); n != 1 {
		t.Errorf("logged %d times: %s", n, f.log)
	}
	// Config.ClientIP distinguishes them.
	behind := newManager[user](t, f.db, f.dsn, Config{ClientIP: remoteIP, Throttle: throttle.NewMemory()})
	if n := fail(behind, "10.1.2.3:1"); n != 5 {
		t.Errorf("throttled after %d", n)
	}
	off := newManager[user](t, f.db, f.dsn, Config{})
	if n := fail(off, attacker); n != -1 {
		t.Errorf("throttle.None throttles after %d", n)
	}
}

// Each limit applies to its own counts, and to no others.
func TestThrottleLimits(t *testing.T) {
	t.Parallel()
	base := setup(t, Config{})
	const sameAddress, same56, same48, elsewhere = "[2001:db8:1::1]:%[2]d", "[2001:db8:1:%x::1]:%d", "[2001:db8:1:%x00::1]:%d", "[2001:db8:%x::1]:%d"
	const oneAccount, manyAccounts = "alice@example.com", "nobody%d@example.com"
	for name, test := range map[string]struct {
		limit             func(*throttle.Limits) *throttle.Limit
		addresses, emails string
		register          bool
	}{
		"Account.Address":       {func(l *throttle.Limits) *throttle.Limit { return &l.Account.Address }, sameAddress, oneAccount, false},
		"Account.Prefix56":      {func(l *throttle.Limits) *throttle.Limit { return &l.Account.Prefix56 }, same56, oneAccount, false},
		"Account.Prefix48":      {func(l *throttle.Limits) *throttle.Limit { return &l.Account.Prefix48 }, same48, oneAccount, false},
		"Network.Address":       {func(l *throttle.Limits) *throttle.Limit { return &l.Network.Address }, sameAddress, manyAccounts, false},
		"Network.Prefix56":      {func(l *throttle.Limits) *throttle.Limit { return &l.Network.Prefix56 }, same56, manyAccounts, false},
		"Network.Prefix48":      {func(l *throttle.Limits) *throttle.Limit { return &l.Network.Prefix48 }, same48, manyAccounts, false},
		"Everywhere":            {func(l *throttle.Limits) *throttle.Limit { return &l.Everywhere }, elsewhere, oneAccount, false},
		"Registration.Address":  {func(l *throttle.Limits) *throttle.Limit { return &l.Registration.Address }, sameAddress, oneAccount, true},
		"Registration.Prefix56": {func(l *throttle.Limits) *throttle.Limit { return &l.Registration.Prefix56 }, same56, oneAccount, true},
		"Registration.Prefix48": {func(l *throttle.Limits) *throttle.Limit { return &l.Registration.Prefix48 }, same48, oneAccount, true},
	} {
		t.Run(name, func(t *testing.T) {
			const high, low = 1000, 2
			networks := throttle.PerNetwork{Address: throttle.Limit{FreeFailures: high}, Prefix56: throttle.Limit{FreeFailures: high}, Prefix48: throttle.Limit{FreeFailures: high}}
			limits := throttle.Limits{Account: networks, Network: networks, Everywhere: throttle.Limit{FreeFailures: high}, Registration: networks}
			*test.limit(&limits) = throttle.Limit{FreeFailures: low, BaseDelay: 3 * time.Minute, MaxDelay: 5 * time.Minute}
			f := newManager[user](t, base.db, base.dsn, Config{Throttle: throttle.NewMemory(), Limits: limits})
			for i := range low + 1 {
				address := fmt.Sprintf(test.addresses, i, 1)
				email := test.emails
				if email == manyAccounts {
					email = fmt.Sprintf(email, i)
				}
				err := f.try(address, email, "wrong")
				want := ErrInvalidCredentials
				if test.register {
					r := httptest.NewRequest("POST", "/register", nil)
					r.RemoteAddr = address
					_, err = register(f.auth, httptest.NewRecorder(), r, Fields{"email": email, "password": "a password"}, formOptions{Columns: []string{"email"}})
					want = ErrDuplicate
				}
				if i < low {
					if errors.Is(err, ErrTooManyAttempts) || !errors.Is(err, want) {
						t.Errorf("attempt %d: %v", i, err)
					}
					continue
				}
				var wait *TooManyAttemptsError
				if !errors.As(err, &wait) || wait.RetryAfter < 2*time.Minute || wait.RetryAfter > 3*time.Minute {
					t.Errorf("attempt %d: %v", i, err)
				}
			}
		})
	}
}

// The zero Config has a throttle.
func TestThrottleIsOnByDefault(t *testing.T) {
	t.Parallel()
	cfg, err := Config{}.withDefaults()
	noError(t, err)
	if _, ok := cfg.Throttle.(*throttle.Memory); !ok {
		t.Errorf("%T", cfg.Throttle)
	}
}

type brokenThrottle struct{ throttle.Throttle }

func (brokenThrottle) Reserve(context.Context, string, throttle.Limit) (time.Duration, error) {
	return 0, errors.New("is down")
}

func TestBrokenThrottle(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{Throttle: brokenThrottle{throttle.None}})
	if err := f.try(attacker, "alice@example.com", right); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "is down") {
		t.Error(err)
	}
}
