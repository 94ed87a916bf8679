package session

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/internal/token"
)

// The cases of cookies and of visits from other sites.
var (
	webCasesA = []testCase{
		{"A7_renewals_and_shared_caches", renewalsAndSharedCaches},
		{"A8_pages_in_shared_caches", pagesInSharedCaches},
		{"A15_planted_candypack_cookies", plantedCandyPackCookies},
	}
	webCasesB = []testCase{
		{"B1_links_of_other_sites", linksOfOtherSites},
		{"B1_the_page_that_reloads", thePageThatReloads},
		{"B2_cookies_of_one_name", cookiesOfOneName},
		{"B2_logout_with_several_cookies", logoutWithSeveralCookies},
		{"B3_late_answers_of_renewals", lateAnswersOfRenewals},
		{"B5_logins_of_one_browser", loginsOfOneBrowser},
		{"B5_logins_that_share_nothing", loginsThatShareNothing},
		{"B7_long_pages_in_next", longPagesInNext},
		{"B12_login_urls_with_a_fragment", loginURLsWithAFragment},
		{"B14_cookies_outlive_rows", cookiesOutliveRows},
	}
)

// The headers of a browser that opens a page: a current one, and one without
// Fetch Metadata.
var (
	opened    = []string{"Accept", "text/html,*/*;q=0.8", "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	openedOld = []string{"Accept", "text/html,*/*;q=0.8"}
	clicked   = []string{"Accept", "text/html,*/*;q=0.8", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
)

// with sends a request with only the given Cookie header.
func (b *browser) with(h http.Handler, cookie string, header ...string) *http.Response {
	bare := newBrowser(b.userAgent)
	return bare.do(h, "GET", "/", append([]string{"Cookie", cookie}, header...)...)
}

// named returns a cookie of the browser as part of a Cookie header.
func (b *browser) named(name string) string { return name + "=" + b.cookies[name] }

const hostCookie = "__Host-session"

func isReload(t *testing.T, response *http.Response) bool {
	t.Helper()
	text := body(t, response)
	is := strings.Contains(text, `http-equiv="refresh"`)
	if is && (response.StatusCode != 200 || response.Header.Get("Cache-Control") != "no-store") {
		t.Errorf("a reload page: %s, %v", response.Status, response.Header)
	}
	return is
}

// Responses that shared caches may store set no cookie.
func renewalsAndSharedCaches(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "computes the ages of CandyPack's rows in another way")
	dir := t.TempDir()
	noError(t, os.WriteFile(filepath.Join(dir, "app.js"), []byte("x"), 0o600))
	public := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=600")
		w.Header().Set("Vary", "Accept-Encoding")
		io.WriteString(w, "public")
	})
	files := http.FileServer(http.Dir(dir))
	for _, mode := range []CandyPackMode{CandyPackOff, CandyPackShare, CandyPackSwitch} {
		f := setup(t, Config{CandyPack: mode, TokenTable: "user_tokens"})
		b := newBrowser(chrome130)
		f.login(b, alice)
		// The cookies are those after a login with CandyPack.
		delete(b.cookies, hostCookie+map[CandyPackMode]string{CandyPackOff: ".none"}[mode])
		for name, test := range map[string]struct {
			handler http.Handler
			target  string
			header  []string
		}{
			"a script":           {public, "/app.js", []string{"Accept", "*/*", "Sec-Fetch-Dest", "script", "Sec-Fetch-Mode", "no-cors"}},
			"an old browser":     {public, "/app.js", []string{"Accept", "*/*"}},
			"a page":             {public, "/", opened},
			"a page, old":        {public, "/", openedOld},
			"a frame":            {public, "/", []string{"Accept", "text/html", "Sec-Fetch-Dest", "iframe", "Sec-Fetch-Mode", "navigate"}},
			"fetched":            {public, "/", []string{"Accept", "text/html", "Sec-Fetch-Dest", "empty", "Sec-Fetch-Mode", "cors"}},
			"a file":             {files, "/app.js", nil},
			"no file":            {files, "/none.js", nil},
			"no file, as a page": {files, "/none.html", opened},
		} {
			for _, created := range []time.Duration{25 * time.Hour, 250 * 24 * time.Hour} {
				f.waitForPurge()
				mustExec(t, f.db, "UPDATE user_tokens SET active = FROM_UNIXTIME(UNIX_TIMESTAMP() - 90000), date = FROM_UNIXTIME(UNIX_TIMESTAMP() - ?)", seconds(created))
				before := newBrowser(chrome130)
				for name, value := range b.cookies {
					before.cookies[name] = value
				}
				response := before.do(f.auth.Middleware(f.auth.Require(test.handler)), "GET", test.target, test.header...)
				if !get[bool](t, f.db, "SELECT UNIX_TIMESTAMP() - UNIX_TIMESTAMP(active) < 60 FROM user_tokens") {
					t.Errorf("%v, %s: not renewed", mode, name)
				}
				if response.Header["Set-Cookie"] != nil && !isReload(t, response) {
					t.Errorf("%v, %s, logged in %v ago: %v", mode, name, created, response.Header)
				}
			}
		}
	}
}

// Shared caches serve no page of a logged-in user to others, and no anonymous
// page to a logged-in user.
func pagesInSharedCaches(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	noError(t, os.WriteFile(filepath.Join(dir, "plan.txt"), []byte("secret"), 0o600))
	f := setup(t, Config{LoginURL: "/login"})
	in, out := newBrowser(chrome130), newBrowser(chrome130)
	f.login(in, alice)
	files, page := http.FileServer(http.Dir(dir)), handler("page")
	varies := func(header http.Header) bool { return listed(header["Vary"], "cookie") }
	for name, test := range map[string]struct {
		handler http.Handler
		target  string
		in, out string // Cache-Control
	}{
		"Require": {f.auth.Require(files), "/plan.txt", "private", "no-store"},
		// FileServer removes the header.
		"Require, no file":      {f.auth.Require(files), "/none.txt", "", "no-store"},
		"Middleware":            {f.auth.Middleware(page), "/", "private", ""},
		"Middleware, no file":   {f.auth.Middleware(files), "/none.txt", "", ""},
		"Switch":                {f.auth.Switch(page, page), "/", "private", ""},
		"Guest":                 {f.auth.Guest(page), "/", "no-store", ""},
		"inside each other":     {f.auth.Middleware(f.auth.Require(page)), "/", "private", "no-store"},
		"RequireFresh":          {f.auth.RequireFresh(time.Hour)(page), "/", "private", "no-store"},
		"a handler that shares": {f.auth.Middleware(withHeader("Cache-Control", "public, max-age=60", page)), "/", "public, max-age=60", "public, max-age=60"},
		"a stricter one":        {withHeader("Cache-Control", "no-store", f.auth.Middleware(page)), "/", "no-store", "no-store"},
		"a public one outside":  {withHeader("Cache-Control", "public", f.auth.Middleware(page)), "/", "private", "public"},
		"another Vary outside":  {withHeader("Vary", "X-Cookie-Consent", f.auth.Middleware(page)), "/", "private", ""},
	} {
		for _, header := range [][]string{nil, opened, openedOld} {
			if response := in.do(test.handler, "GET", test.target, header...); response.Header.Get("Cache-Control") != test.in || !varies(response.Header) || response.Header["Set-Cookie"] != nil {
				t.Errorf("%s, logged in: %s %v", name, response.Status, response.Header)
			}
			if response := out.do(test.handler, "GET", test.target, header...); response.Header.Get("Cache-Control") != test.out || !varies(response.Header) || response.Header["Set-Cookie"] != nil {
				t.Errorf("%s, logged out: %s %v", name, response.Status, response.Header)
			}
		}
	}
	response := f.login(newBrowser(chrome130), alice)
	if response.Header.Get("Cache-Control") != "no-store" || !varies(response.Header) {
		t.Errorf("a login: %v", response.Header)
	}
}

func withHeader(name, value string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(name, value)
		next.ServeHTTP(w, r)
	})
}

// A subdomain can plant CandyPack's cookies. They do not replace the session of
// another user: that user stays logged in.
func plantedCandyPackCookies(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{CandyPack: CandyPackSwitch, TokenTable: "user_tokens"})
	after := newManager[user](t, f.db, f.dsn, Config{TokenTable: "user_tokens", Fingerprint: FingerprintExact})
	victim, attacker, same := newBrowser(chrome130), newBrowser(chrome130), newBrowser(chrome130)
	f.login(victim, alice)
	f.login(attacker, bob)
	f.login(same, alice)
	foreign := newBrowser(firefox)
	f.login(foreign, bob)
	userID := func(f *fixture[user], b *browser) (id int64) {
		t.Helper()
		f.handle(b, func(_ http.ResponseWriter, r *http.Request) {
			u, _ := f.auth.User(r)
			id = u.ID
		})
		return id
	}
	page := f.auth.Middleware(handler("the page"))
	for name, test := range map[string]struct {
		candy, single *browser // nil for none
		id            int64
		becomes       *browser // the owner of the __Host- cookie after a page
	}{
		"planted":                    {attacker, victim, 1, victim},
		"of another login":           {same, victim, 1, same},
		"alone":                      {attacker, nil, 2, attacker},
		"with another browser's":     {victim, foreign, 1, victim},
		"with one that is no longer": {attacker, withToken(token.New()), 2, attacker},
		"planted, and dead":          {withCandy(token.New()), victim, 1, victim},
		"none":                       {nil, victim, 1, victim},
	} {
		b := newBrowser(chrome130)
		if test.candy != nil {
			b.cookies["candy_x"], b.cookies["candy_y"] = test.candy.cookies["candy_x"], test.candy.cookies["candy_y"]
		}
		if test.single != nil {
			b.cookies[hostCookie] = test.single.cookies[hostCookie]
		}
		f.auth.cookies.shared.completed = completions{}
		held := b.cookies[hostCookie]
		if id := userID(f, b); id != test.id {
			t.Errorf("%s: served as %d, want %d", name, id, test.id)
		}
		if b.cookies[hostCookie] != held {
			t.Errorf("%s: written into something that is no page", name)
		}
		for range 2 {
			b.do(page, "GET", "/", opened...)
		}
		if text := body(t, b.do(page, "GET", "/", opened...)); text != "the page" {
			t.Errorf("%s: reloads again and again: %s", name, text)
		}
		if b.cookies[hostCookie] != test.becomes.cookies[hostCookie] {
			t.Errorf("%s: the cookie is another's", name)
		}
		delete(b.cookies, "candy_x")
		delete(b.cookies, "candy_y")
		if id := userID(after, b); id != test.id {
			t.Errorf("%s: after the migration it is %d, want %d", name, id, test.id)
		}
	}
	// A browser that rejects the cookie is served, too.
	b := newBrowser(chrome130)
	f.login(b, alice)
	cookie := b.named("candy_x") + "; " + b.named("candy_y")
	reloads := 0
	for range 3 {
		if isReload(t, b.with(page, cookie, opened...)) {
			reloads++
		}
	}
	if reloads != 1 {
		t.Errorf("%d reloads", reloads)
	}
	// Logout revokes both sessions.
	mixed := newBrowser(chrome130)
	mixed.cookies["candy_x"], mixed.cookies["candy_y"], mixed.cookies[hostCookie] = attacker.cookies["candy_x"], attacker.cookies["candy_y"], victim.cookies[hostCookie]
	f.handle(mixed, func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.Logout(w, r)) })
	f.wantRejected(victim, ErrUnknownSession)
	f.wantRejected(attacker, ErrUnknownSession)
}

func withCandy(t token.Token) *browser {
	b := newBrowser(chrome130)
	b.cookies["candy_x"], b.cookies["candy_y"] = t.Selector, t.Verifier
	return b
}

// A link on another site opens the page with the user logged in.
func linksOfOtherSites(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{}, {Cookie: Cookie{Insecure: true}}, {Cookie: Cookie{Name: "sid", Path: "/"}}, {CandyPack: CandyPackShare}, {CandyPack: CandyPackSwitch}, {Cookie: Cookie{Transient: true}}} {
		cfg.LoginURL, cfg.TokenTable = "/login", "user_tokens"
		f := setup(t, cfg)
		strict := []string{f.auth.cfg.Cookie.Name, "candy_x", "candy_y"}
		hint := f.auth.cookies.hint
		for name, h := range map[string]http.Handler{
			"Middleware": f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, f.auth.Check(r)) })),
			"Require":    f.auth.Require(handler("true")),
			"Switch":     f.auth.Switch(handler("true"), handler("false")),
			"Guest":      f.auth.Guest(handler("false")),
			"nested":     f.auth.Middleware(f.auth.Require(handler("true"))),
		} {
			for _, header := range [][]string{clicked, openedOld} {
				b := newBrowser(chrome130)
				f.login(b, alice)
				for visit := range 2 {
					held := map[string]string{}
					for _, name := range strict {
						if value, ok := b.cookies[name]; ok {
							held[name] = value
							delete(b.cookies, name)
						}
					}
					if !isReload(t, b.do(h, "GET", "/account", header...)) || b.cookies[hint] != "" {
						t.Fatalf("%s, visit %d: no reload page, or the hint stays: %v", name, visit, b.cookies)
					}
					for name, value := range held {
						b.cookies[name] = value
					}
					response := b.do(h, "GET", "/account", opened...)
					if got := body(t, response); got != "true" && response.StatusCode != 303 {
						t.Errorf("%s, visit %d: %s %q", name, visit, response.Status, got)
					}
					if b.cookies[hint] == "" {
						t.Errorf("%s, visit %d: the hint is not set again", name, visit)
					}
				}
				// If the strict cookie is lost, the page reloads once.
				for _, name := range strict {
					delete(b.cookies, name)
				}
				if !isReload(t, b.do(h, "GET", "/account", header...)) || isReload(t, b.do(h, "GET", "/account", header...)) {
					t.Errorf("%s: not once", name)
				}
			}
		}
	}

	// A page with a rejected cookie removes the hint. Subresources do not.
	f := setup(t, Config{})
	b := newBrowser(chrome130)
	f.login(b, alice)
	page := f.auth.Middleware(handler("x"))
	noError(t, errOnly(f.auth.LogoutAll(t.Context(), 1)))
	b.do(page, "GET", "/a.png", "Accept", "image/*")
	if b.cookies["__Host-session.hint"] == "" {
		t.Error("a picture took the hint")
	}
	if isReload(t, b.do(page, "GET", "/", opened...)) || b.cookies["__Host-session.hint"] != "" {
		t.Error("a rejected cookie leaves the hint, or reloads")
	}
	// A login sets the hint, a logout removes it.
	f.login(b, alice)
	if b.cookies["__Host-session.hint"] != "1" {
		t.Error("a login sets no hint")
	}
	f.handle(b, func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.Logout(w, r)) })
	if len(b.cookies) != 0 {
		t.Errorf("a logout leaves %v", b.cookies)
	}

	// A route with NoReload, and a lax cookie.
	f = setup(t, Config{Cookie: Cookie{NoReload: func(r *http.Request) bool { return r.URL.Path == "/transfer" }}})
	f.login(b, alice)
	delete(b.cookies, hostCookie)
	if isReload(t, b.do(f.auth.Middleware(handler("x")), "GET", "/transfer", clicked...)) || !isReload(t, b.do(f.auth.Middleware(handler("x")), "GET", "/", clicked...)) {
		t.Error("NoReload does not decide")
	}
	f = setup(t, Config{Cookie: Cookie{SameSite: http.SameSiteLaxMode}})
	b = newBrowser(chrome130)
	response := f.login(b, alice)
	if len(b.cookies) != 1 || response.Cookies()[0].SameSite != http.SameSiteLaxMode {
		t.Errorf("lax: %v", response.Header)
	}
	b.cookies = map[string]string{"__Host-session.hint": "1"}
	if isReload(t, b.do(f.auth.Middleware(handler("x")), "GET", "/", clicked...)) {
		t.Error("lax: reloads")
	}
}

// The reload page contains only the requested URL.
func thePageThatReloads(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	for _, target := range []string{"/", "/account", "/account?tab=1&x=%20", "/a/", "/a/b?q=a/b", `/a?x="><script>`, "/caf%C3%A9", "/a:b", "/a;url=x?y;url=//evil.example", "/%22%3E", "/a%2Fb", "/javascript:alert(1)", "/a?http://evil.example", "/a'b"} {
		r := httptest.NewRequest("GET", "http://app.example/", nil)
		var err error
		r.URL, err = url.Parse(target)
		noError(t, err)
		r.RequestURI = target
		r.Header.Set("Accept", "text/html")
		r.Header.Set("Cookie", "__Host-session.hint=1")
		w := httptest.NewRecorder()
		http.StripPrefix("", f.auth.Middleware(handler("x"))).ServeHTTP(w, r)
		found := regexp.MustCompile(`content="1; url=([^"]*)".*<script>(.*)</script>`).FindStringSubmatch(w.Body.String())
		if found == nil || strings.Count(w.Body.String(), "<") != 8 {
			t.Errorf("%s: %s", target, w.Body)
			continue
		}
		if sum := sha256.Sum256([]byte(found[2])); w.Header().Get("Content-Security-Policy") != "default-src 'none'; script-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'" {
			t.Errorf("%s: the script %s may not run: %v", target, found[2], w.Header())
		}
		base, _ := url.Parse("https://app.example/prefix" + target + "#part")
		next, err := base.Parse(strings.NewReplacer("&#34;", `"`, "&#39;", "'", "&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(found[1]))
		noError(t, err)
		if base.Fragment = ""; next.String() != base.String() {
			t.Errorf("%s leads to %s", target, next)
		}
	}
}

// The first cookie that is a valid session counts.
func cookiesOfOneName(t *testing.T) {
	t.Parallel()
	var events eventLog
	f := setup(t, Config{OnEvent: events.add, MaxLifetime: 24 * time.Hour})
	b, bobs := newBrowser(chrome130), newBrowser(chrome130)
	f.login(b, alice)
	f.login(bobs, bob)
	expired, foreign, gone := newBrowser(chrome130), newBrowser(firefox), newBrowser(chrome130)
	f.login(expired, alice)
	f.login(foreign, alice)
	mustExec(t, f.db, "INSERT INTO users (email, password) VALUES ('gone@example.com', '')")
	f.handle(gone, func(w http.ResponseWriter, r *http.Request) { noError(t, errOnly(f.auth.LoginAs(w, r, 3))) })
	mustExec(t, f.db, "DELETE FROM users WHERE id = 3")
	f.waitForPurge()
	mustExec(t, f.db, "UPDATE user_tokens SET date = FROM_UNIXTIME(UNIX_TIMESTAMP() - 90000) WHERE token_x = ?", selectorOf(expired))
	forged := func() *browser { return forgeToken(bobs) }
	unknown := func() string { return withToken(token.New()).named(hostCookie) }
	valid := b.named(hostCookie)
	many := func(n int, cookie func() string) string {
		var all []string
		for range n {
			all = append(all, cookie())
		}
		return strings.Join(all, "; ") + "; "
	}
	for name, test := range map[string]struct {
		cookie string
		want   error
		event  string
	}{
		"unknown first":         {unknown() + "; " + valid, nil, ""},
		"valid first":           {valid + "; " + bobs.named(hostCookie), nil, ""},
		"malformed first":       {hostCookie + "=x; " + valid, nil, ""},
		"quoted first":          {hostCookie + `="x"; ` + valid, nil, ""},
		"empty first":           {hostCookie + "=; " + valid, nil, ""},
		"expired first":         {expired.named(hostCookie) + "; " + valid, nil, ""},
		"another browser first": {foreign.named(hostCookie) + "; " + valid, nil, string(EventFingerprintMismatch)},
		"whose user is gone":    {gone.named(hostCookie) + "; " + valid, nil, ""},
		"forged first":          {forged().named(hostCookie) + "; " + valid, nil, string(EventTokenMismatch)},
		"two lines":             {"a=b; " + unknown() + ";" + valid + ";c=d", nil, ""},
		"three before it":       {many(3, unknown) + valid, nil, ""},
		"20 malformed":          {many(20, func() string { return hostCookie + "=x" }) + valid, nil, ""},
		"one of it twenty-fold": {strings.Repeat(expired.named(hostCookie)+"; ", 20) + valid, nil, ""},
		"beyond the bound":      {many(maxCandidates, unknown) + valid, ErrUnknownSession, string(EventRejected)},
		"none, expired first":   {expired.named(hostCookie) + "; " + unknown(), ErrExpired, string(EventRejected)},
		"none, malformed first": {hostCookie + "=x; " + unknown(), ErrMalformedCookie, string(EventRejected)},
		"none, unknown first":   {unknown() + "; " + expired.named(hostCookie), ErrUnknownSession, string(EventRejected)},
		"none, another browser": {foreign.named(hostCookie) + "; " + unknown(), ErrFingerprintMismatch, string(EventFingerprintMismatch)},
	} {
		events.take()
		var err error
		var u user
		b.with(f.auth.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			err = f.auth.Err(r)
			u, _ = f.auth.User(r)
		})), test.cookie)
		got := events.take()
		kind, _, _ := strings.Cut(got, " ")
		if err != test.want || err == nil && u.ID != 1 || kind != test.event || strings.Contains(got, "\n") {
			t.Errorf("%s: %v, user %d, event %q", name, err, u.ID, got)
		}
	}
}

// Logout revokes the session of each valid cookie in the request.
func logoutWithSeveralCookies(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{MaxLifetime: 24 * time.Hour})
	others := newBrowser(chrome130)
	f.login(others, bob)
	first, second, foreign, expired := newBrowser(chrome130), newBrowser(chrome130), newBrowser(firefox), newBrowser(chrome130)
	for _, b := range []*browser{first, second, foreign, expired} {
		f.login(b, alice)
	}
	f.waitForPurge()
	mustExec(t, f.db, "UPDATE user_tokens SET date = FROM_UNIXTIME(UNIX_TIMESTAMP() - 90000) WHERE token_x = ?", selectorOf(expired))
	cookie := strings.Join([]string{expired.named(hostCookie), first.named(hostCookie), foreign.named(hostCookie), second.named(hostCookie)}, "; ")
	response := first.with(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.Logout(w, r)) })), cookie)
	if n := f.rows(); n != 1 {
		t.Errorf("%d rows are left", n)
	}
	f.wantLoggedIn(others)
	if names := cookieNames(response); !slices.Equal(names, []string{hostCookie, hostCookie + ".hint"}) {
		t.Errorf("clears %v", names)
	}
	// Forged and invalid cookies revoke nothing, and are cleared.
	response = first.with(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { noError(t, f.auth.Logout(w, r)) })), hostCookie+"=; "+forgeToken(others).named(hostCookie))
	f.wantLoggedIn(others)
	if len(response.Cookies()) != 2 {
		t.Errorf("clears %v", response.Header)
	}
}

func cookieNames(r *http.Response) (names []string) {
	for _, c := range r.Cookies() {
		names = append(names, c.Name)
	}
	slices.Sort(names)
	return names
}

// A response to a renewal does not overwrite a newer token.
func lateAnswersOfRenewals(t *testing.T) {
	t.Parallel()
	for name, newer := range map[string]func(f *fixture[user], w http.ResponseWriter, r *http.Request) error{
		"Rotate":       func(f *fixture[user], w http.ResponseWriter, r *http.Request) error { return f.auth.Rotate(w, r) },
		"LogoutOthers": func(f *fixture[user], w http.ResponseWriter, r *http.Request) error { return f.auth.LogoutOthers(w, r) },
		"SetPassword": func(f *fixture[user], w http.ResponseWriter, r *http.Request) error {
			return f.auth.SetPassword(w, r, alice["password"], "another password")
		},
		"Login": func(f *fixture[user], w http.ResponseWriter, r *http.Request) error {
			return errOnly(logIn(f.auth, w, r, alice))
		},
	} {
		for _, header := range [][]string{nil, opened, openedOld} {
			f := setup(t, Config{})
			b := newBrowser(chrome130)
			f.login(b, alice)
			f.age(25 * time.Hour)
			slow := newBrowser(chrome130)
			for name, value := range b.cookies {
				slow.cookies[name] = value
			}
			response := slow.do(f.auth.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				f.handle(b, func(w http.ResponseWriter, r *http.Request) { noError(t, newer(f, w, r)) })
			})), "GET", "/", header...)
			b.keep(response.Cookies())
			if why := f.errOf(b); why != nil {
				t.Errorf("%s: %v", name, why)
			}
		}
	}
}

// A URL that is too long for a header is not passed in next.
func longPagesInNext(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{LoginURL: "/login", ConfirmURL: "/confirm"})
	in, out := newBrowser(chrome130), newBrowser(chrome130)
	f.login(in, alice)
	f.age(2 * time.Hour)
	for name, test := range map[string]struct {
		target string
		fits   bool
	}{
		"300 signs":      {"/search?q=" + strings.Repeat(url.QueryEscape("検"), 300), false},
		"a long path":    {"/" + strings.Repeat("a", 1100), false},
		"many %":         {"/search?q=" + strings.Repeat("%20", 300), false},
		"many blanks":    {"/search?q=" + strings.Repeat("+", 400), false},
		"a usual search": {"/search?q=" + strings.Repeat(url.QueryEscape("検"), 20), true},
		"just long":      {"/" + strings.Repeat("a", 1000), true},
	} {
		for place, h := range map[string]http.Handler{"/login": f.auth.Require(handler("x")), "/confirm": f.auth.RequireFresh(time.Hour)(handler("x"))} {
			b := map[string]*browser{"/login": out, "/confirm": in}[place]
			response := b.do(h, "GET", test.target, "Accept", "text/html")
			got := response.Header.Get("Location")
			want := place
			if test.fits {
				want += "?next=" + url.QueryEscape(test.target)
			}
			if response.StatusCode != 303 || got != want || len(got) > 2048 {
				t.Errorf("%s: %s %s", name, response.Status, got)
			}
		}
		response := in.do(f.auth.Guest(handler("x")), "GET", "/login?next="+url.QueryEscape(test.target), "Accept", "text/html")
		if got := response.Header.Get("Location"); len(got) > 2048 || test.fits && got != test.target {
			t.Errorf("%s: Guest leads to %s", name, got)
		}
	}
	if got := ReturnTo(httptest.NewRequest("GET", "/login?next=/"+strings.Repeat("検", 300), nil), "/home"); got != "/home" {
		t.Errorf("ReturnTo leads to %s", got)
	}
}

// The next parameter comes before a fragment of the login URL.
func loginURLsWithAFragment(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b := newBrowser(chrome130)
	f.login(b, alice)
	f.age(2 * time.Hour)
	for target, want := range map[string]string{
		"/login":                        "/login?next=%2Fx%3Fy",
		"/login#form":                   "/login?next=%2Fx%3Fy#form",
		"/login?x=1#form":               "/login?x=1&next=%2Fx%3Fy#form",
		"/login?x=1&y=2":                "/login?x=1&y=2&next=%2Fx%3Fy",
		"/login?":                       "/login?next=%2Fx%3Fy",
		"/login?#form":                  "/login?next=%2Fx%3Fy#form",
		"/login#a?b":                    "/login?next=%2Fx%3Fy#a?b",
		"/#/login":                      "/?next=%2Fx%3Fy#/login",
		"/login?next=/home":             "/login?next=%2Fx%3Fy",
		"https://sso.example/login#a":   "https://sso.example/login?next=%2Fx%3Fy#a",
		"https://sso.example#a":         "https://sso.example?next=%2Fx%3Fy#a",
		"https://sso.example/login?a#b": "https://sso.example/login?a&next=%2Fx%3Fy#b",
	} {
		g := newManager[user](t, f.db, f.dsn, Config{LoginURL: target, ConfirmURL: target})
		response := newBrowser(chrome130).do(g.auth.Require(handler("x")), "GET", "/x?y", "Accept", "text/html")
		if got := response.Header.Get("Location"); got != want {
			t.Errorf("LoginURL %s: %s, want %s", target, got, want)
		}
		response = b.do(g.auth.RequireFresh(time.Hour)(handler("x")), "GET", "/x?y", "Accept", "text/html")
		if got := response.Header.Get("Location"); got != want {
			t.Errorf("ConfirmURL %s: %s, want %s", target, got, want)
		}
		response = newBrowser(chrome130).do(g.auth.Require(handler("x")), "POST", "/x?y", "Accept", "text/html")
		if got := response.Header.Get("Location"); got != target {
			t.Errorf("LoginURL %s, posted: %s", target, got)
		}
	}
}

// The row decides when a session expires. The cookie lives as long as browsers
// allow.
func cookiesOutliveRows(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "computes the ages of CandyPack's rows in another way")
	const day = 24 * time.Hour
	for name, test := range map[string]struct {
		cfg       Config
		lives     int // days
		rewritten bool
	}{
		"usual":     {Config{}, 400, true},
		"an hour":   {Config{MaxAge: time.Hour}, 400, false},
		"CandyPack": {Config{CandyPack: CandyPackShare}, 365, true},
		"both":      {Config{CandyPack: CandyPackSwitch}, 400, true},
		"transient": {Config{Cookie: Cookie{Transient: true}}, 0, false},
	} {
		test.cfg.TokenTable = "user_tokens"
		f := setup(t, test.cfg)
		b := newBrowser(chrome130)
		response := f.login(b, alice)
		for _, c := range response.Cookies() {
			lives := test.lives
			if c.Name == "candy_x" || c.Name == "candy_y" {
				lives = min(lives, 365)
			}
			if c.MaxAge != lives*24*3600 {
				t.Errorf("%s: %s lives for %d s", name, c.Name, c.MaxAge)
			}
		}
		if test.cfg.MaxAge != 0 {
			continue
		}
		// A client that ignores Set-Cookie makes the first request of each
		// visit.
		page := f.auth.Middleware(handler("the page"))
		written := 0
		for at := time.Duration(0); at < 450*day; at += 25 * day {
			f.age(25 * day)
			dropping := newBrowser(chrome130)
			for name, value := range b.cookies {
				dropping.cookies[name] = value
			}
			dropping.do(page, "GET", "/api", "Accept", "application/json")
			if f.wantLoggedIn(b); get[int](t, f.db, "SELECT UNIX_TIMESTAMP() - UNIX_TIMESTAMP(active) FROM user_tokens") > 60 {
				t.Errorf("%s: not renewed", name)
			}
			// Two days later the browser opens a page.
			f.age(2 * day)
			response := b.do(page, "GET", "/account", opened...)
			reloads := isReload(t, response)
			if reloads != (response.Header["Set-Cookie"] != nil) {
				t.Errorf("%s: %v", name, response.Header)
			}
			if reloads {
				written++
				if isReload(t, b.do(page, "GET", "/account", opened...)) {
					t.Errorf("%s: reloads again and again", name)
				}
			}
		}
		if (written > 0) != test.rewritten {
			t.Errorf("%s: written %d times", name, written)
		}
	}
}

// After concurrent logins of one browser, the cookie of each response is valid.
func loginsOfOneBrowser(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has no locks")
	for _, limit := range []int{1, 2} {
		f := setup(t, Config{MaxSessions: limit})
		plain := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { noError(t, errOnly(logIn(f.auth, w, r, alice))) })
		as := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { noError(t, errOnly(f.auth.LoginAs(w, r, 1))) })
		for name, h := range map[string]http.Handler{"Login": f.auth.Middleware(plain), "LoginAs": f.auth.Middleware(as), "alone": plain} {
			for round := range 10 {
				b := newBrowser(chrome130)
				if round%2 == 1 {
					f.login(b, alice)
				}
				// All logins start before the first one ends.
				begun, answers := make(chan bool), make([]*browser, 4)
				at := sync.OnceFunc(func() { close(begun) })
				var arrived atomic.Int32
				gate := func(*http.Request) string {
					if int(arrived.Add(1)) >= len(answers) {
						at()
					}
					<-begun
					return "192.0.2.1"
				}
				f.auth.cfg.ClientIP = gate
				var wg sync.WaitGroup
				for i := range answers {
					answers[i] = newBrowser(chrome130)
					for name, value := range b.cookies {
						answers[i].cookies[name] = value
					}
					wg.Go(func() { answers[i].do(h, "POST", "/login") })
				}
				wg.Wait()
				f.auth.cfg.ClientIP = remoteIP
				for i := range answers {
					if why := f.errOf(answers[i]); why != nil {
						t.Fatalf("%s, %d sessions, round %d: answer %d: %v", name, limit, round, i, why)
					}
				}
				noError(t, errOnly(f.auth.LogoutAll(t.Context(), 1)))
			}
		}
		// The handler is slow after its login.
		b := newBrowser(chrome130)
		slow := newBrowser(chrome130)
		slow.do(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			noError(t, errOnly(logIn(f.auth, w, r, alice)))
			f.login(b, alice)
		})), "POST", "/login")
		f.wantLoggedIn(b)
		f.wantLoggedIn(slow)
		if n := f.rows(); n != 1 {
			t.Errorf("%d rows", n)
		}
		if len(f.auth.twins.made) != 0 || len(f.auth.twins.begun) != 0 || len(f.auth.twins.held) != 0 {
			t.Errorf("it remembers %v", f.auth.twins)
		}
	}
}

// Sequential logins get separate sessions. So do logins of other browsers,
// users or networks, and logins whose session has ended meanwhile.
func loginsThatShareNothing(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "has no locks")
	f := setup(t, Config{MaxSessions: 5})
	a, b := newBrowser(chrome130), newBrowser(chrome130)
	f.login(a, alice)
	f.login(b, alice)
	if a.cookies[hostCookie] == b.cookies[hostCookie] {
		t.Error("one after the other: shared")
	}
	for name, test := range map[string]struct {
		second func(b *browser)
	}{
		"another browser": {func(b *browser) { b.userAgent = firefox; f.login(b, alice) }},
		"another user":    {func(b *browser) { f.login(b, bob) }},
		"another session": {func(b *browser) {
			c := newBrowser(firefox)
			f.login(c, alice)
			b.cookies[hostCookie] = c.cookies[hostCookie]
			f.login(b, alice)
		}},
		"ended meanwhile": {func(b *browser) { noError(t, errOnly(f.auth.LogoutAll(t.Context(), 1))); f.login(b, alice) }},
		"a wrong password": {func(b *browser) {
			f.handle(b, func(w http.ResponseWriter, r *http.Request) {
				_, err := logIn(f.auth, w, r, Credentials{"email": alice["email"], "password": "wrong"})
				wantError(t, err, ErrInvalidCredentials)
			})
		}},
	} {
		one, two := newBrowser(chrome130), newBrowser(chrome130)
		one.do(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			noError(t, errOnly(logIn(f.auth, w, r, alice)))
			test.second(two)
		})), "POST", "/login")
		if one.cookies[hostCookie] == two.cookies[hostCookie] {
			t.Errorf("%s: shared", name)
		}
		if name != "a wrong password" {
			f.wantLoggedIn(two)
		}
	}
}
