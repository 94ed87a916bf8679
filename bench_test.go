package session

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/candysession/session/internal/token"
)

// BenchmarkMiddleware measures the cost per request. bench/ compares it with
// other libraries.
func BenchmarkMiddleware(b *testing.B) {
	for _, bm := range []struct {
		name   string
		cfg    Config
		cookie bool
	}{
		{"no cookie", Config{}, false},
		{"checked", Config{}, true},
		{"cached", Config{Cache: Cache{Fresh: time.Hour}}, true},
	} {
		f := setup(b, bm.cfg)
		visitor := newBrowser(chrome130)
		if bm.cookie {
			f.login(visitor, alice)
		}
		h := f.auth.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if f.auth.Check(r) != bm.cookie {
				b.Error(f.auth.Err(r))
			}
		}))
		request := func() *http.Request {
			r := httptest.NewRequestWithContext(b.Context(), "GET", "/", nil)
			r.Header.Set("User-Agent", chrome130)
			for name, value := range visitor.cookies {
				r.AddCookie(&http.Cookie{Name: name, Value: value})
			}
			return r
		}
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			r := request()
			for b.Loop() {
				h.ServeHTTP(recorder{}, r)
			}
		})
		b.Run(bm.name+", 64 concurrent", func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(32) // on two processors
			b.RunParallel(func(pb *testing.PB) {
				r := request()
				for pb.Next() {
					h.ServeHTTP(recorder{}, r)
				}
			})
		})
	}
}

func BenchmarkReadCookie(b *testing.B) {
	cfg, _ := Config{}.withDefaults()
	c := newCookies(cfg)
	secret := token.New()
	r := &http.Request{Header: http.Header{"Cookie": {"theme=dark; _ga=GA1.1.1234567890.1234567890; __Host-session=" + secret.Selector + "." + secret.Verifier}}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.read(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSameFamily(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if !sameFamily(chrome130, chrome131) {
			b.Fatal("another family")
		}
	}
}
