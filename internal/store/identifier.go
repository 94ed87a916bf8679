package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"
)

// maxIdentifier is the length in bytes up to which spellings are distinguished.
const maxIdentifier = 4096

// Identifier returns a name for what a login identifies a user by, the same for
// all spellings that the database takes for equal. It is exact only where that
// matters: it may give two users one name, but never one user two. Text costs
// one statement, whether or not there is such a user.
func (s *Store) Identifier(ctx context.Context, conditions []Condition) (string, error) {
	names := make([]string, len(conditions))
	var parts []string
	var args []any
	var weighed []int
	for i, c := range conditions {
		names[i] = plainIdentifier(c)
		if c.Column.charset == "" {
			continue
		}
		weigh := func(what string) string {
			return "WEIGHT_STRING(CONVERT(" + what + " USING " + c.Column.charset + ") COLLATE " + c.Column.collation + ")"
		}
		parts = append(parts, weigh("?"), weigh("' '"))
		args = append(args, trimIgnored(fmt.Sprint(c.Value)))
		weighed = append(weighed, i)
	}
	if len(parts) > 0 {
		weights := make([][]byte, len(parts))
		into := make([]any, len(parts))
		for i := range weights {
			into[i] = &weights[i]
		}
		err := s.do(ctx, "weigh the identifiers", func(ctx context.Context) error {
			return s.db.QueryRowContext(ctx, "SELECT "+strings.Join(parts, ", "), args...).Scan(into...)
		})
		if unanswered(err) {
			return "", err
		}
		for n, i := range weighed {
			weight, space := weights[2*n], weights[2*n+1]
			if err != nil || weight == nil {
				continue // the server can't say, or the column can't hold it
			}
			for len(space) > 0 && bytes.HasSuffix(weight, space) {
				weight = weight[:len(weight)-len(space)] // most collations ignore spaces at the end
			}
			names[i] = "weight " + hex.EncodeToString(weight)
		}
	}
	var b strings.Builder
	for i, c := range conditions {
		fmt.Fprintf(&b, "%q=%q ", strings.ToLower(c.Column.Name), names[i])
	}
	return b.String(), nil
}

// plainIdentifier returns a value as the simplest collations compare it.
func plainIdentifier(c Condition) string {
	if raw, ok := c.Value.([]byte); ok {
		return hex.EncodeToString(bytes.TrimRight(raw, "\x00 "))
	}
	text := strings.ToLower(trimIgnored(fmt.Sprint(c.Value)))
	if c.Column.kind == textColumn && c.Column.charset == "" {
		// A UUID may be written with or without hyphens.
		text = strings.NewReplacer("-", "", "{", "", "}", "").Replace(text)
	}
	return text
}

// trimIgnored removes spaces and invisible characters around a text. One that
// is too long to be anybody's counts as a text that all of them share.
func trimIgnored(text string) string {
	text = strings.TrimFunc(strings.ToValidUTF8(text, "\uFFFD"), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r)
	})
	if len(text) > maxIdentifier {
		return "too long"
	}
	return text
}
