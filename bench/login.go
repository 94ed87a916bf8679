package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/candysession/session"
	"golang.org/x/crypto/bcrypt"
)

// login measures row 11.
func (b *bench) login(report *report) error {
	clean, err := b.tokens("clean_tokens", 0)
	if err != nil {
		return err
	}
	waiting, err := b.tokens("waiting_tokens", expired())
	if err != nil {
		return err
	}
	logins := func(cfg session.Config) func() (float64, error) {
		return func() (float64, error) {
			auth, err := b.manager(cfg)
			if err != nil {
				return 0, err
			}
			defer auth.Close() // stops the purge, which leaves a backlog for the next round
			h := auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, err := auth.Login(w, r, session.Credentials{"email": email(1)}, "the password"); err != nil {
					panic(err)
				}
			}))
			var times samples
			for i := range 300 {
				// The context never ends, so the purge starts immediately.
				r := httptest.NewRequest("POST", "/", nil)
				start := time.Now()
				h.ServeHTTP(discard{}, r)
				if i >= 20 {
					times = append(times, time.Since(start).Seconds()*1e3)
				}
			}
			return times.median(), nil
		}
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("the password"), bcrypt.MinCost)
	if err != nil {
		return err
	}
	password := func() (float64, error) {
		var times samples
		for range 200 {
			start := time.Now()
			if err := bcrypt.CompareHashAndPassword(hash, []byte("the password")); err != nil {
				return 0, err
			}
			times = append(times, time.Since(start).Seconds()*1e3)
		}
		return times.median(), nil
	}
	s, err := interleave(rounds(9), logins(clean), logins(waiting), password)
	if err != nil {
		return err
	}
	net := make(samples, len(s[0]))
	for i := range net {
		net[i] = s[0][i] - s[2][i]
	}
	ratio := ratios(s[1], s[0])
	report.add(11, fmt.Sprintf("a login less its password's bcrypt, ms; with %d expired rows waiting, against none", expired()), "≤ 2 ms; ≤ 1.2 ×", fmt.Sprintf("%s ms; %s ×", net, ratio), net.median() <= 2 && ratio.median() <= 1.2)
	return nil
}
