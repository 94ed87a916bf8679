package main

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/candysession/session"
	"github.com/candysession/session/examples/internal/embedded"
)

// A visitor is a browser that follows redirects and stores cookies.
type visitor struct {
	t      *testing.T
	client *http.Client
	site   string
}

// send sends a request.
func (v visitor) send(method, path string, form url.Values) (status int, body string) {
	v.t.Helper()
	request, err := http.NewRequest(method, v.site+path, strings.NewReader(form.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "text/html")
	request.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0")
	response, err := v.client.Do(request)
	if err != nil {
		v.t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

// want sends a request and checks the status and a text of the response.
func (v visitor) want(method, path string, form url.Values, status int, contains string) string {
	v.t.Helper()
	got, body := v.send(method, path, form)
	if got != status || !strings.Contains(body, contains) {
		v.t.Fatalf("%s %s: %d, want %d and %q in\n%s", method, path, got, status, contains, body)
	}
	return body
}

func TestQuickstart(t *testing.T) {
	server, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	db, err := session.Open(server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	db.MustExec(schema)
	auth, err := session.New[User](db, config)
	if err != nil {
		t.Fatal(err)
	}
	defer auth.Close()
	site := httptest.NewServer((&app{auth}).routes())
	defer site.Close()
	visit := func() visitor {
		jar, _ := cookiejar.New(nil)
		return visitor{t, &http.Client{Jar: jar}, site.URL}
	}
	laptop, phone := visit(), visit()
	ada := url.Values{"name": {"Ada"}, "email": {"ada@example.com"}, "password": {"analytical engine"}}

	laptop.want("GET", "/", nil, 200, "stay logged in")
	laptop.want("GET", "/api/me", nil, 200, "Log in") // a browser is sent to the login page
	laptop.want("POST", "/register", url.Values{"name": {"Ada"}, "email": {"ada"}, "password": {"analytical engine"}}, 422, "valid email address")
	laptop.want("POST", "/register", url.Values{"name": {"Ada"}, "email": {"ada@example.com"}, "password": {"short"}}, 422, "at least 8")
	laptop.want("POST", "/register", ada, 200, "Hello, Ada")
	laptop.want("GET", "/", nil, 200, "Hello, Ada")
	phone.want("POST", "/register", ada, 422, "already exists")
	phone.want("POST", "/login", url.Values{"email": {"ada@example.com"}, "password": {"wrong"}}, 401, "Wrong email or password")
	phone.want("GET", "/account", nil, 200, `name="next" value="/account"`)
	phone.want("POST", "/login", url.Values{"email": ada["email"], "password": ada["password"], "next": {"/api/me"}}, 200, `"email":"ada@example.com"`)

	body := laptop.want("GET", "/account", nil, 200, "Firefox on Linux")
	ids := regexp.MustCompile(`name="id" value="([\w-]+)"`).FindAllStringSubmatch(body, -1)
	if len(ids) != 1 || strings.Count(body, "this one") != 1 {
		t.Fatalf("sessions %v in\n%s", ids, body)
	}
	laptop.want("POST", "/sessions/revoke", url.Values{"id": {ids[0][1]}}, 200, "Hello, Ada")
	phone.want("GET", "/account", nil, 200, "Log in")
	phone.want("POST", "/login", ada, 200, "Hello, Ada")
	laptop.want("POST", "/sessions/others", nil, 200, "Hello, Ada")
	phone.want("GET", "/account", nil, 200, "Log in")
	laptop.want("GET", "/account", nil, 200, "Hello, Ada")
	laptop.want("POST", "/logout", nil, 200, "stay logged in")
	laptop.want("GET", "/account", nil, 200, "Log in")
}
