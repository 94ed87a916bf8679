package main

import (
	"fmt"
	"os"
)

// primaryArgs are the arguments of a server that has a replica.
var primaryArgs = []string{"--server-id=1", "--log-bin=bin", "--binlog-format=ROW"}

// replicate starts a replica of a server, and waits until it has all users.
func (s *server) replicate(template string) (replica *server, err error) {
	dir, err := tempDir()
	if err != nil {
		return nil, err
	}
	if err := copyTree(template+"/data", dir+"/data"); err != nil {
		return nil, err
	}
	replica = newServer(dir, s.host, "--server-id=2", "--relay-log=relay", "--read-only=1")
	if err := replica.start(); err != nil {
		return replica, err
	}
	if err := s.exec("CREATE USER repl@'%' IDENTIFIED BY 'repl'", "GRANT REPLICATION SLAVE ON *.* TO repl@'%'"); err != nil {
		return replica, err
	}
	err = replica.exec(fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='%s', MASTER_PORT=%s, MASTER_USER='repl', MASTER_PASSWORD='repl', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1", s.host, s.port), "START SLAVE")
	if err != nil {
		return replica, err
	}
	return replica, replica.await(fmt.Sprintf("SELECT COUNT(*) = %d FROM app.users", users))
}

// remove stops a server and deletes its directory.
func (s *server) remove() {
	s.stop()
	os.RemoveAll(s.dir)
}

// delay makes a replica apply writes the given number of seconds late.
func (s *server) delay(seconds int) error {
	return s.exec("STOP SLAVE", fmt.Sprintf("CHANGE MASTER TO MASTER_DELAY=%d", seconds), "START SLAVE")
}
