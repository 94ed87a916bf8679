package store

import (
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A columnKind is how values of a column are compared.
type columnKind int

const (
	otherColumn columnKind = iota
	textColumn
	integerColumn
	binaryColumn
)

// A Column is a column of the users table.
type Column struct {
	Name          string
	Definition    string // the full type, for columns that refer to it
	AutoIncrement bool

	kind      columnKind
	dataType  string // lower case, such as int or binary
	charset   string // of text
	collation string
	width     int64 // of text in characters, of a binary column in bytes; 0 if it has no limit
	nullable  bool
}

// A Condition requires that a column equals a value.
type Condition struct {
	Column Column
	Value  any // as Column.Param returns it
}

// definitionOf returns the type of a column as a statement may have it.
func definitionOf(columnType string, charset, collation sql.NullString) string {
	if charset.Valid {
		columnType += " CHARACTER SET " + charset.String + " COLLATE " + collation.String
	}
	return columnType
}

// sameDefinition compares the types of two columns. The display width of an
// integer does not change its range.
func sameDefinition(a, b string) bool {
	plain := func(s string) string { return displayWidth.ReplaceAllString(strings.ToLower(s), "int") }
	return plain(a) == plain(b)
}

// displayWidth matches an integer type with its display width.
var displayWidth = regexp.MustCompile(`\bint\(\d+\)`)

// Param converts a value to a parameter that the column can only equal exactly:
// MySQL treats the text '1x' as equal to the number 1, and the number 0 as
// equal to any text that is no number. ok is false if the column cannot hold
// the value.
func (c Column) Param(value any) (param any, ok bool, err error) {
	converted, ok := c.plain(value)
	if !ok || c.kind == otherColumn {
		return nil, false, fmt.Errorf("%w: column %s is %s and cannot be matched with a %T; give text or an integer for a text, integer or binary column", ErrInvalidArgument, Quote(c.Name), c.Definition, value)
	}
	switch c.kind {
	case binaryColumn:
		raw := []byte(converted)
		if c.dataType == "binary" { // a shorter value would be padded, which is another key
			return raw, int64(len(raw)) == c.width, nil
		}
		return raw, c.width == 0 || int64(len(raw)) <= c.width, nil
	case textColumn:
		if c.dataType == "uuid" {
			converted, ok = canonicalUUID(converted)
			return converted, ok, nil
		}
		ok = utf8.ValidString(converted) && (c.width == 0 || int64(utf8.RuneCountInString(converted)) <= c.width) && inCharset(converted, c.charset)
		return converted, ok, nil
	}
	if n, err := strconv.ParseInt(converted, 10, 64); err == nil && strconv.FormatInt(n, 10) == converted {
		return n, c.holds(n), nil
	}
	n, err := strconv.ParseUint(converted, 10, 64)
	ok = err == nil && strconv.FormatUint(n, 10) == converted && (c.dataType == "bigint" && c.unsigned() || c.dataType == "")
	return n, ok, nil
}

// plain returns a value as text or bytes. ok is false for a value of a type
// that no key column has.
func (c Column) plain(value any) (text string, ok bool) {
	if n, ok := value.(uint64); ok {
		return strconv.FormatUint(n, 10), true
	}
	converted, err := driver.DefaultParameterConverter.ConvertValue(value)
	_, valuer := value.(driver.Valuer)
	raw, isBytes := converted.([]byte)
	if v := reflect.ValueOf(value); c.kind == binaryColumn && v.Kind() == reflect.Array && v.Type().Elem().Kind() == reflect.Uint8 && (!valuer || !isBytes) {
		raw := make([]byte, v.Len()) // a UUID type; its Value method would return text
		reflect.Copy(reflect.ValueOf(raw), v)
		return string(raw), true
	}
	switch v := converted.(type) {
	case int64:
		return strconv.FormatInt(v, 10), err == nil
	case string:
		return v, err == nil
	}
	return string(raw), err == nil && isBytes
}

// unsigned reports whether the column is an unsigned number.
func (c Column) unsigned() bool { return strings.Contains(strings.ToLower(c.Definition), "unsigned") }

// holds reports whether an integer is in the column's range.
func (c Column) holds(n int64) bool {
	bits, ok := map[string]int{"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}[c.dataType]
	switch {
	case !ok:
		return true
	case c.unsigned():
		return n >= 0 && (bits == 64 || n < 1<<bits)
	}
	return n >= -1<<(bits-1) && n <= 1<<(bits-1)-1
}

// inCharset reports whether a column of the character set can hold the text. It
// reports true for character sets that it does not know.
func inCharset(text, charset string) bool {
	limit := rune(utf8.MaxRune)
	switch charset {
	case "ascii":
		limit = 0x7f
	case "utf8", "utf8mb3", "ucs2":
		limit = 0xffff
	}
	return !strings.ContainsFunc(text, func(r rune) bool { return r > limit })
}

// canonicalUUID returns a UUID as the server's type uuid writes it.
func canonicalUUID(text string) (string, bool) {
	digits := strings.ToLower(strings.ReplaceAll(text, "-", ""))
	if raw, err := hex.DecodeString(digits); err != nil || len(raw) != 16 {
		return text, false
	}
	return digits[:8] + "-" + digits[8:12] + "-" + digits[12:16] + "-" + digits[16:20] + "-" + digits[20:], true
}

// SameKey reports whether two keys, as the driver or Column.Param returns them,
// are equal byte by byte.
func SameKey(a, b any) bool { return string(KeyBytes(a)) == string(KeyBytes(b)) }

// KeyBytes returns a key as bytes.
func KeyBytes(key any) []byte {
	switch v := key.(type) {
	case []byte:
		return v
	case string:
		return []byte(v)
	case int64:
		return strconv.AppendInt(nil, v, 10)
	case uint64:
		return strconv.AppendUint(nil, v, 10)
	}
	return fmt.Append(nil, key)
}
