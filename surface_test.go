package session_test

import (
	"context"
	"crypto/md5"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/candysession/session"
	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/sessiontest"
	"github.com/candysession/session/throttle"
	"github.com/jmoiron/sqlx"
	"golang.org/x/crypto/bcrypt"
)

// A member is a user of the tests in this file.
type member struct {
	ID    int64          `db:"id"`
	Email string         `db:"email"`
	Name  sql.NullString `db:"name"`
	Admin bool           `db:"admin"`
}

const annsPassword = "ann's password"

// A site is an app with one user, ann, whose key is 1.
type site[U any] struct {
	t      *testing.T
	db     *sqlx.DB
	auth   *session.Manager[U]
	events *sessiontest.Recorder
}

func newSite(t *testing.T, cfg session.Config) *site[member] { return newSiteOf[member](t, cfg) }

func newSiteOf[U any](t *testing.T, cfg session.Config) *site[U] {
	t.Helper()
	db, err := session.Open(testdb.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(testdb.Connections())
	t.Cleanup(func() { db.Close() })
	s := &site[U]{t: t, db: db, events: sessiontest.NewRecorder(t)}
	s.exec("CREATE TABLE users (id INT AUTO_INCREMENT PRIMARY KEY, email VARCHAR(255) NOT NULL UNIQUE, password VARCHAR(255) NULL, name VARCHAR(255) DEFAULT 'no name', admin BOOLEAN NOT NULL DEFAULT FALSE)")
	hash, err := bcrypt.GenerateFromPassword([]byte(annsPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	s.exec("INSERT INTO users (email, password) VALUES ('ann@example.com', ?)", string(hash))
	s.auth = s.manager(cfg)
	return s
}

// manager returns another Manager of the site.
func (s *site[U]) manager(cfg session.Config) *session.Manager[U] {
	s.t.Helper()
	cfg.OnEvent = s.events.OnEvent
	if cfg.PasswordCost == 0 {
		cfg.PasswordCost = bcrypt.MinCost
	}
	auth, err := session.New[U](s.db, cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { auth.Close() })
	if _, err := auth.Migrate(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return auth
}

func (s *site[U]) exec(statement string, args ...any) {
	s.t.Helper()
	if _, err := s.db.Exec(statement, args...); err != nil {
		s.t.Fatalf("%s: %v", statement, err)
	}
}

func (s *site[U]) text(query string, args ...any) (value string) {
	s.t.Helper()
	if err := s.db.Get(&value, query, args...); err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	return value
}

// wantRows fails the test unless the token table has n rows.
func (s *site[U]) wantRows(n string) {
	s.t.Helper()
	if got := s.text("SELECT CAST(COUNT(*) AS CHAR) FROM user_tokens"); got != n {
		s.t.Errorf("the token table has %s rows, want %s", got, n)
	}
}

// signedIn returns a page load by a browser in which ann is logged in, and
// forgets the events of the login.
func (s *site[U]) signedIn(options ...sessiontest.SignInOption) *http.Request {
	s.t.Helper()
	r := sessiontest.SignIn(s.t, s.auth, pageLoad(), 1, options...)
	s.events.Reset()
	return r
}

func (s *site[U]) wantEvents(want ...session.EventKind) {
	s.t.Helper()
	if got := s.events.Kinds(); !slices.Equal(got, want) {
		s.t.Errorf("events are %v, want %v", got, want)
	}
}

// pageLoad returns a page load by a browser that has no cookies.
func pageLoad() *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Accept", "text/html")
	r.Header.Set("User-Agent", sessiontest.UserAgent)
	return r
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error is %v, want %v", err, want)
	}
}

// unconnected returns a pool that has never connected and never will.
func unconnected(t *testing.T) *sqlx.DB {
	t.Helper()
	db, err := sqlx.Open("mysql", "app@tcp(db.invalid)/app")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func isEmpty(w *httptest.ResponseRecorder) bool {
	return len(w.Header()) == 0 && w.Body.Len() == 0 && w.Code == http.StatusOK
}

func TestAuthenticateReturnsARequestWithItsState(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	w := httptest.NewRecorder()
	r, err := s.auth.Authenticate(w, s.signedIn())
	wantErr(t, err, nil)
	if user, ok := s.auth.User(r); !ok || user.Email != "ann@example.com" || !s.auth.Check(r) {
		t.Errorf("User returns %+v, %v; Err %v", user, ok, s.auth.Err(r))
	}
	if got := w.Header(); got.Get("Vary") != "Cookie" || got.Get("Cache-Control") != "private" || w.Body.Len() != 0 {
		t.Errorf("the headers are %v, the body %q", got, w.Body)
	}

	w = httptest.NewRecorder()
	r, err = s.auth.Authenticate(w, pageLoad())
	wantErr(t, err, nil) // a rejection is no error
	wantErr(t, s.auth.Err(r), session.ErrNoCookie)
	if got := w.Header(); got.Get("Vary") != "Cookie" || got.Get("Cache-Control") != "" {
		t.Errorf("the headers of a request without a session are %v", got)
	}
}

// The cookie of a second name says that the browser has a session.
func TestAuthenticateWritesTheHintOfAPage(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	r := s.signedIn()
	cookie := r.CookiesNamed("__Host-session")[0]
	r.Header.Set("Cookie", cookie.Name+"="+cookie.Value)
	w := httptest.NewRecorder()
	_, err := s.auth.Authenticate(w, r)
	wantErr(t, err, nil)
	if cookies := w.Result().Cookies(); len(cookies) != 1 || !strings.HasSuffix(cookies[0].Name, ".hint") {
		t.Errorf("the cookies are %v", cookies)
	}
}

func TestAuthenticateWithoutAResponseWriter(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	r, err := s.auth.Authenticate(nil, s.signedIn(sessiontest.LoggedInAgo(48*time.Hour)))
	wantErr(t, err, nil)
	wantErr(t, s.auth.Err(r), nil)
	s.wantEvents(session.EventRenewed)

	r, err = s.auth.Authenticate(nil, pageLoad())
	wantErr(t, err, nil)
	wantErr(t, s.auth.Err(r), session.ErrNoCookie)
}

func TestAuthenticateDeletesARejectedSession(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	r := s.signedIn()
	s.exec("DELETE FROM users")
	r, err := s.auth.Authenticate(httptest.NewRecorder(), r)
	wantErr(t, err, nil)
	wantErr(t, s.auth.Err(r), session.ErrUserNotFound)
	s.wantRows("0")
}

func TestAuthenticateBehindMiddleware(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	ran := false
	s.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ran = true
		s.db.Close() // a second lookup would fail
		got, err := s.auth.Authenticate(w, r)
		wantErr(t, err, nil)
		if got != r {
			t.Error("Authenticate returned another request")
		}
	})).ServeHTTP(httptest.NewRecorder(), s.signedIn())
	if !ran {
		t.Error("the handler did not run")
	}
	s.wantEvents()
}

func TestAuthenticateBeforeMiddleware(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	r, err := s.auth.Authenticate(httptest.NewRecorder(), s.signedIn())
	wantErr(t, err, nil)
	s.db.Close() // a second lookup would fail
	passed := 0
	next := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		passed++
		wantErr(t, s.auth.Err(r), nil)
	})
	for _, h := range []http.Handler{s.auth.Middleware(next), s.auth.Require(next), s.auth.RequireFresh(time.Hour)(next)} {
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	if passed != 3 {
		t.Errorf("%d of 3 handlers ran", passed)
	}
	s.wantEvents()
}

// Middleware responds to this request with a page that reloads itself.
func TestAuthenticateNeverReloads(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	fromElsewhere := func() *http.Request {
		r := s.signedIn()
		r.Header.Del("Cookie")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		r.Header.Set("Sec-Fetch-Dest", "document")
		r.AddCookie(&http.Cookie{Name: "__Host-session.hint", Value: "1"})
		return r
	}
	w := httptest.NewRecorder()
	s.auth.Middleware(http.NotFoundHandler()).ServeHTTP(w, fromElsewhere())
	if w.Code == http.StatusNotFound {
		t.Fatal("Middleware does not reload this request, so the test proves nothing")
	}
	w = httptest.NewRecorder()
	r, err := s.auth.Authenticate(w, fromElsewhere())
	wantErr(t, err, nil)
	wantErr(t, s.auth.Err(r), session.ErrNoCookie)
	if w.Body.Len() != 0 || w.Code != http.StatusOK {
		t.Errorf("Authenticate responded: %d %s", w.Code, w.Body)
	}
}

func TestAuthenticateWhileTheDatabaseFails(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	r := s.signedIn()
	s.db.Close()
	w := httptest.NewRecorder()
	got, err := s.auth.Authenticate(w, r)
	wantErr(t, err, session.ErrUnavailable)
	if !isEmpty(w) {
		t.Errorf("the response is %d %v %q", w.Code, w.Header(), w.Body)
	}
	if got != r {
		t.Error("Authenticate did not return the request")
	}
	wantErr(t, s.auth.Err(got), session.ErrNoMiddleware) // and not as that of a visitor
	s.wantEvents(session.EventUnavailable)
	for _, e := range s.events.Events() {
		if !errors.Is(e.Err, session.ErrUnavailable) || e.ClientIP != "192.0.2.1" {
			t.Errorf("the event is %+v", e)
		}
	}

	s.events.Reset()
	ctx, cancel := context.WithCancel(r.Context())
	cancel() // as the server does when the client disconnects
	if _, err := s.auth.Authenticate(w, r.WithContext(ctx)); err == nil {
		t.Error("a request of a client that is gone was authenticated")
	}
	s.wantEvents()
}

func TestAuthenticateOfAClosedManager(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	r := s.signedIn()
	s.auth.Close()
	_, err := s.auth.Authenticate(httptest.NewRecorder(), r)
	wantErr(t, err, session.ErrClosed)
	state, err := s.auth.Peek(r)
	wantErr(t, err, session.ErrClosed)
	wantErr(t, state.Err, session.ErrClosed)
	s.wantEvents(session.EventUnavailable, session.EventUnavailable)
}

func TestPeekDoesNotRenew(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	r := s.signedIn(sessiontest.LoggedInAgo(48 * time.Hour))
	before := s.text("SELECT CAST(active AS CHAR) FROM user_tokens")
	state, err := s.auth.Peek(r)
	wantErr(t, err, nil)
	wantErr(t, state.Err, nil)
	if state.User.Email != "ann@example.com" || !state.Session.Current || time.Since(state.Session.Active) < 47*time.Hour {
		t.Errorf("the state is %+v", state)
	}
	if after := s.text("SELECT CAST(active AS CHAR) FROM user_tokens"); after != before {
		t.Errorf("active was %s and is %s", before, after)
	}
	wantErr(t, s.auth.Err(r), session.ErrNoMiddleware) // the request is as it was
	s.wantEvents()

	_, err = s.auth.Authenticate(nil, r)
	wantErr(t, err, nil)
	s.wantEvents(session.EventRenewed) // it was due
}

func TestPeekKeepsARejectedSession(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	r := s.signedIn()
	s.exec("DELETE FROM users")
	state, err := s.auth.Peek(r)
	wantErr(t, err, nil)
	wantErr(t, state.Err, session.ErrUserNotFound)
	if state.User != (member{}) || state.Session != (session.Session{}) {
		t.Errorf("the state is %+v", state)
	}
	s.wantRows("1")

	state, err = s.auth.Peek(pageLoad())
	wantErr(t, err, nil)
	wantErr(t, state.Err, session.ErrNoCookie)
}

func TestPeekBehindMiddleware(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	r, err := s.auth.Authenticate(nil, s.signedIn())
	wantErr(t, err, nil)
	s.db.Close() // a second lookup would fail
	state, err := s.auth.Peek(r)
	wantErr(t, err, nil)
	if state.Err != nil || state.User.ID != 1 {
		t.Errorf("the state is %+v", state)
	}
}

func TestPeekWhileTheDatabaseFails(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	r := s.signedIn()
	s.db.Close()
	state, err := s.auth.Peek(r)
	wantErr(t, err, session.ErrUnavailable)
	wantErr(t, state.Err, session.ErrUnavailable) // even if the caller overlooks err
	s.wantEvents(session.EventUnavailable)
}

func TestFromContext(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	if state := s.auth.FromContext(context.Background()); state != (session.State[member]{Err: session.ErrNoMiddleware}) {
		t.Errorf("without Middleware the state is %+v", state)
	}

	r, err := s.auth.Authenticate(nil, s.signedIn())
	wantErr(t, err, nil)
	ctx, cancel := context.WithCancel(r.Context()) // one that derives from the request's
	defer cancel()
	state := s.auth.FromContext(ctx)
	if state.Err != nil || state.User.ID != 1 || !state.Session.Current || state.Session != s.auth.Session(r) {
		t.Errorf("the state is %+v", state)
	}
	other := s.manager(session.Config{})
	wantErr(t, other.FromContext(ctx).Err, session.ErrNoMiddleware)

	wantErr(t, s.auth.Logout(httptest.NewRecorder(), r), nil)
	if state := s.auth.FromContext(ctx); state != (session.State[member]{Err: session.ErrNoCookie}) {
		t.Errorf("after Logout the state is %+v", state)
	}
}

func TestFromContextReturnsACopy(t *testing.T) {
	t.Parallel()
	s := newSiteOf[session.Row](t, session.Config{})
	r, err := s.auth.Authenticate(nil, s.signedIn())
	wantErr(t, err, nil)
	s.auth.FromContext(r.Context()).User["email"] = "changed"
	if user, _ := s.auth.User(r); user["email"] != "ann@example.com" {
		t.Errorf("one caller's change reaches another: %v", user)
	}
}

func TestWithStateNeedsNoDatabase(t *testing.T) {
	t.Parallel()
	auth, err := session.New[member](unconnected(t), session.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer auth.Close()
	ann := member{ID: 1, Email: "ann@example.com"}
	now := time.Now().UTC().Truncate(time.Second)
	recent := session.Session{ID: "an ID", Created: now, Active: now, Browser: "a browser", IP: "192.0.2.1"}
	old, stale := recent, recent
	old.Created = now.Add(-2 * time.Hour)
	stale.Stale = true

	for name, test := range map[string]struct {
		state                      session.State[member]
		require, requireFresh, who string
	}{
		"recent":  {session.State[member]{User: ann, Session: recent}, "200", "200", "authed"},
		"old":     {session.State[member]{User: ann, Session: old}, "200", "403", "authed"},
		"stale":   {session.State[member]{User: ann, Session: stale}, "200", "403", "authed"},
		"expired": {session.State[member]{User: ann, Session: recent, Err: session.ErrExpired}, "401", "401", "guest"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r = r.WithContext(auth.WithState(r.Context(), test.state))
			answer := func(text string) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(text)) })
			}
			for _, call := range []struct {
				h    http.Handler
				want string
			}{
				{auth.Require(answer("200")), test.require},
				{auth.RequireFresh(time.Hour)(answer("200")), test.requireFresh},
				{auth.Switch(answer("authed"), answer("guest")), test.who},
				{auth.Middleware(answer("reached")), "reached"},
			} {
				w := httptest.NewRecorder()
				call.h.ServeHTTP(w, r)
				if got := w.Body.String(); got != call.want && !strings.Contains(w.Result().Status, call.want) {
					t.Errorf("the response is %s %q, want %s", w.Result().Status, got, call.want)
				}
			}
			if fresh := auth.Fresh(r, time.Hour); fresh != (test.requireFresh == "200") {
				t.Errorf("Fresh returns %v", fresh)
			}

			want := test.state
			if want.Err != nil {
				want = session.State[member]{Err: want.Err}
			} else {
				want.Session.Current = true
			}
			if got := auth.FromContext(r.Context()); got != want {
				t.Errorf("FromContext returns %+v, want %+v", got, want)
			}
			if got := auth.Session(r); got != want.Session {
				t.Errorf("Session returns %+v, want %+v", got, want.Session)
			}
			if user, ok := auth.User(r); user != want.User || ok != (want.Err == nil) || auth.Err(r) != want.Err {
				t.Errorf("User returns %+v, %v; Err %v", user, ok, auth.Err(r))
			}
			if got, err := auth.Peek(r); got != want || err != nil {
				t.Errorf("Peek returns %+v, %v", got, err)
			}
			if got, err := auth.Authenticate(httptest.NewRecorder(), r); got != r || err != nil {
				t.Errorf("Authenticate returns %v", err)
			}
		})
	}
}

// A state that was given has no row, so these methods find none.
func TestMethodsWithAGivenState(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	given := func() *http.Request {
		r := pageLoad()
		state := session.State[member]{User: member{ID: 1}, Session: session.Session{ID: "given", Created: time.Now(), Active: time.Now()}}
		return r.WithContext(s.auth.WithState(r.Context(), state))
	}
	other := s.signedIn() // of the same user
	w := httptest.NewRecorder()
	r := given()
	wantErr(t, s.auth.Rotate(w, r), session.ErrNotLoggedIn)
	wantErr(t, s.auth.Err(r), nil) // which does not end the state
	wantErr(t, s.auth.LogoutOthers(w, given()), session.ErrNotLoggedIn)
	wantErr(t, s.auth.Revoke(given().Context(), 1, "given"), session.ErrSessionNotFound)
	wantErr(t, s.auth.Revoke(given().Context(), 1, ""), session.ErrSessionNotFound)
	wantErr(t, s.auth.SetPassword(w, given(), annsPassword, "another"), session.ErrNotLoggedIn)
	wantErr(t, s.auth.ResetPassword(w, given(), "another"), session.ErrNotLoggedIn)
	if !isEmpty(w) {
		t.Errorf("the response is %d %v %q", w.Code, w.Header(), w.Body)
	}
	sessions, err := s.auth.Sessions(given().Context(), 1)
	wantErr(t, err, nil)
	if len(sessions) != 1 || sessions[0].Current {
		t.Errorf("Sessions returns %+v", sessions)
	}
	s.wantRows("1") // nothing of the state was saved, and nothing ended

	r = given()
	wantErr(t, s.auth.Logout(httptest.NewRecorder(), r), nil)
	wantErr(t, s.auth.Err(r), session.ErrNoCookie)
	s.wantRows("1")

	n, err := s.auth.LogoutAll(given().Context(), 1)
	wantErr(t, err, nil)
	if n != 1 {
		t.Errorf("LogoutAll revoked %d sessions", n)
	}
	other, err = s.auth.Authenticate(nil, other)
	wantErr(t, err, nil)
	wantErr(t, s.auth.Err(other), session.ErrUnknownSession)
}

// An adapter may authenticate a request, and pass its state on in another
// context.
func TestAStateThatIsPassedOn(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	state, err := s.auth.Peek(s.signedIn())
	wantErr(t, err, nil)
	ctx := s.auth.WithState(context.Background(), state)
	if got := s.auth.FromContext(ctx); got != state {
		t.Errorf("FromContext returns %+v, want %+v", got, state)
	}
	sessions, err := s.auth.Sessions(ctx, 1)
	wantErr(t, err, nil)
	if len(sessions) != 1 || !sessions[0].Current {
		t.Errorf("Sessions does not mark the current one: %+v", sessions)
	}
	wantErr(t, s.auth.Revoke(ctx, 1, state.Session.ID), nil)
	wantErr(t, s.auth.FromContext(ctx).Err, session.ErrUnknownSession)

	r := s.signedIn()
	state, err = s.auth.Peek(r)
	wantErr(t, err, nil)
	r = r.WithContext(s.auth.WithState(r.Context(), state))
	w := httptest.NewRecorder()
	wantErr(t, s.auth.Logout(w, r), nil) // by the cookies of the request
	wantErr(t, s.auth.Err(r), session.ErrNoCookie)
	if len(w.Result().Cookies()) == 0 {
		t.Error("Logout kept the cookies")
	}
	s.wantRows("0")
}

func TestRequireFresh(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{LoginURL: "/login", ConfirmURL: "/confirm"})
	h := s.auth.RequireFresh(10 * time.Minute)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	ofScript := func(r *http.Request) *http.Request {
		r.Header.Set("Accept", "application/json")
		return r
	}
	for _, test := range []struct {
		name     string
		r        *http.Request
		code     int
		location string
	}{
		{"recent login", s.signedIn(sessiontest.LoggedInAgo(9 * time.Minute)), http.StatusNoContent, ""},
		{"old login", s.signedIn(sessiontest.LoggedInAgo(11 * time.Minute)), http.StatusSeeOther, "/confirm?next=%2F"},
		{"old login, a script", ofScript(s.signedIn(sessiontest.LoggedInAgo(11 * time.Minute))), http.StatusForbidden, ""},
		{"no login", pageLoad(), http.StatusSeeOther, "/login?next=%2F"},
		{"no login, a script", ofScript(pageLoad()), http.StatusUnauthorized, ""},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, test.r)
		if w.Code != test.code || w.Header().Get("Location") != test.location {
			t.Errorf("%s: %d to %q, want %d to %q", test.name, w.Code, w.Header().Get("Location"), test.code, test.location)
		}
	}
}

func TestCheckPasswordStartsNoSession(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	r, err := s.auth.Authenticate(nil, pageLoad())
	wantErr(t, err, nil)
	user, err := s.auth.CheckPassword(r, session.Credentials{"email": "ann@example.com"}, annsPassword)
	wantErr(t, err, nil)
	if user.ID != 1 || user.Name.String != "no name" {
		t.Errorf("CheckPassword returns %+v", user)
	}
	wantErr(t, s.auth.Err(r), session.ErrNoCookie)
	s.wantRows("0")
	s.wantEvents()

	r, err = s.auth.Authenticate(nil, s.signedIn())
	wantErr(t, err, nil)
	before := s.auth.Session(r)
	_, err = s.auth.CheckPassword(r, session.Credentials{"email": "ann@example.com"}, annsPassword)
	wantErr(t, err, nil)
	if s.auth.Session(r) != before {
		t.Error("CheckPassword changed the session of its request")
	}
	s.wantRows("1")
}

// calls returns the two calls that log in or check a password.
func (s *site[U]) calls() map[string]func(session.Credentials, string) error {
	return map[string]func(session.Credentials, string) error{
		"Login": func(c session.Credentials, password string) error {
			w := httptest.NewRecorder()
			_, err := s.auth.Login(w, pageLoad(), c, password)
			if err != nil && !isEmpty(w) {
				s.t.Errorf("a login that failed wrote %d %v %q", w.Code, w.Header(), w.Body)
			}
			return err
		},
		"CheckPassword": func(c session.Credentials, password string) error {
			_, err := s.auth.CheckPassword(pageLoad(), c, password)
			return err
		},
	}
}

func TestPasswordsThatDoNotMatch(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{Throttle: throttle.None})
	// Ben has no password. The third user shares ann's password and name.
	s.exec("INSERT INTO users (email, name) VALUES ('ben@example.com', 'ben')")
	s.exec("INSERT INTO users (email, password, name) SELECT 'other@example.com', password, name FROM users WHERE id = 1")
	for name, call := range s.calls() {
		s.events.Reset()
		for _, test := range []struct {
			credentials session.Credentials
			password    string
			want        error
		}{
			{session.Credentials{"email": "ann@example.com"}, "wrong", session.ErrInvalidCredentials},
			{session.Credentials{"email": "ann@example.com"}, "", session.ErrInvalidCredentials},
			{session.Credentials{"email": "ben@example.com"}, "", session.ErrInvalidCredentials},
			{session.Credentials{"email": "nobody@example.com"}, annsPassword, session.ErrInvalidCredentials},
			{session.Credentials{"email": "nobody@example.com"}, "", session.ErrInvalidCredentials},
			{session.Credentials{"email": "ann@example.com", "name": "another"}, annsPassword, session.ErrInvalidCredentials},
			{session.Credentials{"name": "no name"}, annsPassword, session.ErrInvalidCredentials},
			{session.Credentials{"email": ""}, "", session.ErrInvalidCredentials},
		} {
			if err := call(test.credentials, test.password); !errors.Is(err, test.want) || errors.Is(err, session.ErrTooManyAttempts) {
				t.Errorf("%s(%v): %v, want %v", name, map[string]string(test.credentials), err, test.want)
			}
		}
		for _, kind := range s.events.Kinds() {
			if kind != session.EventLoginFailed {
				t.Errorf("%s: an event is %s", name, kind)
			}
		}
		if n := len(s.events.Kinds()); n != 8 {
			t.Errorf("%s: %d events of 8 failures", name, n)
		}
	}
	s.wantRows("0")
}

func TestCredentialsThatAreAMistake(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	for name, call := range s.calls() {
		for _, credentials := range []session.Credentials{
			nil,
			{},
			{"password": annsPassword},
			{"email": "ann@example.com", "password": annsPassword},
			{"email": "ann@example.com", "PASSWORD": annsPassword},
			{"email": "ann@example.com", "Password": ""},
			{"email": "ann@example.com", "no_such_column": "x"},
		} {
			err := call(credentials, annsPassword)
			wantErr(t, err, session.ErrInvalidArgument)
			text := fmt.Sprint(err)
			if !strings.Contains(text, name+":") || strings.Contains(text, annsPassword) {
				t.Errorf("the error of %s reads %q", name, text)
			}
			if strings.Contains(strings.ToLower(credentials.String()), "password") && !strings.Contains(text, "an argument of its own") {
				t.Errorf("the error of %s about the password column reads %q", name, text)
			}
		}
	}
	s.wantEvents()
	s.wantRows("0")
}

func TestPasswordsWhileTheDatabaseFails(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	calls := s.calls()
	for _, call := range calls { // reads the users table
		wantErr(t, call(session.Credentials{"email": "ann@example.com"}, annsPassword), nil)
	}
	s.db.Close()
	for _, call := range calls {
		wantErr(t, call(session.Credentials{"email": "ann@example.com"}, annsPassword), session.ErrUnavailable)
	}
}

// twoFailures allows two failures for an account from an address.
var twoFailures = throttle.Limits{Account: throttle.PerNetwork{Address: throttle.Limit{FreeFailures: 2, BaseDelay: time.Minute}}}

func TestCheckPasswordIsCountedWithLogin(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{Limits: twoFailures})
	calls := s.calls()
	ann := session.Credentials{"email": "ann@example.com"}
	wantErr(t, calls["Login"](ann, "wrong"), session.ErrInvalidCredentials)
	wantErr(t, calls["CheckPassword"](ann, "wrong"), session.ErrInvalidCredentials)
	s.wantEvents(session.EventLoginFailed, session.EventLoginFailed)
	s.events.Reset()
	for name, call := range calls {
		err := call(ann, annsPassword)
		wantErr(t, err, session.ErrTooManyAttempts)
		wantErr(t, err, session.ErrInvalidCredentials) // for a program that handles only this one
		var tooMany *session.TooManyAttemptsError
		if !errors.As(err, &tooMany) || tooMany.RetryAfter <= 50*time.Second || tooMany.RetryAfter > time.Minute {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.wantEvents(session.EventThrottled, session.EventThrottled)
	s.wantRows("0")
}

func TestCheckPasswordForgetsFailures(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{Limits: twoFailures})
	check := s.calls()["CheckPassword"]
	ann := session.Credentials{"email": "ann@example.com"}
	for range 3 {
		wantErr(t, check(ann, "wrong"), session.ErrInvalidCredentials)
		wantErr(t, check(ann, annsPassword), nil)
	}
}

func TestTooManyAttemptsError(t *testing.T) {
	t.Parallel()
	for wait, want := range map[time.Duration]string{
		0:                       "session: too many attempts; try again in 1s",
		1500 * time.Millisecond: "session: too many attempts; try again in 2s",
		time.Minute:             "session: too many attempts; try again in 1m0s",
	} {
		err := error(&session.TooManyAttemptsError{RetryAfter: wait})
		if err.Error() != want || !errors.Is(err, session.ErrTooManyAttempts) || !errors.Is(err, session.ErrInvalidCredentials) || errors.Is(err, session.ErrBusy) {
			t.Errorf("%v: %v", wait, err)
		}
	}
}

func TestLimitsThatAreNotAllowed(t *testing.T) {
	t.Parallel()
	_, err := session.New[member](unconnected(t), session.Config{Limits: throttle.Limits{Account: throttle.PerNetwork{Address: throttle.Limit{FreeFailures: -1}}}})
	wantErr(t, err, session.ErrConfig)
	if err == nil || !strings.Contains(err.Error(), "Limits.Account.Address.FreeFailures") {
		t.Errorf("the error reads %v", err)
	}
}

func TestCheckPasswordUpgradesHashes(t *testing.T) {
	t.Parallel()
	md5Of := func(password string) string {
		sum := md5.Sum([]byte(password))
		return hex.EncodeToString(sum[:])
	}
	s := newSite(t, session.Config{
		PasswordCost:   bcrypt.MinCost + 1,
		VerifyPassword: func(stored, password string) bool { return stored == md5Of(password) },
	})
	s.exec("INSERT INTO users (email, password) VALUES ('old@example.com', ?)", md5Of("an old password"))
	for email, password := range map[string]string{"ann@example.com": annsPassword, "old@example.com": "an old password"} {
		_, err := s.auth.CheckPassword(pageLoad(), session.Credentials{"email": email}, password)
		wantErr(t, err, nil)
		if cost, err := bcrypt.Cost([]byte(s.text("SELECT password FROM users WHERE email = ?", email))); cost != bcrypt.MinCost+1 || err != nil {
			t.Errorf("%s: the cost is %d, %v", email, cost, err)
		}
		_, err = s.auth.CheckPassword(pageLoad(), session.Credentials{"email": email}, password)
		wantErr(t, err, nil)
	}
}

func TestCreateUser(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	user, err := s.auth.CreateUser(t.Context(), session.Fields{"email": "ben@example.com", "admin": true}, "ben's password")
	wantErr(t, err, nil)
	if want := (member{2, "ben@example.com", sql.NullString{String: "no name", Valid: true}, true}); user != want {
		t.Errorf("CreateUser returns %+v, want %+v", user, want)
	}
	s.wantRows("0")
	s.wantEvents(session.EventRegistered)
	for _, e := range s.events.Events() {
		if e.ClientIP != "" || e.User != int64(2) {
			t.Errorf("the event is %+v", e)
		}
	}
	_, err = s.auth.CheckPassword(pageLoad(), session.Credentials{"email": "ben@example.com"}, "ben's password")
	wantErr(t, err, nil)
}

func TestUsersThatAreNotCreated(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{Throttle: throttle.None})
	for name, create := range map[string]func(session.Fields, string) (member, error){
		"CreateUser": func(fields session.Fields, password string) (member, error) {
			return s.auth.CreateUser(t.Context(), fields, password)
		},
		"Register": func(fields session.Fields, password string) (member, error) {
			return s.auth.Register(httptest.NewRecorder(), pageLoad(), fields, password)
		},
	} {
		for _, test := range []struct {
			fields   session.Fields
			password string
			want     error
		}{
			{session.Fields{"email": "ann@example.com"}, "a password", session.ErrDuplicate},
			{session.Fields{"email": "new@example.com"}, "", session.ErrInvalidArgument},
			{session.Fields{"email": "new@example.com"}, strings.Repeat("x", 73), session.ErrPasswordTooLong},
			{session.Fields{"email": "new@example.com", "password": "x"}, "a password", session.ErrInvalidArgument},
			{session.Fields{"email": "new@example.com", "PASSWORD": "x"}, "a password", session.ErrInvalidArgument},
			{session.Fields{"email": "new@example.com", "no_such_column": "x"}, "a password", session.ErrInvalidArgument},
			{session.Fields{"email": "new@example.com", "name": struct{}{}}, "a password", session.ErrInvalidArgument},
			{session.Fields{"email": "new@example.com", "id": "seven"}, "a password", session.ErrInvalidArgument},
		} {
			user, err := create(test.fields, test.password)
			wantErr(t, err, test.want)
			if user != (member{}) {
				t.Errorf("%s returns %+v with an error", name, user)
			}
			text := fmt.Sprint(err)
			if test.want == session.ErrInvalidArgument && !strings.Contains(text, name+":") {
				t.Errorf("the error of %s reads %q", name, text)
			}
			if len(test.fields) == 2 && strings.Contains(strings.ToLower(fmt.Sprint(test.fields)), "password") && !strings.Contains(text, "an argument of its own") {
				t.Errorf("the error of %s about the password column reads %q", name, text)
			}
			var duplicate *session.DuplicateError
			if test.want == session.ErrDuplicate && (!errors.As(err, &duplicate) || !slices.Equal(duplicate.Columns, []string{"email"})) {
				t.Errorf("%s: %#v", name, err)
			}
		}
	}
	if n := s.text("SELECT CAST(COUNT(*) AS CHAR) FROM users"); n != "1" {
		t.Errorf("%s users", n)
	}
	s.wantRows("0")
	s.wantEvents()
}

func TestCreateUserIsNotThrottled(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{Limits: throttle.Limits{Registration: throttle.PerNetwork{Address: throttle.Limit{FreeFailures: 1}}}})
	taken := session.Fields{"email": "ann@example.com"}
	register := func() error {
		_, err := s.auth.Register(httptest.NewRecorder(), pageLoad(), taken, "a password")
		return err
	}
	wantErr(t, register(), session.ErrDuplicate)
	wantErr(t, register(), session.ErrTooManyAttempts)
	for range 3 {
		_, err := s.auth.CreateUser(t.Context(), taken, "a password")
		wantErr(t, err, session.ErrDuplicate)
	}
}

func TestCreateUserEndsSessionsOfAnEarlierUser(t *testing.T) {
	t.Parallel()
	// Otherwise the new password alone would end them.
	s := newSite(t, session.Config{IgnorePasswordChanges: true})
	r := s.signedIn()
	s.exec("DELETE FROM users")
	_, err := s.auth.CreateUser(t.Context(), session.Fields{"id": 1, "email": "next@example.com"}, "a password")
	wantErr(t, err, nil)
	s.wantRows("0")
	r, err = s.auth.Authenticate(nil, r)
	wantErr(t, err, nil)
	wantErr(t, s.auth.Err(r), session.ErrUnknownSession)
}

func TestNoLogin(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	w := httptest.NewRecorder()
	r, err := s.auth.Authenticate(nil, pageLoad())
	wantErr(t, err, nil)
	user, err := s.auth.Register(w, r, session.Fields{"email": "ben@example.com"}, "ben's password", session.NoLogin())
	wantErr(t, err, nil)
	if user.ID != 2 || s.auth.Check(r) || !isEmpty(w) {
		t.Errorf("the user is %+v, logged in: %v, the response %d %v", user, s.auth.Check(r), w.Code, w.Header())
	}
	s.wantRows("0")
	s.wantEvents(session.EventRegistered)

	s.events.Reset()
	user, err = s.auth.Register(w, r, session.Fields{"email": "cy@example.com"}, "cy's password")
	wantErr(t, err, nil)
	if now, _ := s.auth.User(r); now != user || user.ID != 3 || len(w.Result().Cookies()) == 0 {
		t.Errorf("without NoLogin, the user of the request is %+v, and the cookies are %v", now, w.Result().Cookies())
	}
	s.wantRows("1")
	s.wantEvents(session.EventRegistered, session.EventLogin)
}

func TestColumns(t *testing.T) {
	t.Parallel()
	s := newSite(t, session.Config{})
	register := func(fields session.Fields, columns ...string) (member, error) {
		return s.auth.Register(httptest.NewRecorder(), pageLoad(), fields, "a password", session.NoLogin(), session.Columns(columns...))
	}
	for _, test := range []struct {
		fields  session.Fields
		columns []string
	}{
		{session.Fields{"email": "x@example.com", "admin": true}, []string{"email"}},
		{session.Fields{"email": "x@example.com", "ADMIN": true}, []string{"email", "name"}},
		{session.Fields{"email": "x@example.com", "EMAIL": "y@example.com"}, []string{"email"}},
		{session.Fields{"email": "x@example.com"}, nil},
	} {
		_, err := register(test.fields, test.columns...)
		wantErr(t, err, session.ErrInvalidArgument)
		if err != nil && !strings.Contains(err.Error(), "Columns") {
			t.Errorf("the error reads %q", err)
		}
	}
	user, err := register(session.Fields{"email": "x@example.com"}, "email", "name")
	wantErr(t, err, nil)
	if user.Email != "x@example.com" || user.Admin {
		t.Errorf("the user is %+v", user)
	}
	names := []string{"email"}
	option := session.Columns(names...)
	names[0] = "admin"
	_, err = s.auth.Register(httptest.NewRecorder(), pageLoad(), session.Fields{"email": "y@example.com", "admin": true}, "a password", option)
	wantErr(t, err, session.ErrInvalidArgument)
}

func TestLoadConfigReturnsADataSourceName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	load := func(text string) (session.Config, string, error) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return session.LoadConfig(path)
	}
	cfg, dsn, err := load(`{"auth": {"maxAge": 60000, "loginURL": "/login"}, "mysql": {"host": "db.example.com", "port": 3307, "user": "app", "password": "p", "database": "shop"}}`)
	wantErr(t, err, nil)
	if cfg.MaxAge != time.Minute || cfg.LoginURL != "/login" || !strings.HasPrefix(dsn, "app:p@tcp(db.example.com:3307)/shop") {
		t.Errorf("%v, %q", cfg, dsn)
	}
	if db, err := session.Open(dsn); err != nil {
		t.Error(err)
	} else {
		db.Close()
	}
	_, dsn, err = load(`{"auth": {}}`)
	wantErr(t, err, nil)
	if dsn != "" {
		t.Errorf("without a mysql block the DSN is %q", dsn)
	}
	cfg, dsn, err = load(`{"auth": {"maxAge": 1}, "mysql": {"host": "h", "user": "app", "password": "p", "database": "shop"}}`)
	wantErr(t, err, session.ErrConfig)
	if dsn != "" || cfg.MaxAge != 0 {
		t.Errorf("with an error LoadConfig returns %v, %q", cfg, dsn)
	}
	t.Setenv("SESSION_DSN", "other@tcp(elsewhere)/shop")
	for _, path := range []string{"", path} {
		os.WriteFile(path, []byte(`{"auth": {}, "mysql": {"host": "h", "user": "app", "password": "p", "database": "shop"}}`), 0o600)
		_, dsn, err = session.LoadConfig(path)
		wantErr(t, err, nil)
		if dsn != "other@tcp(elsewhere)/shop" {
			t.Errorf("with SESSION_DSN the DSN is %q", dsn)
		}
	}
}
