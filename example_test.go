package session_test

import (
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"testing"

	"github.com/candysession/session"
	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/sessiontest"
	"github.com/jmoiron/sqlx"
	"golang.org/x/crypto/bcrypt"
)

// A User is the app's own type. Its fields map to columns of the users table.
type User struct {
	ID    int64  `db:"id"`
	Email string `db:"email"`
}

// t stands for the argument of a test.
var t = new(testing.T)

// database stands for the database of the app: a users table with
// alice@example.com, whose key is 1 and whose password is "correct horse".
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

// An app with a login, a page for logged-in users, and a logout.
func Example() {
	db, done := database() // in an app: session.Open(dsn)
	defer done()

	auth, err := session.New[User](db, session.Config{LoginURL: "/login"})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		user, err := auth.Login(w, r, session.Credentials{"email": r.PostFormValue("email")}, r.PostFormValue("password"))
		var tooMany *session.TooManyAttemptsError
		switch {
		case errors.As(err, &tooMany): // before ErrInvalidCredentials, which it also matches
			w.Header().Set("Retry-After", fmt.Sprint(int(tooMany.RetryAfter.Seconds())+1))
			http.Error(w, "Too many attempts", http.StatusTooManyRequests)
		case errors.Is(err, session.ErrInvalidCredentials):
			http.Error(w, "Wrong email or password", http.StatusUnauthorized)
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

	// A browser logs in, follows the redirect to the account, and logs out.
	browser := sessiontest.NewClient(t, app)
	browser.PostForm(browser.URL+"/login", url.Values{"email": {"alice@example.com"}, "password": {"correct horse"}})
	browser.Post(browser.URL+"/logout", "", nil)
	response, err := browser.Get(browser.URL + "/account")
	if err != nil {
		log.Fatal(err)
	}
	response.Body.Close()
	fmt.Println("then:", response.Status)
	// Output:
	// logged in: alice@example.com
	// account of user 1
	// logged in after logout: false
	// then: 401 Unauthorized
}
