// Command quickstart is a small web app with accounts: register, log in, list
// your sessions, log out.
//
// With an in-memory database, or with MySQL or MariaDB:
//
//	go run ./examples/quickstart
//	go run ./examples/quickstart -dsn 'user:password@tcp(localhost:3306)/app'
//
// It only uses the tables quickstart_users and quickstart_tokens.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"html/template"
	"log"
	"net"
	"net/http"
	"net/mail"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/candysession/session"
	"github.com/candysession/session/examples/internal/embedded"
)

const (
	demoEmail    = "demo@example.com"
	demoPassword = "correct horse battery"
)

const schema = `CREATE TABLE IF NOT EXISTS quickstart_users (
	id       BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
	name     VARCHAR(100) NOT NULL,
	email    VARCHAR(255) NOT NULL UNIQUE,
	password VARCHAR(60)  NOT NULL
)`

// A User has the columns of the users table that the app needs.
type User struct {
	ID    int64  `db:"id" json:"id"`
	Name  string `db:"name" json:"name"`
	Email string `db:"email" json:"email"`
}

var config = session.Config{
	UsersTable: "quickstart_users",
	TokenTable: "quickstart_tokens",
	LoginURL:   "/login",
	HomeURL:    "/account",
	// Safari stores no Secure cookie of plain http on localhost.
	Cookie: session.Cookie{Insecure: true},
}

// An app is the web app with its Manager.
type app struct {
	auth *session.Manager[User]
}

func main() {
	log.SetFlags(0)
	addr := flag.String("addr", "localhost:8080", "address to listen on")
	dsn := flag.String("dsn", "", "MySQL or MariaDB data source name; empty for an in-memory database")
	flag.Parse()
	if err := run(*addr, *dsn); err != nil {
		log.Fatal("quickstart: ", err)
	}
}

func run(addr, dsn string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	inMemory := dsn == ""
	if inMemory {
		server, err := embedded.Start()
		if err != nil {
			return err
		}
		defer server.Close()
		dsn = server.DSN()
	}
	db, err := session.Open(dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	if inMemory {
		db.SetMaxOpenConns(1)
	}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return fmt.Errorf("create the users table: %w", err)
	}
	auth, err := session.New[User](db, config)
	if err != nil {
		return err
	}
	defer auth.Close()
	a := &app{auth}

	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Printf("\n  http://%s\n\n", strings.Replace(listener.Addr().String(), "127.0.0.1", "localhost", 1))
	if inMemory { // never create an account with a known password in a real database
		hash, err := auth.HashPassword(ctx, demoPassword)
		if err != nil {
			return err
		}
		if _, err := db.ExecContext(ctx, "INSERT INTO quickstart_users (name, email, password) VALUES ('Demo', ?, ?)", demoEmail, hash); err != nil {
			return err
		}
		fmt.Printf("  email     %s\n  password  %s\n\n  The database is in memory and is lost when you press Ctrl-C.\n\n", demoEmail, demoPassword)
	}

	server := &http.Server{Handler: a.routes(), ReadHeaderTimeout: 5 * time.Second}
	shutdown := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		shutdown <- server.Shutdown(ctx)
	})
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-shutdown // after the active requests have been answered
}

// routes returns the app's handler. Middleware authenticates each request once.
// Require, Guest and Switch restrict access to pages.
func (a *app) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", a.auth.Switch(http.RedirectHandler("/account", http.StatusSeeOther), http.HandlerFunc(a.welcome)))
	mux.Handle("GET /register", a.auth.Guest(page("register.html")))
	mux.Handle("POST /register", a.auth.Guest(http.HandlerFunc(a.register)))
	mux.Handle("GET /login", a.auth.Guest(page("login.html")))
	mux.HandleFunc("POST /login", a.logIn)
	mux.HandleFunc("POST /logout", a.logOut)
	mux.Handle("GET /account", a.auth.Require(http.HandlerFunc(a.account)))
	mux.Handle("POST /sessions/revoke", a.auth.Require(http.HandlerFunc(a.revoke)))
	mux.Handle("POST /sessions/others", a.auth.Require(http.HandlerFunc(a.logOutOthers)))
	mux.Handle("GET /api/me", a.auth.Require(http.HandlerFunc(a.me)))
	// CrossOriginProtection rejects posts from forms on other sites.
	return http.NewCrossOriginProtection().Handler(a.auth.Middleware(mux))
}

func (a *app) welcome(w http.ResponseWriter, r *http.Request) {
	render(w, http.StatusOK, "welcome.html", nil)
}

// register creates an account and logs the user in.
func (a *app) register(w http.ResponseWriter, r *http.Request) {
	name, email, password := strings.TrimSpace(r.PostFormValue("name")), strings.TrimSpace(r.PostFormValue("email")), r.PostFormValue("password")
	problem := ""
	if address, err := mail.ParseAddress(email); err != nil || address.Address != email || len(email) > 255 {
		problem = "Enter a valid email address."
	}
	if name == "" || len(name) > 100 || !utf8.ValidString(name) {
		problem = "Enter your name (at most 100 characters)."
	}
	if len(password) < 8 {
		problem = "The password must have at least 8 characters."
	}
	if problem == "" {
		_, err := a.auth.Register(w, r, session.Fields{"name": name, "email": email}, password)
		switch {
		case errors.Is(err, session.ErrTooManyAttempts):
			problem = "Too many attempts. Please wait a while."
		case errors.Is(err, session.ErrDuplicate):
			problem = "An account with this email already exists."
		case errors.Is(err, session.ErrPasswordTooLong):
			problem = "The password must have at most 72 bytes."
		case err != nil:
			serverError(w, err)
			return
		}
	}
	if problem != "" {
		render(w, http.StatusUnprocessableEntity, "register.html", form{Problem: problem, Name: name, Email: email})
		return
	}
	http.Redirect(w, r, "/account", http.StatusSeeOther)
}

func (a *app) logIn(w http.ResponseWriter, r *http.Request) {
	email := r.PostFormValue("email")
	_, err := a.auth.Login(w, r, session.Credentials{"email": email}, r.PostFormValue("password"))
	switch {
	case errors.Is(err, session.ErrTooManyAttempts):
		render(w, http.StatusTooManyRequests, "login.html", form{Problem: "Too many attempts. Please wait a while.", Email: email, Next: session.ReturnTo(r, "")})
	case errors.Is(err, session.ErrInvalidCredentials):
		render(w, http.StatusUnauthorized, "login.html", form{Problem: "Wrong email or password.", Email: email, Next: session.ReturnTo(r, "")})
	case err != nil:
		serverError(w, err)
	default:
		http.Redirect(w, r, session.ReturnTo(r, "/account"), http.StatusSeeOther)
	}
}

func (a *app) logOut(w http.ResponseWriter, r *http.Request) {
	if err := a.auth.Logout(w, r); err != nil {
		serverError(w, err)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (a *app) account(w http.ResponseWriter, r *http.Request) {
	user, _ := a.auth.User(r)
	sessions, err := a.auth.Sessions(r.Context(), user.ID)
	if err != nil {
		serverError(w, err)
		return
	}
	render(w, http.StatusOK, "account.html", struct {
		User     User
		Sessions []session.Session
	}{user, sessions})
}

func (a *app) revoke(w http.ResponseWriter, r *http.Request) {
	user, _ := a.auth.User(r)
	if err := a.auth.Revoke(r.Context(), user.ID, r.PostFormValue("id")); err != nil && !errors.Is(err, session.ErrSessionNotFound) {
		serverError(w, err)
		return
	}
	http.Redirect(w, r, "/account", http.StatusSeeOther)
}

func (a *app) logOutOthers(w http.ResponseWriter, r *http.Request) {
	if err := a.auth.LogoutOthers(w, r); err != nil {
		serverError(w, err)
		return
	}
	http.Redirect(w, r, "/account", http.StatusSeeOther)
}

// me returns the user as JSON, for programs. Without a session, Require answers
// programs with 401.
func (a *app) me(w http.ResponseWriter, r *http.Request) {
	user, _ := a.auth.User(r)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(user)
}

//go:embed pages
var files embed.FS

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"browser": browserName,
	"timeAgo": timeAgo,
}).ParseFS(files, "pages/*.html"))

// A form is the data of a page with a form, which is shown again with the
// problem after invalid input.
type form struct{ Problem, Name, Email, Next string }

// page returns a handler that shows a page with an empty form.
func page(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		render(w, http.StatusOK, name, form{Next: session.ReturnTo(r, "")})
	})
}

// render writes a page.
func render(w http.ResponseWriter, status int, name string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	w.WriteHeader(status)
	if err := pages.ExecuteTemplate(w, name, data); err != nil {
		log.Print("quickstart: ", err)
	}
}

// serverError logs an error and asks the user to try again.
func serverError(w http.ResponseWriter, err error) {
	log.Print("quickstart: ", err)
	http.Error(w, "Something went wrong. Please try again.", http.StatusServiceUnavailable)
}

// browserName returns a short name of a User-Agent.
func browserName(userAgent string) string {
	for _, b := range [][2]string{{"Edg/", "Edge"}, {"OPR/", "Opera"}, {"Firefox/", "Firefox"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"}, {"curl/", "curl"}} {
		if strings.Contains(userAgent, b[0]) {
			for _, system := range [][2]string{{"iPhone", "iPhone"}, {"Android", "Android"}, {"Mac OS X", "macOS"}, {"Windows", "Windows"}, {"Linux", "Linux"}} {
				if strings.Contains(userAgent, system[0]) {
					return b[1] + " on " + system[1]
				}
			}
			return b[1]
		}
	}
	return "Unknown browser"
}

// timeAgo describes how long ago a time was.
func timeAgo(t time.Time) string {
	switch d := time.Since(t); {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprint(int(d.Minutes()), " min ago")
	case d < 24*time.Hour:
		return fmt.Sprint(int(d.Hours()), " h ago")
	default:
		return t.Format("2 January 2006")
	}
}
