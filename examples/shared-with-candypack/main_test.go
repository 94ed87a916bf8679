package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/candysession/session/internal/testdb"
	"github.com/go-sql-driver/mysql"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// TestSharedWithCandyPack checks that the example runs with an unchanged
// config.json and accepts sessions that CandyPack created.
func TestSharedWithCandyPack(t *testing.T) {
	testdb.SkipEmbedded(t, "does not store times as in CandyPack's rows")
	dsn, err := mysql.ParseDSN(testdb.DSN(t))
	must(t, err)
	db, err := sql.Open("mysql", dsn.FormatDSN())
	must(t, err)
	defer db.Close()
	if _, err := db.Exec("CREATE DATABASE myapp"); err != nil {
		t.Skip("cannot create the database of config.json: ", err)
	}
	defer db.Exec("DROP DATABASE myapp")
	dsn.DBName = "myapp"
	app, err := sql.Open("mysql", dsn.FormatDSN())
	must(t, err)
	defer app.Close()
	app.SetMaxOpenConns(1)
	recorded := filepath.Join("..", "..", "testdata", "candypack")
	for _, file := range []struct{ name, end string }{{"schema.sql", ";"}, {"rows.sql", ";\n"}} {
		text, err := os.ReadFile(filepath.Join(recorded, file.name))
		must(t, err)
		script := regexp.MustCompile(`(?m)^--.*$`).ReplaceAllString(string(text), "")
		// config.json names the table user_tokens.
		script = strings.ReplaceAll(script, "`candy_auth`", "`user_tokens`")
		for statement := range strings.SplitSeq(script, file.end) {
			if strings.TrimSpace(statement) != "" {
				_, err := app.Exec(statement)
				must(t, err)
			}
		}
	}
	_, err = app.Exec("UPDATE user_tokens SET date = DEFAULT, active = DEFAULT")
	must(t, err)

	host := dsn.Addr
	if dsn.Net == "tcp" {
		host, _, err = net.SplitHostPort(dsn.Addr)
		must(t, err)
		if !strings.HasSuffix(dsn.Addr, ":3306") {
			t.Setenv("SESSION_DSN", dsn.FormatDSN()) // the file names no port
		}
	}
	t.Setenv("MYSQL_HOST", host)
	t.Setenv("MYSQL_USER", dsn.User)
	t.Setenv("MYSQL_PASSWORD", dsn.Passwd)
	ctx, cancel := context.WithCancel(t.Context())
	address, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- run(ctx, "config.json", "127.0.0.1:0", func(a net.Addr) { address <- a.String() })
	}()
	var site string
	select {
	case a := <-address:
		site = "http://" + a
	case err := <-done:
		t.Fatal(err)
	}

	var recording struct {
		Sessions []struct {
			UserAgent string `json:"user_agent"`
			CandyX    string `json:"candy_x"`
			CandyY    string `json:"candy_y"`
		}
	}
	data, err := os.ReadFile(filepath.Join(recorded, "sessions.json"))
	must(t, err)
	must(t, json.Unmarshal(data, &recording))
	s := recording.Sessions[0]
	candyPackCookies := "candy_x=" + s.CandyX + "; candy_y=" + s.CandyY

	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	send := func(method, path, cookies string, form url.Values, status int, contains string) (set string) {
		t.Helper()
		request, err := http.NewRequest(method, site+path, strings.NewReader(form.Encode()))
		must(t, err)
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("User-Agent", s.UserAgent)
		if cookies != "" {
			request.Header.Set("Cookie", cookies)
		}
		response, err := client.Do(request)
		must(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		must(t, err)
		if response.StatusCode != status || !strings.Contains(string(body)+response.Header.Get("Location"), contains) {
			t.Fatalf("%s %s: %s, %s", method, path, response.Status, body)
		}
		var pairs []string
		for _, c := range response.Cookies() {
			pairs = append(pairs, c.Name+"="+c.Value)
		}
		return strings.Join(pairs, "; ")
	}
	send("GET", "/account", "", nil, 401, "Unauthorized")
	send("GET", "/account", candyPackCookies, nil, 200, "Hello, alice@example.com")
	goCookies := send("POST", "/login", "", url.Values{"email": {"bob@example.com"}, "password": {"shared-pass"}}, 303, "/account")
	if !strings.HasPrefix(goCookies, "candy_x=") || !strings.Contains(goCookies, "; candy_y=") {
		t.Errorf("the login sets %q", goCookies)
	}
	send("GET", "/account", goCookies, nil, 200, "Hello, bob@example.com")
	send("POST", "/register", "", url.Values{"email": {"bob@example.com"}, "password": {"a password"}}, 409, "already exists")
	send("POST", "/register", "", url.Values{"email": {"erin@example.com"}}, 400, "fill in")
	erin := send("POST", "/register", "", url.Values{"email": {"erin@example.com"}, "password": {"a password"}}, 303, "/account")
	send("GET", "/account", erin, nil, 200, "Hello, erin@example.com")
	send("POST", "/logout", candyPackCookies, nil, 303, "/account")
	send("GET", "/account", candyPackCookies, nil, 401, "Unauthorized")

	cancel()
	must(t, <-done)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
