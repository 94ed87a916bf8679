package session

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/internal/token"
)

// A replica without new rows. Only rows that are missing there are looked up on
// the primary.
func TestReplica(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	behind := setup(t, Config{})
	auth := newManager[user](t, f.db, f.dsn, Config{Replica: behind.db, MaxAge: time.Hour})
	b := newBrowser(chrome130)
	auth.login(b, alice) // the replica does not have the table
	auth.wantLoggedIn(b)
	noError(t, errOnly(behind.auth.Migrate(t.Context())))
	auth.wantLoggedIn(b)

	copied := func() {
		var row struct {
			ID       int64  `db:"id"`
			Selector string `db:"token_x"`
			Hash     string `db:"token_y"`
			Browser  string `db:"browser"`
		}
		noError(t, f.db.Get(&row, "SELECT id, token_x, token_y, browser FROM user_tokens"))
		mustExec(t, behind.db, "DELETE FROM user_tokens")
		mustExec(t, behind.db, "INSERT INTO user_tokens (id, user, token_x, token_y, browser) VALUES (?, 1, ?, ?, ?)", row.ID, row.Selector, row.Hash, row.Browser)
	}
	// A session that has expired on the replica, or whose user is missing
	// there, is looked up on the primary.
	copied()
	behind.age(2 * time.Hour)
	auth.wantLoggedIn(b)
	copied()
	mustExec(t, behind.db, "DELETE FROM users")
	auth.wantLoggedIn(b)
	mustExec(t, behind.db, "INSERT INTO users (id, email) VALUES (1, 'alice@example.com')")

	// Rows of the replica are not looked up on the primary. So a logout takes
	// effect when it is replicated.
	auth.wantLoggedIn(b)
	kept := b.cookies["__Host-session"]
	auth.handle(b, func(w http.ResponseWriter, r *http.Request) { noError(t, auth.auth.Logout(w, r)) })
	b.cookies["__Host-session"] = kept
	auth.wantLoggedIn(b)
	mustExec(t, behind.db, "DELETE FROM user_tokens")
	auth.wantRejected(b, ErrUnknownSession)
	auth.wantRejected(newBrowser(""), ErrNoCookie)
}

// The statements for causal reads on a Galera cluster. Other MariaDB servers
// accept them too.
func TestCausalReads(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	if version := get[string](t, f.db, "SELECT VERSION()"); !strings.Contains(version, "MariaDB") {
		t.Skip("SET STATEMENT is MariaDB's")
	}
	f.auth.store.AssumeGalera()
	b, other := newBrowser(chrome130), newBrowser(firefox)
	f.login(b, alice)
	f.login(other, alice)
	f.wantLoggedIn(b)
	sessions, err := f.auth.Sessions(t.Context(), 1)
	noError(t, err)
	if len(sessions) != 2 {
		t.Errorf("%d sessions", len(sessions))
	}
	noError(t, f.auth.Revoke(t.Context(), 1, sessions[0].ID))
	if n, err := f.auth.LogoutAll(t.Context(), 1); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	f.wantRejected(b, ErrUnknownSession)
	f.wantRejected(other, ErrUnknownSession)
	if len(f.auth.primary.Prepared()) == 0 {
		t.Error("nothing was asked for with certainty")
	}
}

// The Manager asks the server once whether it is a Galera node.
func TestNotGalera(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	testdb.SkipEmbedded(t, "is no server")
	f.login(newBrowser(""), bob)
	f.wantRejected(withToken(token.New()), ErrUnknownSession)
	if galera, err := f.auth.store.IsGalera(t.Context()); galera || err != nil || len(f.auth.primary.Prepared()) != 0 {
		t.Error("a plain server is taken for a cluster")
	}
}
