package throttle

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/candysession/session/internal/testdb"
	"github.com/jmoiron/sqlx"
)

func TestNewMySQLErrors(t *testing.T) {
	t.Parallel()
	db := open(t, "")
	for _, table := range []string{"", "a`b", "a.b.c", ".a", "a.", "a b", strings.Repeat("x", 65)} {
		if _, err := NewMySQL(db, table, nil); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("NewMySQL: table = %q: must be", table)) {
			t.Errorf("%q: %v", table, err)
		}
	}
	for _, table := range []string{"attempts", "app.attempts", "my-app.session$attempts", "versuche_für_alle"} {
		if _, err := NewMySQL(db, table, nil); err != nil {
			t.Error(err)
		}
	}
	if _, err := NewMySQL(nil, "attempts", nil); err == nil || !strings.Contains(err.Error(), "db is nil") {
		t.Error(err)
	}
	for _, secret := range []string{"", "short"} {
		if _, err := NewMySQL(db, "attempts", []byte(secret)); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("the secret has %d bytes: must have at least 16", len(secret))) {
			t.Errorf("%q: %v", secret, err)
		}
	}
}

// The table does not keep expired rows of any limit.
func TestMySQLThrottleForgets(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "ignores time zones")
	db := open(t, "")
	shared := newMySQL(t, db)
	former := limit
	former.ResetAfter = time.Hour
	add := func(prefix string, n int, limit Limit) {
		t.Helper()
		for i := range n {
			if wait, err := shared.Reserve(t.Context(), fmt.Sprint(prefix, i), limit); wait != 0 || err != nil {
				t.Fatal(wait, err)
			}
		}
	}
	add("of a former limit", 20, former)
	add("of this limit", 20, limit)
	noError(t, shared.Remember(t.Context(), "remembered"))
	exec(t, db, "UPDATE attempts SET last = FROM_UNIXTIME(UNIX_TIMESTAMP(last) - 3700)")
	add("new", 20, limit)
	if n := rows(t, db); n != 21 {
		t.Errorf("%d rows", n)
	}
	if ok, err := shared.Remembers(t.Context(), "remembered"); !ok || err != nil {
		t.Errorf("it was forgotten: %v", err)
	}
}

// A row gets the reset time of the new limit.
func TestMySQLThrottleOfANewLimit(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "ignores time zones")
	db := open(t, "")
	shared := newMySQL(t, db)
	for _, failures := range []int{1, limit.FreeFailures} {
		exec(t, db, "DROP TABLE IF EXISTS attempts")
		for range failures {
			attempt(t, shared, "a", Failed)
		}
		exec(t, db, "UPDATE attempts SET last = FROM_UNIXTIME(UNIX_TIMESTAMP(last) - 59)")
		longer := limit
		longer.ResetAfter = 2 * time.Hour
		if wait, err := shared.Reserve(t.Context(), "a", longer); wait != 0 || err != nil {
			t.Fatal(wait, err)
		}
		var forget int
		noError(t, db.Get(&forget, "SELECT forget FROM attempts"))
		if forget != 7200 {
			t.Errorf("after %d failures, the row is kept for %d s", failures, forget)
		}
	}
}

// With a secret, the stored names can't be computed from the keys.
func TestMySQLThrottleSecret(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "ignores time zones")
	db := open(t, "")
	names := map[string]bool{}
	for _, secret := range []string{"", "sixteen bytes, or more", "another one of 16 bytes"} {
		var key []byte
		if secret != "" {
			key = []byte(secret)
		}
		shared, err := NewMySQL(db, "attempts", key)
		noError(t, err)
		exec(t, db, "DROP TABLE IF EXISTS attempts")
		attempt(t, shared, "203.0.113.9", Failed)
		noError(t, shared.Remember(t.Context(), "client"))
		var stored []string
		noError(t, db.Select(&stored, "SELECT name FROM attempts"))
		for _, name := range stored {
			if names[name] || len(name) != nameLength {
				t.Errorf("with the secret %q, the name is %s", secret, name)
			}
			names[name] = true
		}
	}
	if len(names) != 6 {
		t.Errorf("the names are %v", names)
	}
}

// A wait does not get longer if the server's clock is set back. A difference of
// a second between servers does not shorten it.
func TestThrottleWhenTheClockGoesBack(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "ignores time zones")
	db := open(t, "")
	shared := newMySQL(t, db)
	limit := Limit{FreeFailures: 1, BaseDelay: time.Minute, MaxDelay: time.Minute, ResetAfter: time.Hour}
	for _, test := range []struct {
		ahead int
		waits bool
	}{{0, true}, {5, true}, {3600, false}} {
		exec(t, db, "DROP TABLE IF EXISTS attempts")
		attempt(t, shared, "a", Failed)
		exec(t, db, "UPDATE attempts SET last = FROM_UNIXTIME(UNIX_TIMESTAMP(last) + ?)", test.ahead)
		wait, err := shared.Reserve(t.Context(), "a", limit)
		if err != nil || (wait > 0) != test.waits || wait > time.Minute+5*time.Second {
			t.Errorf("%d s ahead: %v, %v", test.ahead, wait, err)
		}
	}
}

// Attempts whose process has ended count as failures.
func TestAbandonedAttempts(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "ignores time zones")
	db := open(t, "")
	shared := newMySQL(t, db)
	for range limit.FreeFailures {
		if wait, err := shared.Reserve(t.Context(), "a", limit); wait != 0 || err != nil {
			t.Fatal(wait, err)
		}
	}
	exec(t, db, "UPDATE attempts SET since = since - 31, last = FROM_UNIXTIME(UNIX_TIMESTAMP(last) - 2)")
	if wait, err := shared.Reserve(t.Context(), "a", limit); wait != 0 || err != nil {
		t.Fatal(wait, err)
	}
	var failed, inProgress int
	noError(t, db.QueryRow("SELECT failed, pending FROM attempts").Scan(&failed, &inProgress))
	if failed != limit.FreeFailures || inProgress != 1 {
		t.Errorf("%d failed, %d are in progress", failed, inProgress)
	}
}

func rows(t testing.TB, db *sqlx.DB) (n int) {
	t.Helper()
	noError(t, db.Get(&n, "SELECT COUNT(*) FROM attempts"))
	return n
}
