// Package drive tests the examples: it visits each with and without a session.
package drive

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/candysession/session"
	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/sessiontest"
	"golang.org/x/crypto/bcrypt"
)

// Manager returns a Manager on a database with one user.
func Manager[U any](t *testing.T) *session.Manager[U] {
	t.Helper()
	db, err := session.Open(testdb.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(testdb.Connections())
	t.Cleanup(func() { db.Close() })
	hash, err := bcrypt.GenerateFromPassword([]byte("correct horse"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	db.MustExec("CREATE TABLE users (id INT AUTO_INCREMENT PRIMARY KEY, email VARCHAR(255) NOT NULL UNIQUE, password VARCHAR(255) NULL)")
	db.MustExec("INSERT INTO users (email, password) VALUES ('alice@example.com', ?)", hash)
	auth, err := session.New[U](db, session.Config{PasswordCost: bcrypt.MinCost})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { auth.Close() })
	return auth
}

// Check sends requests to a site: a rejected one gets the given status and never
// reaches the handler that counts visits; one that is logged in gets there, and
// the response names its user. Check closes the Manager in the end.
func Check[U any](t *testing.T, auth *session.Manager[U], site http.Handler, visits *atomic.Int64, request func() *http.Request, rejected int) {
	t.Helper()
	send := func(what string, r *http.Request, status int, wantVisits int64) {
		t.Helper()
		w := httptest.NewRecorder()
		site.ServeHTTP(w, r)
		if w.Code != status || visits.Load() != wantVisits {
			t.Errorf("%s: status %d after %d visits, want %d after %d: %s", what, w.Code, visits.Load(), status, wantVisits, w.Body)
		}
		if named := strings.Contains(w.Body.String(), "alice@example.com"); named != (what == "logged in") {
			t.Errorf("%s: %s", what, w.Body)
		}
	}
	send("no session", request(), rejected, 0)
	forged := request()
	forged.AddCookie(&http.Cookie{Name: "__Host-session", Value: "forged"})
	send("a forged session", forged, rejected, 0)
	signedIn := sessiontest.SignIn(t, auth, request(), 1)
	send("logged in", signedIn, http.StatusOK, 1)

	client := sessiontest.NewClient(t, site)
	login := func(password string, want int) {
		t.Helper()
		response, err := client.PostForm(client.URL+"/login", url.Values{"email": {"alice@example.com"}, "password": {password}})
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if body, err := io.ReadAll(response.Body); err != nil || response.StatusCode != want {
			t.Errorf("login: %s, want %d: %s, %v", response.Status, want, body, err)
		}
	}
	login("wrong", http.StatusUnauthorized)
	login("correct horse", http.StatusNoContent)
	r := request()
	for _, c := range client.Jar.Cookies(must(url.Parse(client.URL))) {
		r.AddCookie(c)
	}
	r.Header.Set("User-Agent", sessiontest.UserAgent)
	send("logged in", r, http.StatusOK, 2)

	// A Manager that is closed stands for a database that fails.
	auth.Close()
	send("without a database", signedIn.Clone(t.Context()), http.StatusServiceUnavailable, 2)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
