// Command echo is an app of echo with sessions. Set DSN to its database.
package main

import (
	"errors"
	"log"
	"net/http"
	"os"
	"sync/atomic"

	"github.com/candysession/session"
	"github.com/labstack/echo/v4"
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
	e := echo.New()
	e.Use(echo.WrapMiddleware(s.auth.Middleware))
	e.POST("/login", s.login)
	e.GET("/account", s.account, echo.WrapMiddleware(s.auth.Require))
	return e
}

func (s *site) account(c echo.Context) error {
	s.visits.Add(1)
	user, _ := s.auth.User(c.Request())
	return c.String(http.StatusOK, "You are "+user.Email+".")
}

func (s *site) login(c echo.Context) error {
	_, err := s.auth.Login(c.Response(), c.Request(), session.Credentials{"email": c.FormValue("email")}, c.FormValue("password"))
	switch {
	case errors.Is(err, session.ErrInvalidCredentials):
		return echo.ErrUnauthorized
	case err != nil:
		return echo.ErrServiceUnavailable
	}
	return c.NoContent(http.StatusNoContent)
}
