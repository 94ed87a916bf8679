package session_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/candysession/session"
	"github.com/candysession/session/sessiontest"
)

// A password and a code of an authenticator. Only both of them start a session.
func ExampleManager_CheckPassword() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	// isCode stands for a library of one-time passwords. It must limit guesses,
	// as CheckPassword does.
	isCode := func(user User, code string) bool { return code == "492039" }

	login := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, err := auth.CheckPassword(r, session.Credentials{"email": r.PostFormValue("email")}, r.PostFormValue("password"))
		switch {
		case errors.Is(err, session.ErrTooManyAttempts):
			http.Error(w, "Too many attempts", http.StatusTooManyRequests)
			return
		case errors.Is(err, session.ErrInvalidCredentials):
			http.Error(w, "Wrong email or password", http.StatusUnauthorized)
			return
		case err != nil:
			http.Error(w, "Please try again", http.StatusServiceUnavailable)
			return
		case !isCode(user, r.PostFormValue("code")):
			http.Error(w, "Wrong code", http.StatusUnauthorized)
			return
		}
		if _, err := auth.LoginAs(w, r, user.ID); err != nil {
			http.Error(w, "Please try again", http.StatusServiceUnavailable)
		}
	})

	browser := sessiontest.NewClient(t, login)
	for _, code := range []string{"000000", "492039"} {
		response, err := browser.PostForm(browser.URL, url.Values{
			"email": {"alice@example.com"}, "password": {"correct horse"}, "code": {code},
		})
		if err != nil {
			log.Fatal(err)
		}
		response.Body.Close()
		fmt.Println(response.Status, "with a session:", len(response.Cookies()) > 0)
	}
	// Output:
	// 401 Unauthorized with a session: false
	// 200 OK with a session: true
}

// The callback of OAuth. A passkey or a link in an email ends in the same call.
func ExampleManager_LoginAs() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	// exchange stands for the OAuth library. It returns an email address that
	// the provider has verified.
	exchange := func(ctx context.Context, code string) (email string, err error) { return "alice@example.com", nil }

	callback := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		email, err := exchange(r.Context(), r.FormValue("code"))
		if err != nil {
			http.Error(w, "Login failed", http.StatusUnauthorized)
			return
		}
		var id int64
		err = db.GetContext(r.Context(), &id, "SELECT id FROM users WHERE email = ?", email)
		if errors.Is(err, sql.ErrNoRows) {
			http.Redirect(w, r, "/register", http.StatusSeeOther)
			return
		}
		if err == nil {
			_, err = auth.LoginAs(w, r, id)
		}
		if err != nil {
			http.Error(w, "Please try again", http.StatusServiceUnavailable)
			return
		}
		user, _ := auth.User(r)
		fmt.Println("logged in:", user.Email)
		http.Redirect(w, r, "/account", http.StatusSeeOther)
	})

	w := httptest.NewRecorder()
	auth.Middleware(callback).ServeHTTP(w, httptest.NewRequest("GET", "/callback?code=abc", nil))
	fmt.Println("to", w.Header().Get("Location"))
	// Output:
	// logged in: alice@example.com
	// to /account
}

// A form that creates an account and logs in.
func ExampleManager_Register() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	form := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, err := auth.Register(w, r, session.Fields{"email": r.PostFormValue("email")}, r.PostFormValue("password"))
		var duplicate *session.DuplicateError
		switch {
		case errors.As(err, &duplicate):
			http.Error(w, fmt.Sprint("Already taken: ", duplicate.Columns), http.StatusConflict)
		case errors.Is(err, session.ErrTooManyAttempts):
			http.Error(w, "Too many attempts", http.StatusTooManyRequests)
		case errors.Is(err, session.ErrPasswordTooLong), errors.Is(err, session.ErrInvalidArgument):
			http.Error(w, "Please choose another password", http.StatusBadRequest)
		case err != nil:
			http.Error(w, "Please try again", http.StatusServiceUnavailable)
		default:
			fmt.Println("user", user.ID, "is", user.Email)
		}
	})

	browser := sessiontest.NewClient(t, form)
	for _, email := range []string{"bob@example.com", "alice@example.com"} {
		response, err := browser.PostForm(browser.URL, url.Values{"email": {email}, "password": {"a long passphrase"}})
		if err != nil {
			log.Fatal(err)
		}
		response.Body.Close()
		fmt.Println(response.Status)
	}
	// Output:
	// user 2 is bob@example.com
	// 200 OK
	// 409 Conflict
}

// A program for administrators, which has no request.
func ExampleManager_CreateUser() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	for _, email := range []string{"bob@example.com", "alice@example.com"} {
		user, err := auth.CreateUser(context.Background(), session.Fields{"email": email}, "a long passphrase")
		if errors.Is(err, session.ErrDuplicate) {
			fmt.Println(email, "exists")
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("user", user.ID, "is", user.Email)
	}
	// Output:
	// user 2 is bob@example.com
	// alice@example.com exists
}

// The form behind a link in an email, for a user that has forgotten the
// password.
func ExampleManager_ResetPassword() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	// userOf stands for the app: it accepts the secret of a link once.
	userOf := func(secret string) (id int64, ok bool) { return 1, secret == "from-the-email" }

	form := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, ok := userOf(r.PostFormValue("secret"))
		if !ok {
			http.Error(w, "This link has expired", http.StatusGone)
			return
		}
		_, err := auth.LoginAs(w, r, id)
		if err == nil {
			// This also ends the user's other sessions.
			err = auth.ResetPassword(w, r, r.PostFormValue("password"))
		}
		if err != nil {
			http.Error(w, "Please try again", http.StatusServiceUnavailable)
		}
	})

	browser := sessiontest.NewClient(t, auth.Middleware(form))
	response, err := browser.PostForm(browser.URL, url.Values{"secret": {"from-the-email"}, "password": {"battery staple"}})
	if err != nil {
		log.Fatal(err)
	}
	response.Body.Close()

	request := httptest.NewRequest("POST", "/login", nil)
	_, err = auth.CheckPassword(request, session.Credentials{"email": "alice@example.com"}, "battery staple")
	fmt.Println(response.Status, "with the new password:", err)
	// Output: 200 OK with the new password: <nil>
}
