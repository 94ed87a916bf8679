// Command chi is an app of chi with sessions. Set DSN to its database.
package main

import (
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"sync/atomic"

	"github.com/candysession/session"
	"github.com/go-chi/chi/v5"
)

type User struct {
	ID    int64  `db:"id"`
	Email string `db:"email"`
}

type site struct {
	auth   *session.Manager[User]
	visits atomic.Int64
}

func main() {
	db, err := session.Open(os.Getenv("DSN"))
	if err != nil {
		log.Fatal(err)
	}
	auth, err := session.New[User](db, session.Config{})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("localhost:8080", (&site{auth: auth}).routes()))
}

func (s *site) routes() http.Handler {
	router := chi.NewRouter()
	router.Use(s.auth.Middleware)
	router.Post("/login", s.login)
	router.With(s.auth.Require).Get("/account", s.account)
	return router
}

func (s *site) account(w http.ResponseWriter, r *http.Request) {
	s.visits.Add(1)
	user, _ := s.auth.User(r)
	fmt.Fprintf(w, "You are %s.", user.Email)
}

func (s *site) login(w http.ResponseWriter, r *http.Request) {
	_, err := s.auth.Login(w, r, session.Credentials{"email": r.PostFormValue("email")}, r.PostFormValue("password"))
	switch {
	case errors.Is(err, session.ErrInvalidCredentials):
		w.WriteHeader(http.StatusUnauthorized)
	case err != nil:
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}
