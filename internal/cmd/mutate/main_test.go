package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestEditsApply checks that every edit applies and every test exists. A
// mutation that changes nothing would prove nothing.
func TestEditsApply(t *testing.T) {
	library, err := readLibrary(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutations {
		if _, err := library.edited(m.edits); err != nil {
			t.Errorf("%s without %s: %v", m.test, m.removes, err)
		}
		if name, _, _ := strings.Cut(m.test, "/"); library.tests[name] == "" {
			t.Errorf("there is no %s", name)
		}
	}
}
