// Package testdb provides tests with a real database. The tests of a program
// share one server, on which each test has its own schema.
//
// The server is the first available of:
//   - the server of SESSION_TEST_DSN, whose user may create databases;
//   - a private MariaDB or MySQL server, started from the installed binaries
//     in a temporary directory;
//   - the in-memory engine of the examples, which needs only Go.
//
// SESSION_TEST_DB=mariadb, mysql or embedded selects one of the last two.
package testdb

import (
	"bufio"
	"database/sql"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// fuzzDSN is the environment variable that passes the server's DSN to the
// workers of a fuzz test.
const fuzzDSN = "SESSION_TEST_FUZZ_DSN"

// A server is the database server that contains the schemas.
type server struct {
	dsn      *mysql.Config
	embedded bool
	stop     func()
}

// Private starts a private MariaDB or MySQL server for programs other than
// tests. The extra arguments add to the usual ones, or override them. The
// server also listens on TCP.
func Private(extra ...string) (dsn *mysql.Config, stop func(), err error) {
	s, err := startInstalled("", append(extra, "--skip-networking=OFF", "--bind-address=127.0.0.1", "--port="+FreePort("127.0.0.1"))...)
	if err == nil && s.dsn == nil {
		err = fmt.Errorf("neither mariadbd nor mysqld is installed")
	}
	return s.dsn, s.stop, err
}

var (
	current server
	schemas atomic.Int64
)

// Main runs the tests of a package with a server, and prints which one it is.
// It exits with the status of the tests, or 1 if one of the checks fails, which
// run after the tests. Call it from TestMain.
func Main(m *testing.M, checks ...func() error) {
	var err error
	if slices.ContainsFunc(os.Args, func(arg string) bool { return strings.HasPrefix(arg, "-test.fuzzworker") }) {
		// Each worker is a process, and uses the server of its parent.
		if dsn, err := mysql.ParseDSN(os.Getenv(fuzzDSN)); err == nil {
			current.dsn = dsn
		}
		os.Exit(m.Run())
	}
	if current, err = start(); err != nil {
		fmt.Fprintln(os.Stderr, "testdb:", err)
		os.Exit(1)
	}
	name, err := version()
	if err != nil {
		current.stop()
		fmt.Fprintln(os.Stderr, "testdb:", err)
		os.Exit(1)
	}
	fmt.Println("testdb:", name)
	if current.embedded {
		flag.Parse()
		flag.Set("test.parallel", "1") // it also loses schemas that are created concurrently
	}
	os.Setenv(fuzzDSN, current.dsn.FormatDSN())
	status := m.Run()
	current.stop()
	for _, check := range checks {
		if err := check(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			status = 1
		}
	}
	os.Exit(status)
}

// version describes the server.
func version() (string, error) {
	db, err := sql.Open("mysql", current.dsn.FormatDSN())
	if err != nil {
		return "", err
	}
	defer db.Close()
	var version string
	if err := db.QueryRow("SELECT VERSION()").Scan(&version); err != nil {
		return "", err
	}
	switch {
	case current.embedded:
		return "embedded engine (go-mysql-server), speaking MySQL " + version, nil
	case os.Getenv("SESSION_TEST_DSN") != "":
		return "SESSION_TEST_DSN, " + version, nil
	}
	return "private server, " + version, nil
}

// DSN creates an empty schema and returns its data source name. The schema is
// dropped when the test ends.
func DSN(t testing.TB) string {
	t.Helper()
	dsn, drop, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(drop)
	return dsn
}

// Schema creates an empty schema, for examples, which have no testing.TB.
func Schema() (dsn string, drop func(), err error) {
	name := fmt.Sprintf("session_test_%d_%d", os.Getpid(), schemas.Add(1))
	if err := admin("CREATE DATABASE " + name); err != nil {
		return "", nil, err
	}
	cfg := current.dsn.Clone()
	cfg.DBName = name
	return cfg.FormatDSN(), func() { admin("DROP DATABASE " + name) }, nil
}

// admin runs a statement on the server.
func admin(statement string) error {
	db, err := sql.Open("mysql", current.dsn.FormatDSN())
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.Exec(statement)
	return err
}

// Connections returns the number of connections that a pool may have. It is 1
// for the embedded engine, which loses concurrent writes of two connections.
func Connections() int {
	if current.embedded {
		return 1
	}
	return 32
}

// SkipEmbedded skips a test that the embedded engine cannot run. The text lacks
// completes the sentence "the embedded engine …".
func SkipEmbedded(t testing.TB, lacks string) {
	t.Helper()
	if current.embedded {
		t.Skip("the embedded engine " + lacks)
	}
}

// start starts the server that the environment selects.
func start() (server, error) {
	if dsn := os.Getenv("SESSION_TEST_DSN"); dsn != "" {
		cfg, err := mysql.ParseDSN(dsn)
		if err != nil {
			return server{}, fmt.Errorf("SESSION_TEST_DSN: %w", err)
		}
		return server{dsn: cfg, stop: func() {}}, nil
	}
	want := os.Getenv("SESSION_TEST_DB")
	if s, err := startInstalled(want); err != nil || s.dsn != nil {
		return s, err
	}
	if want == "" || want == "embedded" {
		return startEmbedded()
	}
	return server{}, fmt.Errorf("SESSION_TEST_DB=%s: no such server is installed", want)
}

// startInstalled starts the wanted server, or the first one that is installed
// if want is empty. If there is none, it returns a server without a DSN.
func startInstalled(want string, extra ...string) (server, error) {
	if Find("mariadbd") != "" && Find("mariadb-install-db") != "" && (want == "" || want == "mariadb") {
		return startPrivate(Find("mariadbd"), func(data string) *exec.Cmd {
			return exec.Command(Find("mariadb-install-db"), AsUser("--no-defaults", "--datadir="+data,
				"--tmpdir="+filepath.Dir(data), "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve", "--innodb-log-file-size=4M")...)
		}, append([]string{"--innodb-log-file-size=4M"}, extra...)...)
	}
	if bin := Find("mysqld"); bin != "" && (want == "" || want == "mysql") {
		return startPrivate(bin, func(data string) *exec.Cmd {
			return exec.Command(bin, AsUser("--no-defaults", "--initialize-insecure", "--datadir="+data)...)
		}, append([]string{"--mysqlx=OFF", "--skip-log-bin"}, extra...)...)
	}
	return server{}, nil
}

// Find returns the path of a program, or "" if it is not installed. It also
// searches directories for servers that are usually not in PATH.
func Find(program string) string {
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/usr/local/mysql/bin", "/opt/homebrew/bin"} {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path
		}
	}
	return ""
}

// AsUser appends the argument that servers require when they run as root. The
// first argument must be --no-defaults, which servers only accept there.
func AsUser(args ...string) []string {
	if os.Geteuid() == 0 {
		args = append(args, "--user=root")
	}
	return args
}

// startPrivate starts a disposable server that trades durability for speed.
func startPrivate(bin string, install func(data string) *exec.Cmd, extra ...string) (server, error) {
	dir, err := os.MkdirTemp("", "session-testdb-")
	if err != nil {
		return server{}, err
	}
	fail := func(err error) (server, error) {
		os.RemoveAll(dir)
		return server{}, err
	}
	data, log, socket := filepath.Join(dir, "data"), filepath.Join(dir, "log"), filepath.Join(dir, "s")
	if out, err := install(data).CombinedOutput(); err != nil {
		return fail(fmt.Errorf("install a private server: %w\n%s", err, out))
	}
	args := AsUser("--no-defaults", "--datadir="+data, "--socket="+socket, "--pid-file="+filepath.Join(dir, "pid"),
		"--tmpdir="+dir, "--log-error="+log, "--skip-networking", "--skip-name-resolve", "--character-set-server=utf8mb4",
		"--max-connections=500", "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync",
		"--innodb-doublewrite=0", "--performance-schema=0")
	cmd := exec.Command(bin, append(args, extra...)...)
	// A time zone with daylight saving time reveals code that wrongly depends
	// on the server's local time.
	cmd.Env = append(os.Environ(), "TZ=America/New_York")
	exited, err := StartChild(cmd)
	if err != nil {
		return fail(err)
	}
	stop := func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-exited
		os.RemoveAll(dir)
	}
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr = "root", "unix", socket
	if err := await(cfg, exited); err != nil {
		out, _ := os.ReadFile(log)
		stop()
		return server{}, fmt.Errorf("start a private server: %w\n%s", err, out)
	}
	return server{dsn: cfg, stop: stop}, nil
}

// FreePort returns a free TCP port of an address.
func FreePort(host string) string {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "0"
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// StartChild starts a program that is killed when this program ends for any
// reason. The kernel ties it to the thread that started it, so that thread is
// kept until the program ends.
func StartChild(cmd *exec.Cmd) (exited <-chan struct{}, err error) {
	done := make(chan struct{})
	started := make(chan error)
	cmd.SysProcAttr = killWithParent()
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
		close(done)
	}()
	return done, <-started
}

// await waits until the server answers.
func await(cfg *mysql.Config, exited <-chan struct{}) error {
	db, err := sql.Open("mysql", cfg.FormatDSN())
	if err != nil {
		return err
	}
	defer db.Close()
	deadline := time.After(60 * time.Second)
	for {
		err := db.Ping()
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("the server ended: %w", err)
		case <-deadline:
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// startEmbedded builds the engine of the examples and runs it as a separate
// program, because the library's module must not depend on it.
func startEmbedded() (server, error) {
	dir, err := os.MkdirTemp("", "session-testdb-")
	if err != nil {
		return server{}, err
	}
	fail := func(err error) (server, error) {
		os.RemoveAll(dir)
		return server{}, err
	}
	_, file, _, _ := runtime.Caller(0)
	bin := filepath.Join(dir, "embedded-db")
	build := exec.Command("go", "build", "-o", bin, "./internal/cmd/embedded-db")
	build.Dir = filepath.Join(filepath.Dir(file), "..", "..", "examples")
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return fail(fmt.Errorf("build the embedded engine: %w\n%s", err, out))
	}
	cmd := exec.Command(bin)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fail(err)
	}
	reader, writer := io.Pipe()
	cmd.Stdout = writer
	exited, err := StartChild(cmd)
	if err != nil {
		return fail(err)
	}
	go func() {
		<-exited
		writer.CloseWithError(fmt.Errorf("the server ended"))
	}()
	stop := func() {
		stdin.Close()
		<-exited
		os.RemoveAll(dir)
	}
	line, err := bufio.NewReader(reader).ReadString('\n')
	if err != nil {
		stop()
		return server{}, fmt.Errorf("start the embedded engine: %w", err)
	}
	cfg, err := mysql.ParseDSN(strings.TrimSpace(line))
	if err != nil {
		stop()
		return server{}, err
	}
	return server{dsn: cfg, embedded: true, stop: stop}, nil
}
