// Command browsers follows links from another site to an app in real browsers,
// and records which page is shown. It needs MariaDB and the browsers (Debian:
// mariadb-server chromium firefox-esr webkit2gtk-driver xvfb). The module's
// tests also run a caching proxy, nginx.
//
//	go -C internal/browsers run .                  # writes docs/browsers.md
//	go -C internal/browsers run . -only 'link' -v  # some visits; writes nothing
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

// A visit is a way to navigate to a page of the app.
type visit struct {
	name   string
	before []string // pages that the browser opens first
	// start is the page where the navigation starts: a path of the app, or of
	// the other site with the prefix "other:".
	start       string
	clicks      bool   // the user clicks on the start page; otherwise it redirects
	want        string // the page that must be shown
	maxRequests int    // how many requests the app may receive
	back        bool   // the user then goes back, which must lead to the other site
}

const (
	account   = "account as ada"
	loginForm = "login form as a guest"
)

var loggedIn = []string{"/enter"}

var visits = []visit{
	{"link", loggedIn, "other:/link/account", true, account, 2, false},
	{"link, a second time", []string{"/enter", "other:/meta/account"}, "other:/link/account", true, account, 2, false},
	{"link, then the back button", loggedIn, "other:/link/account", true, account, 2, true},
	{"link to a page with a #fragment", loggedIn, "other:/fragment/account", true, account + " #part", 2, false},
	{"link to a page with a query", loggedIn, "other:/query/account", true, account + " ?q=a%26b&r=%3Cc%3E", 2, false},
	{"script (location.href)", loggedIn, "other:/script/account", false, account, 2, false},
	{"meta refresh", loggedIn, "other:/meta/account", false, account, 2, false},
	{"link, then a redirect by the other site", loggedIn, "other:/linkredirect/account", true, account, 2, false},
	{"link from the app to the other site, whose server redirects back", loggedIn, "/to/redirect/account", true, account, 3, false},
	{"link from the app to a payment page, whose script returns after 6 s", loggedIn, "/to/pay/account", true, account, 3, false},
	{"link, through a service worker that fetches each request", []string{"/enter", "/worker"}, "other:/link/account", true, account, 3, false},
	{"script, through that service worker", []string{"/enter", "/worker"}, "other:/script/account", false, account, 3, false},
	{"link, through that service worker, without a session", []string{"/worker"}, "other:/link/account", true, loginForm, 2, false},
	{"link to a Guest page (the login form)", loggedIn, "other:/link/login", true, "home as ada", 3, false},
	{"link to a Switch page", loggedIn, "other:/link/home", true, "home as ada", 2, false},
	{"link to a page that Config.Cookie.NoReload excludes", loggedIn, "other:/link/shared", true, "shared as a guest", 1, false},
	{"link, without a session", nil, "other:/link/account", true, loginForm, 2, false},
	{"link to a Switch page, without a session", nil, "other:/link/home", true, "home as a guest", 1, false},
	{"link, after logout", []string{"/enter", "/leave"}, "other:/link/account", true, loginForm, 2, false},
	{"link to a Switch page, after logout", []string{"/enter", "/leave"}, "other:/link/home", true, "home as a guest", 1, false},
	{"form on the other site that POSTs", loggedIn, "other:/post/account", true, "", 4, false},
	{"OAuth: link from the app, redirect back, LoginAs, redirect", nil, "/to/redirect/callback", true, account, 4, false},
	{"OAuth: consent by a click on the other site, LoginAs, redirect", nil, "other:/link/callback", true, account, 3, false},
}

// An outcome is the result of a visit.
type outcome struct {
	page     string   // the page that was shown
	requests []string // the requests that the app received
	err      error
}

// passed reports whether the outcome is as wanted.
func (o outcome) passed(v visit) bool {
	return o.err == nil && (v.want == "" || o.page == v.want) && o.page != "loop" && len(o.requests) <= v.maxRequests
}

// cell returns the text of a table cell, in bold unless the visit passed.
func (o outcome) cell(v visit) string {
	text := fmt.Sprintf("%s, %d requests", o.page, len(o.requests))
	if len(o.requests) == 1 {
		text = o.page + ", 1 request"
	}
	if o.err != nil {
		text = "failed: " + o.err.Error()
	}
	if !o.passed(v) {
		text = "**" + text + "**"
	}
	return text
}

// loadedPage is a JavaScript expression for the name of the page, once it has
// loaded.
const loadedPage = `(document.readyState === "complete" && document.body ? document.body.dataset.page || "" : "")`

// perform makes a visit and waits for the page that it leads to.
func perform(ctx context.Context, w *world, b browser, v visit) (o outcome) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	fail := func(at string, err error) outcome {
		o.err = fmt.Errorf("%s: %w", at, err)
		return o
	}
	t, err := b.visit(ctx)
	if err != nil {
		return fail("a new profile", err)
	}
	defer t.close()
	address := func(path string) string {
		if other, ok := strings.CutPrefix(path, "other:"); ok {
			return w.other.URL + other
		}
		return w.site + path
	}
	await := func(expression, want string) error {
		for {
			got, err := t.value(ctx, expression)
			arrived := got == want
			if want == "" {
				arrived = got != "" && got != "other" && got != "way out"
			}
			if err == nil && arrived {
				return nil
			}
			if ctxErr := sleep(ctx, 30*time.Millisecond); ctxErr != nil {
				return fmt.Errorf("%q instead of %q: %w %v", got, want, ctxErr, err)
			}
		}
	}
	for _, path := range v.before {
		if err := t.open(ctx, address(path)); err != nil {
			return fail(path, err)
		}
		if path == "/worker" {
			err = await("document.title", "controlled")
		} else {
			err = await(loadedPage, map[string]string{"/enter": "entered", "/leave": "left"}[path])
		}
		if err != nil {
			return fail(path, err)
		}
	}
	if err := t.open(ctx, "about:blank"); err != nil {
		return fail("about:blank", err)
	}
	w.takeRequests()
	if err := t.open(ctx, address(v.start)); err != nil {
		return fail(v.start, err)
	}
	if v.clicks {
		start := "other"
		if !strings.HasPrefix(v.start, "other:") {
			start = "way out"
		}
		if err := await(loadedPage, start); err != nil {
			return fail(v.start, err)
		}
		if err := t.click(ctx); err != nil {
			return fail("click", err)
		}
	}
	// The page is final when the app receives no more requests.
	ctx, cancel = context.WithTimeout(ctx, 12*time.Second)
	defer cancel()
	for count := -1; count != w.requestCount(); {
		count = w.requestCount()
		if await(loadedPage, "") != nil {
			text, _ := t.value(context.WithoutCancel(ctx), `(document.body ? document.body.innerText.slice(0, 40).trim() : "")`)
			return outcome{page: "no page of the app (" + strings.TrimSpace(text) + ")", requests: w.takeRequests()}
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return fail("no final page", err)
		}
	}
	o.page, o.err = t.value(ctx, loadedPage+` + (location.pathname === "/login" ? "" : (location.search && " " + location.search) + (location.hash && " " + location.hash))`)
	o.requests = w.takeRequests()
	if v.back && o.err == nil {
		if _, err := t.value(ctx, `(history.back(), "")`); err != nil {
			return fail("back", err)
		}
		if await(loadedPage, "other") != nil {
			o.page += ", and no way back"
		}
		o.requests = append(o.requests, w.takeRequests()...)
	}
	return o
}

func main() {
	only := flag.String("only", "", "make the visits whose names match this expression; writes nothing")
	in := flag.String("browser", "", "use the browsers whose names match this expression; writes nothing")
	verbose := flag.Bool("v", false, "print each request")
	flag.Parse()
	if err := run(*only, *in, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "browsers:", err)
		os.Exit(1)
	}
}

func run(only, in string, verbose bool) error {
	visitPattern, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	browserPattern, err := regexp.Compile(in)
	if err != nil {
		return err
	}
	w, err := newWorld()
	if err != nil {
		return err
	}
	defer w.close()
	ctx := context.Background()
	var versions []string
	outcomes := map[string][]string{}
	bad := 0
	for _, kind := range kinds {
		if !browserPattern.MatchString(kind.name) {
			continue
		}
		if program := missing(kind.needs); program != "" {
			return fmt.Errorf("%s: %s is not installed", kind.name, program)
		}
		starting, cancel := context.WithTimeout(ctx, 30*time.Second)
		b, err := kind.start(starting)
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		for _, v := range visits {
			if !visitPattern.MatchString(v.name) {
				continue
			}
			o := perform(ctx, w, b, v)
			if !o.passed(v) {
				bad++
			}
			fmt.Printf("%s: %s: %s\n", kind.name, v.name, o.cell(v))
			if verbose || o.err != nil {
				for _, request := range o.requests {
					fmt.Println("   ", request)
				}
			}
			outcomes[v.name] = append(outcomes[v.name], o.cell(v))
		}
		versions = append(versions, b.version())
		b.close()
	}
	if only == "" && in == "" {
		var table strings.Builder
		for _, v := range visits {
			fmt.Fprintf(&table, "| %s | %s |\n", v.name, strings.Join(outcomes[v.name], " | "))
		}
		if err := os.WriteFile("../../docs/browsers.md", []byte(strings.NewReplacer("{table}", table.String(), "{versions}", strings.Join(versions, ", ")).Replace(text)), 0o644); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d visits failed", bad)
	}
	return nil
}

// text is docs/browsers.md.
const text = `# What browsers do with links from other sites

Written by ` + "`go -C internal/browsers run .`" + `, which needs MariaDB, Chromium,
Firefox and WebKitGTK (Debian: mariadb-server chromium firefox-esr
webkit2gtk-driver xvfb). Here: {versions}.

The app is at https://localhost, with the default cookie ` + "`__Host-session`" + `,
which is strictly same-site. The other site is at https://127.0.0.1. Each visit
has a new browser profile, in which Ada is logged in unless the row says
otherwise. The pages are behind Require, like ` + "`/account`" + `, unless the row says
otherwise. Each cell contains the page that was shown, its user, and the number
of requests that the app received during the visit, including intermediate
pages. A result in **bold** is wrong: another page or user, a redirect loop, or
more requests than one reload explains.

| visit | Chromium | Firefox | WebKit |
|---|---|---|---|
{table}
In every browser, a POST from another site comes without the session cookie, and
no page can repeat it with the cookie. Let a payment provider return with a GET,
or answer its POST with a page that needs no session and that links or redirects
to the next page.
`
