package session_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/candysession/session"
	"github.com/candysession/session/sessiontest"
)

// A page "Where you are logged in", with a button to end each other session.
func ExampleManager_Sessions() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	mux := http.NewServeMux()
	mux.HandleFunc("GET /sessions", func(w http.ResponseWriter, r *http.Request) {
		user, _ := auth.User(r)
		sessions, err := auth.Sessions(r.Context(), user.ID)
		if err != nil {
			http.Error(w, "Please try again", http.StatusServiceUnavailable)
			return
		}
		for _, s := range sessions { // an app shows s.Browser, s.IP, s.Created and s.Active
			fmt.Println(s.Browser, "this browser:", s.Current)
		}
	})
	app := auth.Require(mux)

	phone := httptest.NewRequest("GET", "/sessions", nil)
	phone.Header.Set("User-Agent", "Phone/1.0")
	sessiontest.SignIn(t, auth, phone, 1, sessiontest.LoggedInAgo(time.Hour))
	laptop := httptest.NewRequest("GET", "/sessions", nil)
	laptop.Header.Set("User-Agent", "Laptop/1.0")
	laptop = sessiontest.SignIn(t, auth, laptop, 1) // logs in, and adds the cookies
	app.ServeHTTP(httptest.NewRecorder(), laptop)
	// Output:
	// Laptop/1.0 this browser: true
	// Phone/1.0 this browser: false
}

// The button of that page: a form that sends the ID of a session. Users cannot
// revoke the sessions of others.
func ExampleManager_Revoke() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()
	bob, err := auth.CreateUser(context.Background(), session.Fields{"email": "bob@example.com"}, "a long passphrase")
	if err != nil {
		log.Fatal(err)
	}

	request := httptest.NewRequest("GET", "/", nil)
	request = sessiontest.SignIn(t, auth, request, 1) // logs in, and adds the cookies
	sessions, err := auth.Sessions(context.Background(), 1)
	if err != nil {
		log.Fatal(err)
	}
	id := sessions[0].ID

	fmt.Println("by bob:", auth.Revoke(context.Background(), bob.ID, id))
	fmt.Println("by alice:", auth.Revoke(context.Background(), 1, id))
	state, err := auth.Peek(request)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("then:", state.Err)
	// Output:
	// by bob: session: no such session
	// by alice: <nil>
	// then: session: unknown session
}

// An administrator resets the password of a user, whose account may be in the
// hands of somebody else: every session of it ends.
func ExampleManager_LogoutAll() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()
	for range 2 { // two browsers
		sessiontest.SignIn(t, auth, httptest.NewRequest("GET", "/", nil), 1)
	}

	ctx := context.Background()
	hash, err := auth.HashPassword(ctx, "a new passphrase")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := db.ExecContext(ctx, "UPDATE users SET password = ? WHERE id = ?", hash, 1); err != nil {
		log.Fatal(err)
	}
	n, err := auth.LogoutAll(ctx, 1)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("sessions ended:", n)
	// Output: sessions ended: 2
}

// A program that purges every night. Logins purge too, so this is optional.
func ExampleManager_Purge() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{MaxAge: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()
	request := httptest.NewRequest("GET", "/", nil)
	sessiontest.SignIn(t, auth, request, 1, sessiontest.LoggedInAgo(2*time.Hour))

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
	fmt.Println("purged", purged, "and kept", stats.Rows)
	// Output: purged 1 and kept 0
}
