package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/candysession/session"
	"github.com/candysession/session/internal/testdb"
)

// TestCachingProxy checks that a proxy which caches everything that it may,
// including responses with cookies, caches no response that sets a session
// cookie or rejects a session.
func TestCachingProxy(t *testing.T) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed")
	}
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	auth, err := session.New[user](w.db, session.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer auth.Close()
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, auth.Check(r)) })
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		if _, err := auth.LoginAs(w, r, 1); err != nil {
			t.Error(err)
		}
	})
	mux.Handle("/private", auth.Require(page))
	mux.Handle("/public", page)
	mux.Handle("/plain", page)
	backend := httptest.NewServer(auth.Middleware(mux))
	defer backend.Close()

	dir := t.TempDir()
	os.Chmod(dir, 0o777)
	address := net.JoinHostPort("127.0.0.1", testdb.FreePort("127.0.0.1"))
	config := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/log; events {}
http {
  access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  proxy_cache_path %[1]s/cache keys_zone=z:1m;
  server {
    listen %[2]s;
    location / { proxy_pass %[3]s; proxy_cache z; proxy_cache_valid any 10m; proxy_ignore_headers Set-Cookie; add_header Stored $upstream_cache_status always; }
  }
}`, dir, address, backend.URL)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	proxy := exec.Command(nginx, "-c", file, "-p", dir)
	proxy.Stderr = os.Stderr
	proxy.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		proxy.Process.Kill()
		proxy.Wait()
	}()

	get := func(path, cookie string) (status int, stored, set, body string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			r, _ := http.NewRequest("GET", "http://"+address+path, nil)
			r.Header.Set("User-Agent", "Firefox")
			if cookie != "" {
				r.Header.Set("Cookie", cookie)
			}
			response, err := http.DefaultClient.Do(r)
			if err != nil {
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
				continue
			}
			defer response.Body.Close()
			text, _ := io.ReadAll(response.Body)
			for _, c := range response.Cookies() {
				if !strings.HasSuffix(c.Name, ".hint") {
					set = c.Name + "=" + c.Value
				}
			}
			return response.StatusCode, response.Header.Get("Stored"), set, string(text)
		}
	}
	get("/plain", "")
	if _, stored, _, _ := get("/plain", ""); stored != "HIT" {
		t.Fatalf("the proxy caches nothing: %s", stored)
	}
	_, _, ada, _ := get("/login", "")
	if _, stored, other, _ := get("/login", ""); stored == "HIT" || other == ada || other == "" {
		t.Errorf("a login was cached: %s", stored)
	}
	if status, _, _, _ := get("/private", ""); status != http.StatusUnauthorized {
		t.Errorf("status %d", status)
	}
	if status, stored, _, body := get("/private", ada); stored == "HIT" || status != http.StatusOK || body != "true" {
		t.Errorf("a rejection was cached: %d, %s, %q", status, stored, body)
	}
	w.db.MustExec("UPDATE user_tokens SET active = active - INTERVAL 2 DAY")
	if _, _, renewed, body := get("/public", ada); renewed != "" || body != "true" {
		t.Errorf("a renewal: %q, %q", renewed, body)
	}
	if _, stored, set, body := get("/public", ""); stored == "HIT" || set != "" || body != "false" {
		t.Errorf("a renewal was cached: %s, %q, %q", stored, set, body)
	}
}
