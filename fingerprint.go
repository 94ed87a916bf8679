package session

import (
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"unicode/utf8"
)

// A Fingerprint binds a session to a browser, so that a stolen cookie is useless
// without, for example, the same User-Agent.
//
// A custom Fingerprint may set either function. Text defaults to the User-Agent
// and Match to equality.
type Fingerprint struct {
	// Text returns the fingerprint of a request. It is stored with the session
	// (column browser, Session.Browser) as valid UTF-8, truncated to 255
	// characters.
	Text func(*http.Request) string

	// Match reports whether a session stored with one fingerprint may be used by
	// a request with another. If they match but differ, the next renewal stores
	// the current one.
	Match func(stored, current string) bool
}

// Predefined fingerprints.
var (
	// FingerprintFamily compares User-Agents without versions, builds,
	// networks and languages: browsers update themselves every few weeks, and
	// comparing exactly would log active people out of a 30-day session. The
	// media player of the browser's device matches too. It is the default.
	FingerprintFamily = Fingerprint{userAgent, func(stored, current string) bool {
		return sameFamily(stored, current) || plays(stored, current)
	}}

	// FingerprintExact compares the whole User-Agent (its first 255 characters).
	FingerprintExact = Fingerprint{userAgent, func(stored, current string) bool { return stored == current }}

	// FingerprintOff stores the User-Agent for the list of sessions, but compares nothing.
	FingerprintOff = Fingerprint{userAgent, func(string, string) bool { return true }}
)

// Widths of the columns browser and ip, in characters.
const (
	maxBrowser = 255
	maxIP      = 45
)

func userAgent(r *http.Request) string { return latin1(header(r, "User-Agent")) }

// latin1 decodes header bytes as Latin-1: header fields have no other reliable
// encoding (RFC 9110 section 5.5), no byte is lost, and every column accepts the
// result.
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

// fit returns s as valid UTF-8 of at most max characters.
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

// sameFamily compares User-Agents ignoring version numbers. If they are long
// enough to have been truncated, one being a prefix of the other suffices,
// because a longer version number moves the cut.
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

// family removes from a User-Agent the parts that change while the browser stays
// the same: versions, builds, networks, carriers and languages. Of a
// product/version (RFC 9110 section 10.1.5) it removes everything after the
// slash, elsewhere each word that begins with a digit. Android 14, rv:130.0, Mac
// OS X 10_15_7 and Build/AP2A.240805.005 lose their numbers; x86_64 and Win64
// stay.
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
	// and contains version, device, language and carrier.
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

// anyModel replaces the model of an Android device in Chrome since version 110.
const anyModel = "(Linux; Android ; K)"

// familyOf returns the part of a word that family keeps. A word that may occur in
// place of a number becomes a mark.
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

// plays reports whether current is the media player of the stored browser's
// device.
func plays(stored, current string) bool {
	if m := applePlayer.FindStringSubmatch(current); m != nil {
		if !strings.Contains(stored, "AppleWebKit/") || strings.Contains(stored, "Chrome/") || strings.Contains(stored, "Chromium/") {
			return false // it plays media itself
		}
		// An iPad's browser says that it is a Mac, by default.
		return strings.Contains(stored, "("+m[1]+";") || m[1] == "iPad" && strings.Contains(stored, "(Macintosh;")
	}
	return androidPlayer.MatchString(current) && strings.Contains(stored, "Android ")
}

// lasting returns the fingerprint to store at a renewal: that of the browser,
// not of its media player.
func lasting(stored, current string) string {
	if isPlayer(current) {
		return stored
	}
	return current
}

// remoteIP returns the peer's IP address: the client's, or a proxy's.
func remoteIP(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return peer.Addr().Unmap().WithZone("").String()
}

// asciiOnly removes the characters that the column ip cannot hold.
func asciiOnly(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return -1
		}
		return r
	}, s)
}

// header returns the first value of the header with this canonical name. Unlike
// Header.Get it does not canonicalize the name.
func header(r *http.Request, canonical string) string {
	if values := r.Header[canonical]; len(values) > 0 {
		return values[0]
	}
	return ""
}
