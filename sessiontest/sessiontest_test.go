package sessiontest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/candysession/session"
	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/sessiontest"
	"github.com/jmoiron/sqlx"
)

func TestMain(m *testing.M) { testdb.Main(m) }

type User struct {
	ID    int64  `db:"id"`
	Email string `db:"email"`
}

// newManager returns a Manager on a database with the users 1, Alice, and 2, Bob.
func newManager(t testing.TB, cfg session.Config) (*session.Manager[User], *sqlx.DB) {
	t.Helper()
	db, err := session.Open(testdb.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(testdb.Connections())
	t.Cleanup(func() { db.Close() })
	db.MustExec("CREATE TABLE users (id INT AUTO_INCREMENT PRIMARY KEY, email VARCHAR(255) NOT NULL UNIQUE, password VARCHAR(255) NULL)")
	db.MustExec("INSERT INTO users (email) VALUES ('alice@example.com'), ('bob@example.com')")
	return create(t, db, cfg), db
}

func create(t testing.TB, db *sqlx.DB, cfg session.Config) *session.Manager[User] {
	t.Helper()
	cfg.PasswordCost = 4
	auth, err := session.New[User](db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { auth.Close() })
	return auth
}

// greet returns a handler that writes the current user.
func greet(auth *session.Manager[User]) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _ := auth.User(r)
		fmt.Fprint(w, user.Email)
	})
}

func serve(h http.Handler, r *http.Request) (status int, body string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	auth, db := newManager(t, session.Config{})
	account := auth.Require(greet(auth))
	before := httptest.NewRequest("GET", "/", nil)
	before.Header.Set("Cookie", "theme=dark")
	r := sessiontest.SignIn(t, auth, before, 1)
	if status, body := serve(account, r); status != http.StatusOK || body != "alice@example.com" {
		t.Errorf("%d %s", status, body)
	}
	if theme, err := r.Cookie("theme"); err != nil || theme.Value != "dark" {
		t.Errorf("the request has lost a cookie: %v", err)
	}
	if len(before.Cookies()) != 1 || before.UserAgent() != "" {
		t.Error("the request that was passed has changed")
	}
	if status, _ := serve(account, before); status != http.StatusUnauthorized {
		t.Errorf("without the session: %d", status)
	}

	// Another user replaces the first, and what SignIn returns can log out.
	r = sessiontest.SignIn(t, auth, r, 2)
	if status, body := serve(account, r); status != http.StatusOK || body != "bob@example.com" || len(r.CookiesNamed("__Host-session")) != 1 {
		t.Errorf("%d %s, cookies %v", status, body, r.Cookies())
	}
	if err := auth.Logout(httptest.NewRecorder(), r); err != nil {
		t.Error(err)
	}
	if status, _ := serve(account, r); status != http.StatusUnauthorized {
		t.Errorf("after the logout: %d", status)
	}
	var rows int
	if err := db.Get(&rows, "SELECT COUNT(*) FROM user_tokens"); err != nil || rows != 0 {
		t.Errorf("%d sessions, %v", rows, err)
	}
}

func TestLoggedInAgo(t *testing.T) {
	t.Parallel()
	auth, _ := newManager(t, session.Config{MaxAge: 24 * time.Hour})
	sensitive := auth.RequireFresh(10 * time.Minute)(greet(auth))
	for _, test := range []struct {
		ago  time.Duration
		want int
		err  error
	}{
		{0, http.StatusOK, nil},
		{5 * time.Minute, http.StatusOK, nil},
		{11 * time.Minute, http.StatusForbidden, nil},
		{25 * time.Hour, http.StatusUnauthorized, session.ErrExpired},
	} {
		r := sessiontest.SignIn(t, auth, httptest.NewRequest("GET", "/", nil), 1, sessiontest.LoggedInAgo(test.ago))
		state, err := auth.Peek(r)
		if err != nil || !errors.Is(state.Err, test.err) {
			t.Errorf("%v: %v, %v; want %v", test.ago, err, state.Err, test.err)
		}
		if since := time.Since(state.Session.Created); state.Err == nil && (since < test.ago-time.Second || since > test.ago+time.Minute) {
			t.Errorf("%v: logged in %v ago", test.ago, since)
		}
		if status, _ := serve(sensitive, r); status != test.want {
			t.Errorf("%v: %d, want %d", test.ago, status, test.want)
		}
	}
}

// A failure ends the test that called SignIn.
func TestSignInFails(t *testing.T) {
	t.Parallel()
	auth, _ := newManager(t, session.Config{})
	var failed failure
	done := make(chan struct{})
	go func() {
		defer close(done)
		sessiontest.SignIn(&failed, auth, httptest.NewRequest("GET", "/", nil), 99)
		t.Error("SignIn has returned")
	}()
	<-done
	if failed.message != "sessiontest: sign in user 99: "+session.ErrUserNotFound.Error() {
		t.Error(failed.message)
	}
}

// A failure is a test that records that it has failed.
type failure struct {
	testing.TB
	message string
}

func (f *failure) Helper() {}
func (f *failure) Fatalf(format string, args ...any) {
	f.message = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestWithState(t *testing.T) {
	t.Parallel()
	db, err := sqlx.Open("mysql", "nobody@tcp(192.0.2.1:1)/none")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	auth := create(t, db, session.Config{LoginURL: "/login"})
	account := auth.Require(greet(auth))
	plain := httptest.NewRequest("GET", "/", nil)
	r := sessiontest.WithState(t, auth, plain, session.State[User]{User: User{ID: 7, Email: "eve@example.com"}})
	if status, body := serve(account, r); status != http.StatusOK || body != "eve@example.com" {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := serve(auth.RequireFresh(time.Minute)(greet(auth)), r); status != http.StatusOK {
		t.Errorf("a login just now is not fresh: %d", status)
	}
	old := sessiontest.WithState(t, auth, plain, session.State[User]{Session: session.Session{Created: time.Now().Add(-time.Hour)}})
	if status, _ := serve(auth.RequireFresh(time.Minute)(greet(auth)), old); status != http.StatusForbidden {
		t.Errorf("a login of an hour ago is fresh: %d", status)
	}
	out := sessiontest.WithState(t, auth, plain, session.State[User]{Err: session.ErrExpired})
	if status, _ := serve(account, out); status != http.StatusUnauthorized || auth.Err(out) != session.ErrExpired {
		t.Errorf("an expired session: %d, %v", status, auth.Err(out))
	}
}

func TestClientAndRecorder(t *testing.T) {
	t.Parallel()
	events := sessiontest.NewRecorder(t)
	auth, _ := newManager(t, session.Config{OnEvent: events.OnEvent})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		if _, err := auth.LoginAs(w, r, 1); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		if err := auth.Logout(w, r); err != nil {
			t.Error(err)
		}
	})
	mux.Handle("GET /", auth.Require(greet(auth)))
	mux.HandleFunc("GET /agent", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.UserAgent()) })
	client := sessiontest.NewClient(t, auth.Middleware(mux))
	send := func(method, path string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(method, client.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		if r.UserAgent() != "" {
			t.Error("the caller's request was changed")
		}
		return response.StatusCode, string(body)
	}
	if status, _ := send("GET", "/"); status != http.StatusUnauthorized {
		t.Errorf("before the login: %d", status)
	}
	send("POST", "/login")
	if status, body := send("GET", "/"); status != http.StatusOK || body != "alice@example.com" {
		t.Errorf("after the login: %d %s", status, body)
	}
	if _, agent := send("GET", "/agent"); agent != sessiontest.UserAgent {
		t.Errorf("the User-Agent is %q", agent)
	}
	send("POST", "/logout")
	if status, _ := send("GET", "/"); status != http.StatusUnauthorized {
		t.Errorf("after the logout: %d", status)
	}
	if got, want := events.Kinds(), []session.EventKind{session.EventLogin, session.EventLogout}; !slices.Equal(got, want) {
		t.Errorf("the events are %v, want %v", got, want)
	}
	if got := events.Events(); got[0].User != int64(1) || got[0].Session == "" {
		t.Errorf("the first event is %+v", got[0])
	}
	events.Reset()
	if got := events.Events(); len(got) != 0 {
		t.Errorf("after Reset there are the events %v", got)
	}

	// A session of SignIn works in the client, too.
	r, err := http.NewRequest("GET", client.URL+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(sessiontest.SignIn(t, auth, r, 2))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || string(body) != "bob@example.com" {
		t.Errorf("%s: %s, %v", response.Status, body, err)
	}
}

func TestRecorderConcurrently(t *testing.T) {
	t.Parallel()
	events := sessiontest.NewRecorder(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			events.OnEvent(context.Background(), session.Event{Kind: session.EventPurged, Count: int64(i)})
			events.Events()
			events.Kinds()
		})
	}
	wg.Wait()
	if n := len(events.Events()); n != 50 {
		t.Errorf("%d events, want 50", n)
	}
}
