package session_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/candysession/session"
	"github.com/candysession/session/internal/testdb"
	"github.com/jmoiron/sqlx"
	"golang.org/x/crypto/bcrypt"
)

type User struct {
	ID    int64  `db:"id"`
	Email string `db:"email"`
}

// database returns the app's own database, with one user.
func database() (db *sqlx.DB, done func()) {
	dsn, drop, err := testdb.Schema()
	if err != nil {
		log.Fatal(err)
	}
	if db, err = session.Open(dsn); err != nil {
		log.Fatal(err)
	}
	db.SetMaxOpenConns(testdb.Connections())
	db.MustExec("CREATE TABLE users (id INT AUTO_INCREMENT PRIMARY KEY, email VARCHAR(255) NOT NULL UNIQUE, password VARCHAR(255) NOT NULL)")
	hash, _ := bcrypt.GenerateFromPassword([]byte("correct horse"), bcrypt.MinCost)
	db.MustExec("INSERT INTO users (email, password) VALUES ('alice@example.com', ?)", hash)
	return db, func() { db.Close(); drop() }
}

// visit sends a request with these cookies.
func visit(h http.Handler, method, target string, cookies ...*http.Cookie) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	for _, c := range cookies {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func Example() {
	db, done := database()
	defer done()

	auth, err := session.New[User](db, session.Config{LoginURL: "/login"})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		user, err := auth.Login(w, r, session.Credentials{"email": r.FormValue("email")}, r.FormValue("password"))
		switch {
		case errors.Is(err, session.ErrInvalidCredentials):
			http.Error(w, "Wrong e-mail or password", http.StatusUnauthorized)
		case err != nil:
			http.Error(w, "Please try again", http.StatusServiceUnavailable)
		default:
			fmt.Println("logged in:", user.Email)
			http.Redirect(w, r, session.ReturnTo(r, "/account"), http.StatusSeeOther)
		}
	})
	mux.Handle("GET /account", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _ := auth.User(r)
		fmt.Println("account of user", user.ID)
	})))
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		if err := auth.Logout(w, r); err != nil {
			http.Error(w, "Please try again", http.StatusServiceUnavailable)
			return
		}
		fmt.Println("logged in after logout:", auth.Check(r))
	})
	app := auth.Middleware(mux)

	login := visit(app, "POST", "/login?email=alice@example.com&password=correct+horse")
	visit(app, "GET", "/account", login.Cookies()...)
	visit(app, "POST", "/logout", login.Cookies()...)
	fmt.Println("then:", visit(app, "GET", "/account", login.Cookies()...).Status)
	// Output:
	// logged in: alice@example.com
	// account of user 1
	// logged in after logout: false
	// then: 401 Unauthorized
}

func ExampleLoadConfig() {
	path := filepath.Join(os.TempDir(), "session-example-config.json")
	defer os.Remove(path)
	os.WriteFile(path, []byte(`{
		"auth":  { "table": "users", "key": "id", "token": "user_tokens", "maxAge": 900000, "updateAge": 300000 },
		"mysql": { "host": "localhost", "user": "app", "password": "secret", "database": "app" }
	}`), 0o600)

	cfg, dsn, err := session.LoadConfig(path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(cfg.MaxAge, cfg.UpdateAge)
	db, err := session.Open(dsn)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	// Output: 15m0s 5m0s
}

// After OAuth, a passkey or an email link, the app already knows the user.
func ExampleManager_LoginAs() {
	db, done := database()
	defer done()
	auth, err := session.New[session.Row](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	callback := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, err := auth.LoginAs(w, r, 1)
		fmt.Println(user["email"], err)
		_, hasPassword := user["password"]
		fmt.Println("password in the row:", hasPassword)
	})
	visit(auth.Middleware(callback), "GET", "/oauth/callback")
	// Output:
	// alice@example.com <nil>
	// password in the row: false
}

// A page that differs for logged-in users.
func ExampleManager_Switch() {
	db, done := database()
	defer done()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	home := auth.Switch(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Println("your feed") }),
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Println("welcome, and why not:", auth.Err(r)) }),
	)
	visit(home, "GET", "/")
	// Output: welcome, and why not: session: no session cookie
}

// A page that lists the user's sessions, and revokes one.
func ExampleManager_Sessions() {
	db, done := database()
	defer done()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()
	login := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { auth.LoginAs(w, r, 1) })
	visit(login, "POST", "/login")
	laptop := visit(login, "POST", "/login")

	page := auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _ := auth.User(r)
		sessions, err := auth.Sessions(r.Context(), user.ID)
		if err != nil {
			http.Error(w, "Please try again", http.StatusServiceUnavailable)
			return
		}
		for _, s := range sessions {
			fmt.Println("from", s.IP, "this one:", s.Current)
			if !s.Current {
				fmt.Println("revoked:", auth.Revoke(r.Context(), user.ID, s.ID) == nil)
			}
		}
	}))
	visit(page, "GET", "/sessions", laptop.Cookies()...)
	// Output:
	// from 192.0.2.1 this one: true
	// from 192.0.2.1 this one: false
	// revoked: true
}

// A manual purge. Every login also starts one.
func ExampleManager_Purge() {
	db, done := database()
	defer done()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	purged, err := auth.Purge(ctx)
	if err != nil {
		log.Fatal(err)
	}
	stats, err := auth.Stats(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("purged", purged, "of", stats.Rows+purged)
	// Output: purged 0 of 0
}
