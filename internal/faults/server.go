package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/candysession/session/internal/testdb"
	_ "github.com/go-sql-driver/mysql"
)

// A server is a MariaDB server that can be killed and started again. Its
// committed transactions survive a kill.
type server struct {
	dir    string
	host   string
	port   string
	args   []string
	env    []string
	cmd    *exec.Cmd
	exited <-chan struct{}
	root   *sql.DB // connects to the socket, bypassing every proxy
}

// template creates a directory with the initial data of every server.
func template() (dir string, err error) {
	dir, err = tempDir()
	if err != nil {
		return "", err
	}
	return dir, command("mariadb-install-db", testdb.AsUser("--no-defaults", "--datadir="+dir+"/data", "--tmpdir="+dir,
		"--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve", "--innodb-log-file-size=8M")...)
}

// tempDir creates a temporary directory, in memory where possible, because a
// disk that is slow to sync would be a further fault.
func tempDir() (string, error) {
	parent := "/dev/shm"
	if _, err := os.Stat(parent); err != nil {
		parent = ""
	}
	return os.MkdirTemp(parent, "session-faults-")
}

// newServer returns a server for a directory that contains a copy of the
// template. Temporary files are in the same directory, because a starting
// server deletes the temporary files of other servers in the same place.
func newServer(dir, host string, args ...string) *server {
	s := &server{dir: dir, host: host, port: testdb.FreePort(host)}
	s.args = append(testdb.AsUser("--no-defaults", "--datadir="+dir+"/data", "--tmpdir="+dir, "--socket="+s.socket(), "--pid-file="+dir+"/pid", "--log-error="+dir+"/log",
		"--bind-address="+host, "--port="+s.port, "--skip-name-resolve", "--character-set-server=utf8mb4", "--max-connections=200",
		"--innodb-buffer-pool-size=64M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=1", "--innodb-flush-method=nosync",
		"--performance-schema=0"), args...)
	return s
}

func (s *server) socket() string  { return filepath.Join(s.dir, "s") }
func (s *server) address() string { return net.JoinHostPort(s.host, s.port) }

// start starts the server and waits until it answers. The server ends with this
// program.
func (s *server) start() error {
	if err := s.launch(); err != nil {
		return err
	}
	return s.await("SELECT 1")
}

// launch starts the server without waiting for it.
func (s *server) launch() error {
	s.cmd = exec.Command(testdb.Find("mariadbd"), s.args...)
	s.cmd.Env = append(os.Environ(), s.env...)
	var err error
	if s.exited, err = testdb.StartChild(s.cmd); err != nil {
		return err
	}
	if s.root == nil {
		s.root, err = sql.Open("mysql", "root@unix("+s.socket()+")/")
	}
	return err
}

// await waits until a query returns true.
func (s *server) await(query string) error {
	for deadline := time.Now().Add(60 * time.Second); ; {
		var ok bool
		err := s.root.QueryRow(query).Scan(&ok)
		if err == nil && ok {
			return nil
		}
		select {
		case <-s.exited:
			log, _ := os.ReadFile(s.dir + "/log")
			return fmt.Errorf("the server ended: %w\n%s", err, log)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %w", query, err)
		}
	}
}

// kill ends the server with SIGKILL.
func (s *server) kill() {
	s.cmd.Process.Signal(syscall.SIGKILL)
	<-s.exited
}

// stop shuts the server down.
func (s *server) stop() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(20 * time.Second):
		s.kill()
	}
}

// exec runs statements as root.
func (s *server) exec(statements ...string) error {
	for _, statement := range statements {
		if _, err := s.root.ExecContext(context.Background(), statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// age makes the session of a token old enough for a renewal.
func (s *server) age(cookie string) error {
	selector, _, _ := strings.Cut(cookie, ".")
	return s.exec("UPDATE app.user_tokens SET active = active - INTERVAL 2 DAY WHERE token_x = '" + selector + "'")
}

// number returns the integer result of a query.
func (s *server) number(query string) (n int64) {
	s.root.QueryRow(query).Scan(&n)
	return n
}

// prepare creates the database, its users, and the account app, which has no
// administrative privileges.
func (s *server) prepare(hash string) error {
	err := s.exec("CREATE DATABASE app", "CREATE USER app@'%' IDENTIFIED BY 'app'", "GRANT ALL ON app.* TO app@'%'",
		"CREATE TABLE app.users (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, email VARCHAR(190) NOT NULL UNIQUE, password VARCHAR(255) NOT NULL)")
	for i := range users {
		err = errors.Join(err, s.exec(fmt.Sprintf("INSERT INTO app.users (id, email, password) VALUES (%d, 'user%d@example.com', '%s')", i+1, i, hash)))
	}
	return err
}

// copyTree copies a directory.
func copyTree(from, to string) error {
	return command("cp", "-a", from, to)
}

// command runs a program and returns its output in the error if it fails.
func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// library returns the path of a shared library, or "" if it is missing.
func library(name string) string {
	found, _ := filepath.Glob("/usr/lib/*/" + name)
	if len(found) == 0 {
		return ""
	}
	return found[0]
}
