// Package sessiontest helps to test apps that use package session: with
// requests that are logged in, a client that keeps cookies, and a recorder of
// events.
//
// A test chooses how much of the app it runs:
//
//   - [WithState] puts a user into the context of a request. No database is
//     needed.
//   - [SignIn] creates a real session, and returns a request with its cookies.
//   - [NewClient] serves the app, and visits it as a browser does, from the login
//     on.
package sessiontest

import (
	"context"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/candysession/session"
	"github.com/candysession/session/internal/testhook"
)

// UserAgent is the User-Agent of [NewClient] and [SignIn] where a request has
// none.
const UserAgent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

// A SignInOption changes the session that [SignIn] creates.
type SignInOption func(*signInOptions)

// signInOptions collects the options of SignIn.
type signInOptions struct {
	ago time.Duration
}

// LoggedInAgo returns an option with which the user has logged in, and has last
// been seen, the given duration ago. It serves tests of
// [session.Manager.RequireFresh] and of sessions that have expired. The
// duration is cut to whole seconds.
func LoggedInAgo(d time.Duration) SignInOption {
	return func(o *signInOptions) { o.ago = d }
}

// SignIn creates a session for the user with the given key, and returns a copy
// of the request with its cookies. The session and the user are rows of the
// database: pass the request to a handler behind [session.Manager.Middleware]
// or [session.Manager.Require]. SignIn fails the test if there is no such user.
//
// The session is bound to the request's User-Agent. A request that has none
// gets [UserAgent]. The events of a login are emitted.
//
// SignIn calls [session.Manager.LoginAs], so the key may have the same types.
func SignIn[U any](t testing.TB, auth *session.Manager[U], r *http.Request, key any, options ...SignInOption) *http.Request {
	t.Helper()
	var o signInOptions
	for _, option := range options {
		option(&o)
	}
	signedIn := r.Clone(r.Context())
	if signedIn.Header.Get("User-Agent") == "" {
		signedIn.Header.Set("User-Agent", UserAgent)
	}
	// A login purges expired sessions when the context of its request ends.
	// This context never does, so that a session which LoggedInAgo has expired
	// stays.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	_ = cancel
	login := signedIn.Clone(ctx)
	if login.RemoteAddr == "" {
		login.RemoteAddr = "192.0.2.1:1234" // as that of httptest.NewRequest
	}
	w := httptest.NewRecorder()
	if _, err := auth.LoginAs(w, login, key); err != nil {
		t.Fatalf("sessiontest: sign in user %v: %v", key, err)
	}
	setCookies(signedIn, w.Result().Cookies())
	if o.ago != 0 {
		if err := testhook.Age(ctx, auth, signedIn, o.ago); err != nil {
			t.Fatalf("sessiontest: age the session of user %v: %v", key, err)
		}
	}
	return signedIn
}

// setCookies changes the cookies of a request as a browser does that has
// received others.
func setCookies(r *http.Request, received []*http.Cookie) {
	kept := r.Cookies()
	r.Header.Del("Cookie")
	for _, c := range kept {
		if !slices.ContainsFunc(received, func(other *http.Cookie) bool { return other.Name == c.Name }) {
			r.AddCookie(c)
		}
	}
	for _, c := range received {
		if c.MaxAge >= 0 {
			r.AddCookie(c)
		}
	}
}

// WithState returns a copy of the request that carries a state, as if the
// Manager had authenticated it. It serves tests of handlers behind
// [session.Manager.Require] without a database: the Manager may be one on a
// *sqlx.DB that has never connected. What else the handler calls on the Manager,
// such as Logout, still needs the database.
//
// If the state has no error, its session began just now unless it says
// otherwise.
func WithState[U any](t testing.TB, auth *session.Manager[U], r *http.Request, state session.State[U]) *http.Request {
	t.Helper()
	if state.Err == nil {
		now := time.Now().Truncate(time.Second)
		if state.Session.Created.IsZero() {
			state.Session.Created = now
		}
		if state.Session.Active.IsZero() {
			state.Session.Active = now
		}
	}
	return r.WithContext(auth.WithState(r.Context(), state))
}

// A Client is an HTTP client that keeps cookies, with a server of its own.
type Client struct {
	*http.Client
	URL string // of the server, without a slash at the end
}

// NewClient serves a handler by TLS, so that its client keeps Secure and
// __Host- cookies, and returns the client. It sends [UserAgent] where a request
// has no User-Agent. Like every [http.Client] it follows redirects unless
// CheckRedirect is set. The server is closed when the test ends.
func NewClient(t testing.TB, handler http.Handler) *Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	client := server.Client()
	client.Jar = jar
	client.Transport = browser{client.Transport}
	return &Client{Client: client, URL: server.URL}
}

// A browser is a transport that sends a User-Agent.
type browser struct{ http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (b browser) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("User-Agent") == "" {
		r = r.Clone(r.Context())
		r.Header.Set("User-Agent", UserAgent)
	}
	return b.RoundTripper.RoundTrip(r)
}

// CloseIdleConnections lets [http.Client.CloseIdleConnections] reach the
// connections.
func (b browser) CloseIdleConnections() {
	if c, ok := b.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// A Recorder records events. Its OnEvent is for [session.Config].OnEvent. It is
// safe for concurrent use.
//
// Events of a request are recorded before its response is complete, so a test
// need not wait for them.
type Recorder struct {
	mu     sync.Mutex
	events []session.Event
}

// NewRecorder returns a Recorder without events.
func NewRecorder(t testing.TB) *Recorder {
	t.Helper()
	return &Recorder{}
}

// OnEvent records an event.
func (r *Recorder) OnEvent(_ context.Context, e session.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// Events returns the events so far, in order.
func (r *Recorder) Events() []session.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// Kinds returns the kinds of the events so far, in order.
func (r *Recorder) Kinds() []session.EventKind {
	r.mu.Lock()
	defer r.mu.Unlock()
	kinds := make([]session.EventKind, len(r.events))
	for i, e := range r.events {
		kinds[i] = e.Kind
	}
	return kinds
}

// Reset forgets the events so far.
func (r *Recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = nil
}
