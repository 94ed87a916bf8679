package session

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that a page names exists, and every row of the table of threats
// names one.
func TestDocsNameExistingTests(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*_test.go")
	noError(t, err)
	ofPackages, err := filepath.Glob("internal/*/*_test.go")
	noError(t, err)
	files = append(files, ofPackages...)
	ofThrottle, err := filepath.Glob("throttle/*_test.go")
	noError(t, err)
	files = append(files, ofThrottle...)
	exists := map[string]bool{}
	for _, file := range files {
		source, err := os.ReadFile(file)
		noError(t, err)
		for _, match := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)`).FindAllStringSubmatch(string(source), -1) {
			exists[match[1]] = true
		}
	}
	for _, page := range []string{"SECURITY.md", "docs/migrating-from-candypack.md"} {
		text, err := os.ReadFile(page)
		noError(t, err)
		for _, name := range regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`).FindAllString(string(text), -1) {
			if !exists[name] {
				t.Errorf("%s names %s, which does not exist", page, name)
			}
		}
	}
	text, err := os.ReadFile("SECURITY.md")
	noError(t, err)
	_, threats, _ := strings.Cut(string(text), "| threat |")
	threats, _, _ = strings.Cut(threats, "\n\n")
	mutations, err := os.ReadFile(filepath.Join("internal", "cmd", "mutate", "main.go"))
	noError(t, err)
	for _, row := range strings.Split(threats, "\n")[2:] {
		test := strings.TrimSpace(strings.Split(row, "|")[3])
		function, _, _ := strings.Cut(test, "/") // a subtest of TestCases
		if !exists[function] {
			t.Errorf("%s names no test", row)
		}
		if !strings.Contains(string(mutations), test) {
			t.Errorf("internal/cmd/mutate takes away no defence that %s shows", test)
		}
	}
}
