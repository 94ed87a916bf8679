package main

import (
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// A jar is the session cookie of a browser, which all of its tabs share. The answer that arrives last decides.
type jar struct {
	mu     sync.Mutex
	cookie string
}

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

// A pair is what two tabs of one browser ask for together, while their session is due for renewal.
type pair struct{ one, two string }

var pairs = []pair{
	{"GET /slow", "POST /rotate"},
	{"GET /slow", "POST /others"},
	{"GET /slow", "POST /login"},
	{"GET /slow", "GET /slow"},
	{"POST /rotate", "POST /rotate"},
	{"POST /login", "POST /login"},
}

// twoTabs has two tabs of the browser of a session that is alive ask together. Whichever answer arrives last, the browser
// must hold the cookie of a session then.
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
	begun := time.Now()
	var running sync.WaitGroup
	for _, t := range tabs {
		on := c.load.app()
		running.Go(func() {
			method, target, _ := strings.Cut(t.request, " ")
			if target == "/login" {
				target += "?email=" + url.QueryEscape(c.email)
			}
			var header http.Header
			t.status, header, t.cookie = c.do(on, method, target, old)
			browser.apply(header)
		})
	}
	running.Wait()

	sure, done := true, 0
	for _, t := range tabs {
		switch {
		case t.status == http.StatusServiceUnavailable || t.status == 0:
			sure = false
		case t.request != "GET /slow" && t.status == http.StatusOK:
			done++
		}
	}
	if c.wasDropped(s) {
		s.state = unsure
		return
	}
	login, rotates := chosen.two == "POST /login", chosen.two == "POST /rotate" || chosen.two == "POST /others"
	if !sure { // the token that the browser holds may be the old one or the new one, and others may be out
		for _, other := range c.sessions {
			if other == s || chosen.two == "POST /others" {
				other.state = unsure
			}
		}
		return
	}
	if (login || rotates) && done == 0 {
		c.load.violation(&c.load.falseLogouts, "two tabs, %s and %s: answered with %d and %d", chosen.one, chosen.two, tabs[0].status, tabs[1].status)
		s.state = unsure
		return
	}
	next := &tracked{cookie: browser.cookie, id: s.id, begun: s.begun}
	if login { // a session of its own; that of the other login is another browser's from now on
		next.id, next.begun = "", begun
		for _, t := range tabs {
			if t.request == "POST /login" && t.cookie != next.cookie {
				c.sessions = append(c.sessions, &tracked{cookie: t.cookie, begun: begun})
			}
		}
	}
	if login || rotates {
		c.ended(s)
		if chosen.two == "POST /others" {
			for _, other := range c.sessions {
				c.ended(other)
			}
		}
		c.sessions = append(c.sessions, next)
	} else {
		next = s
		next.cookie = browser.cookie
	}
	next.seen = true // the browser did nothing that would put it out
	if c.check(next, c.load.app()) == http.StatusUnauthorized {
		c.load.tell("two tabs: %s and %s were answered with %d and %d", chosen.one, chosen.two, tabs[0].status, tabs[1].status)
	}
}
