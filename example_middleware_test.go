package session_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/candysession/session"
	"github.com/candysession/session/sessiontest"
	"github.com/jmoiron/sqlx"
)

// Browsers are redirected to the login, with the page to return to. Scripts get
// 401 Unauthorized.
func ExampleManager_Require() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{LoginURL: "/login"})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	account := auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _ := auth.User(r)
		fmt.Println("the account of", user.Email)
	}))

	page := httptest.NewRequest("GET", "/account", nil)
	page.Header.Set("Accept", "text/html") // as browsers do
	w := httptest.NewRecorder()
	account.ServeHTTP(w, page)
	fmt.Println(w.Code, w.Header().Get("Location"))

	script := httptest.NewRequest("GET", "/account", nil)
	w = httptest.NewRecorder()
	account.ServeHTTP(w, script)
	fmt.Println(w.Code)

	page = sessiontest.SignIn(t, auth, page, 1) // logs in, and adds the cookies
	w = httptest.NewRecorder()
	account.ServeHTTP(w, page)
	fmt.Println(w.Code)
	// Output:
	// 303 /login?next=%2Faccount
	// 401
	// the account of alice@example.com
	// 200
}

// A page that requires a recent login. RequireFresh returns a middleware, which
// routers such as chi accept: r.With(auth.RequireFresh(10 * time.Minute)). An
// app with chi is in examples/frameworks.
func ExampleManager_RequireFresh() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{LoginURL: "/login", ConfirmURL: "/confirm"})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	changeEmail := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Println("changed") })
	app := auth.RequireFresh(10 * time.Minute)(changeEmail)

	for _, ago := range []time.Duration{time.Minute, time.Hour} {
		request := httptest.NewRequest("GET", "/email", nil)
		request.Header.Set("Accept", "text/html")
		request = sessiontest.SignIn(t, auth, request, 1, sessiontest.LoggedInAgo(ago))
		w := httptest.NewRecorder()
		app.ServeHTTP(w, request)
		fmt.Printf("%v ago: %d %q\n", ago, w.Code, w.Header().Get("Location"))
	}
	// Output:
	// changed
	// 1m0s ago: 200 ""
	// 1h0m0s ago: 303 "/confirm?next=%2Femail"
}

// A page that differs for logged-in users.
func ExampleManager_Switch() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	home := auth.Switch(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Println("your feed") }),
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Println("welcome;", auth.Err(r)) }),
	)

	request := httptest.NewRequest("GET", "/", nil)
	home.ServeHTTP(httptest.NewRecorder(), request)
	request = sessiontest.SignIn(t, auth, request, 1) // logs in, and adds the cookies
	home.ServeHTTP(httptest.NewRecorder(), request)
	// Output:
	// welcome; session: no session cookie
	// your feed
}

// A function that has a context and no request, such as a resolver of GraphQL.
func ExampleManager_FromContext() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	viewer := func(ctx context.Context) (string, error) {
		state := auth.FromContext(ctx)
		return state.User.Email, state.Err
	}
	app := auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(viewer(r.Context()))
	}))

	request := httptest.NewRequest("POST", "/graphql", nil)
	app.ServeHTTP(httptest.NewRecorder(), request)
	request = sessiontest.SignIn(t, auth, request, 1) // logs in, and adds the cookies
	app.ServeHTTP(httptest.NewRecorder(), request)
	fmt.Println(viewer(context.Background()))
	// Output:
	//  session: no session cookie
	// alice@example.com <nil>
	//  session: request did not pass through the Manager's Middleware
}

// An adapter for a framework whose handlers return an error.
func ExampleManager_Authenticate() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	type handler func(w http.ResponseWriter, r *http.Request) error
	errUnauthorized := errors.New("401 Unauthorized")
	errUnavailable := errors.New("503 Service Unavailable")
	require := func(next handler) handler {
		return func(w http.ResponseWriter, r *http.Request) error {
			r, err := auth.Authenticate(w, r)
			if err != nil { // this says nothing about the user
				return errUnavailable
			}
			if !auth.Check(r) {
				return errUnauthorized
			}
			return next(w, r)
		}
	}

	account := require(func(w http.ResponseWriter, r *http.Request) error {
		user, _ := auth.User(r)
		fmt.Println("the account of", user.Email)
		return nil
	})
	request := httptest.NewRequest("GET", "/account", nil)
	fmt.Println(account(httptest.NewRecorder(), request))
	request = sessiontest.SignIn(t, auth, request, 1) // logs in, and adds the cookies
	fmt.Println(account(httptest.NewRecorder(), request))
	db.Close() // the database fails
	fmt.Println(account(httptest.NewRecorder(), request))
	// Output:
	// 401 Unauthorized
	// the account of alice@example.com
	// <nil>
	// 503 Service Unavailable
}

// A page polls for news every minute. The polls are no visits, so the session
// still expires when the user is away.
func ExampleManager_Peek() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{MaxAge: 30 * time.Minute, UpdateAge: time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	news := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		state, err := auth.Peek(r)
		switch {
		case err != nil:
			http.Error(w, "Please try again", http.StatusServiceUnavailable)
		case state.Err != nil:
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
		default:
			fmt.Fprint(w, "no news for ", state.User.Email)
		}
	})

	for _, away := range []time.Duration{20 * time.Minute, 40 * time.Minute} {
		request := httptest.NewRequest("GET", "/news", nil)
		request = sessiontest.SignIn(t, auth, request, 1, sessiontest.LoggedInAgo(away))
		w := httptest.NewRecorder()
		news.ServeHTTP(w, request)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 no news for alice@example.com
	// 401 Unauthorized
}

// A test of a handler, without a database.
func ExampleManager_WithState() {
	db, err := sqlx.Open("mysql", "app@tcp(db.invalid)/app") // does not connect
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	account := auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _ := auth.User(r)
		fmt.Fprint(w, "the account of ", user.Email)
	}))

	for _, state := range []session.State[User]{
		{User: User{ID: 1, Email: "alice@example.com"}},
		{Err: session.ErrExpired},
	} {
		request := httptest.NewRequest("GET", "/account", nil)
		request = request.WithContext(auth.WithState(request.Context(), state))
		w := httptest.NewRecorder()
		account.ServeHTTP(w, request)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 the account of alice@example.com
	// 401 Unauthorized
}
