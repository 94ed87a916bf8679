package sessiontest_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/candysession/session"
	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/sessiontest"
	"github.com/jmoiron/sqlx"
)

// t is the testing.T of a test.
var t = new(testing.T)

// database returns the app's test database, with one user.
func database() (db *sqlx.DB, done func()) {
	dsn, drop, err := testdb.Schema()
	if err != nil {
		log.Fatal(err)
	}
	if db, err = session.Open(dsn); err != nil {
		log.Fatal(err)
	}
	db.SetMaxOpenConns(testdb.Connections())
	db.MustExec("CREATE TABLE users (id INT AUTO_INCREMENT PRIMARY KEY, email VARCHAR(255) NOT NULL UNIQUE, password VARCHAR(255) NULL)")
	db.MustExec("INSERT INTO users (email) VALUES ('alice@example.com')")
	return db, func() { db.Close(); drop() }
}

// routes returns the app's routes: an account page, and one that requires a
// recent login.
func routes(auth *session.Manager[User]) http.Handler {
	account := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _ := auth.User(r)
		fmt.Fprint(w, "the account of ", user.Email)
	})
	mux := http.NewServeMux()
	mux.Handle("GET /account", auth.Require(account))
	mux.Handle("POST /account/delete", auth.RequireFresh(10*time.Minute)(account))
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		if _, err := auth.LoginAs(w, r, 1); err != nil { // an app asks for a password
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	return auth.Middleware(mux)
}

func ExampleSignIn() {
	db, done := database()
	defer done()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()
	app := routes(auth)

	r := sessiontest.SignIn(t, auth, httptest.NewRequest("GET", "/account", nil), 1)
	w := httptest.NewRecorder()
	app.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)

	// Output: 200 the account of alice@example.com
}

func ExampleLoggedInAgo() {
	db, done := database()
	defer done()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()
	app := routes(auth)

	for _, ago := range []time.Duration{time.Minute, time.Hour} {
		r := httptest.NewRequest("POST", "/account/delete", nil)
		r = sessiontest.SignIn(t, auth, r, 1, sessiontest.LoggedInAgo(ago))
		w := httptest.NewRecorder()
		app.ServeHTTP(w, r)
		fmt.Println(ago, w.Code)
	}

	// Output:
	// 1m0s 200
	// 1h0m0s 403
}

func ExampleWithState() {
	db, err := sqlx.Open("mysql", "app@tcp(db.invalid)/app") // which does not connect
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()
	app := routes(auth)

	for _, state := range []session.State[User]{
		{User: User{ID: 1, Email: "alice@example.com"}},
		{Err: session.ErrExpired},
	} {
		r := sessiontest.WithState(t, auth, httptest.NewRequest("GET", "/account", nil), state)
		w := httptest.NewRecorder()
		app.ServeHTTP(w, r)
		fmt.Print(w.Code, " ", w.Body, "\n")
	}

	// Output:
	// 200 the account of alice@example.com
	// 401 Unauthorized
}

func ExampleNewClient() {
	db, done := database()
	defer done()
	events := sessiontest.NewRecorder(t)
	auth, err := session.New[User](db, session.Config{OnEvent: events.OnEvent})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	client := sessiontest.NewClient(t, routes(auth))
	if _, err := client.Post(client.URL+"/login", "", nil); err != nil {
		log.Fatal(err)
	}
	response, err := client.Get(client.URL + "/account")
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(response.StatusCode, string(body))
	fmt.Println(events.Kinds())

	// Output:
	// 200 the account of alice@example.com
	// [login]
}
