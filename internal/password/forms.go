package password

import (
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// normalized returns a password in Normalization Form C, in which it is hashed
// (NIST SP 800-63B-4 section 3.1.1.2, RFC 8265 section 4.2). So it does not
// matter how a keyboard composes accents. Form KC would make more passwords
// equal. Invalid UTF-8 is returned unchanged.
func normalized(password string) string {
	if !utf8.ValidString(password) {
		return password
	}
	return norm.NFC.String(password)
}

// formsOf returns the distinct forms in which a password may have been hashed,
// by this library or another program: normalized, as typed, decomposed. Their
// number depends only on the password.
func formsOf(password string) []string {
	forms := []string{normalized(password)}
	if isASCII(password) || !utf8.ValidString(password) {
		return forms
	}
	if password != forms[0] {
		forms = append(forms, password)
	}
	if nfd := norm.NFD.String(password); nfd != password && nfd != forms[0] {
		forms = append(forms, nfd)
	}
	return forms
}

// isASCII reports whether s consists of ASCII characters.
func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
