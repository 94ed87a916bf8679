// Command browsers follows links of another site to pages of this one in real browsers, and writes down which page came.
// It needs MariaDB and the browsers (Debian: mariadb-server chromium firefox-esr webkit2gtk-driver xvfb).
//
//	go -C internal/browsers run .                     # all, and write docs/browsers.md
//	go -C internal/browsers run . -only 'link' -v     # some, which writes nothing
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

// A visit is a way to come to a page of the app.
type visit struct {
	name   string
	before []string // pages of the app that the browser opens first
	start  string   // where the person begins: a page of the app, or with the prefix other: of the other site
	clicks bool     // the person clicks there; otherwise the page goes on by itself
	want   string   // the page that must come
	most   int      // requests that the app may see
	back   bool     // the person goes back then, and must be on the other site again
}

const (
	account = "account as ada"
	form    = "login form as a guest"
)

var loggedIn = []string{"/enter"}

var visits = []visit{
	{"link", loggedIn, "other:/link/account", true, account, 2, false},
	{"link, a second time", []string{"/enter", "other:/meta/account"}, "other:/link/account", true, account, 2, false},
	{"link, and the button back", loggedIn, "other:/link/account", true, account, 2, true},
	{"link to a page with a #fragment", loggedIn, "other:/fragment/account", true, account + " #part", 2, false},
	{"link to a page with a query", loggedIn, "other:/query/account", true, account + " ?q=a%26b&r=%3Cc%3E", 2, false},
	{"script (location.href)", loggedIn, "other:/script/account", false, account, 2, false},
	{"meta refresh", loggedIn, "other:/meta/account", false, account, 2, false},
	{"link, and a redirect by the other site", loggedIn, "other:/linkredirect/account", true, account, 2, false},
	{"link of the app to the other site, whose server redirects back", loggedIn, "/to/redirect/account", true, account, 3, false},
	{"link of the app to a payment page, whose script returns after 6 s", loggedIn, "/to/pay/account", true, account, 3, false},
	{"link, with a service worker that passes on what it gets", []string{"/enter", "/worker"}, "other:/link/account", true, account, 3, false},
	{"script, with that service worker", []string{"/enter", "/worker"}, "other:/script/account", false, account, 3, false},
	{"link, with that service worker, without a session", []string{"/worker"}, "other:/link/account", true, form, 2, false},
	{"link to a Guest page (the login form)", loggedIn, "other:/link/login", true, "home as ada", 3, false},
	{"link to a Switch page", loggedIn, "other:/link/home", true, "home as ada", 2, false},
	{"link to a page that Config.Cookie.NoReload excludes", loggedIn, "other:/link/shared", true, "shared as a guest", 1, false},
	{"link, without a session", nil, "other:/link/account", true, form, 2, false},
	{"link to a Switch page, without a session", nil, "other:/link/home", true, "home as a guest", 1, false},
	{"link, after logout", []string{"/enter", "/leave"}, "other:/link/account", true, form, 2, false},
	{"link to a Switch page, after logout", []string{"/enter", "/leave"}, "other:/link/home", true, "home as a guest", 1, false},
	{"form of the other site that POSTs", loggedIn, "other:/post/account", true, "", 4, false},
	{"OAuth: link of the app, redirect back, LoginAs, redirect", nil, "/to/redirect/callback", true, account, 4, false},
	{"OAuth: consent by a click on the other site, LoginAs, redirect", nil, "other:/link/callback", true, account, 3, false},
}

// An outcome is what became of a visit.
type outcome struct {
	page  string
	asked []string
	err   error
}

func (o outcome) good(v visit) bool {
	return o.err == nil && (v.want == "" || o.page == v.want) && o.page != "loop" && len(o.asked) <= v.most
}

// cell is the outcome in the table; bold is what should not be.
func (o outcome) cell(v visit) string {
	text := fmt.Sprintf("%s, %d requests", o.page, len(o.asked))
	if len(o.asked) == 1 {
		text = o.page + ", 1 request"
	}
	if o.err != nil {
		text = "failed: " + o.err.Error()
	}
	if !o.good(v) {
		text = "**" + text + "**"
	}
	return text
}

// settled is what a page says that has loaded, and stays.
const settled = `(document.readyState === "complete" && document.body ? document.body.dataset.page || "" : "")`

// come makes a visit, and waits for the page that comes.
func come(ctx context.Context, w *world, b browser, v visit) (o outcome) {
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
			if stopped := sleep(ctx, 30*time.Millisecond); stopped != nil {
				return fmt.Errorf("%q instead of %q: %w %v", got, want, stopped, err)
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
			err = await(settled, map[string]string{"/enter": "entered", "/leave": "left"}[path])
		}
		if err != nil {
			return fail(path, err)
		}
	}
	if err := t.open(ctx, "about:blank"); err != nil {
		return fail("about:blank", err)
	}
	w.seen()
	if err := t.open(ctx, address(v.start)); err != nil {
		return fail(v.start, err)
	}
	if v.clicks {
		start := "other"
		if !strings.HasPrefix(v.start, "other:") {
			start = "way out"
		}
		if err := await(settled, start); err != nil {
			return fail(v.start, err)
		}
		if err := t.click(ctx); err != nil {
			return fail("click", err)
		}
	}
	// The page that comes is there when nothing has been asked for in a while.
	ctx, cancel = context.WithTimeout(ctx, 12*time.Second)
	defer cancel()
	for count := -1; count != w.count(); {
		count = w.count()
		if await(settled, "") != nil {
			text, _ := t.value(context.WithoutCancel(ctx), `(document.body ? document.body.innerText.slice(0, 40).trim() : "")`)
			return outcome{page: "no page of the app (" + strings.TrimSpace(text) + ")", asked: w.seen()}
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return fail("no page stayed", err)
		}
	}
	o.page, o.err = t.value(ctx, settled+` + (location.pathname === "/login" ? "" : (location.search && " " + location.search) + (location.hash && " " + location.hash))`)
	o.asked = w.seen()
	if v.back && o.err == nil {
		if _, err := t.value(ctx, `(history.back(), "")`); err != nil {
			return fail("back", err)
		}
		if await(settled, "other") != nil {
			o.page += ", and no way back"
		}
		o.asked = append(o.asked, w.seen()...)
	}
	return o
}

func main() {
	only := flag.String("only", "", "the visits whose names match this expression; writes nothing")
	in := flag.String("browser", "", "the browsers whose names match this expression; writes nothing")
	verbose := flag.Bool("v", false, "show each request")
	flag.Parse()
	if err := run(*only, *in, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "browsers:", err)
		os.Exit(1)
	}
}

func run(only, in string, verbose bool) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	wantedBrowser, err := regexp.Compile(in)
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
		if !wantedBrowser.MatchString(kind.name) {
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
			if !wanted.MatchString(v.name) {
				continue
			}
			o := come(ctx, w, b, v)
			if !o.good(v) {
				bad++
			}
			fmt.Printf("%s: %s: %s\n", kind.name, v.name, o.cell(v))
			if verbose || o.err != nil {
				for _, request := range o.asked {
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
		return fmt.Errorf("%d visits did not end as they should", bad)
	}
	return nil
}

// text is docs/browsers.md.
const text = `# What browsers do with links from other sites

Written by ` + "`go -C internal/browsers run .`" + `, which needs MariaDB, Chromium, Firefox and WebKitGTK (Debian: mariadb-server chromium
firefox-esr webkit2gtk-driver xvfb). Here: {versions}.

The app is at https://localhost, with the default cookie ` + "`__Host-session`" + `, which is strictly same-site. The other site is at
https://127.0.0.1. Each visit has a profile of its own, in which Ada has logged in unless the row says otherwise. The pages are
behind Require, as ` + "`/account`" + `, unless the row says otherwise. Each cell tells which page came, as whom, and how many requests the
app saw since the visit began, pages of the app on the way included. What is **bold** should be otherwise: another page or user, a
loop, or more requests than a page that asks for itself once more.

| visit | Chromium | Firefox | WebKit |
|---|---|---|---|
{table}
A POST from another site comes without the session cookie in every browser, and no page can send it again with the cookie. Let a
payment provider return with a GET, or answer its POST with a page that needs no session and has a link or redirect to the next.
`
