// Command graphql is a GraphQL API with sessions. Its resolvers get a context
// and no request. Set DSN to its database.
package main

import (
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/candysession/session"
	"github.com/graph-gophers/graphql-go"
	"github.com/graph-gophers/graphql-go/relay"
)

const schema = `
	schema { query: Query }
	type Query { me: User! }
	type User { id: ID!, email: String! }
`

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
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", s.login)
	mux.Handle("POST /graphql", &relay.Handler{Schema: graphql.MustParseSchema(schema, &query{s})})
	return s.auth.Middleware(mux)
}

// A query resolves the fields of Query.
type query struct{ site *site }

// Me resolves the field me, or fails if the request is not logged in.
func (q *query) Me(ctx context.Context) (*userResolver, error) {
	state := q.site.auth.FromContext(ctx)
	if state.Err != nil {
		return nil, state.Err
	}
	q.site.visits.Add(1)
	return &userResolver{state.User}, nil
}

type userResolver struct{ user User }

func (r *userResolver) ID() graphql.ID { return graphql.ID(strconv.FormatInt(r.user.ID, 10)) }
func (r *userResolver) Email() string  { return r.user.Email }

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
