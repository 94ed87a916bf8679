package store

import (
	"fmt"
	"testing"
)

// A parameter equals an integer with the same digits, a string with the same
// bytes, or no value.
func FuzzColumnParam(f *testing.F) {
	for _, text := range []string{"1", "1x", "01", "+1", "-0", "18446744073709551615", "18446744073709551616", "1e0", "\xff", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, kind := range []columnKind{integerColumn, textColumn, binaryColumn} {
			param, ok, err := Column{Name: "c", kind: kind}.Param(text)
			if err != nil {
				t.Fatal(err)
			}
			if raw, isRaw := param.([]byte); isRaw {
				param = string(raw)
			}
			if ok && fmt.Sprint(param) != text {
				t.Fatalf("%q became %v", text, param)
			}
		}
	})
}
