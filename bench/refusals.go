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
	"github.com/candysession/session/throttle"
	"golang.org/x/crypto/bcrypt"
)

// refusals asks whether the time of a refused login tells anything: of a missing user, of a wrong password, and of a
// user whose hash is none.
func (b *bench) refusals(report *report) error {
	auth, err := session.New[User](b.db, session.Config{Throttle: throttle.None})
	if err != nil {
		return err
	}
	defer auth.Close()
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.DefaultCost)
	if err != nil {
		return err
	}
	b.db.MustExec("INSERT INTO users (email, password, name, about) VALUES ('hash@example.com', ?, '', ''), ('none@example.com', 'none', '', '')", string(hash))
	var times [3]spread
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
	medians := spread{times[0].median(), times[1].median(), times[2].median()}
	apart := 100 * (slices.Max(medians)/slices.Min(medians) - 1)
	p := min(sameDistribution(times[0], times[1]), sameDistribution(times[0], times[2]), sameDistribution(times[1], times[2]))
	report.add(16, fmt.Sprintf("%d refused logins each of a missing user, a wrong password and a hash that is none, in turn (medians %.1f, %.1f, %.1f ms): medians apart; least p of two-sample Kolmogorov–Smirnov tests", len(times[0]), medians[0]/1e3, medians[1]/1e3, medians[2]/1e3),
		"≤ 3 %; ≥ 0.01", fmt.Sprintf("%.2f %%; %.2f", apart, p), apart <= 3 && p >= 0.01)
	return nil
}

// flood asks what people notice while others send their selectors with wrong verifiers: some five times as many requests
// as one processor can compare by bcrypt. They pause, as people do: what sends without a pause, in this process, takes
// the processor by itself.
func (b *bench) flood(report *report) error {
	auth, err := session.New[User](b.db, session.Config{Logger: slog.New(slog.DiscardHandler)}) // each forgery is a warning
	if err != nil {
		return err
	}
	defer auth.Close()
	visitors := with("session", auth, b.ours.cookies)
	warm(visitors)
	forged := slices.Clone(b.ours.cookies)
	for i, cookie := range forged {
		forged[i] = cookie[:len(cookie)-20] + strings.Repeat("A", 20)
	}
	strangers := app{"forged", auth.Middleware(http.NotFoundHandler()), forged}
	const pause = 2 * time.Millisecond
	var forgeries atomic.Int64
	p99 := func(flooding int) func() (float64, error) {
		return func() (float64, error) {
			ctx, cancel := context.WithTimeout(context.Background(), length(2*time.Second))
			defer cancel()
			var running sync.WaitGroup
			for i := range flooding {
				running.Go(func() {
					for v := newVisitor(ctx, strangers, i*people/flooding); ctx.Err() == nil; forgeries.Add(1) {
						v.visit()
						time.Sleep(pause)
					}
				})
			}
			var mu sync.Mutex
			var times spread
			for i := range 8 {
				running.Go(func() {
					var own spread
					for v := newVisitor(context.Background(), visitors, i*people/8); ctx.Err() == nil; {
						begun := time.Now()
						v.visit()
						own = append(own, float64(time.Since(begun).Microseconds()))
						time.Sleep(pause)
					}
					mu.Lock()
					times = append(times, own...)
					mu.Unlock()
				})
			}
			running.Wait()
			slices.Sort(times)
			return times[len(times)*99/100], nil
		}
	}
	s, err := inTurn(rounds(11), p99(0), p99(16))
	if err != nil {
		return err
	}
	r := ratios(s[1], s[0])
	report.add(17, fmt.Sprintf("p99 of the checks of 8 people (%s ms), while 16 others send valid selectors with wrong verifiers (%d in all), against the same without", digits(s[1].median()/1e3), forgeries.Load()),
		"≤ 2 ×", r.String()+" ×", r.median() <= 2)
	return nil
}

// sameDistribution is the probability that two samples of one distribution are as far apart as these: the two-sample
// Kolmogorov–Smirnov test, by its asymptotic distribution.
func sameDistribution(a, b spread) float64 {
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
