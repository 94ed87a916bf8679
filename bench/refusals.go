package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/candysession/session"
	"golang.org/x/crypto/bcrypt"
)

// refusals measures row 16: whether the time of a rejected login reveals that
// the user is missing, the password is wrong, or the stored hash is invalid.
func (b *bench) refusals(report *report) error {
	auth, err := session.New[User](b.db, session.Config{Throttle: session.NoThrottle})
	if err != nil {
		return err
	}
	defer auth.Close()
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.DefaultCost)
	if err != nil {
		return err
	}
	b.db.MustExec("INSERT INTO users (email, password, name, about) VALUES ('hash@example.com', ?, '', ''), ('none@example.com', 'none', '', '')", string(hash))
	var times [3]samples
	emails := []string{"miss@example.com", "hash@example.com", "none@example.com"}
	for round := range rounds(300) {
		for i := range emails {
			i = (i + round) % len(emails)
			r := httptest.NewRequest("POST", "/", nil)
			start := time.Now()
			_, err := auth.Login(httptest.NewRecorder(), r, session.Credentials{"email": emails[i]}, "wrong")
			times[i] = append(times[i], float64(time.Since(start).Microseconds()))
			if !errors.Is(err, session.ErrInvalidCredentials) {
				return fmt.Errorf("%s: %w", emails[i], err)
			}
		}
	}
	medians := samples{times[0].median(), times[1].median(), times[2].median()}
	difference := 100 * (slices.Max(medians)/slices.Min(medians) - 1)
	p := min(sameDistribution(times[0], times[1]), sameDistribution(times[0], times[2]), sameDistribution(times[1], times[2]))
	report.add(16, fmt.Sprintf("%d rejected logins each with a missing user, a wrong password and an invalid stored hash, interleaved (medians %.1f, %.1f, %.1f ms): difference of the medians; smallest p of two-sample Kolmogorov–Smirnov tests", len(times[0]), medians[0]/1e3, medians[1]/1e3, medians[2]/1e3),
		"≤ 3 %; ≥ 0.01", fmt.Sprintf("%.2f %%; %.2f", difference, p), difference <= 3 && p >= 0.01)
	return nil
}

// flood measures row 17: the latency of users while attackers send the users'
// selectors with wrong verifiers, about five times as many as one processor can
// compare by bcrypt. All clients pause between requests, because a client that
// does not would use up the processor in this process.
func (b *bench) flood(report *report) error {
	// Each forged token is logged as a warning.
	auth, err := session.New[User](b.db, session.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer auth.Close()
	visitors := newManagerApp("session", auth, b.subject.cookies)
	warm(visitors)
	forgedCookies := slices.Clone(b.subject.cookies)
	for i, cookie := range forgedCookies {
		forgedCookies[i] = cookie[:len(cookie)-20] + strings.Repeat("A", 20)
	}
	attackers := app{"forged", auth.Middleware(http.NotFoundHandler()), forgedCookies}
	const pause = 2 * time.Millisecond
	var forgeries atomic.Int64
	p99 := func(attackerCount int) func() (float64, error) {
		return func() (float64, error) {
			ctx, cancel := context.WithTimeout(context.Background(), duration(2*time.Second))
			defer cancel()
			var running sync.WaitGroup
			for i := range attackerCount {
				running.Go(func() {
					for v := newVisitor(ctx, attackers, i*users/attackerCount); ctx.Err() == nil; forgeries.Add(1) {
						v.visit()
						time.Sleep(pause)
					}
				})
			}
			var mu sync.Mutex
			var times samples
			for i := range 8 {
				running.Go(func() {
					var latencies samples
					for v := newVisitor(context.Background(), visitors, i*users/8); ctx.Err() == nil; {
						start := time.Now()
						v.visit()
						latencies = append(latencies, float64(time.Since(start).Microseconds()))
						time.Sleep(pause)
					}
					mu.Lock()
					times = append(times, latencies...)
					mu.Unlock()
				})
			}
			running.Wait()
			slices.Sort(times)
			return times[len(times)*99/100], nil
		}
	}
	s, err := interleave(rounds(11), p99(0), p99(16))
	if err != nil {
		return err
	}
	r := ratios(s[1], s[0])
	report.add(17, fmt.Sprintf("p99 of the checks of 8 users (%s ms), while 16 attackers send valid selectors with wrong verifiers (%d in total), against the same without the attackers", formatSig(s[1].median()/1e3), forgeries.Load()),
		"≤ 2 ×", r.String()+" ×", r.median() <= 2)
	return nil
}

// sameDistribution returns the p-value of the two-sample Kolmogorov–Smirnov
// test, from its asymptotic distribution.
func sameDistribution(a, b samples) float64 {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	distance := 0.0
	for i, j := 0, 0; i < len(a) && j < len(b); {
		x := min(a[i], b[j])
		for i < len(a) && a[i] <= x {
			i++
		}
		for j < len(b) && b[j] <= x {
			j++
		}
		distance = max(distance, math.Abs(float64(i)/float64(len(a))-float64(j)/float64(len(b))))
	}
	n := math.Sqrt(float64(len(a)) * float64(len(b)) / float64(len(a)+len(b)))
	lambda := (n + 0.12 + 0.11/n) * distance
	if lambda < 0.2 {
		return 1
	}
	sum := 0.0
	for k := 1; k <= 100; k++ {
		sum += math.Pow(-1, float64(k-1)) * math.Exp(-2*float64(k*k)*lambda*lambda)
	}
	return min(1, max(0, 2*sum))
}
