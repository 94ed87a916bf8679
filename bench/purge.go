package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/candysession/session"
)

// load runs 16 clients until stop is closed. Each of them logs in again with
// every fiftieth request, and checks its session with the others.
func (b *bench) load(auth *session.Manager[User], stop <-chan struct{}) (p99 float64, requests int, failures int64) {
	login := auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := auth.LoginAs(w, r, 1); err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	check := auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !auth.Check(r) {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	var mu sync.Mutex
	var times samples
	var failed atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			var latencies samples
			cookie := ""
			for i := 0; ; i++ {
				select {
				case <-stop:
					mu.Lock()
					times = append(times, latencies...)
					mu.Unlock()
					return
				default:
				}
				r := httptest.NewRequestWithContext(ctx, "GET", "/", nil)
				r.Header.Set("User-Agent", userAgent)
				if cookie != "" {
					r.Header.Set("Cookie", cookie)
				}
				w := httptest.NewRecorder()
				if i%50 == 0 {
					login.ServeHTTP(w, r.WithContext(context.Background()))
					for _, c := range w.Result().Cookies() {
						if !strings.HasSuffix(c.Name, ".hint") {
							cookie = c.Name + "=" + c.Value
						}
					}
				} else {
					start := time.Now()
					check.ServeHTTP(w, r)
					latencies = append(latencies, time.Since(start).Seconds()*1e3)
				}
				if w.Code != http.StatusOK {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(times)
	return times[len(times)*99/100], len(times), failed.Load()
}

// purge measures row 12.
func (b *bench) purge(report *report) error {
	clean, err := b.tokens("clean_tokens", 0)
	if err != nil {
		return err
	}
	var failures int64
	withoutBacklog := func() (float64, error) {
		auth, err := b.manager(clean)
		if err != nil {
			return 0, err
		}
		defer auth.Close()
		stop := make(chan struct{})
		time.AfterFunc(duration(10*time.Second), func() { close(stop) })
		p99, _, failed := b.load(auth, stop)
		failures += failed
		return p99, nil
	}
	var took time.Duration
	var checks int
	withBacklog := func() (float64, error) {
		waiting, err := b.tokens("waiting_tokens", expired())
		if err != nil {
			return 0, err
		}
		auth, err := b.manager(waiting)
		if err != nil {
			return 0, err
		}
		defer auth.Close()
		stop, start := make(chan struct{}), time.Now()
		go func() {
			defer close(stop)
			for time.Since(start) < 5*time.Minute {
				time.Sleep(200 * time.Millisecond)
				var n int
				if err := b.admin.Get(&n, "SELECT COUNT(*) FROM (SELECT 1 FROM app.waiting_tokens WHERE active < NOW() - INTERVAL 31 DAY LIMIT 1) x"); err != nil || n == 0 {
					return
				}
			}
		}()
		p99, n, failed := b.load(auth, stop)
		failures += failed
		took, checks = time.Since(start), n
		return p99, nil
	}
	s, err := interleave(rounds(3), withoutBacklog, withBacklog)
	if err != nil {
		return err
	}
	ratio := ratios(s[1], s[0])
	report.add(12, fmt.Sprintf("p99 of checks (%s ms) while %d expired rows are purged under 16 clients, against the same load without them; errors; duration", formatSig(s[1].median()), expired()), "≤ 2 ×; 0; no bar",
		fmt.Sprintf("%s ×; %d; %.0f s, with %.0f checks/s", ratio, failures, took.Seconds(), float64(checks)/took.Seconds()), ratio.median() <= 2 && failures == 0)
	return nil
}
