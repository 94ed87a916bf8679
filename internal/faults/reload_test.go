package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/candysession/session"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// A browser with a session that follows a link of another site, a webmail, gets
// the page, although it withholds the strictly same-site cookie at first: also
// where the other site goes on by a script or a refresh, where the link has a
// #fragment, and behind a service worker. A browser without a session gets the
// login page, and is not asked to come again.
func TestLinkOfAnotherSite(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	_, auth := oneUser(t, session.Config{LoginURL: "/login"})

	var mu sync.Mutex
	var asked []string
	mux := http.NewServeMux()
	mux.HandleFunc("/enter", func(w http.ResponseWriter, r *http.Request) {
		if _, err := auth.LoginAs(w, r, 1); err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, `<p id="entered">`)
	})
	mux.HandleFunc("/leave", func(w http.ResponseWriter, r *http.Request) {
		if err := auth.Logout(w, r); err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, `<p id="left">`)
	})
	mux.Handle("/account", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `<p id="account">Ada`) })))
	mux.HandleFunc("/worker.js", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		fmt.Fprint(w, `oninstall = () => skipWaiting(); onactivate = e => e.waitUntil(clients.claim()); onfetch = e => e.respondWith(fetch(e.request))`)
	})
	mux.HandleFunc("/work", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `<body><script>navigator.serviceWorker.register("/worker.js").then(() => navigator.serviceWorker.ready).then(() => document.body.innerHTML = "<p id=works>")</script>`)
	})
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `<p id="login">Who are you?`) })
	looked := auth.Middleware(mux)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.Path+" "+r.Header.Get("Sec-Fetch-Site"))
		mu.Unlock()
		looked.ServeHTTP(w, r)
	}))
	defer app.Close()
	site := strings.Replace(app.URL, "127.0.0.1", "localhost", 1) // which browsers trust like https
	mail := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		switch r.URL.Path {
		case "/script":
			fmt.Fprintf(w, `<script>setTimeout(() => location = "%s/account", 100)</script>`, site)
		case "/refresh":
			fmt.Fprintf(w, `<meta http-equiv="refresh" content="1; url=%s/account">`, site)
		case "/fragment":
			fmt.Fprintf(w, `<a href="%s/account?a=b#part">You have news</a>`, site)
		default:
			fmt.Fprintf(w, `<a href="%s/account">You have news</a>`, site)
		}
	}))
	defer mail.Close()

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(chromium), chromedp.NoSandbox)...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	clicked := func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
		_, err := chromedp.Evaluate[any]("document.querySelector('a').click()", func(p *runtime.EvaluateParams) {
			yes := true
			p.UserGesture = &yes
		})(ctx, target)
		return chromedp.Void{}, err
	}
	visit := func(first, ready, from, then string, want ...string) {
		t.Helper()
		if err := chromedp.Do(ctx, chromedp.Navigate(site+first), chromedp.WaitReady(ready)); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		asked = nil
		mu.Unlock()
		if err := chromedp.Do(ctx, chromedp.Navigate(mail.URL+from)); err != nil {
			t.Fatal(err)
		}
		if from == "/" || from == "/fragment" {
			if err := chromedp.Do(ctx, clicked); err != nil {
				t.Fatal(err)
			}
		}
		if err := chromedp.Do(ctx, chromedp.WaitReady(then)); err != nil {
			t.Errorf("%s did not come: %v; asked for %q", then, err, asked)
		}
		mu.Lock()
		defer mu.Unlock()
		asked = slices.DeleteFunc(asked, func(request string) bool { return strings.HasPrefix(request, "/favicon.ico") })
		if !slices.Equal(asked, want) {
			t.Errorf("asked for %q, want %q", asked, want)
		}
	}
	for _, from := range []string{"/", "/script", "/refresh", "/fragment"} {
		visit("/enter", "#entered", from, "#account", "/account cross-site", "/account same-origin")
	}
	visit("/leave", "#left", "/", "#login", "/account cross-site", "/login cross-site")
	visit("/enter", "#entered", "/", "#account", "/account cross-site", "/account same-origin")
	visit("/work", "#works", "/", "#account", "/account cross-site", "/account same-origin")
}
