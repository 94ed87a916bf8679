package pool

import (
	"bufio"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// A dialer makes connections. When the server stops responding on one of them,
// the older ones are not used again: a firewall that has dropped one connection
// without a word may have dropped them all, and each would cost a request its
// timeout.
type dialer struct {
	deadAfter time.Duration // a read that fails after this long marks the server as dead
	lastDead  atomic.Int64  // when the last such read began, in nanoseconds since 1970
}

// errStaleConn is in the log of the driver, which then dials again.
var errStaleConn = errors.New("session: this connection may be dead, as a later one is")

// dial has the signature of mysql.Config.DialFunc.
func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &bufferedConn{conn, bufio.NewReaderSize(conn, 32<<10), d, time.Now().UnixNano()}, nil
}

// A bufferedConn reads what the server has sent in one system call: the driver
// reads 4 kB at a time, and the result of a batch is longer.
type bufferedConn struct {
	net.Conn
	reader    *bufio.Reader
	dialer    *dialer
	createdAt int64 // in nanoseconds since 1970
}

// Read reads from the buffer, and marks the server as dead if that fails late.
func (c *bufferedConn) Read(p []byte) (int, error) {
	begun := time.Now()
	n, err := c.reader.Read(p)
	if err != nil && time.Since(begun) > c.dialer.deadAfter {
		c.dialer.lastDead.Store(begun.UnixNano())
	}
	return n, err
}

// SyscallConn fails if the connection may be dead. The driver calls it before
// it uses a connection again, to check that it is still open.
func (c *bufferedConn) SyscallConn() (syscall.RawConn, error) {
	if c.createdAt < c.dialer.lastDead.Load() {
		return nil, errStaleConn
	}
	return c.Conn.(syscall.Conn).SyscallConn()
}
