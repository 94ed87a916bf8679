package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/candysession/session"
	"github.com/jmoiron/sqlx"
)

// An app is one app server: a Manager with its own connection pool, and pages.
type app struct {
	db      *sqlx.DB
	replica *sqlx.DB // or nil
	auth    *session.Manager[user]
	handler http.Handler
}

type user struct {
	ID    int64  `db:"id"`
	Email string `db:"email"`
}

// newApp returns an app that uses a database and, unless its DSN is empty, a
// replica.
func newApp(dsn, replica string, timeout time.Duration, log *slog.Logger) (*app, error) {
	a := &app{}
	cfg := session.Config{Timeout: timeout, PasswordCost: 4, Throttle: session.NoThrottle, Logger: log}
	var err error
	limits := fmt.Sprintf("?timeout=%v&readTimeout=%v&writeTimeout=%v", timeout, timeout, timeout)
	if a.db, err = session.Open(dsn + limits); err != nil {
		return nil, err
	}
	if replica != "" {
		if cfg.Replica, err = session.Open(replica + limits); err != nil {
			return nil, err
		}
		a.replica = cfg.Replica
	}
	auth, err := session.New[user](a.db, cfg)
	if err != nil {
		return nil, err
	}
	a.auth = auth
	respond := func(w http.ResponseWriter, err error) {
		switch {
		case err == nil:
		case errors.Is(err, session.ErrUnavailable):
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		case errors.Is(err, session.ErrSessionNotFound), errors.Is(err, session.ErrNotLoggedIn):
			http.Error(w, err.Error(), http.StatusConflict)
		case errors.Is(err, context.Canceled): // the client has disconnected
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		default:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		_, err := auth.Login(w, r, session.Credentials{"email": r.URL.Query().Get("email")}, password)
		respond(w, err)
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) { respond(w, auth.Logout(w, r)) })
	mux.Handle("POST /revoke", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, _ := auth.User(r)
		respond(w, auth.Revoke(r.Context(), u.ID, r.URL.Query().Get("id")))
	})))
	mux.Handle("POST /everywhere", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, _ := auth.User(r)
		_, err := auth.LogoutAll(r.Context(), u.ID)
		respond(w, err)
	})))
	mux.Handle("POST /rotate", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { respond(w, auth.Rotate(w, r)) })))
	mux.Handle("POST /others", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { respond(w, auth.LogoutOthers(w, r)) })))
	mux.Handle("GET /slow", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { time.Sleep(rand.N(10 * time.Millisecond)) })))
	mux.HandleFunc("POST /purge", func(w http.ResponseWriter, r *http.Request) {
		_, err := auth.Purge(r.Context())
		respond(w, err)
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		if err := auth.Err(r); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		w.Header().Set("Session", auth.Session(r).ID)
	})
	a.handler = auth.Middleware(mux)
	return a, nil
}

func (a *app) close() {
	a.auth.Close()
	a.db.Close()
	if a.replica != nil {
		a.replica.Close()
	}
}

// A state is the state of a session according to the responses so far.
type state int

const (
	alive   state = iota // its login was acknowledged
	ended                // its end was acknowledged
	unknown              // a failed operation may have ended it
)

// A tracked session is one that a client has logged in to.
type tracked struct {
	cookie  string
	id      string
	state   state
	seen    bool      // it was accepted at least once
	started time.Time // when its login was sent
	endedAt time.Time // when its end was acknowledged
}

// A client is one user with sessions in several browsers. It sends one request
// after the other, so it knows the expected state of each session.
type client struct {
	load     *load
	email    string
	sessions []*tracked
}

// A load is a set of clients and the counts of their findings.
type load struct {
	apps []*app
	// age makes a session due for renewal. It may fail.
	age func(cookie string) error
	// disconnectWithin makes every second client disconnect within this time of
	// sending a request, unless it is 0.
	disconnectWithin time.Duration
	// grace is how long a session may be accepted after its end was
	// acknowledged, on another server of a cluster.
	grace time.Duration
	// dropped is when the token table was dropped. Sessions that started
	// earlier have no expected state.
	dropped atomic.Pointer[time.Time]
	// report is called for each violation.
	report func(format string, a ...any)

	operations, unavailable                   atomic.Int64
	lostLogins, revivedLogouts, falseLogouts  atomic.Int64
	lastUnavailable, longest, otherViolations atomic.Int64 // unix nanoseconds; nanoseconds; count

	stop    atomic.Bool
	running sync.WaitGroup
	clients []*client
}

const (
	password      = "analytical engine"
	users         = 24
	sessionCookie = "__Host-session"
)

// start starts the clients.
func (l *load) start() {
	for i := range users {
		c := &client{load: l, email: fmt.Sprintf("user%d@example.com", i)}
		l.clients = append(l.clients, c)
		l.running.Go(func() {
			for !l.stop.Load() {
				c.step()
				time.Sleep(rand.N(2 * time.Millisecond))
			}
		})
	}
}

// runUnder injects a fault for the given duration while the load runs. It
// returns the time from the end of the fault to the last 503.
func (l *load) runUnder(inject func() (end func() error, err error), duration time.Duration) (recovery time.Duration, err error) {
	l.start()
	time.Sleep(time.Second)
	end, err := inject()
	if err == nil {
		time.Sleep(duration)
		if err = end(); err == nil {
			return l.awaitRecovery(time.Now())
		}
		err = fmt.Errorf("end the fault: %w", err)
	}
	l.finish()
	return 0, err
}

// finish stops the load and checks every session once more.
func (l *load) finish() {
	l.stop.Store(true)
	l.running.Wait()
	time.Sleep(l.grace)
	l.disconnectWithin = 0
	for _, c := range l.clients {
		for _, s := range c.sessions {
			if s.state == unknown {
				continue
			}
			for range 3 {
				if c.check(s, l.apps[0]) != http.StatusServiceUnavailable {
					break
				}
			}
		}
	}
}

// request sends a request and counts it. It returns status 0 if the client
// disconnected before a response.
func (c *client) request(on *app, method, target, cookie string) (status int, header http.Header, newCookie string) {
	l := c.load
	ctx := context.Background()
	if l.disconnectWithin > 0 && rand.N(2) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Hour) // never reached
		timer := time.AfterFunc(rand.N(l.disconnectWithin), cancel)
		defer timer.Stop()
		defer cancel()
		ctx = withoutDeadline{ctx}
	}
	r := httptest.NewRequestWithContext(ctx, method, target, nil)
	r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0")
	if target == "/slow" { // like a browser that opens a page
		r.Header.Set("Accept", "text/html")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		r.Header.Set("Sec-Fetch-Dest", "document")
	}
	if cookie != "" {
		r.AddCookie(&http.Cookie{Name: sessionCookie, Value: cookie})
	}
	w := httptest.NewRecorder()
	started := time.Now()
	on.handler.ServeHTTP(w, r)
	took := time.Since(started)
	l.operations.Add(1)
	for longest := l.longest.Load(); int64(took) > longest && !l.longest.CompareAndSwap(longest, int64(took)); longest = l.longest.Load() {
	}
	response := w.Result()
	for _, k := range response.Cookies() {
		if k.Name == sessionCookie && k.MaxAge > 0 {
			newCookie = k.Value
		}
	}
	if response.StatusCode == http.StatusServiceUnavailable {
		if ctx.Err() != nil {
			return 0, nil, ""
		}
		l.unavailable.Add(1)
		l.lastUnavailable.Store(time.Now().UnixNano())
		if newCookie != "" && cookie == "" {
			l.violation(&l.otherViolations, "a failed login set a cookie")
		}
	}
	if response.StatusCode == http.StatusInternalServerError {
		l.violation(&l.otherViolations, "%s %s: %s", method, target, w.Body)
	}
	return response.StatusCode, response.Header, newCookie
}

// withoutDeadline hides the deadline of a context, because the context of a
// server's request has none.
type withoutDeadline struct{ context.Context }

func (withoutDeadline) Deadline() (time.Time, bool) { return time.Time{}, false }

// violation counts and reports a violation.
func (l *load) violation(counter *atomic.Int64, format string, a ...any) {
	counter.Add(1)
	l.report(format, a...)
}

// app returns one of the load's apps.
func (l *load) app() *app { return l.apps[rand.N(len(l.apps))] }

// step performs one randomly chosen operation.
func (c *client) step() {
	if len(c.sessions) == 0 {
		c.login("")
		return
	}
	i := rand.N(len(c.sessions))
	s := c.sessions[i]
	if c.wasDropped(s) {
		c.remove(i)
		return
	}
	on := c.load.app()
	switch n := rand.N(100); {
	case n < 60:
		c.check(s, on)
		if s.state != alive && rand.N(3) == 0 {
			c.remove(i)
		}
	case n < 72:
		if len(c.sessions) < 8 {
			c.login("")
		}
	case n < 76: // the same browser logs in again
		if s.state == alive {
			if c.login(s.cookie) == http.StatusOK {
				c.markEnded(s)
			} else {
				s.state = unknown
			}
		}
	case n < 84:
		if s.state == alive {
			c.endSessions(s, on, "/logout", s)
		}
	case n < 90:
		if other := c.sessions[rand.N(len(c.sessions))]; s.state == alive && other != s && other.state == alive && other.id != "" {
			c.endSessions(s, on, "/revoke?id="+other.id, other)
		}
	case n < 92:
		if s.state == alive {
			c.endSessions(s, on, "/everywhere", c.sessions...)
		}
	case n < 95:
		if s.state == alive && s.id != "" && c.load.age(s.cookie) == nil {
			c.check(s, on)
		}
	case n < 98:
		if s.state == alive && s.id != "" {
			c.twoTabs(s)
		}
	default:
		c.request(on, "POST", "/purge", "")
	}
}

// remove stops tracking session i.
func (c *client) remove(i int) { c.sessions = append(c.sessions[:i], c.sessions[i+1:]...) }

// login logs in from a browser that has the given cookie, or "".
func (c *client) login(cookie string) (status int) {
	s := &tracked{started: time.Now()}
	status, _, newCookie := c.request(c.load.app(), "POST", "/login?email="+url.QueryEscape(c.email), cookie)
	switch {
	case status == http.StatusOK && newCookie == "":
		c.load.violation(&c.load.otherViolations, "a login set no cookie")
	case status == http.StatusOK:
		s.cookie = newCookie
		c.sessions = append(c.sessions, s)
	case status != http.StatusServiceUnavailable && status != 0:
		c.load.violation(&c.load.otherViolations, "a login returned %d", status)
	}
	return status
}

// check sends a request with a session and compares the response with the
// expected state.
func (c *client) check(s *tracked, on *app) int {
	l := c.load
	endedAt := s.endedAt
	sent := time.Now()
	status, header, _ := c.request(on, "GET", "/", s.cookie)
	if c.wasDropped(s) {
		s.state = unknown
	}
	switch {
	case status == http.StatusOK && s.state == ended && sent.Sub(endedAt) >= l.grace:
		l.violation(&l.revivedLogouts, "accepted %v after its end was acknowledged", time.Since(endedAt))
	case status == http.StatusOK && s.state == alive:
		s.seen, s.id = true, header.Get("Session")
	case status == http.StatusUnauthorized && s.state == alive && s.seen:
		l.violation(&l.falseLogouts, "session %s was rejected %v after its login", s.id, time.Since(s.started))
		s.state = unknown
	case status == http.StatusUnauthorized && s.state == alive:
		l.violation(&l.lostLogins, "lost a login from %v ago", time.Since(s.started))
		s.state = unknown
	case status == http.StatusUnauthorized && s.state == unknown:
		c.markEnded(s)
	}
	return status
}

// endSessions sends a request that ends sessions. If it fails, their state is
// unknown.
func (c *client) endSessions(s *tracked, on *app, target string, ending ...*tracked) {
	status, _, _ := c.request(on, "POST", target, s.cookie)
	if status == http.StatusUnauthorized {
		if s.state == alive && !c.wasDropped(s) {
			c.load.violation(&c.load.falseLogouts, "session %s was rejected for %s", s.id, strings.TrimRight(target, "0123456789"))
			s.state = unknown
		}
		return
	}
	for _, e := range ending {
		if status == http.StatusOK {
			c.markEnded(e)
		} else if e.state == alive {
			e.state = unknown
		}
	}
}

// wasDropped reports whether the token table was dropped after the login.
func (c *client) wasDropped(s *tracked) bool {
	dropped := c.load.dropped.Load()
	return dropped != nil && s.started.Before(*dropped)
}

// markEnded records that the end of a session was acknowledged.
func (c *client) markEnded(s *tracked) {
	if s.state != ended {
		s.state, s.endedAt = ended, time.Now()
	}
}
