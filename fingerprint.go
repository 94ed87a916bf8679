package session

import (
	"net/http"
	"net/netip"
	"regexp"
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
	// FingerprintFamily compares User-Agents without versions, builds,
	// networks and languages: browsers update themselves every few weeks, and
	// comparing exactly would log active people out of a 30-day session. The
	// media player of the browser's device matches too. It is the default.
	FingerprintFamily = Fingerprint{userAgent, func(stored, current string) bool {
		return sameFamily(stored, current) || plays(stored, current)
	}}

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

func userAgent(r *http.Request) string { return latin1(header(r, "User-Agent")) }

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
		if strings.Contains(a, anyModel) != strings.Contains(b, anyModel) {
			a, b = someModel.ReplaceAllString(a, anyModel), someModel.ReplaceAllString(b, anyModel)
		}
		return a == b
	}
	if len(a) > len(b) {
		a, b = b, a
	}
	return strings.HasPrefix(b, a) && len(b)-len(a) <= growth
}

// family drops from a User-Agent what changes while the browser stays the same:
// versions, builds, networks, carriers and languages. Of a product/version (RFC
// 9110 section 10.1.5) that is all behind the slash, elsewhere each word that
// begins with a digit. Android 14, rv:130.0, Mac OS X 10_15_7 and
// Build/AP2A.240805.005 lose their numbers, x86_64 and Win64 stay.
func family(userAgent string) string {
	userAgent = inApp.ReplaceAllString(userAgent, "[$1 $2]")
	userAgent = carrierName.ReplaceAllString(userAgent, "$1$2")
	userAgent = networkName.ReplaceAllString(userAgent, "$1$2")
	var b strings.Builder
	b.Grow(len(userAgent))
	for {
		end := strings.IndexAny(userAgent, " (),:;=")
		if end < 0 {
			b.WriteString(familyOf(userAgent))
			return b.String()
		}
		b.WriteString(familyOf(userAgent[:end]))
		b.WriteByte(userAgent[end])
		userAgent = userAgent[end+1:]
	}
}

var (
	// The in-app browsers of Facebook add a list, which begins with the app
	// and tells version, device, language and carrier.
	inApp = regexp.MustCompile(`\[(FBAN|FB_IAB)/([^;\]]*)[^\]]*\]?`)

	carrierName  = regexp.MustCompile(`(?i)\b(carrier|operator|isp)([:=/] ?)[^;,()\[\]]*`)
	networkName  = regexp.MustCompile(`(?i)\b(nt|net|net_?type|network|network_?type|conn|connection|connection_?type|lang|language|locale)([:=/] ?)[^ ;,()\[\]]*`)
	bearerWord   = regexp.MustCompile(`^(?i:wi-?fi|wlan|wwan|cellular|ethernet|[2-6]g|lte|lte-a|nr|hspa\+?|hsdpa|umts|gprs)$`)
	localeWord   = regexp.MustCompile(`^[a-z]{2}[-_][A-Za-z]{2}$`)
	numberedWord = regexp.MustCompile(`^((?i:v|ver|version|build|rev|release|rc|alpha|beta|#)[#._-]?)[0-9]`)
	commitWord   = regexp.MustCompile(`^[0-9]*[a-f][0-9a-f]*$`)
	versionTail  = regexp.MustCompile(`[-_]?[vV]?[0-9]+\.[0-9][0-9A-Za-z.+_-]*$`)
	someModel    = regexp.MustCompile(`(\(Linux; Android ; )[^;)]+\)`)
)

// anyModel is what Chrome writes in place of an Android device since version
// 110.
const anyModel = "(Linux; Android ; K)"

// familyOf is what stays of a word. A word that may stand where a number does
// leaves a mark.
func familyOf(word string) string {
	name, _, isProduct := strings.Cut(word, "/")
	switch {
	case name == "":
	case bearerWord.MatchString(name):
		return "net"
	case localeWord.MatchString(name):
		return "lang"
	case len(name) >= 7 && len(name) <= 40 && commitWord.MatchString(name) && strings.ContainsAny(name, "0123456789"):
		return "#"
	case '0' <= name[0] && name[0] <= '9':
		return ""
	default:
		if m := numberedWord.FindStringSubmatch(name); m != nil {
			name = m[1]
		} else if at := versionTail.FindStringIndex(name); at != nil && at[0] > 0 {
			name = name[:at[0]]
		}
	}
	if isProduct {
		name += "/"
	}
	return name
}

// An Apple browser leaves media to the system, which asks with the cookies, but
// by its own name: AppleCoreMedia/1.0.0.22F76 (iPhone; U; CPU OS 18_5 like Mac
// OS X; en_us). So do browsers and apps of Android.
var (
	applePlayer   = regexp.MustCompile(`^AppleCoreMedia/\S+ \((iPhone|iPad|iPod|iPod touch|Macintosh);`)
	androidPlayer = regexp.MustCompile(`^(stagefright/|NuPlayer|ExoPlayer)|\b(ExoPlayerLib|AndroidXMedia3)/`)
)

func isPlayer(userAgent string) bool {
	return applePlayer.MatchString(userAgent) || androidPlayer.MatchString(userAgent)
}

// plays reports whether a media player is that of the stored browser's device.
func plays(stored, current string) bool {
	if m := applePlayer.FindStringSubmatch(current); m != nil {
		if !strings.Contains(stored, "AppleWebKit/") || strings.Contains(stored, "Chrome/") || strings.Contains(stored, "Chromium/") {
			return false // it plays media itself
		}
		// An iPad's browser says that it is a Mac, unless told otherwise.
		return strings.Contains(stored, "("+m[1]+";") || m[1] == "iPad" && strings.Contains(stored, "(Macintosh;")
	}
	return androidPlayer.MatchString(current) && strings.Contains(stored, "Android ")
}

// lasting is the text to store of a session's next request: a media player is
// no browser of its own.
func lasting(stored, current string) string {
	if isPlayer(current) {
		return stored
	}
	return current
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
