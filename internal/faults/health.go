package main

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/http"
	"time"
)

// A healthAgent answers HAProxy's health checks of one node over HTTP: 200
// while the node is ready, 503 otherwise. It keeps one connection to the node,
// so that a check is cheap and succeeds on a busy machine.
type healthAgent struct {
	db     *sql.DB
	server *http.Server
	port   string
}

// newHealthAgent starts an agent for the node at an address, on a port of
// 127.0.0.1.
func newHealthAgent(node string) (*healthAgent, error) {
	db, err := sql.Open("mysql", "app:app@tcp("+node+")/?timeout=1s&readTimeout=1s&writeTimeout=1s")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		db.Close()
		return nil, err
	}
	a := &healthAgent{db: db, port: fmt.Sprint(listener.Addr().(*net.TCPAddr).Port)}
	a.server = &http.Server{Handler: a, ReadHeaderTimeout: time.Second}
	go a.server.Serve(listener)
	return a, nil
}

func (a *healthAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	var name, ready string
	err := a.db.QueryRowContext(ctx, "SHOW STATUS LIKE 'wsrep_ready'").Scan(&name, &ready)
	if err != nil || ready != "ON" {
		http.Error(w, "not ready", http.StatusServiceUnavailable)
	}
}

func (a *healthAgent) close() {
	a.server.Close()
	a.db.Close()
}
