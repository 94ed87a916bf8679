package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"
)

// chromiumRequests lists the requests that Chromium sends for some visits: the
// link's, without the strict cookie, and then that of the reload, with it. A
// browser without a session is not reloaded.
var chromiumRequests = map[string][]string{
	"link":                            {"GET /account (cross-site", "GET /account (same-origin"},
	"link to a page with a #fragment": {"GET /account (cross-site", "GET /account (same-origin"},
	"link to a page with a query":     {"GET /account?q=a%26b&r=%3Cc%3E (cross-site", "GET /account?q=a%26b&r=%3Cc%3E (same-origin"},
	"script (location.href)":          {"GET /account (cross-site", "GET /account (same-origin"},
	"meta refresh":                    {"GET /account (cross-site", "GET /account (same-origin"},
	"link, after logout":              {"GET /account (cross-site", "GET /login?next=%2Faccount (cross-site"},
	"link, through a service worker that fetches each request": {"GET /account (cross-site", "GET /account (same-origin"},
}

// TestLinkOfAnotherSite checks that a logged-in user who clicks a link on
// another site gets the page, in each browser that is installed. In Chromium it
// also makes the other visits of chromiumRequests, and checks the requests.
func TestLinkOfAnotherSite(t *testing.T) {
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			if program := missing(kind.needs); program != "" {
				t.Skip(program + " is not installed")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			b, err := kind.start(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer b.close()
			if kind.name != "Chromium" {
				if o := perform(ctx, w, b, visits[0]); !o.passed(visits[0]) {
					t.Errorf("%s; requests %q", o.cell(visits[0]), o.requests)
				}
				return
			}
			found := 0
			for _, v := range visits {
				want, ok := chromiumRequests[v.name]
				if !ok {
					continue
				}
				found++
				o := perform(ctx, w, b, v)
				if !o.passed(v) {
					t.Errorf("%s: %s; requests %q", v.name, o.cell(v), o.requests)
				}
				var requests []string
				for _, r := range o.requests {
					request, _, _ := strings.Cut(r, ",")
					requests = append(requests, request)
				}
				if !slices.Equal(requests, want) {
					t.Errorf("%s: requests %q, want %q", v.name, requests, want)
				}
			}
			if found != len(chromiumRequests) {
				t.Errorf("made %d visits, want %d", found, len(chromiumRequests))
			}
		})
	}
}
