package session

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestFamily(t *testing.T) {
	t.Parallel()
	const (
		safari17  = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15"
		safari18  = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0.1 Safari/605.1.15"
		edge      = chrome130 + " Edg/130.0.2849.56"
		windows   = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
		iphone17  = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
		iphone18  = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/16A366 Safari/604.1"
		pixel14   = "Mozilla/5.0 (Linux; Android 14; Pixel 8 Build/UP1A.231005.007; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/120.0.6099.230 Mobile Safari/537.36"
		pixel15   = "Mozilla/5.0 (Linux; Android 15; Pixel 8 Build/AP3A.241105.008; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/131.0.6778.39 Mobile Safari/537.36"
		firefox99 = "Mozilla/5.0 (X11; Linux x86_64; rv:99.0) Gecko/20100101 Firefox/99.0"
	)
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{chrome130, chrome131, true},
		{firefox99, firefox, true},
		{safari17, safari18, true},
		{iphone17, iphone18, true},
		{pixel14, pixel15, true},
		{"curl/8.5.0", "curl/8.10.1", true},
		{"", "", true},
		{"Go-http-client/1.1", "Go-http-client/2.0", true},
		{chrome130, firefox, false},
		{chrome130, edge, false},
		{chrome130, windows, false},
		{safari17, iphone17, false},
		{chrome130, "", false},
		{"", chrome130, false},
		{chrome130, strings.ToUpper(chrome130), false},
		{"curl/8.5.0", "wget/8.5.0", false},
		{"1", "2", true},
		// They differ only beyond the stored length.
		{strings.Repeat("x", 300), strings.Repeat("x", 255) + "y", true},
		{strings.Repeat("x", 254) + "y", strings.Repeat("x", 300), false},
		{chrome130 + " " + strings.Repeat("App/9 ", 50), chrome131 + " " + strings.Repeat("App/10 ", 50), true},
		{chrome130 + " " + strings.Repeat("App/9 ", 50), strings.Repeat("1", 300), false},
		{chrome130 + " " + strings.Repeat("App/9 ", 50), chrome130, false},
		{"curl/8.5.0", strings.Repeat("1", 300), false},
		{"", strings.Repeat("1", 300), true}, // neither has more than versions
	} {
		a, b := fit(test.a, maxBrowser), fit(test.b, maxBrowser)
		if got := FingerprintFamily.Match(a, b); got != test.same {
			t.Errorf("%q and %q: %v", family(a), family(b), got)
		}
		if FingerprintExact.Match(a, b) != (a == b) || !FingerprintOff.Match(a, b) {
			t.Error("exact is not exact, or off is not off")
		}
	}
}

func TestCustomFingerprint(t *testing.T) {
	t.Parallel()
	device := func(r *http.Request) string { return r.Header.Get("X-Device") }
	c, err := Config{Fingerprint: Fingerprint{Text: device}}.withDefaults()
	noError(t, err)
	if c.Fingerprint.Match("a", "b") || !c.Fingerprint.Match("a", "a") {
		t.Error("Match does not default to equality")
	}
	c, err = Config{Fingerprint: Fingerprint{Match: func(a, b string) bool { return true }}}.withDefaults()
	noError(t, err)
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("User-Agent", " x ")
	if c.Fingerprint.Text(r) != "x" || !c.Fingerprint.Match("a", "b") {
		t.Error("Text does not default to the User-Agent")
	}
}

// A browser with any User-Agent can log in and stays logged in. The stored
// value fits the column.
func TestAnyUserAgent(t *testing.T) {
	t.Parallel()
	for _, fingerprint := range []Fingerprint{FingerprintFamily, FingerprintExact, FingerprintOff} {
		f := setup(t, Config{Fingerprint: fingerprint, ClientIP: func(*http.Request) string { return strings.Repeat("é:", 99) }})
		for _, userAgent := range []string{
			"", "x", strings.Repeat("Mozilla/5.0 ", 1000), strings.Repeat("\xff", 10000), "caf\xe9-agent/1.0", "café/1.0", strings.Repeat("😀", 200),
			"odd \"quotes\" 'single' \\back %41 _ ; =  two spaces", "nul\x00 tab\t", "trailing  ",
		} {
			b := newBrowser(userAgent)
			f.login(b, alice)
			f.wantLoggedIn(b)
			b.userAgent = "another"
			want := ErrFingerprintMismatch
			if fingerprint.Match("a", "b") {
				want = nil
			}
			if err := f.errOf(b); err != want {
				t.Errorf("another browser than %.20q: %v, want %v", userAgent, err, want)
			}
		}
		for _, stored := range getStrings(t, f, "SELECT browser FROM user_tokens") {
			if utf8.RuneCountInString(stored) > 255 || !utf8.ValidString(stored) {
				t.Errorf("%q is stored", stored)
			}
		}
	}
}

func getStrings(t *testing.T, f *fixture[user], query string) (all []string) {
	t.Helper()
	noError(t, f.db.Select(&all, query))
	return all
}

func TestClientIP(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"203.0.113.7:5000":          "203.0.113.7",
		"[2001:db8::1]:5000":        "2001:db8::1",
		"[::ffff:203.0.113.7]:5000": "203.0.113.7",
		"[fe80::1%eth0]:5000":       "fe80::1",
		"@":                         "",
		"":                          "",
	} {
		if got := remoteIP(&http.Request{RemoteAddr: addr}); got != want {
			t.Errorf("%q: %q, want %q", addr, got, want)
		}
	}
}

func FuzzFamily(f *testing.F) {
	for _, s := range []string{chrome130, firefox, "", "/", "1/", "\xff", strings.Repeat("1", 300)} {
		f.Add(s, chrome130)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		a, b = fit(latin1(a), maxBrowser), fit(latin1(b), maxBrowser)
		for _, s := range []string{a, b} {
			if !utf8.ValidString(s) || utf8.RuneCountInString(s) > maxBrowser {
				t.Fatalf("%q does not fit", s)
			}
		}
		if !sameFamily(a, a) || sameFamily(a, b) != sameFamily(b, a) {
			t.Fatalf("%q and %q", a, b)
		}
		if a == "" && b != "" && sameFamily(a, b) && strings.Trim(b, "0123456789._-") == b && !strings.HasPrefix(b, "/") && b[0] > ' ' {
			t.Fatalf("nothing is taken for %q", b)
		}
	})
}
