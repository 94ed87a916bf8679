package session_test

import (
	"context"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/candysession/session"
	"github.com/candysession/session/sessiontest"
	"github.com/candysession/session/throttle"
)

// The configuration may be a file that other programs share.
func ExampleLoadConfig() {
	path := filepath.Join(os.TempDir(), "session-example-config.json")
	defer os.Remove(path)
	os.WriteFile(path, []byte(`{
		"auth":  { "table": "users", "key": "id", "token": "user_tokens", "maxAge": 900000, "updateAge": 300000 },
		"mysql": { "host": "localhost", "user": "app", "password": "secret", "database": "app" }
	}`), 0o600)

	cfg, dsn, err := session.LoadConfig(path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(cfg.MaxAge, cfg.UpdateAge)
	db, err := session.Open(dsn) // does not connect
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	auth, err := session.New[User](db, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()
	// Output: 15m0s 5m0s
}

// An audit log and an alarm.
func ExampleConfig_onEvent() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{
		OnEvent: func(_ context.Context, e session.Event) {
			switch e.Kind {
			case session.EventTokenMismatch, session.EventFingerprintMismatch, session.EventRevokedTokenUsed:
				fmt.Println("alarm:", e.Kind, "of user", e.User)
			default:
				fmt.Println("audit:", e.Kind, "of user", e.User, "from", e.ClientIP)
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	request := httptest.NewRequest("GET", "/", nil)
	request.Header.Set("User-Agent", "Firefox/140.0")
	request = sessiontest.SignIn(t, auth, request, 1) // logs in, and adds the cookies

	request.Header.Set("User-Agent", "curl/8.0") // somebody has copied them
	auth.Middleware(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), request)
	// Output:
	// audit: login of user 1 from 192.0.2.1
	// alarm: fingerprint-mismatch of user 1
}

// Behind a proxy, the address of a request is the proxy's. A header that the
// proxy overwrites names the client.
func ExampleConfig_clientIP() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{
		ClientIP: func(r *http.Request) string { return r.Header.Get("X-Real-IP") },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	request := httptest.NewRequest("POST", "/login", nil)
	request.RemoteAddr = "10.0.0.1:1234"               // the proxy
	request.Header.Set("X-Real-IP", "203.0.113.9:443") // written by the proxy
	if _, err := auth.LoginAs(httptest.NewRecorder(), request, 1); err != nil {
		log.Fatal(err)
	}
	sessions, err := auth.Sessions(context.Background(), 1)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("logged in from", sessions[0].IP)
	// Output: logged in from 203.0.113.9
}

// Three failures for an account from one address, and then a delay of a minute.
// The other limits keep their defaults. App servers share their counts if
// Throttle is that of throttle.NewMySQL.
func ExampleConfig_limits() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{
		Limits: throttle.Limits{
			Account: throttle.PerNetwork{
				Address: throttle.Limit{FreeFailures: 3, BaseDelay: time.Minute},
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	for range 4 {
		request := httptest.NewRequest("POST", "/login", nil)
		_, err := auth.Login(httptest.NewRecorder(), request, session.Credentials{"email": "alice@example.com"}, "a guess")
		var tooMany *session.TooManyAttemptsError
		if errors.As(err, &tooMany) {
			fmt.Println("wait for", tooMany.RetryAfter.Round(time.Minute))
		} else {
			fmt.Println(err)
		}
	}
	// Output:
	// session: invalid credentials
	// session: invalid credentials
	// session: invalid credentials
	// wait for 1m0s
}

// Users who come from a program that stored the hex SHA-1 of passwords keep
// them. Each login replaces such a value by a bcrypt hash.
func ExampleConfig_verifyPassword() {
	db, done := database() // a users table
	defer done()
	sha1Hex := func(password string) string {
		sum := sha1.Sum([]byte(password))
		return hex.EncodeToString(sum[:])
	}
	db.MustExec("INSERT INTO users (email, password) VALUES ('bob@example.com', ?)", sha1Hex("old secret"))

	auth, err := session.New[User](db, session.Config{
		VerifyPassword: func(stored, password string) bool {
			return subtle.ConstantTimeCompare([]byte(stored), []byte(sha1Hex(password))) == 1
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	request := httptest.NewRequest("POST", "/login", nil)
	user, err := auth.Login(httptest.NewRecorder(), request, session.Credentials{"email": "bob@example.com"}, "old secret")
	if err != nil {
		log.Fatal(err)
	}
	var stored string
	if err := db.Get(&stored, "SELECT password FROM users WHERE id = ?", user.ID); err != nil {
		log.Fatal(err)
	}
	fmt.Println(user.Email, "now has a hash that begins with", stored[:7])
	// Output: bob@example.com now has a hash that begins with $2a$10$
}

// Sessions that are bound to a device, which a native app names in a header.
func ExampleFingerprint() {
	db, done := database() // a users table with alice@example.com
	defer done()
	auth, err := session.New[User](db, session.Config{
		Fingerprint: session.Fingerprint{
			Text: func(r *http.Request) string { return r.Header.Get("X-Device") },
		}, // and Match defaults to equality
	})
	if err != nil {
		log.Fatal(err)
	}
	defer auth.Close()

	request := httptest.NewRequest("GET", "/", nil)
	request.Header.Set("X-Device", "phone")
	request = sessiontest.SignIn(t, auth, request, 1) // logs in, and adds the cookies
	for _, device := range []string{"phone", "tablet"} {
		request.Header.Set("X-Device", device)
		state, err := auth.Peek(request)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(device, state.User.Email, state.Err)
	}
	// Output:
	// phone alice@example.com <nil>
	// tablet  session: session belongs to another browser
}
