package session

import (
	"net/http"
	"net/netip"
	"strings"
)

// ip returns the client's address as it is stored and reported: without port and
// zone. If the text that Config.ClientIP returned is not an address, it returns
// that text, shortened.
func (m *Manager[U]) ip(r *http.Request) string {
	text := m.cfg.ClientIP(r)
	if address, ok := parseClientIP(text); ok {
		return address.String()
	}
	return fit(asciiOnly(text), maxIP)
}

// networks returns the networks that a client is in, the smallest first: the
// IPv4 address, or the IPv6 /64, /56 and /48.
//
// It returns none if the address can't be read or is a proxy's. Such clients
// cannot be distinguished, so nothing is counted for their network: one of them
// could lock out all others.
func (m *Manager[U]) networks(r *http.Request) []string {
	text := m.cfg.ClientIP(r)
	address, ok := parseClientIP(text)
	switch {
	case !m.clientIPSet && (!ok || address.IsPrivate() || address.IsLoopback() || address.IsLinkLocalUnicast()):
		m.warnNoClientIP.Do(func() {
			m.cfg.Logger.WarnContext(r.Context(), "session: logins are throttled by account only, as they come from a proxy or a private address; set Config.ClientIP to tell clients apart", "address", fit(asciiOnly(text), maxIP))
		})
		return nil
	case !ok:
		if text = fit(asciiOnly(text), maxIP); m.unreadIPs.isNew(text) {
			m.cfg.Logger.WarnContext(r.Context(), "session: Config.ClientIP returned no address, so this login is throttled by account only", "text", text)
		}
		return nil
	}
	if address.Is4() {
		return []string{address.String()}
	}
	networks := make([]string, 0, networkSizes)
	for _, bits := range []int{64, 56, 48} {
		network, _ := address.Prefix(bits)
		networks = append(networks, network.String())
	}
	return networks
}

// networkSizes is how many networks an IPv6 client is in.
const networkSizes = 3

// smallest returns the first network, or one name for all clients whose network
// is unknown.
func smallest(networks []string) string {
	if len(networks) == 0 {
		return "unknown"
	}
	return networks[0]
}

// nat64 is the prefix under which translators present IPv4 clients to IPv6
// servers (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// parseClientIP parses an address in the forms that proxies write: with a port,
// in brackets or quotes, with a zone, or as an element of the Forwarded header
// (RFC 7239). Of a list it takes the last element, which the nearest proxy has
// added. Clients can make up the others.
func parseClientIP(text string) (netip.Addr, bool) {
	text = strings.TrimRight(text, ", \t\r\n")
	text = text[strings.LastIndexByte(text, ',')+1:]
	for part := range strings.SplitSeq(text, ";") {
		if name, value, ok := strings.Cut(part, "="); ok && strings.EqualFold(strings.TrimSpace(name), "for") {
			text = value
			break
		}
	}
	text = strings.TrimSpace(strings.Trim(strings.TrimSpace(text), `"`))
	if inside, ok := strings.CutPrefix(text, "["); ok {
		var after string
		if text, after, ok = strings.Cut(inside, "]"); !ok || after != "" && after[0] != ':' {
			return netip.Addr{}, false
		}
	} else if strings.Count(text, ":") == 1 {
		text, _, _ = strings.Cut(text, ":")
	}
	text, _, _ = strings.Cut(text, "%")
	address, err := netip.ParseAddr(strings.TrimSpace(text))
	dot, colon := strings.LastIndexByte(text, '.'), strings.LastIndexByte(text, ':')
	if err != nil && 0 < dot && dot < colon { // a port after ::ffff:192.0.2.1
		address, err = netip.ParseAddr(strings.TrimSpace(text[:colon]))
	}
	if err != nil || address.IsUnspecified() {
		return netip.Addr{}, false
	}
	if nat64.Contains(address) {
		ipv6 := address.As16()
		return netip.AddrFrom4([4]byte(ipv6[12:])), true
	}
	return address.Unmap(), true
}
