package main

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// A forwarder forwards TCP connections. After dropExisting, the connections of
// that time stay open but transmit nothing.
type forwarder struct {
	net.Listener
	to        string
	forgotten atomic.Int64 // connections up to this number transmit nothing
	count     atomic.Int64
	servers   sync.Map // the server's side of each connection, by number
}

// forward starts a forwarder to an address, on a free port of 127.0.0.1.
func forward(to string) (*forwarder, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &forwarder{Listener: listener, to: to}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go f.serve(conn, f.count.Add(1))
		}
	}()
	return f, nil
}

// dropExisting makes all existing connections transmit nothing any more.
func (f *forwarder) dropExisting() { f.forgotten.Store(f.count.Load()) }

// closeForgotten closes the server's side of the connections that transmit
// nothing, as TCP keep-alive would do in time.
func (f *forwarder) closeForgotten() {
	f.servers.Range(func(number, server any) bool {
		if number.(int64) <= f.forgotten.Load() {
			server.(net.Conn).Close()
		}
		return true
	})
}

func (f *forwarder) serve(client net.Conn, number int64) {
	server, err := net.Dial("tcp", f.to)
	if err != nil {
		client.Close()
		return
	}
	f.servers.Store(number, server)
	defer f.servers.Delete(number)
	transmit := func(to, from net.Conn) {
		io.Copy(conditionalConn{to, f, number}, from)
		if f.forgotten.Load() < number {
			to.Close()
		}
	}
	go transmit(server, client)
	transmit(client, server)
}

// conditionalConn discards written data once its connection is forgotten.
type conditionalConn struct {
	net.Conn
	f      *forwarder
	number int64
}

func (p conditionalConn) Write(b []byte) (int, error) {
	if p.f.forgotten.Load() >= p.number {
		return len(b), nil
	}
	return p.Conn.Write(b)
}
