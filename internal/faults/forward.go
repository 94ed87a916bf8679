package main

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// A forwarder passes on connections, until it forgets those that there are: they stay open, and nothing comes through.
type forwarder struct {
	net.Listener
	to        string
	forgotten atomic.Int64 // connections with a number up to this
	count     atomic.Int64
	servers   sync.Map // from the number of a connection to its server's side
}

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

func (f *forwarder) forget() { f.forgotten.Store(f.count.Load()) }

// bury has the server learn that those that were forgotten are dead, as it would by TCP's keepalive.
func (f *forwarder) bury() {
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
	pass := func(to, from net.Conn) {
		io.Copy(passing{to, f, number}, from)
		if f.forgotten.Load() < number {
			to.Close()
		}
	}
	go pass(server, client)
	pass(client, server)
}

// passing drops what is written once its connection is forgotten.
type passing struct {
	net.Conn
	f      *forwarder
	number int64
}

func (p passing) Write(b []byte) (int, error) {
	if p.f.forgotten.Load() >= p.number {
		return len(b), nil
	}
	return p.Conn.Write(b)
}
