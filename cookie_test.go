package session

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/candysession/session/internal/token"
)

// Every cookie can be parsed strictly, has the attributes that the
// configuration asks for, and obeys the prefix rules of RFC 6265bis section
// 4.1.3.
func TestCookies(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cfg   Config
		names string
		check func(*http.Cookie) bool
	}{
		"default":              {Config{}, "__Host-session", func(c *http.Cookie) bool { return c.MaxAge == 400*24*3600 }},
		"with a domain":        {Config{Cookie: Cookie{Domain: "example.com"}}, "__Secure-session", func(c *http.Cookie) bool { return c.Domain == "example.com" }},
		"with a path":          {Config{Cookie: Cookie{Path: "/app"}}, "__Secure-session", func(c *http.Cookie) bool { return c.Path == "/app" }},
		"insecure":             {Config{Cookie: Cookie{Insecure: true}}, "session", func(c *http.Cookie) bool { return !c.Secure }},
		"transient":            {Config{Cookie: Cookie{Transient: true}}, "__Host-session", func(c *http.Cookie) bool { return c.MaxAge == 0 && c.RawExpires == "" }},
		"a name":               {Config{Cookie: Cookie{Name: "sid"}}, "sid", func(c *http.Cookie) bool { return true }},
		"a secure name":        {Config{Cookie: Cookie{Name: "__Secure-sid", Path: "/x"}}, "__Secure-sid", func(c *http.Cookie) bool { return c.Secure }},
		"a short MaxAge":       {Config{MaxAge: time.Hour}, "__Host-session", func(c *http.Cookie) bool { return c.MaxAge == 400*24*3600 }},
		"candypack":            {Config{CandyPack: CandyPackShare}, "candy_x candy_y", func(c *http.Cookie) bool { return !strings.Contains(c.Value, ".") && c.MaxAge == 365*24*3600 }},
		"candypack, transient": {Config{CandyPack: CandyPackShare, Cookie: Cookie{Transient: true}}, "candy_x candy_y", func(c *http.Cookie) bool { return c.MaxAge == 0 }},
		"from candypack": {Config{CandyPack: CandyPackSwitch}, "candy_x candy_y __Host-session", func(c *http.Cookie) bool {
			return strings.HasPrefix(c.Name, "__Host-session") == (c.MaxAge == 400*24*3600)
		}},
		"lax":            {Config{Cookie: Cookie{SameSite: http.SameSiteLaxMode}}, "__Host-session", func(c *http.Cookie) bool { return true }},
		"lax, candypack": {Config{Cookie: Cookie{SameSite: http.SameSiteLaxMode}, CandyPack: CandyPackShare}, "candy_x candy_y", func(c *http.Cookie) bool { return true }},
	} {
		cfg, err := test.cfg.withDefaults()
		noError(t, err)
		tok := token.New()
		c := newCookies(cfg)
		want := strings.TrimSpace(test.names + " " + c.hint)
		check := func(value bool, maxAge func(int) bool) string {
			w := httptest.NewRecorder()
			if value {
				c.write(w, tok, false)
				c.write(w, tok, false) // replaces
			} else {
				c.clear(w)
			}
			var names []string
			for _, line := range w.Header()["Set-Cookie"] {
				cookie, err := http.ParseSetCookie(line)
				if err != nil {
					t.Errorf("%s: %q: %v", name, line, err)
					continue
				}
				names = append(names, cookie.Name)
				if !cookie.HttpOnly || (cookie.SameSite == http.SameSiteLaxMode) != (cookie.Name == c.hint || cfg.Cookie.SameSite == http.SameSiteLaxMode) || cookie.Secure == cfg.Cookie.Insecure || cookie.Path != cfg.Cookie.Path || (cookie.Value != "") != value {
					t.Errorf("%s: %q", name, line)
				}
				if !maxAge(cookie.MaxAge) || value && !test.check(cookie) {
					t.Errorf("%s: %q", name, line)
				}
				if strings.HasPrefix(cookie.Name, "__Host-") && (!cookie.Secure || cookie.Path != "/" || cookie.Domain != "") {
					t.Errorf("%s: %q breaks the rules of its prefix", name, line)
				}
				if len(line) > 4096 {
					t.Errorf("%s: %d bytes are more than a browser takes", name, len(line))
				}
			}
			return strings.Join(names, " ")
		}
		if got := check(true, func(int) bool { return true }); got != want {
			t.Errorf("%s: cookies %q, want %q", name, got, want)
		}
		if got := check(false, func(n int) bool { return n < 0 }); got != want {
			t.Errorf("%s: logout clears %q, want %q", name, got, want)
		}

		w := httptest.NewRecorder()
		c.write(w, tok, false)
		r := httptest.NewRequest("GET", "/", nil)
		for _, cookie := range w.Result().Cookies() {
			r.AddCookie(cookie)
		}
		if got, err := c.read(r); got != tok || err != nil {
			t.Errorf("%s: read %v", name, err)
		}
	}
}

func TestCandyPackCookiesAreRead(t *testing.T) {
	t.Parallel()
	c := newCookies(Config{CandyPack: CandyPackShare})
	const x, y = "f64ae64d052c1ab92a4e57c5b106b208", "2a9fe3d1f99066f3da0d7eb2ba6c1462"
	for header, want := range map[string]error{
		"candy_x=" + x + "; candy_y=" + y:                        nil,
		"candy_y=" + y + "; candy_x=" + x:                        nil,
		"candy_x=" + x + "; candy_y=" + y + "; candy_x=other":    nil,
		"candy_x=; candy_y=":                                     ErrNoCookie,
		"":                                                       ErrNoCookie,
		"candy_x=" + x:                                           ErrMalformedCookie,
		"candy_y=" + y:                                           ErrMalformedCookie,
		"candy_x=" + x + "; candy_y=":                            ErrMalformedCookie,
		"candy_x=" + x + "=1; candy_y=" + y + "=2":               nil, // CandyPack cuts at "="
		"theme=dark; candy_x=" + x + "  ; candy_y=" + y:          nil, // and ignores spaces
		"candy_x=" + x + ";candy_y=" + y:                         ErrMalformedCookie,
		"candy_x=other; candy_x=" + x + "; candy_y=" + y:         ErrMalformedCookie,
		`candy_x="` + x + `"; candy_y=` + y:                      ErrMalformedCookie,
		`candy_x={"a":1}; candy_y=` + y:                          ErrMalformedCookie,
		"candy_x=" + x[:21] + "; candy_y=" + y:                   ErrMalformedCookie,
		"candy_x=" + x + "; candy_y=" + strings.Repeat("ä", 32):  ErrMalformedCookie,
		"candy_x=" + x + "; candy_y=" + strings.Repeat("%41", 8): ErrMalformedCookie,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", header)
		if got, err := c.read(r); err != want || err == nil && got != (token.Token{Selector: x, Verifier: y}) {
			t.Errorf("%q: %v, want %v", header, err, want)
		}
	}
}

// With CandyPackSwitch, CandyPack's cookies take precedence, because every
// login and logout changes them.
func TestCookiesOfTheSwitch(t *testing.T) {
	t.Parallel()
	cfg, err := Config{CandyPack: CandyPackSwitch}.withDefaults()
	noError(t, err)
	c := newCookies(cfg)
	theirs, ours := token.Token{Selector: strings.Repeat("a", 32), Verifier: strings.Repeat("b", 32)}, token.New()
	candy, single := "candy_x="+theirs.Selector+"; candy_y="+theirs.Verifier, "__Host-session="+ours.Selector+"."+ours.Verifier
	for header, want := range map[string]token.Token{
		candy:                             theirs,
		single:                            ours,
		single + "; " + candy:             theirs,
		"__Host-session=broken; " + candy: theirs,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", header)
		if got, err := c.read(r); err != nil || got != want {
			t.Errorf("%q: %v", header, err)
		}
	}
	for header, want := range map[string]error{"": ErrNoCookie, "candy_x=; candy_y=": ErrNoCookie, "candy_x=; candy_y=; " + single: ErrNoCookie, "candy_x=a; " + single: ErrMalformedCookie, "__Host-session=a": ErrMalformedCookie} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", header)
		if _, err := c.read(r); err != want {
			t.Errorf("%q: %v, want %v", header, err, want)
		}
	}
}

func TestSetCookieKeepsOtherCookiesAndHeaders(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	w.Header().Add("Set-Cookie", "a=1")
	w.Header().Add("Set-Cookie", "__Host-session=old; Path=/")
	w.Header().Add("Set-Cookie", "__Host-session2=2")
	w.Header().Set("Vary", "Accept, cookie")
	cfg, err := Config{}.withDefaults()
	noError(t, err)
	newCookies(cfg).write(w, token.New(), false)
	got := w.Header()["Set-Cookie"]
	if len(got) != 4 || got[0] != "a=1" || got[1] != "__Host-session2=2" || strings.Contains(got[2], "old") || w.Header().Get("Vary") != "Accept, cookie" {
		t.Errorf("%q", w.Header())
	}
}

func FuzzReadCookie(f *testing.F) {
	tok := token.New()
	f.Add("__Host-session=" + tok.Selector + "." + tok.Verifier)
	f.Add("candy_x=f64ae64d052c1ab92a4e57c5b106b208; candy_y=2a9fe3d1f99066f3da0d7eb2ba6c1462")
	f.Add(`__Host-session="`)
	f.Add("=;=,\x00")
	cfg, err := Config{}.withDefaults()
	if err != nil {
		f.Fatal(err)
	}
	single, candy := newCookies(cfg), newCookies(Config{CandyPack: CandyPackShare})
	f.Fuzz(func(t *testing.T, header string) {
		r := &http.Request{Header: http.Header{"Cookie": {header}}}
		for _, c := range []*cookies{single, candy} {
			tok, err := c.read(r)
			if (err == nil) == (tok.Selector == "") || err != nil && err != ErrNoCookie && err != ErrMalformedCookie {
				t.Fatalf("%q: %v", header, err)
			}
			if known, netErr := r.Cookie(c.template.Name); c.shared == nil && err == nil && (netErr != nil || known.Quoted || !strings.HasPrefix(known.Value, tok.Selector)) {
				t.Fatalf("%q: net/http finds %v, %v", header, known, netErr)
			}
			if err == nil && (!strings.Contains(header, tok.Selector) || !strings.Contains(header, tok.Verifier)) {
				t.Fatalf("%q: token from nowhere", header)
			}
		}
	})
}
