// Command gin is an app of gin with sessions. Set DSN to its database.
package main

import (
	"errors"
	"log"
	"net/http"
	"os"
	"sync/atomic"

	"github.com/candysession/session"
	"github.com/gin-gonic/gin"
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

// use makes a middleware one of gin. If the middleware responds by itself, no
// further handler of the chain runs.
func use(middleware func(http.Handler) http.Handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		passed := false
		next := func(_ http.ResponseWriter, r *http.Request) { passed, c.Request = true, r; c.Next() }
		middleware(http.HandlerFunc(next)).ServeHTTP(c.Writer, c.Request)
		if !passed {
			c.Abort()
		}
	}
}

func (s *site) routes() http.Handler {
	engine := gin.New()
	engine.Use(use(s.auth.Middleware))
	engine.POST("/login", s.login)
	engine.GET("/account", use(s.auth.Require), s.account)
	return engine
}

func (s *site) account(c *gin.Context) {
	s.visits.Add(1)
	user, _ := s.auth.User(c.Request)
	c.String(http.StatusOK, "You are %s.", user.Email)
}

func (s *site) login(c *gin.Context) {
	_, err := s.auth.Login(c.Writer, c.Request, session.Credentials{"email": c.PostForm("email")}, c.PostForm("password"))
	switch {
	case errors.Is(err, session.ErrInvalidCredentials):
		c.Status(http.StatusUnauthorized)
	case err != nil:
		c.Status(http.StatusServiceUnavailable)
	default:
		c.Status(http.StatusNoContent)
	}
}
