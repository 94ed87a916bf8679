// Command shared-with-candypack is the Go part of an app that migrates from
// CandyPack route by route. It reads CandyPack's config.json and shares the
// users, sessions and cookies.
//
//	export MYSQL_HOST=localhost MYSQL_USER=app MYSQL_PASSWORD=…
//	cd examples/shared-with-candypack
//	go run . -config config.json
//
// A proxy must serve both parts under one host name over https.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/mail"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/candysession/session"
)

// A User has the columns of CandyPack's users table that this app needs.
type User struct {
	ID    int64  `db:"id"`
	Email string `db:"email"`
}

func main() {
	config := flag.String("config", "config.json", "CandyPack's configuration file")
	addr := flag.String("addr", "localhost:8080", "address to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *config, *addr, nil); err != nil {
		log.Fatal(err)
	}
}

// run serves until the context ends. It calls listening with its address.
func run(ctx context.Context, config, addr string, listening func(net.Addr)) error {
	cfg, err := session.LoadConfig(config)
	if err != nil {
		return err
	}
	cfg.CandyPack = session.CandyPackShare
	cfg.LoginURL = "/login" // may still be a page of CandyPack
	db, err := session.Open(cfg.DSN)
	if err != nil {
		return err
	}
	defer db.Close()
	auth, err := session.New[User](db, cfg)
	if err != nil {
		return err
	}
	defer auth.Close()
	ran, err := auth.Migrate(ctx)
	if err != nil {
		return err
	}
	for _, statement := range ran {
		log.Print(statement)
	}

	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	if listening != nil {
		listening(listener.Addr())
	}
	server := &http.Server{Handler: http.NewCrossOriginProtection().Handler(auth.Middleware(routes(auth))), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { server.Shutdown(context.WithoutCancel(ctx)) })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// routes returns the app's pages.
func routes(auth *session.Manager[User]) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /account", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _ := auth.User(r)
		fmt.Fprintln(w, "Hello,", user.Email)
	})))
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		_, err := auth.Login(w, r, session.Credentials{"email": r.PostFormValue("email")}, r.PostFormValue("password"))
		answer(w, r, err)
	})
	mux.HandleFunc("POST /register", func(w http.ResponseWriter, r *http.Request) {
		address, err := mail.ParseAddress(r.PostFormValue("email"))
		if err != nil {
			http.Error(w, "Please fill in the form", http.StatusBadRequest)
			return
		}
		_, err = auth.Register(w, r, session.Fields{"email": address.Address}, r.PostFormValue("password"))
		answer(w, r, err)
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, auth.Logout(w, r))
	})
	return mux
}

// answer redirects to the account, or responds with the error.
func answer(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case err == nil:
		http.Redirect(w, r, "/account", http.StatusSeeOther)
	case errors.Is(err, session.ErrTooManyAttempts):
		http.Error(w, "Too many attempts, please wait a while", http.StatusTooManyRequests)
	case errors.Is(err, session.ErrInvalidCredentials):
		http.Error(w, "Wrong email or password", http.StatusUnauthorized)
	case errors.Is(err, session.ErrDuplicate):
		http.Error(w, "An account with this email already exists", http.StatusConflict)
	case errors.Is(err, session.ErrInvalidArgument), errors.Is(err, session.ErrPasswordTooLong):
		http.Error(w, "Please fill in the form", http.StatusBadRequest)
	default:
		log.Print(err)
		http.Error(w, "Please try again", http.StatusServiceUnavailable)
	}
}
