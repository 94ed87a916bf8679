package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/candysession/session"
	"github.com/candysession/session/internal/testdb"
	"github.com/jmoiron/sqlx"
)

// A user is a row of the users table.
type user struct {
	ID    int64  `db:"id"`
	Email string `db:"email"`
}

// A world is the app at https://localhost and another site at
// https://127.0.0.1.
type world struct {
	app, other *httptest.Server
	site       string // the app's URL
	auth       *session.Manager[user]
	db         *sqlx.DB
	stop       func()

	mu       sync.Mutex
	requests []string // the requests that the app received
}

// newWorld starts a database and both sites.
func newWorld() (_ *world, err error) {
	w := &world{}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	dsn, stop, err := testdb.Private()
	if err != nil {
		return nil, err
	}
	w.stop = stop
	root, err := sqlx.Open("mysql", dsn.FormatDSN())
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for _, statement := range []string{
		"CREATE DATABASE app",
		"CREATE TABLE app.users (id INT PRIMARY KEY, email VARCHAR(190) NOT NULL, password VARCHAR(255) NOT NULL)",
		"INSERT INTO app.users VALUES (1, 'ada@example.com', '')",
	} {
		if _, err := root.Exec(statement); err != nil {
			return nil, err
		}
	}
	dsn.DBName = "app"
	if w.db, err = session.Open(dsn.FormatDSN()); err != nil {
		return nil, err
	}
	noReload := func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/shared") }
	cfg := session.Config{LoginURL: "/login", HomeURL: "/home", Cookie: session.Cookie{NoReload: noReload}}
	if w.auth, err = session.New[user](w.db, cfg); err != nil {
		return nil, err
	}
	if _, err := w.auth.Migrate(context.Background()); err != nil {
		return nil, err
	}
	discardLog := log.New(io.Discard, "", 0) // browsers abort handshakes when they are killed
	serve := func(h http.Handler) *httptest.Server {
		s := httptest.NewUnstartedServer(h)
		s.Config.ErrorLog = discardLog
		s.StartTLS()
		return s
	}
	w.other = serve(http.HandlerFunc(w.serveOther))
	w.app = serve(w.pages())
	w.site = strings.Replace(w.app.URL, "127.0.0.1", "localhost", 1)
	return w, nil
}

func (w *world) close() {
	for _, s := range []*httptest.Server{w.app, w.other} {
		if s != nil {
			s.CloseClientConnections()
			s.Close()
		}
	}
	if w.auth != nil {
		w.auth.Close()
	}
	if w.db != nil {
		w.db.Close()
	}
	if w.stop != nil {
		w.stop()
	}
}

// page writes a page with its name in it.
func page(w http.ResponseWriter, name, body string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, `<!DOCTYPE html><meta charset="utf-8"><title>%[1]s</title><body data-page="%[1]s"><p>%[1]s</p>%[2]s`, name, body)
}

// link returns a link for the user to click.
func link(target string) string {
	return `<a id="go" style="display:inline-block;padding:2em" href="` + target + `">go</a>`
}

// pages returns the app's handler.
func (w *world) pages() http.Handler {
	auth := w.auth
	userPage := func(name string) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			username := "a guest"
			if u, ok := auth.User(r); ok {
				username, _, _ = strings.Cut(u.Email, "@")
			}
			page(rw, name+" as "+username, "")
		})
	}
	enter := func(rw http.ResponseWriter, r *http.Request) bool {
		_, err := auth.LoginAs(rw, r, 1)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
		}
		return err == nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/enter", func(rw http.ResponseWriter, r *http.Request) {
		if enter(rw, r) {
			page(rw, "entered", "")
		}
	})
	mux.HandleFunc("/leave", func(rw http.ResponseWriter, r *http.Request) {
		if err := auth.Logout(rw, r); err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
			return
		}
		page(rw, "left", "")
	})
	mux.Handle("/account", auth.Require(userPage("account")))
	mux.Handle("/login", auth.Guest(userPage("login form")))
	mux.Handle("/home", auth.Switch(userPage("home"), userPage("home")))
	mux.Handle("/shared", auth.Switch(userPage("shared"), userPage("shared")))
	// Links to the other site, and the callback of one that authenticates
	// users.
	mux.HandleFunc("/to/", func(rw http.ResponseWriter, r *http.Request) {
		page(rw, "way out", link(w.other.URL+strings.TrimPrefix(r.URL.Path, "/to")))
	})
	mux.HandleFunc("/callback", func(rw http.ResponseWriter, r *http.Request) {
		if enter(rw, r) {
			http.Redirect(rw, r, "/account", http.StatusSeeOther)
		}
	})
	mux.HandleFunc("/worker", func(rw http.ResponseWriter, r *http.Request) {
		page(rw, "worker", `<script>
navigator.serviceWorker.register("/worker.js").catch(e => document.title = "no worker: " + e)
navigator.serviceWorker.addEventListener("controllerchange", () => document.title = "controlled")
</script>`)
	})
	mux.HandleFunc("/worker.js", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/javascript")
		io.WriteString(rw, `addEventListener("install", () => skipWaiting())
addEventListener("activate", event => event.waitUntil(clients.claim()))
addEventListener("fetch", event => event.respondWith(fetch(event.request)))`)
	})
	mux.HandleFunc("/favicon.ico", http.NotFound)
	inner := auth.Middleware(mux)
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/favicon.ico" || r.URL.Path == "/worker.js" {
			mux.ServeHTTP(rw, r)
			return
		}
		var cookies []string
		for _, c := range r.Cookies() {
			cookies = append(cookies, c.Name)
		}
		h := r.Header
		w.mu.Lock()
		w.requests = append(w.requests, fmt.Sprintf("%s %s (%s, %s, %s, user %q, accept %q, cookies %q)", r.Method, r.URL, h.Get("Sec-Fetch-Site"), h.Get("Sec-Fetch-Mode"),
			h.Get("Sec-Fetch-Dest"), h.Get("Sec-Fetch-User"), h.Get("Accept"), cookies))
		tooMany := len(w.requests) > 20
		w.mu.Unlock()
		if tooMany { // end a redirect loop
			page(rw, "loop", "")
			return
		}
		inner.ServeHTTP(rw, r)
	})
}

// takeRequests returns the requests that the app received since the last call.
func (w *world) takeRequests() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	requests := w.requests
	w.requests = nil
	return requests
}

// requestCount returns the number of requests since takeRequests.
func (w *world) requestCount() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.requests)
}

// serveOther serves the other site. The first part of a path is the kind of
// page, and the other parts are the path in the app to which it leads.
func (w *world) serveOther(rw http.ResponseWriter, r *http.Request) {
	kind, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	target := w.site + "/" + path
	switch kind {
	case "link":
		page(rw, "other", link(target))
	case "fragment":
		page(rw, "other", link(target+"#part"))
	case "query":
		page(rw, "other", link(target+"?q=a%26b&r=%3Cc%3E"))
	case "script":
		page(rw, "other", `<script>addEventListener("load", () => setTimeout(() => location.href = "`+target+`", 100))</script>`)
	case "meta":
		page(rw, "other", `<meta http-equiv="refresh" content="0; url=`+target+`">`)
	case "pay": // returns after six seconds, when the user activation has expired
		page(rw, "other", `<script>setTimeout(() => location.href = "`+target+`", 6000)</script>`)
	case "redirect":
		http.Redirect(rw, r, target, http.StatusFound)
	case "linkredirect":
		page(rw, "other", link("/redirect/"+path))
	case "post":
		page(rw, "other", `<form method="post" action="`+target+`"><button id="go">go</button></form>`)
	default:
		http.NotFound(rw, r)
	}
}
