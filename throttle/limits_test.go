package throttle

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDelay(t *testing.T) {
	t.Parallel()
	limit := Limit{FreeFailures: 2, BaseDelay: time.Second, MaxDelay: 10 * time.Second}
	for failures, want := range []time.Duration{0, 0, 1, 2, 4, 8, 10, 10} {
		if got := limit.Delay(failures); got != want*time.Second {
			t.Errorf("after %d failures: %v", failures, got)
		}
	}
	if got := limit.Delay(math.MaxInt); got != limit.MaxDelay {
		t.Errorf("after all failures: %v", got)
	}
	limit.MaxDelay = math.MaxInt64
	if got := limit.Delay(1000); got != limit.MaxDelay {
		t.Errorf("the delay overflows to %v", got)
	}
	if got := (Limit{BaseDelay: time.Hour, MaxDelay: time.Minute}).Delay(0); got != time.Minute {
		t.Errorf("the delay is longer than MaxDelay: %v", got)
	}
	if got := (Limit{}).Delay(100); got != 0 {
		t.Errorf("a limit without delays has %v", got)
	}
}

// Each field that is 0 gets its default. Every field has one.
func TestLimitsWithDefaults(t *testing.T) {
	t.Parallel()
	defaults, err := Limits{}.WithDefaults()
	noError(t, err)
	if defaults != defaultLimits {
		t.Errorf("the defaults are %+v", defaults)
	}
	reapplied, err := defaults.WithDefaults()
	noError(t, err)
	if reapplied != defaults {
		t.Errorf("the defaults of the defaults are %+v", reapplied)
	}
	got, err := Limits{Network: PerNetwork{Prefix56: Limit{FreeFailures: 7, MaxDelay: 2 * time.Minute}}}.WithDefaults()
	noError(t, err)
	want := defaultLimits
	want.Network.Prefix56 = Limit{FreeFailures: 7, BaseDelay: time.Second, MaxDelay: 2 * time.Minute, ResetAfter: time.Hour}
	if got != want {
		t.Errorf("%+v", got)
	}
}

// An error names the field, its value, the allowed values and the default.
func TestLimitsErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		limit Limit
		want  string
	}{
		{Limit{FreeFailures: -1}, ".FreeFailures = -1: must be from 1 to 1000000000 (0 gives "},
		{Limit{FreeFailures: 1_000_000_001}, ".FreeFailures = 1000000001: must be from 1 to 1000000000 (0 gives "},
		{Limit{BaseDelay: -time.Second}, ".BaseDelay = -1s: must be at least one second (0 gives 1"},
		{Limit{BaseDelay: time.Millisecond}, ".BaseDelay = 1ms: must be at least one second (0 gives 1"},
		{Limit{BaseDelay: 20 * time.Minute, MaxDelay: 10 * time.Minute}, ".MaxDelay = 10m0s: must not be less than BaseDelay, 20m0s (0 gives 1"},
		{Limit{BaseDelay: 20 * time.Minute}, ": must not be less than BaseDelay, 20m0s (0 gives 1"},
		{Limit{MaxDelay: 2 * time.Hour, ResetAfter: time.Hour}, ".ResetAfter = 1h0m0s: must not be less than MaxDelay, 2h0m0s, as a reset ends the delay (0 gives "},
		{Limit{ResetAfter: 366 * 24 * time.Hour}, ".ResetAfter = 8784h0m0s: must be at most a year (0 gives "},
	} {
		var limits Limits
		eachLimit(reflect.ValueOf(&limits).Elem(), "Limits", func(name string, limit *Limit) {
			*limit = test.limit
			_, err := limits.WithDefaults()
			*limit = Limit{}
			if err == nil || !strings.HasPrefix(err.Error(), name+".") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: %v, want %s", name, err, test.want)
			}
		})
	}
}

// eachLimit calls do with each Limit of a struct, and its name.
func eachLimit(v reflect.Value, name string, do func(string, *Limit)) {
	if limit, ok := v.Addr().Interface().(*Limit); ok {
		do(name, limit)
		return
	}
	for i := range v.NumField() {
		eachLimit(v.Field(i), name+"."+v.Type().Field(i).Name, do)
	}
}
