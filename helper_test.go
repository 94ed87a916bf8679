package session

// The helpers that several test files share.

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/subtle"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/candysession/session/internal/password"
	"github.com/candysession/session/internal/store"
	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/internal/token"
	"github.com/candysession/session/throttle"
	"github.com/jmoiron/sqlx"
	"golang.org/x/crypto/bcrypt"
)

func TestMain(m *testing.M) { testdb.Main(m, checkNoSecretsLogged) }

const (
	usersTableInt = `CREATE TABLE users (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, email VARCHAR(255) NOT NULL UNIQUE,
		password VARCHAR(255) NULL, name VARCHAR(255) NULL, tenant INT NOT NULL DEFAULT 1)`

	chrome130 = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
	chrome131 = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
	firefox   = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
)

type user struct {
	ID    int64          `db:"id"`
	Email string         `db:"email"`
	Name  sql.NullString `db:"name"`
}

var (
	alice = Credentials{"email": "alice@example.com", "password": "alice's password"}
	bob   = Credentials{"email": "bob@example.com", "password": "bob's password"}
)

// open returns a pool of Open on the test's own schema. params are added to the
// DSN.
func open(t testing.TB, dsn, params string) *sqlx.DB {
	t.Helper()
	if params != "" {
		dsn += map[bool]string{true: "&", false: "?"}[strings.Contains(dsn, "?")] + params
	}
	db, err := Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(testdb.Connections())
	t.Cleanup(func() { db.Close() })
	return db
}

// openRaw returns a pool as an app may open it, without the settings of Open.
func openRaw(t testing.TB, dsn, params string) *sqlx.DB {
	t.Helper()
	db, err := sqlx.Open("mysql", dsn+map[bool]string{true: "&", false: "?"}[strings.Contains(dsn, "?")]+params)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(testdb.Connections())
	t.Cleanup(func() { db.Close() })
	return db
}

// A fixture is an app with the users Alice and Bob, and a log.
type fixture[U any] struct {
	t    testing.TB
	db   *sqlx.DB
	dsn  string
	auth *Manager[U]
	log  *safeBuffer
}

func setup(t testing.TB, cfg Config) *fixture[user] {
	t.Helper()
	dsn := testdb.DSN(t)
	db := open(t, dsn, "")
	mustExec(t, db, usersTableInt)
	for _, c := range []Credentials{alice, bob} {
		mustExec(t, db, "INSERT INTO users (email, password) VALUES (?, ?)", c["email"], hashOf(c["password"]))
	}
	return newManager[user](t, db, dsn, cfg)
}

func newManager[U any](t testing.TB, db *sqlx.DB, dsn string, cfg Config) *fixture[U] {
	t.Helper()
	log := &safeBuffer{}
	cfg.Logger = slog.New(slog.NewTextHandler(logWriter{log, &logged}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if cfg.PasswordCost == 0 {
		cfg.PasswordCost = bcrypt.MinCost
	}
	if cfg.Throttle == nil {
		cfg.Throttle = throttle.None // in most tests all logins come from one address
	}
	auth, err := New[U](db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := auth.Close(); err != nil {
			t.Error(err)
		}
	})
	return &fixture[U]{t, db, dsn, auth, log}
}

// A logWriter writes every line of a log to all, and those above Debug to info.
type logWriter struct{ info, all io.Writer }

func (w logWriter) Write(line []byte) (int, error) {
	if !bytes.Contains(line, []byte(" level=DEBUG ")) {
		w.info.Write(line)
	}
	return w.all.Write(line)
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

var (
	logged  safeBuffer // the logs of all tests, down to level Debug, and their errors
	secrets sync.Map   // the values that browsers got in cookies: mostly verifiers
)

func recordErr(err error) {
	if err != nil {
		fmt.Fprintf(&logged, "%v %+v %#v\n", err, err, err)
	}
}

// checkNoSecretsLogged returns an error if a test has logged a secret, or got one
// in an error.
func checkNoSecretsLogged() error {
	text := logged.String()
	for _, word := range regexp.MustCompile(`[0-9A-Za-z_-]{32,}`).FindAllString(text, -1) {
		if _, is := secrets.Load(word); is {
			return fmt.Errorf("the verifier %s was logged or is part of an error", word)
		}
	}
	for _, secret := range []string{"$2a$", "$2b$", alice["password"], bob["password"], "the-dsn-password"} {
		if at := strings.Index(text, secret); at >= 0 {
			return fmt.Errorf("%s was logged or is part of an error: %s", secret, text[max(0, at-200):min(len(text), at+200)])
		}
	}
	return nil
}

var hashes sync.Map

func hashOf(password string) string {
	if h, ok := hashes.Load(password); ok {
		return h.(string)
	}
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		panic(err)
	}
	hashes.Store(password, string(h))
	return string(h)
}

func mustExec(t testing.TB, db *sqlx.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func get[T any](t testing.TB, db *sqlx.DB, query string, args ...any) T {
	t.Helper()
	var v T
	if err := db.Get(&v, query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func noError(t testing.TB, err error) {
	t.Helper()
	recordErr(err)
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	recordErr(err)
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

// age moves every session back in time. It first waits for the purge that a login
// has started.
func (f *fixture[U]) age(by time.Duration) {
	f.t.Helper()
	f.waitForPurge()
	mustExec(f.t, f.db, "UPDATE user_tokens SET active = FROM_UNIXTIME(UNIX_TIMESTAMP(active) - ?), date = FROM_UNIXTIME(UNIX_TIMESTAMP(date) - ?)", seconds(by), seconds(by))
}

// waitForPurge waits for the purge in the background.
func (f *fixture[U]) waitForPurge() {
	f.auth.purge.turn <- struct{}{}
	<-f.auth.purge.turn
}

// loginAs logs in as the user with this key.
func (f *fixture[U]) loginAs(b *browser, key any) *http.Response {
	f.t.Helper()
	return f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		if _, err := f.auth.LoginAs(w, r, key); err != nil {
			f.t.Error(err)
		}
	})
}

// lookup returns the statement for n lookups.
func (f *fixture[U]) lookup(by store.LookupColumn, n int) string {
	f.t.Helper()
	query, err := store.NewLookup(f.auth.store, f.db, f.auth.mapper, by, false).SQL(f.t.Context(), n)
	noError(f.t, err)
	return query
}

func (f *fixture[U]) rows() int {
	f.t.Helper()
	return get[int](f.t, f.db, "SELECT COUNT(*) FROM user_tokens")
}

// A browser keeps cookies as browsers do, and one User-Agent.
type browser struct {
	cookies   map[string]string
	userAgent string
}

func newBrowser(userAgent string) *browser { return &browser{map[string]string{}, userAgent} }

// do sends a request to a handler.
func (b *browser) do(h http.Handler, method, target string, header ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	r.Header.Set("User-Agent", b.userAgent)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	response := w.Result()
	b.keep(response.Cookies())
	return response
}

func (b *browser) keep(cookies []*http.Cookie) {
	for _, c := range cookies {
		// The secret is the verifier, or the whole value.
		secrets.Store(c.Value[strings.IndexByte(c.Value, '.')+1:], true)
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
}

// serve runs a function in a handler behind Middleware, and reports whether it
// ran. Any goroutine may call it.
func (f *fixture[U]) serve(b *browser, do func(w http.ResponseWriter, r *http.Request)) (response *http.Response, ran bool) {
	f.t.Helper()
	response = b.do(f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ran = true
		do(w, r)
	})), "GET", "/")
	if !ran {
		f.t.Errorf("the handler did not run: %s\n%s", response.Status, f.log)
	}
	return response, ran
}

// handle calls serve, and ends the test if the function did not run.
func (f *fixture[U]) handle(b *browser, do func(w http.ResponseWriter, r *http.Request)) *http.Response {
	f.t.Helper()
	response, ran := f.serve(b, do)
	if !ran {
		f.t.FailNow()
	}
	return response
}

func (f *fixture[U]) login(b *browser, c Credentials) *http.Response {
	f.t.Helper()
	return f.handle(b, func(w http.ResponseWriter, r *http.Request) {
		if _, err := logIn(f.auth, w, r, c); err != nil {
			f.t.Fatal(err)
		}
	})
}

// errOf returns the result of Err for the next request. Any goroutine may call
// it.
func (f *fixture[U]) errOf(b *browser) error {
	f.t.Helper()
	err := errors.New("the handler did not run")
	f.serve(b, func(w http.ResponseWriter, r *http.Request) { err = f.auth.Err(r) })
	return err
}

func (f *fixture[U]) wantLoggedIn(b *browser) {
	f.t.Helper()
	if err := f.errOf(b); err != nil {
		f.t.Fatalf("not logged in: %v\n%s", err, f.log)
	}
}

func (f *fixture[U]) wantRejected(b *browser, want error) {
	f.t.Helper()
	if err := f.errOf(b); !errors.Is(err, want) {
		f.t.Fatalf("Err is %v, want %v", err, want)
	}
}

func errOnly[T any](_ T, err error) error { return err }

// logIn calls Login with the password among the credentials.
func logIn[U any](m *Manager[U], w http.ResponseWriter, r *http.Request, c Credentials, options ...LoginOption) (U, error) {
	identifiers := maps.Clone(c)
	delete(identifiers, m.cfg.PasswordColumn)
	return m.Login(w, r, identifiers, c[m.cfg.PasswordColumn], options...)
}

// formOptions are the options of Register.
type formOptions struct {
	Columns []string
	NoLogin bool
}

// register calls Register with the password among the fields.
func register[U any](m *Manager[U], w http.ResponseWriter, r *http.Request, fields Fields, o formOptions) (U, error) {
	others := maps.Clone(fields)
	delete(others, "password")
	options := []RegisterOption{Columns(o.Columns...)}
	if o.NoLogin {
		options = append(options, NoLogin())
	}
	password, _ := fields["password"].(string)
	return m.Register(w, r, others, password, options...)
}

func (f *fixture[U]) register(fields Fields, options formOptions) error {
	_, err := register(f.auth, httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil), fields, options)
	return err
}

// md5Hex verifies passwords as a legacy program may have stored them.
func md5Hex(stored, password string) bool {
	sum := md5.Sum([]byte(password))
	return subtle.ConstantTimeCompare([]byte(stored), []byte(hex.EncodeToString(sum[:]))) == 1
}

// countRounds replaces the password hasher with one that counts the rounds of
// bcrypt.
func (f *fixture[U]) countRounds() *int {
	rounds := new(int)
	o := f.auth.passwordOptions()
	o.Compare = countingCompare(rounds)
	f.auth.passwords = password.New(o)
	return rounds
}

// countingCompare compares with bcrypt, and counts the rounds that were
// executed.
func countingCompare(rounds *int) func(hash, plain []byte) error {
	return func(hash, plain []byte) error {
		err := bcrypt.CompareHashAndPassword(hash, plain)
		if err == nil || err == bcrypt.ErrMismatchedHashAndPassword {
			cost, _ := bcrypt.Cost(hash)
			*rounds += 1 << cost
		}
		return err
	}
}

// holdPasswords replaces the password hasher with one whose only slot is taken
// until release is called.
func (f *fixture[U]) holdPasswords(timeout time.Duration) (release func()) {
	f.t.Helper()
	var once sync.Once
	held, released := make(chan struct{}), make(chan struct{})
	o := f.auth.passwordOptions()
	o.Slots, o.Timeout = 1, timeout
	o.Compare = func(hash, plain []byte) error {
		once.Do(func() {
			close(held)
			<-released
		})
		return bcrypt.CompareHashAndPassword(hash, plain)
	}
	passwords := password.New(o)
	f.auth.passwords = passwords
	var holder sync.WaitGroup
	holder.Go(func() {
		if ok, err := passwords.Verify(f.t.Context(), nil, "wrong"); ok || err != nil {
			f.t.Errorf("%v, %v", ok, err)
		}
	})
	<-held
	return func() {
		close(released)
		holder.Wait()
	}
}

// holdComparisons replaces the verifier with one whose only slot is taken until
// release is called.
func (f *fixture[U]) holdComparisons(timeout time.Duration) (release func()) {
	f.t.Helper()
	other := token.New()
	held, released := make(chan struct{}), make(chan struct{})
	verifier := token.NewVerifier(token.Options{Slots: 1, Timeout: timeout, Matches: func(t token.Token, selector, hash string) bool {
		if t == other {
			close(held)
			<-released
		}
		return t.Verifies(selector, hash)
	}})
	f.auth.verifier = verifier
	var holder sync.WaitGroup
	holder.Go(func() {
		if ok, err := verifier.Verify(f.t.Context(), other, token.Row{ID: 1, Selector: other.Selector}); ok || err != nil {
			f.t.Errorf("%v, %v", ok, err)
		}
	})
	<-held
	return func() {
		close(released)
		holder.Wait()
	}
}

// waitUntil yields to other goroutines until done reports true.
func waitUntil(t testing.TB, done func() bool) {
	t.Helper()
	for !done() {
		if t.Context().Err() != nil {
			t.Fatal("the test ended before")
		}
		runtime.Gosched()
	}
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// An eventLog keeps events as strings.
type eventLog struct {
	mu     sync.Mutex
	events []string
}

func (l *eventLog) add(_ context.Context, e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, fmt.Sprintf("%s %s %s %s %v %d", e.Kind, e.Session, plainText(e.User), e.ClientIP, e.Err, e.Count))
}

func plainText(user any) string { return fmt.Sprint(store.PlainKey(user)) }

// take returns the events since the last call, one a line.
func (l *eventLog) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := strings.Join(l.events, "\n")
	l.events = nil
	return taken
}

// lockTables blocks every lookup until release is called. Lookups with a slot
// wait for the server, the others for a slot. release first executes the
// statements in also.
func lockTables[U any](f *fixture[U]) (release func(also ...string)) {
	f.t.Helper()
	testdb.SkipEmbedded(f.t, "has no locks")
	f.waitForPurge()
	locker := openRaw(f.t, f.dsn, "")
	conn, err := locker.Conn(f.t.Context())
	noError(f.t, err)
	run := func(statement string) {
		f.t.Helper()
		if _, err := conn.ExecContext(context.Background(), statement); err != nil {
			f.t.Error(err)
		}
	}
	run("LOCK TABLES user_tokens WRITE, user_tokens AS t WRITE, users WRITE")
	return func(also ...string) {
		for _, statement := range also {
			run(statement)
		}
		run("UNLOCK TABLES")
		conn.Close()
	}
}

// directSlots is the number of lookups that run before others wait.
const directSlots = 4

// isIdle reports whether no lookup runs or waits.
func isIdle(l *store.Lookup[user]) bool {
	busy, queued := l.Loader.Stats()
	return busy == 0 && queued == 0
}

func tokenOf(b *browser) token.Token {
	selector, verifier, _ := strings.Cut(b.cookies["__Host-session"], ".")
	return token.Token{Selector: selector, Verifier: verifier}
}

func selectorOf(b *browser) string { return tokenOf(b).Selector }

// forgeToken returns a browser with the selector of b's token and a random
// verifier.
func forgeToken(b *browser) *browser {
	return withToken(token.Token{Selector: selectorOf(b), Verifier: token.New().Verifier})
}

func handler(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, text) })
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	noError(t, err)
	return string(b)
}

// A uuid is like the UUID types of common libraries: bytes that are a string in
// the database.
type uuid [16]byte

func (u uuid) Value() (driver.Value, error) { return hex.EncodeToString(u[:]), nil }

func withToken(tok token.Token) *browser {
	b := newBrowser("")
	b.cookies["__Host-session"] = tok.Selector + "." + tok.Verifier
	return b
}

// explain returns the server's plan for a query: table, type and key of each
// step.
func explain(t *testing.T, db *sqlx.DB, query string, args ...any) (keys []string) {
	t.Helper()
	rows, err := db.Queryx("EXPLAIN FORMAT=TRADITIONAL "+query, args...)
	if err != nil { // MariaDB has no other format
		rows, err = db.Queryx("EXPLAIN "+query, args...)
	}
	noError(t, err)
	defer rows.Close()
	for rows.Next() {
		plan := map[string]any{}
		noError(t, rows.MapScan(plan))
		keys = append(keys, fmt.Sprintf("%s:%s:%s", plan["table"], plan["type"], plan["key"]))
	}
	return keys
}

// try logs in from an address.
func (f *fixture[U]) try(address, email, password string) error {
	r := httptest.NewRequest("POST", "/", nil)
	r.RemoteAddr = address
	_, err := logIn(f.auth, httptest.NewRecorder(), r, Credentials{"email": email, "password": password})
	return err
}

const (
	attacker = "203.0.113.9:1234"
	owner    = "198.51.100.7:1234"
	right    = "alice's password"
)

// throttles returns constructors of each Throttle that counts. Each also returns
// a function that advances its clock, which stands still otherwise.
func throttles(t *testing.T) map[string]func(*fixture[user]) (throttle.Throttle, func(time.Duration)) {
	return map[string]func(*fixture[user]) (throttle.Throttle, func(time.Duration)){
		"memory": func(*fixture[user]) (throttle.Throttle, func(time.Duration)) {
			memory := throttle.NewMemory()
			var passed atomic.Int64
			start := time.Now()
			memory.Now = func() time.Time { return start.Add(time.Duration(passed.Load())) }
			return memory, func(d time.Duration) { passed.Add(int64(d)) }
		},
		"MySQL": func(f *fixture[user]) (throttle.Throttle, func(time.Duration)) {
			db := open(t, f.dsn, "timestamp=1795000000")
			shared, err := throttle.NewMySQL(db, "session_attempts", nil)
			noError(t, err)
			return shared, func(d time.Duration) {
				mustExec(t, db, "UPDATE session_attempts SET last = FROM_UNIXTIME(UNIX_TIMESTAMP(last) - ?)", seconds(d))
			}
		},
	}
}

// setupThrottle returns an app with such a throttle.
func setupThrottle(t *testing.T, create func(*fixture[user]) (throttle.Throttle, func(time.Duration))) (f *fixture[user], advance func(time.Duration)) {
	t.Helper()
	base := setup(t, Config{})
	counts, advance := create(base)
	return newManager[user](t, base.db, base.dsn, Config{Throttle: counts}), advance
}
