package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/candysession/session/internal/testdb"
	"github.com/jmoiron/sqlx"
	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"
)

// TestNoGoroutineAfterClose checks that Close leaves no goroutine after a load
// and during a purge of expired rows.
func TestNoGoroutineAfterClose(t *testing.T) {
	dsn, stop, err := testdb.Private()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	root, err := sqlx.Open("mysql", dsn.FormatDSN()+"?multiStatements=true")
	if err != nil {
		t.Fatal(err)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), 4)
	if err != nil {
		t.Fatal(err)
	}
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := root.Exec(statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE DATABASE app; CREATE TABLE app.users (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, email VARCHAR(190) NOT NULL UNIQUE, password VARCHAR(255) NOT NULL)")
	for i := range users {
		exec("INSERT INTO app.users (email, password) VALUES (?, ?)", fmt.Sprintf("user%d@example.com", i), string(hash))
	}
	root.Close()
	before := goleak.IgnoreCurrent()
	dsn.DBName = "app"
	a, err := newApp(dsn.FormatDSN(), "", 2*time.Second, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.auth.Migrate(context.Background()); err != nil {
		t.Fatal(err)
	}
	l := newLoad("goroutines", a)
	l.age = func(string) error { return context.Canceled }
	l.start()
	for l.operations.Load() < 3000 {
		time.Sleep(10 * time.Millisecond)
	}
	l.stop.Store(true)
	l.running.Wait()
	if _, err := a.db.Exec("UPDATE user_tokens SET active = active - INTERVAL 1 YEAR"); err != nil {
		t.Fatal(err)
	}
	l.clients[0].login("") // starts a purge
	a.close()
	goleak.VerifyNone(t, before)
}
