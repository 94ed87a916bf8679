package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every edit applies: a mutation that changes nothing would prove nothing.
func TestEditsApply(t *testing.T) {
	for _, m := range mutations {
		texts := map[string]string{}
		for _, e := range m.edits {
			if texts[e.file] == "" {
				text, err := os.ReadFile(filepath.Join("..", "..", e.file))
				if err != nil {
					t.Fatal(err)
				}
				texts[e.file] = string(text)
			}
			if n := strings.Count(texts[e.file], e.old); n != 1 {
				t.Errorf("%s without %s: %q is %d times in %s", m.test, m.takes, e.old, n, e.file)
			}
			texts[e.file] = strings.Replace(texts[e.file], e.old, e.new, 1)
		}
	}
}
