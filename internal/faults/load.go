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
	"github.com/candysession/session/throttle"
	"github.com/jmoiron/sqlx"
)

// An app is one app server: a Manager on a pool of its own, and its pages.
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

// newApp makes one on a database and, unless its DSN is empty, a replica.
func newApp(dsn, replica string, timeout time.Duration, log *slog.Logger) (*app, error) {
	a := &app{}
	cfg := session.Config{Timeout: timeout, PasswordCost: 4, Throttle: throttle.None, Logger: log}
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
	answer := func(w http.ResponseWriter, err error) {
		switch {
		case err == nil:
		case errors.Is(err, session.ErrUnavailable):
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		case errors.Is(err, session.ErrSessionNotFound), errors.Is(err, session.ErrNotLoggedIn):
			http.Error(w, err.Error(), http.StatusConflict)
		case errors.Is(err, context.Canceled): // nobody is there to see it
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		default:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		_, err := auth.Login(w, r, session.Credentials{"email": r.URL.Query().Get("email")}, password)
		answer(w, err)
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) { answer(w, auth.Logout(w, r)) })
	mux.Handle("POST /revoke", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, _ := auth.User(r)
		answer(w, auth.Revoke(r.Context(), u.ID, r.URL.Query().Get("id")))
	})))
	mux.Handle("POST /everywhere", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, _ := auth.User(r)
		_, err := auth.LogoutAll(r.Context(), u.ID)
		answer(w, err)
	})))
	mux.Handle("POST /rotate", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, auth.Rotate(w, r)) })))
	mux.Handle("POST /others", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, auth.LogoutOthers(w, r)) })))
	mux.Handle("GET /slow", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { time.Sleep(rand.N(10 * time.Millisecond)) })))
	mux.HandleFunc("POST /purge", func(w http.ResponseWriter, r *http.Request) {
		_, err := auth.Purge(r.Context())
		answer(w, err)
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

// What is known of a session from the answers that its browser got.
type state int

const (
	alive  state = iota // its login was acknowledged
	ended               // its end was acknowledged
	unsure              // an operation on it failed, and may have been done
)

type tracked struct {
	cookie string
	id     string
	state  state
	seen   bool      // it was let in once
	begun  time.Time // when its login was sent
	since  time.Time // when its end was acknowledged
}

// A client has one user with sessions in several browsers, and does one thing after the other; so it knows what must be.
type client struct {
	load     *load
	email    string
	sessions []*tracked
}

// A load is many clients, and what they have found.
type load struct {
	apps    []*app
	age     func(cookie string) error     // makes sessions old enough for a slide; it may fail
	gone    time.Duration                 // browsers leave within so long of sending a request; 0: they stay
	grace   time.Duration                 // servers of a cluster may let in for so long after an end was acknowledged
	dropped atomic.Pointer[time.Time]     // sessions whose login was sent before are not asked about any more
	tell    func(format string, a ...any) // hears of each violation

	operations, unavailable                   atomic.Int64
	lostLogins, livingLogouts, falseLogouts   atomic.Int64
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

func (l *load) start() {
	for i := range users {
		c := &client{load: l, email: fmt.Sprintf("user%d@example.com", i)}
		l.clients = append(l.clients, c)
		l.running.Go(func() {
			for !l.stop.Load() {
				c.act()
				time.Sleep(rand.N(2 * time.Millisecond))
			}
		})
	}
}

// suffer has something happen to the load for a while, and tells how long after its end the last 503 was.
func (l *load) suffer(begin func() (end func() error, err error), duration time.Duration) (recovery time.Duration, err error) {
	l.start()
	time.Sleep(time.Second)
	end, err := begin()
	if err == nil {
		time.Sleep(duration)
		if err = end(); err == nil {
			return l.recover(time.Now())
		}
		err = fmt.Errorf("to end it: %w", err)
	}
	l.finish()
	return 0, err
}

// finish stops the load, and asks once more about every session.
func (l *load) finish() {
	l.stop.Store(true)
	l.running.Wait()
	time.Sleep(l.grace)
	l.gone = 0
	for _, c := range l.clients {
		for _, s := range c.sessions {
			if s.state == unsure {
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

// do sends a request and counts it. 0 stands for a browser that left without an answer that counts.
func (c *client) do(on *app, method, target, cookie string) (status int, header http.Header, newCookie string) {
	l := c.load
	ctx := context.Background()
	if l.gone > 0 && rand.N(2) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Hour) // not a deadline that is ever met
		timer := time.AfterFunc(rand.N(l.gone), cancel)
		defer timer.Stop()
		defer cancel()
		ctx = leaving{ctx}
	}
	r := httptest.NewRequestWithContext(ctx, method, target, nil)
	r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0")
	if target == "/slow" { // as a browser opens a page
		r.Header.Set("Accept", "text/html")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		r.Header.Set("Sec-Fetch-Dest", "document")
	}
	if cookie != "" {
		r.AddCookie(&http.Cookie{Name: sessionCookie, Value: cookie})
	}
	w := httptest.NewRecorder()
	begun := time.Now()
	on.handler.ServeHTTP(w, r)
	took := time.Since(begun)
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
			l.violation(&l.otherViolations, "a failed login gave a cookie")
		}
	}
	if response.StatusCode == http.StatusInternalServerError {
		l.violation(&l.otherViolations, "%s %s: %s", method, target, w.Body)
	}
	return response.StatusCode, response.Header, newCookie
}

// leaving is a context without a deadline, as that of a server's request.
type leaving struct{ context.Context }

func (leaving) Deadline() (time.Time, bool) { return time.Time{}, false }

func (l *load) violation(counter *atomic.Int64, format string, a ...any) {
	counter.Add(1)
	l.tell(format, a...)
}

func (l *load) app() *app { return l.apps[rand.N(len(l.apps))] }

// act does one thing.
func (c *client) act() {
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
	case n < 76: // the same browser logs in once more
		if s.state == alive {
			if c.login(s.cookie) == http.StatusOK {
				c.ended(s)
			} else {
				s.state = unsure
			}
		}
	case n < 84:
		if s.state == alive {
			c.acknowledge(s, on, "/logout", s)
		}
	case n < 90:
		if other := c.sessions[rand.N(len(c.sessions))]; s.state == alive && other != s && other.state == alive && other.id != "" {
			c.acknowledge(s, on, "/revoke?id="+other.id, other)
		}
	case n < 92:
		if s.state == alive {
			c.acknowledge(s, on, "/everywhere", c.sessions...)
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
		c.do(on, "POST", "/purge", "")
	}
}

func (c *client) remove(i int) { c.sessions = append(c.sessions[:i], c.sessions[i+1:]...) }

func (c *client) login(cookie string) (status int) {
	s := &tracked{begun: time.Now()}
	status, _, newCookie := c.do(c.load.app(), "POST", "/login?email="+url.QueryEscape(c.email), cookie)
	switch {
	case status == http.StatusOK && newCookie == "":
		c.load.violation(&c.load.otherViolations, "a login gave no cookie")
	case status == http.StatusOK:
		s.cookie = newCookie
		c.sessions = append(c.sessions, s)
	case status != http.StatusServiceUnavailable && status != 0:
		c.load.violation(&c.load.otherViolations, "a login was answered with %d", status)
	}
	return status
}

// check asks whether a session is let in, and compares.
func (c *client) check(s *tracked, on *app) int {
	l := c.load
	before := s.since
	asked := time.Now()
	status, header, _ := c.do(on, "GET", "/", s.cookie)
	if c.wasDropped(s) {
		s.state = unsure
	}
	switch {
	case status == http.StatusOK && s.state == ended && asked.Sub(before) >= l.grace:
		l.violation(&l.livingLogouts, "let in %v after its end was acknowledged", time.Since(before))
	case status == http.StatusOK && s.state == alive:
		s.seen, s.id = true, header.Get("Session")
	case status == http.StatusUnauthorized && s.state == alive && s.seen:
		l.violation(&l.falseLogouts, "session %s is out, %v after its login", s.id, time.Since(s.begun))
		s.state = unsure
	case status == http.StatusUnauthorized && s.state == alive:
		l.violation(&l.lostLogins, "lost a login of %v ago", time.Since(s.begun))
		s.state = unsure
	case status == http.StatusUnauthorized && s.state == unsure:
		c.ended(s)
	}
	return status
}

// acknowledge asks for the end of sessions. If that fails, nobody knows.
func (c *client) acknowledge(s *tracked, on *app, target string, ending ...*tracked) {
	status, _, _ := c.do(on, "POST", target, s.cookie)
	if status == http.StatusUnauthorized {
		if s.state == alive && !c.wasDropped(s) {
			c.load.violation(&c.load.falseLogouts, "session %s was refused for %s", s.id, strings.TrimRight(target, "0123456789"))
			s.state = unsure
		}
		return
	}
	for _, e := range ending {
		if status == http.StatusOK {
			c.ended(e)
		} else if e.state == alive {
			e.state = unsure
		}
	}
}

func (c *client) wasDropped(s *tracked) bool {
	dropped := c.load.dropped.Load()
	return dropped != nil && s.begun.Before(*dropped)
}

func (c *client) ended(s *tracked) {
	if s.state != ended {
		s.state, s.since = ended, time.Now()
	}
}
