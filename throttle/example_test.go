package throttle_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http/httptest"
	"time"

	"github.com/candysession/session"
	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/throttle"
	"github.com/jmoiron/sqlx"
	"golang.org/x/crypto/bcrypt"
)

type User struct {
	ID    int64  `db:"id"`
	Email string `db:"email"`
}

// database returns the database of an app, with an empty users table.
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
	return db, func() { db.Close(); drop() }
}

// guess tries a wrong password until it has to wait, and prints the wait.
func guess(auth *session.Manager[User]) {
	for failures := 0; ; failures++ {
		r := httptest.NewRequest("POST", "/login", nil)
		r.RemoteAddr = "203.0.113.9:1234"
		_, err := auth.Login(httptest.NewRecorder(), r, session.Credentials{"email": "alice@example.com"}, "a guess")
		var wait *session.TooManyAttemptsError
		switch {
		case errors.As(err, &wait):
			fmt.Println("after", failures, "failures:", wait)
			return
		case !errors.Is(err, session.ErrInvalidCredentials):
			log.Fatal(err)
		}
	}
}

// All app servers count in one table.
func ExampleNewMySQL() {
	db, done := database()
	defer done()

	shared, err := throttle.NewMySQL(db, "session_attempts", nil)
	if err != nil {
		log.Fatal(err)
	}
	auth, err := session.New[User](db, session.Config{Throttle: shared, PasswordCost: bcrypt.MinCost})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	guess(auth)
	// Output: after 5 failures: session: too many attempts; try again in 1s
}

// An app with a stricter limit per account. The other limits are the defaults.
func ExampleLimits() {
	db, done := database()
	defer done()

	auth, err := session.New[User](db, session.Config{
		PasswordCost: bcrypt.MinCost,
		Limits: throttle.Limits{
			Account: throttle.PerNetwork{
				Address: throttle.Limit{FreeFailures: 3, BaseDelay: time.Minute, MaxDelay: time.Hour},
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	guess(auth)
	// Output: after 3 failures: session: too many attempts; try again in 1m0s
}

// An app can limit its own attempts, such as those of a second factor.
func ExampleThrottle() {
	var codes throttle.Throttle = throttle.NewMemory()
	limit := throttle.Limit{FreeFailures: 2, BaseDelay: time.Minute, MaxDelay: time.Hour, ResetAfter: 24 * time.Hour}

	check := func(ctx context.Context, user, code string) error {
		wait, err := codes.Reserve(ctx, user, limit)
		if err != nil {
			return err
		}
		if wait > 0 {
			return fmt.Errorf("try again in %v", wait.Round(time.Second))
		}
		outcome := throttle.Failed // also after a panic
		defer func() { codes.Release(context.WithoutCancel(ctx), user, outcome) }()
		if code != "123456" {
			return errors.New("wrong code")
		}
		outcome = throttle.Succeeded
		return nil
	}
	for _, code := range []string{"000000", "111111", "123456"} {
		fmt.Println(check(context.Background(), "alice", code))
	}
	// Output:
	// wrong code
	// wrong code
	// try again in 1m0s
}
