package throttle

import (
	"cmp"
	"fmt"
	"time"
)

// A Limit says when a key has to wait.
//
// In a [Limits], a field that is 0 takes the default of that field. A Throttle
// uses the Limit that it is given as it is.
type Limit struct {
	// FreeFailures is how many failures cause no delay, from 1 to a billion.
	FreeFailures int

	// BaseDelay is the delay after the next failure, at least one second. Each
	// further failure doubles it.
	BaseDelay time.Duration

	// MaxDelay is the longest delay, from BaseDelay to ResetAfter.
	MaxDelay time.Duration

	// ResetAfter is how long after the last failure all failures are forgotten,
	// at most a year.
	ResetAfter time.Duration
}

// Delay returns how long after the last of these failures the next attempt may
// begin.
func (l Limit) Delay(failures int) time.Duration {
	if failures < l.FreeFailures {
		return 0
	}
	delay := min(l.BaseDelay, l.MaxDelay)
	for range failures - l.FreeFailures {
		if delay > l.MaxDelay/2 {
			return l.MaxDelay
		}
		delay *= 2
	}
	return delay
}

// PerNetwork has a limit for each size of network that a client is in. Larger
// networks have more people, so they should be allowed more failures.
type PerNetwork struct {
	Address  Limit // an IPv4 address, or an IPv6 /64
	Prefix56 Limit // an IPv6 /56, such as a household
	Prefix48 Limit // an IPv6 /48, such as a company
}

// Limits are the numbers that package session applies. The zero value is the
// defaults. A Limit may set some of its fields and leave the others.
type Limits struct {
	// Account limits the failures for one account from one network.
	//
	// Defaults to 5 failures from an Address, 20 from a Prefix56 and 50 from a
	// Prefix48, then delays from 1 second to 15 minutes, and a reset after an
	// hour.
	Account PerNetwork

	// Network limits the failures from one network, for all accounts together.
	// Many people may share a network, and all of them wait.
	//
	// Defaults to 50 failures from an Address, 200 from a Prefix56 and 500 from
	// a Prefix48, then delays from 1 second to 1 minute, and a reset after an
	// hour.
	Network PerNetwork

	// Everywhere limits the failures for one account from all networks
	// together. It does not apply to clients that were logged in to the account
	// before, so attackers cannot lock out its owner.
	//
	// Defaults to 100 failures, as in NIST SP 800-63B, then delays from 1 to 15
	// minutes, and a reset after 24 hours. That leaves 96 attempts a day.
	Everywhere Limit

	// Registration limits the registrations from one network that fail because
	// a value is taken, and so reveal that an account exists.
	//
	// Defaults to the defaults of Network.
	Registration PerNetwork
}

var (
	defaultNetwork = PerNetwork{
		Address:  Limit{FreeFailures: 50, BaseDelay: time.Second, MaxDelay: time.Minute, ResetAfter: time.Hour},
		Prefix56: Limit{FreeFailures: 200, BaseDelay: time.Second, MaxDelay: time.Minute, ResetAfter: time.Hour},
		Prefix48: Limit{FreeFailures: 500, BaseDelay: time.Second, MaxDelay: time.Minute, ResetAfter: time.Hour},
	}
	defaultLimits = Limits{
		Account: PerNetwork{
			Address:  Limit{FreeFailures: 5, BaseDelay: time.Second, MaxDelay: 15 * time.Minute, ResetAfter: time.Hour},
			Prefix56: Limit{FreeFailures: 20, BaseDelay: time.Second, MaxDelay: 15 * time.Minute, ResetAfter: time.Hour},
			Prefix48: Limit{FreeFailures: 50, BaseDelay: time.Second, MaxDelay: 15 * time.Minute, ResetAfter: time.Hour},
		},
		Network:      defaultNetwork,
		Everywhere:   Limit{FreeFailures: 100, BaseDelay: time.Minute, MaxDelay: 15 * time.Minute, ResetAfter: 24 * time.Hour},
		Registration: defaultNetwork,
	}
)

// The largest numbers of a Limit. A [MySQL] throttle stores them in columns of
// type INT.
const (
	maxFreeFailures = 1_000_000_000
	maxResetAfter   = 365 * 24 * time.Hour
)

// WithDefaults returns the limits with a default in each field that is 0. It
// returns an error that names the field and its allowed values if a number is
// not allowed. session.New calls it, and returns that error as a
// session.ErrConfig.
func (l Limits) WithDefaults() (Limits, error) {
	for _, field := range []struct {
		name         string
		limit        *Limit
		defaultLimit Limit
	}{
		{"Account.Address", &l.Account.Address, defaultLimits.Account.Address},
		{"Account.Prefix56", &l.Account.Prefix56, defaultLimits.Account.Prefix56},
		{"Account.Prefix48", &l.Account.Prefix48, defaultLimits.Account.Prefix48},
		{"Network.Address", &l.Network.Address, defaultLimits.Network.Address},
		{"Network.Prefix56", &l.Network.Prefix56, defaultLimits.Network.Prefix56},
		{"Network.Prefix48", &l.Network.Prefix48, defaultLimits.Network.Prefix48},
		{"Everywhere", &l.Everywhere, defaultLimits.Everywhere},
		{"Registration.Address", &l.Registration.Address, defaultLimits.Registration.Address},
		{"Registration.Prefix56", &l.Registration.Prefix56, defaultLimits.Registration.Prefix56},
		{"Registration.Prefix48", &l.Registration.Prefix48, defaultLimits.Registration.Prefix48},
	} {
		if err := field.limit.complete("Limits."+field.name, field.defaultLimit); err != nil {
			return l, err
		}
	}
	return l, nil
}

// complete fills in defaults, and then validates the limit. name is that of the
// limit in errors.
func (l *Limit) complete(name string, defaults Limit) error {
	l.FreeFailures = cmp.Or(l.FreeFailures, defaults.FreeFailures)
	l.BaseDelay = cmp.Or(l.BaseDelay, defaults.BaseDelay)
	l.MaxDelay = cmp.Or(l.MaxDelay, defaults.MaxDelay)
	l.ResetAfter = cmp.Or(l.ResetAfter, defaults.ResetAfter)
	switch {
	case l.FreeFailures < 1 || l.FreeFailures > maxFreeFailures:
		return fmt.Errorf("%s.FreeFailures = %d: must be from 1 to %d (0 gives %d)", name, l.FreeFailures, maxFreeFailures, defaults.FreeFailures)
	case l.BaseDelay < time.Second:
		return fmt.Errorf("%s.BaseDelay = %v: must be at least one second (0 gives %v)", name, l.BaseDelay, defaults.BaseDelay)
	case l.MaxDelay < l.BaseDelay:
		return fmt.Errorf("%s.MaxDelay = %v: must not be less than BaseDelay, %v (0 gives %v)", name, l.MaxDelay, l.BaseDelay, defaults.MaxDelay)
	case l.ResetAfter < l.MaxDelay:
		return fmt.Errorf("%s.ResetAfter = %v: must not be less than MaxDelay, %v, as a reset ends the delay (0 gives %v)", name, l.ResetAfter, l.MaxDelay, defaults.ResetAfter)
	case l.ResetAfter > maxResetAfter:
		return fmt.Errorf("%s.ResetAfter = %v: must be at most a year (0 gives %v)", name, l.ResetAfter, defaults.ResetAfter)
	}
	return nil
}
