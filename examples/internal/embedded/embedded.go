// Package embedded serves an in-memory database that speaks the MySQL protocol,
// so that the examples run on a machine that has only Go.
//
// It is for trying out, not for data: the database is lost when the program
// ends, it has no row locks, and it loses writes that arrive concurrently on
// two connections. Use it with one connection.
package embedded

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	sqle "github.com/dolthub/go-mysql-server"
	"github.com/dolthub/go-mysql-server/memory"
	"github.com/dolthub/go-mysql-server/server"
	"github.com/dolthub/go-mysql-server/sql"
	"github.com/sirupsen/logrus"
)

// A Server is a running in-memory database.
type Server struct {
	server *server.Server
	done   chan error
	addr   string
}

// Start serves a database named app on a free port of the loopback interface.
func Start() (*Server, error) {
	logrus.SetOutput(io.Discard) // the engine logs each connection to logrus's global logger

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("embedded database: %w", err)
	}
	app := memory.NewDatabase("app")
	app.EnablePrimaryKeyIndexes()
	provider := memory.NewDBProvider(app)
	cfg := server.Config{Protocol: "tcp", Address: listener.Addr().String(), Listener: listener}
	srv, err := server.NewServer(cfg, sqle.NewDefault(provider), sql.NewContext, memory.NewSessionBuilder(provider), nil)
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("embedded database: %w", err)
	}
	s := &Server{server: srv, done: make(chan error, 1), addr: listener.Addr().String()}
	go func() { s.done <- srv.Start() }()
	return s, nil
}

// DSN returns the data source name of the database app.
func (s *Server) DSN() string { return "root@tcp(" + s.addr + ")/app" }

// Close stops the server and discards the database.
func (s *Server) Close() error {
	if err := s.server.Close(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	select {
	case err := <-s.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
