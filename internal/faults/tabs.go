package main

import (
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// A jar holds the session cookie that the tabs of a browser share. The response
// that arrives last decides.
type jar struct {
	mu     sync.Mutex
	cookie string
}

// apply stores the cookie that a response sets.
func (j *jar) apply(header http.Header) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, k := range (&http.Response{Header: header}).Cookies() {
		switch {
		case k.Name != sessionCookie:
		case k.MaxAge < 0:
			j.cookie = ""
		default:
			j.cookie = k.Value
		}
	}
}

// A pair is two requests that two tabs of one browser send concurrently while
// their session is due for renewal.
type pair struct{ one, two string }

var pairs = []pair{
	{"GET /slow", "POST /rotate"},
	{"GET /slow", "POST /others"},
	{"GET /slow", "POST /login"},
	{"GET /slow", "GET /slow"},
	{"POST /rotate", "POST /rotate"},
	{"POST /login", "POST /login"},
}

// twoTabs sends a pair of requests from two tabs of a session's browser.
// Whichever response arrives last, the browser must then hold the cookie of a
// session.
func (c *client) twoTabs(s *tracked) {
	if c.load.age(s.cookie) != nil {
		return
	}
	type tab struct {
		request, cookie string
		status          int
	}
	old := s.cookie
	browser := &jar{cookie: old}
	chosen := pairs[rand.N(len(pairs))]
	tabs := []*tab{{request: chosen.one}, {request: chosen.two}}
	started := time.Now()
	var running sync.WaitGroup
	for _, t := range tabs {
		on := c.load.app()
		running.Go(func() {
			method, target, _ := strings.Cut(t.request, " ")
			if target == "/login" {
				target += "?email=" + url.QueryEscape(c.email)
			}
			var header http.Header
			t.status, header, t.cookie = c.request(on, method, target, old)
			browser.apply(header)
		})
	}
	running.Wait()

	answered, done := true, 0
	for _, t := range tabs {
		switch {
		case t.status == http.StatusServiceUnavailable || t.status == 0:
			answered = false
		case t.request != "GET /slow" && t.status == http.StatusOK:
			done++
		}
	}
	if c.wasDropped(s) {
		s.state = unknown
		return
	}
	login, rotates := chosen.two == "POST /login", chosen.two == "POST /rotate" || chosen.two == "POST /others"
	if !answered { // the token may have been replaced, and other sessions ended
		for _, other := range c.sessions {
			if other == s || chosen.two == "POST /others" {
				other.state = unknown
			}
		}
		return
	}
	if (login || rotates) && done == 0 {
		c.load.violation(&c.load.falseLogouts, "two tabs, %s and %s: responses %d and %d", chosen.one, chosen.two, tabs[0].status, tabs[1].status)
		s.state = unknown
		return
	}
	next := &tracked{cookie: browser.cookie, id: s.id, started: s.started}
	if login { // a new session; the other login's is now in another browser
		next.id, next.started = "", started
		for _, t := range tabs {
			if t.request == "POST /login" && t.cookie != next.cookie {
				c.sessions = append(c.sessions, &tracked{cookie: t.cookie, started: started})
			}
		}
	}
	if login || rotates {
		c.markEnded(s)
		if chosen.two == "POST /others" {
			for _, other := range c.sessions {
				c.markEnded(other)
			}
		}
		c.sessions = append(c.sessions, next)
	} else {
		next = s
		next.cookie = browser.cookie
	}
	next.seen = true // neither request ends the session that the browser holds
	if c.check(next, c.load.app()) == http.StatusUnauthorized {
		c.load.report("two tabs, %s and %s: responses %d and %d", chosen.one, chosen.two, tabs[0].status, tabs[1].status)
	}
}
