package session

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/candysession/session/internal/store"
	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/internal/token"
)

// No request is accepted as a session, and its response is one of a few.
// Sessions exist whose selectors occur in some of the seeds, but whose
// verifiers are unknown.
func FuzzMiddleware(f *testing.F) {
	dsn := testdb.DSN(f)
	db := open(f, dsn, "")
	mustExec(f, db, usersTableInt)
	mustExec(f, db, "INSERT INTO users (id, email) VALUES (1, 'alice@example.com')")
	forwarded := func(r *http.Request) string { return r.Header.Get("X-Forwarded-For") }
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	const known = "AAAAAAAAAAAAAAAAAAAAAA" // not our length, so bcrypt must verify it
	ours := token.New().Selector
	var auths []*Manager[user]
	for _, mode := range []CandyPackMode{CandyPackOff, CandyPackSwitch} {
		auth, err := New[user](db, Config{CandyPack: mode, LoginURL: "/login?of=app", HomeURL: "/home", ClientIP: forwarded, Logger: quiet})
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(func() { auth.Close() })
		noError(f, errOnly(auth.Migrate(f.Context())))
		for _, selector := range []string{known, ours, "f64ae64d052c1ab92a4e57c5b106b208"} {
			hash, err := token.New().Hash(auth.cfg.TokenCost)
			noError(f, err)
			mustExec(f, db, "INSERT INTO "+store.Quote(auth.cfg.TokenTable)+" (user, token_x, token_y, browser) VALUES (1, ?, ?, ?)", selector, hash, chrome130)
		}
		auths = append(auths, auth)
	}
	stranger := token.New()
	for _, cookie := range []string{
		"", "__Host-session=" + known + "." + stranger.Verifier, "__Host-session=" + stranger.Selector + "." + stranger.Verifier, "__Host-session=.",
		"__Host-session=" + ours + "." + stranger.Verifier,
		"candy_x=f64ae64d052c1ab92a4e57c5b106b208; candy_y=2a9fe3d1f99066f3da0d7eb2ba6c1462",
		"candy_x=f64ae64d052c1ab92a4e57c5b106b208; candy_y=2a9fe3d1f99066f3da0d7eb2ba6c1462; __Host-session=" + known + "." + stranger.Verifier,
	} {
		f.Add(cookie, chrome130, "GET", "192.0.2.1, 10.0.0.1", "/require?a=1", "cross-site navigate document ?1", "text/html")
		f.Add(cookie, "", "POST", "::1", "/guest?next=//example.com", "", "")
	}
	f.Fuzz(func(t *testing.T, cookie, userAgent, method, address, target, fetch, accept string) {
		for _, auth := range auths {
			page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if user, ok := auth.User(r); ok || auth.Check(r) || auth.Err(r) == nil || auth.Session(r).ID != "" || auth.Fresh(r, maxDuration) {
					t.Errorf("let in as %+v", user)
				}
				io.WriteString(w, ReturnTo(r, "/"))
			})
			let := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("let in") })
			h := auth.Middleware(page)
			switch {
			case strings.HasPrefix(target, "/require"):
				h = auth.Require(let)
			case strings.HasPrefix(target, "/fresh"):
				h = auth.RequireFresh(maxDuration)(let)
			case strings.HasPrefix(target, "/guest"):
				h = auth.Guest(page)
			case strings.HasPrefix(target, "/switch"):
				h = auth.Middleware(auth.Switch(let, page))
			}
			u, err := url.ParseRequestURI(target)
			if err != nil {
				u = &url.URL{Path: "/"}
			}
			r := &http.Request{Method: method, URL: u, RequestURI: target, RemoteAddr: address, Host: "app.example", Header: http.Header{
				"Cookie": {cookie}, "User-Agent": {userAgent}, "X-Forwarded-For": {address}, "Accept": {accept},
			}}
			for i, value := range strings.SplitN(fetch, " ", 4) {
				r.Header.Set("Sec-Fetch-"+[]string{"Site", "Mode", "Dest", "User"}[i], value)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			switch response := w.Result(); {
			case response.StatusCode != 200 && response.StatusCode != 303 && response.StatusCode != 401:
				t.Errorf("status %d", response.StatusCode)
			case response.StatusCode == 303 && !strings.HasPrefix(response.Header.Get("Location"), "/login?of=app"):
				t.Errorf("sent to %q", response.Header.Get("Location"))
			case len(response.Cookies()) != 0:
				t.Errorf("a cookie: %v", response.Cookies())
			}
		}
	})
}

// Open returns a pool, or an error that matches ErrConfig.
func FuzzOpen(f *testing.F) {
	for _, dsn := range []string{"app:password@tcp(localhost:3306)/app", "/app?charset=gbk&collation=utf8mb4_bin", "a@unix(/s)/b?timeout=1s&time_zone=%27%2B00%3A00%27", "@/", "?", "/%"} {
		f.Add(dsn)
	}
	f.Fuzz(func(t *testing.T, dsn string) {
		db, err := Open(dsn)
		if err != nil {
			wantError(t, err, ErrConfig)
			return
		}
		db.Close()
	})
}
