package session

import (
	"slices"
	"strings"
	"testing"
)

// A testCase is one input of docs/cases.md. Its name begins with the row's
// number.
type testCase struct {
	name string
	run  func(t *testing.T)
}

// TestCases has a subtest for each row of docs/cases.md. The rows of each
// group are in the file of that group: cases_a_test.go and so on.
func TestCases(t *testing.T) {
	t.Parallel()
	all := slices.Concat(casesA, casesB, casesC)
	names := map[string]bool{}
	for _, c := range all {
		if names[c.name] || !strings.Contains(c.name, "_") {
			t.Errorf("case %q must have a name of its own, such as A1_two_users_tables", c.name)
		}
		names[c.name] = true
		t.Run(c.name, c.run)
	}
}
