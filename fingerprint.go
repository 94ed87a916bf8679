package session

import (
	"net/http"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// A Fingerprint is what ties a session to a browser: a stolen cookie alone is then not enough for who does not copy
// the browser's User-Agent too.
//
// Of a Fingerprint of your own, set one function or both: Text defaults to the User-Agent, Match to equality.
type Fingerprint struct {
	// Text tells what of the request is stored with the session, in the column browser and in the list of sessions.
	// It is kept as valid UTF-8 of at most 255 characters; what is beyond is cut.
	Text func(*http.Request) string

	// Match reports whether a session stored with the first text may be used with the second, which was cut in the
	// same way. If they match but differ, the stored text follows at the next slide.
	Match func(stored, current string) bool
}

// The ways to compare browsers.
var (
	// FingerprintFamily compares User-Agents without their version numbers: browsers update themselves every few
	// weeks, and comparing exactly would log active people out of a 30-day session. It is the default.
	FingerprintFamily = Fingerprint{userAgent, sameFamily}

	// FingerprintExact compares the whole User-Agent (its first 255 characters), as CandyPack does.
	FingerprintExact = Fingerprint{userAgent, func(stored, current string) bool { return stored == current }}

	// FingerprintOff stores the User-Agent for the list of sessions, but compares nothing.
	FingerprintOff = Fingerprint{userAgent, func(string, string) bool { return true }}
)

// The widths of the columns browser and ip.
const (
	maxBrowser = 255
	maxIP      = 45
)

func userAgent(r *http.Request) string { return latin1(r.Header.Get("User-Agent")) }

// latin1 reads header bytes as Latin-1: header fields have no other encoding that can be relied on (RFC 9110 section
// 5.5), no byte is lost, and the result is text that every column takes.
func latin1(s string) string {
	if isASCII(s) {
		return strings.TrimSpace(s)
	}
	s = s[:min(len(s), 4*maxBrowser)]
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return strings.TrimSpace(string(runes))
}

func isASCII(s string) bool {
	var all byte
	for i := range len(s) {
		all |= s[i]
	}
	return all < utf8.RuneSelf
}

// fit makes any text valid UTF-8 of at most max characters.
func fit(s string, max int) string {
	if len(s) <= max && utf8.ValidString(s) {
		return s
	}
	s = strings.ToValidUTF8(s[:min(len(s), utf8.UTFMax*max)], "\uFFFD")
	n := 0
	for i := range s {
		if n++; n > max {
			return s[:i]
		}
	}
	return s
}

// sameFamily compares User-Agents less their versions. Where they are so long that one may have been cut, what is left
// decides: the cut moves by the few digits that versions grow, so the shorter need only be the beginning of the longer.
func sameFamily(stored, current string) bool {
	if stored == current {
		return true
	}
	stored = strings.TrimSuffix(stored, cutMark)
	a, b := family(stored), family(current)
	const growth = 32
	if min(utf8.RuneCountInString(stored), utf8.RuneCountInString(current)) < maxBrowser-growth {
		return a == b
	}
	if len(a) > len(b) {
		a, b = b, a
	}
	return strings.HasPrefix(b, a) && len(b)-len(a) <= growth
}

// family drops the versions from a User-Agent: of a product/version (RFC 9110 section 10.1.5) all behind the slash,
// elsewhere each word that begins with a digit. Android 14, rv:130.0, Mac OS X 10_15_7 and Build/AP2A.240805.005
// lose their numbers, x86_64 and Win64 stay.
func family(userAgent string) string {
	var b strings.Builder
	b.Grow(len(userAgent))
	skip, start := false, true // inside a version; at the beginning of a word
	for i := range len(userAgent) {
		c := userAgent[i]
		switch c {
		case ' ', '(', ')', ';', ',', ':':
			skip, start = false, true
		case '/':
			if !skip {
				b.WriteByte(c)
			}
			skip, start = true, false
			continue
		default:
			if start && '0' <= c && c <= '9' {
				skip = true
			}
			start = false
		}
		if !skip {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// remoteIP is the host of the connection: the client, or the proxy in front of the app.
func remoteIP(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return peer.Addr().Unmap().WithZone("").String()
}

// asciiOnly keeps what the column ip takes.
func asciiOnly(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return -1
		}
		return r
	}, s)
}
