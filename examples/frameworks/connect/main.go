// Command connect is a service of Connect RPC with sessions. Set DSN to its
// database.
package main

import (
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"sync/atomic"

	"connectrpc.com/connect"
	"github.com/candysession/session"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// procedure is the name that generated code would use.
const procedure = "/account.v1.AccountService/WhoAmI"

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

// require rejects calls that are not logged in. It is an interceptor.
func (s *site) require(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		if err := s.auth.FromContext(ctx).Err; err != nil {
			return nil, connect.NewError(connect.CodeUnauthenticated, err)
		}
		return next(ctx, request)
	}
}

func (s *site) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", s.login)
	mux.Handle(procedure, connect.NewUnaryHandler(procedure, s.whoAmI, connect.WithInterceptors(connect.UnaryInterceptorFunc(s.require))))
	return s.auth.Middleware(mux)
}

func (s *site) whoAmI(ctx context.Context, _ *connect.Request[emptypb.Empty]) (*connect.Response[wrapperspb.StringValue], error) {
	s.visits.Add(1)
	user := s.auth.FromContext(ctx).User
	return connect.NewResponse(wrapperspb.String(user.Email)), nil
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
