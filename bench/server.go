package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// wholeServer measures row 15: an http.Server in this process, and clients with
// open connections in another one.
func (b *bench) wholeServer(report *report) error {
	dir, err := os.MkdirTemp("", "session-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	serve := func(a app) func() (float64, error) {
		return func() (float64, error) {
			file := filepath.Join(dir, "cookies")
			if err := os.WriteFile(file, []byte(strings.Join(a.cookies, "\n")), 0o600); err != nil {
				return 0, err
			}
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return 0, err
			}
			server := &http.Server{Handler: a.handler}
			go server.Serve(listener)
			defer server.Close()
			out, err := exec.Command(self, "-client", listener.Addr().String(), "-cookies", file, fmt.Sprintf("-quick=%t", *quick)).Output()
			if err != nil {
				return 0, err
			}
			return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
		}
	}
	warm(b.subject, b.scsDefault)
	s, err := interleave(rounds(7), serve(b.subject), serve(b.scsDefault))
	if err != nil {
		return err
	}
	ratio := ratios(s[0], s[1])
	report.add(15, fmt.Sprintf("a whole server over loopback HTTP, 64 connections (%.0f requests/s), against the same app with scs + mysqlstore (%.0f/s)", s[0].median(), s[1].median()), "≥ 1.6 ×", ratio.String()+" ×", ratio.median() >= 1.6)
	return nil
}

// runClient sends requests over 64 connections and prints the number of
// responses per second. It parses responses itself, because a cheap client
// leaves more processor time to the server that is measured.
func runClient(addr, cookies string) error {
	lines, err := readLines(cookies)
	if err != nil {
		return err
	}
	var answered atomic.Int64
	var wg sync.WaitGroup
	failed := make(chan error, 64)
	start := time.Now()
	end := start.Add(duration(2 * time.Second))
	for i := range 64 {
		wg.Go(func() {
			n, err := exchange(addr, lines, i*31, end)
			answered.Add(int64(n))
			if err != nil {
				failed <- err
			}
		})
	}
	wg.Wait()
	close(failed)
	if err := <-failed; err != nil {
		return err
	}
	fmt.Println(float64(answered.Load()) / time.Since(start).Seconds())
	return nil
}

// exchange sends requests over one connection until end, and returns how many
// were answered.
func exchange(addr string, cookies []string, next int, end time.Time) (n int, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for ; time.Now().Before(end); n++ {
		next = (next + 7) % len(cookies)
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: "+userAgent+"\r\nCookie: "+cookies[next]+"\r\n\r\n"); err != nil {
			return n, err
		}
		length := -1
		for first := true; ; first = false {
			line, err := r.ReadSlice('\n')
			if err != nil {
				return n, err
			}
			if first && !strings.HasPrefix(string(line), "HTTP/1.1 200") {
				return n, errors.New(string(line))
			}
			if value, ok := strings.CutPrefix(string(line), "Content-Length: "); ok {
				if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
					return n, err
				}
			}
			if len(line) == 2 {
				break
			}
		}
		if length < 0 {
			return n, errors.New("a response without Content-Length")
		}
		if _, err := r.Discard(length); err != nil {
			return n, err
		}
	}
	return n, nil
}
