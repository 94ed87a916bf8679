package session

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestRequireGuestSwitch(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{LoginURL: "/login", HomeURL: "/home"})
	in, out := newBrowser(chrome130), newBrowser(chrome130)
	f.login(in, alice)
	page := []string{"Accept", "text/html,*/*", "Sec-Fetch-Mode", "navigate"}

	// Each works alone, inside Middleware, and nested.
	for name, wrap := range map[string]func(http.Handler) http.Handler{
		"alone":               func(h http.Handler) http.Handler { return h },
		"inside Middleware":   f.auth.Middleware,
		"inside two":          func(h http.Handler) http.Handler { return f.auth.Middleware(f.auth.Middleware(h)) },
		"inside a StripSlash": func(h http.Handler) http.Handler { return http.StripPrefix("", f.auth.Middleware(h)) },
	} {
		require, guest := wrap(f.auth.Require(handler("secret"))), wrap(f.auth.Guest(handler("please log in")))
		switched := wrap(f.auth.Switch(handler("welcome back"), handler("hello stranger")))

		if r := in.do(require, "GET", "/account"); r.StatusCode != 200 || body(t, r) != "secret" {
			t.Errorf("%s: Require, logged in: %s", name, r.Status)
		}
		r := out.do(require, "GET", "/account?tab=1&x=%20", page...)
		if got := r.Header.Get("Location"); r.StatusCode != 303 || got != "/login?next=%2Faccount%3Ftab%3D1%26x%3D%2520" || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: Require, a browser: %s %s", name, r.Status, got)
		}
		if r := out.do(require, "POST", "/account", page...); r.StatusCode != 303 || r.Header.Get("Location") != "/login" {
			t.Errorf("%s: Require, a form: %s %s", name, r.Status, r.Header.Get("Location"))
		}
		for _, header := range [][]string{
			nil,
			{"Accept", "application/json"},
			{"Accept", "text/html", "Sec-Fetch-Mode", "cors"},
			{"Accept", "text/html", "X-Requested-With", "XMLHttpRequest"},
		} {
			if r := out.do(require, "GET", "/account", header...); r.StatusCode != 401 || r.Header.Get("WWW-Authenticate") == "" || strings.Contains(body(t, r), "secret") {
				t.Errorf("%s: Require, %v: %s", name, header, r.Status)
			}
		}
		if r := out.do(guest, "GET", "/login"); r.StatusCode != 200 || body(t, r) != "please log in" {
			t.Errorf("%s: Guest, logged out: %s", name, r.Status)
		}
		for query, want := range map[string]string{"": "/home", "?next=/account": "/account", "?next=//evil.example": "/home"} {
			if r := in.do(guest, "GET", "/login"+query); r.StatusCode != 303 || r.Header.Get("Location") != want {
				t.Errorf("%s: Guest, logged in: %s %s", name, r.Status, r.Header.Get("Location"))
			}
		}
		if r := in.do(switched, "GET", "/"); body(t, r) != "welcome back" {
			t.Errorf("%s: Switch, logged in", name)
		}
		if r := out.do(switched, "GET", "/"); body(t, r) != "hello stranger" {
			t.Errorf("%s: Switch, logged out", name)
		}
	}
}

func TestRequireWithoutLoginURL(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	if r := newBrowser("").do(f.auth.Require(handler("secret")), "GET", "/", "Accept", "text/html"); r.StatusCode != 401 {
		t.Error(r.Status)
	}
	f = setup(t, Config{LoginURL: "https://id.example.com/login?app=1"})
	r := newBrowser("").do(f.auth.Require(handler("secret")), "GET", "/x", "Accept", "text/html")
	if got := r.Header.Get("Location"); got != "https://id.example.com/login?app=1&next=%2Fx" {
		t.Error(got)
	}
}

// The handler gets the server's ResponseWriter, unwrapped.
func TestResponseWriterIsNotWrapped(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	w := httptest.NewRecorder()
	f.auth.Middleware(f.auth.Guest(http.HandlerFunc(func(got http.ResponseWriter, r *http.Request) {
		if got != http.ResponseWriter(w) {
			t.Errorf("the handler got a %T", got)
		}
	}))).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
}

// A deadline that is set around the middleware must not result in an empty 200.
func TestDeadline(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b := newBrowser("")
	f.login(b, alice)
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, "GET", "/", nil)
	r.AddCookie(&http.Cookie{Name: "__Host-session", Value: b.cookies["__Host-session"]})
	w := httptest.NewRecorder()
	f.auth.Middleware(handler("x")).ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(f.log.String(), "deadline") {
		t.Errorf("%d, %s", w.Code, f.log)
	}
}

// With a real server and client, the cookie is renewed before the first byte,
// streaming works, and so does hijacking.
func TestRealServer(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{Cookie: Cookie{Insecure: true}})
	proceed := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		if _, err := logIn(f.auth, w, r, Credentials{"email": r.FormValue("email"), "password": r.FormValue("password")}); err != nil {
			t.Error(err)
		}
	})
	mux.Handle("GET /stream", f.auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "first")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-proceed
		io.WriteString(w, " second")
	})))
	mux.Handle("GET /hijack", f.auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nhijacked")
		conn.Close()
	})))
	server := httptest.NewServer(f.auth.Middleware(mux))
	defer server.Close()
	jar := &plainJar{}
	client := &http.Client{Jar: jar}

	response, err := client.PostForm(server.URL+"/login", url.Values{"email": {alice["email"]}, "password": {alice["password"]}})
	noError(t, err)
	response.Body.Close()
	f.age(25 * time.Hour)
	response, err = client.Get(server.URL + "/stream")
	noError(t, err)
	if n := get[int](t, f.db, "SELECT COUNT(*) FROM user_tokens WHERE UNIX_TIMESTAMP(active) > UNIX_TIMESTAMP() - 3600"); n != 1 || len(response.Cookies()) != 0 {
		t.Errorf("a renewal during streaming: %s, %d rows renewed, cookies %v", response.Status, n, response.Cookies())
	}
	first := make([]byte, 5)
	if _, err := io.ReadFull(response.Body, first); err != nil || string(first) != "first" {
		t.Errorf("%q, %v", first, err)
	}
	close(proceed)
	if rest := body(t, response); rest != " second" {
		t.Errorf("%q", rest)
	}
	response.Body.Close()
	response, err = client.Get(server.URL + "/hijack")
	noError(t, err)
	if got := body(t, response); got != "hijacked" {
		t.Errorf("%q", got)
	}
	response.Body.Close()
}

// plainJar keeps the cookies of the one site that a test talks to.
type plainJar struct{ cookies map[string]*http.Cookie }

func (j *plainJar) SetCookies(_ *url.URL, cookies []*http.Cookie) {
	if j.cookies == nil {
		j.cookies = map[string]*http.Cookie{}
	}
	for _, c := range cookies {
		j.cookies[c.Name] = c
	}
}

func (j *plainJar) Cookies(*url.URL) (all []*http.Cookie) {
	for _, c := range j.cookies {
		all = append(all, c)
	}
	return all
}

var returnTargets = []struct {
	target string
	local  bool
}{
	{"/", true}, {"/account", true}, {"/account?tab=1&u=http://x//y", true}, {"/a/b/../c#d", true}, {"/caf%C3%A9", true}, {"/café", true}, {"/a:b", true},
	{"", false}, {"account", false}, {"//", false}, {"//?x", false}, {"//evil.example", false}, {"///evil.example", false}, {"/\\evil.example", false}, {"\\/evil.example", false},
	{"/\t/evil.example", false}, {"/\n/evil.example", false}, {"/\r/evil.example", false}, {" /account", false}, {"/ /evil.example", false},
	{"http://evil.example", false}, {"https:evil.example", false}, {"javascript:alert(1)", false}, {"/..//evil.example", false}, {"/.//evil.example", false},
	{"/%2F/evil.example", false}, {"/a%zz", false}, {"/\x00", false}, {"/\x7f", false}, {"/a\\b", false},
}

func TestReturnTo(t *testing.T) {
	t.Parallel()
	for _, test := range returnTargets {
		want := "/home"
		if test.local {
			want = test.target
		}
		r := httptest.NewRequest("GET", "/login?next="+url.QueryEscape(test.target), nil)
		if got := ReturnTo(r, "/home"); got != want {
			t.Errorf("query %q: %q, want %q", test.target, got, want)
		}
		r = httptest.NewRequest("POST", "/login", strings.NewReader(url.Values{"next": {test.target}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if got := ReturnTo(r, "/home"); got != want {
			t.Errorf("form %q: %q, want %q", test.target, got, want)
		}
	}
}

// http.Redirect stays on the same host for every accepted value, as Go and as a
// browser parse it.
func FuzzReturnTo(f *testing.F) {
	for _, test := range returnTargets {
		f.Add(test.target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		if !localPath(target) {
			return
		}
		w := httptest.NewRecorder()
		http.Redirect(w, httptest.NewRequest("GET", "/login", nil), target, http.StatusSeeOther)
		for _, location := range []string{target, w.Header().Get("Location")} {
			seen := strings.NewReplacer("\t", "", "\n", "", "\r", "", "\\", "/").Replace(strings.TrimLeft(location, " \x00\x1f"))
			u, err := url.Parse(seen)
			if err != nil || u.Host != "" || u.Scheme != "" || !strings.HasPrefix(seen, "/") || strings.HasPrefix(seen, "//") {
				t.Fatalf("%q leads to %q", target, location)
			}
			if base, _ := url.Parse("https://app.example/login"); base.ResolveReference(u).Host != "app.example" {
				t.Fatalf("%q leads to %q", target, location)
			}
		}
	})
}
