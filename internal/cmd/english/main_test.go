package main

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// TestPhrases searches sentences for each pattern.
func TestPhrases(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text string
		want string // patterns, in order
	}{
		{"Who fails too often has to wait.", "P1"},
		{"It stays: who had copied it is out.", "P1"},
		{"A row is only found by who knows its selector.", "P1"},
		{"Users who fail too often have to wait.", ""},
		{"A stranger, who is then logged in.", ""},
		{"It does not matter who sent it.", ""},
		{"Who sent it?", ""},
		{"For those who wait.", "P2"},
		{"It is the one that was not used.", "P2"},
		{"The token that was not used.", ""},
		{"A call is one that has begun.", ""},
		{"Stats tells how many there are.", "P3"},
		{"The caller is told the reason.", "P3"},
		{"It can be told apart.", ""},
		{"Clients that nobody can tell from each other apart.", ""},
		{"m.tell(r, EventLogin)", ""},
		{"OnEvent hears of logins.", "P4"},
		{"It is what is known of a session.", "P5"},
		{"It returns what it has.", "P5"},
		{"What is it?", ""},
		{"A session that was idle for so long.", "P6"},
		{"Two of so many.", "P6"},
		{"There are so many that one is skipped.", ""},
		{"A session that rested for a day.", "P9"},
		{"The rest of the line is ignored.", ""},
		{"It must rest for a day.", "P9"},
		{"A line\nends between those\nwho wait.", "P2"},
	} {
		for name, found := range map[string][]finding{
			"page":    searchPage("page.md", test.text),
			"comment": inGo(t, "// "+strings.ReplaceAll(test.text, "\n", "\n// ")+"\n"),
			"literal": inGo(t, "const text = `"+test.text+"`\n"),
		} {
			if got := patterns(found); got != test.want {
				t.Errorf("%q as a %s: got %q, want %q", test.text, name, got, test.want)
			}
		}
	}
}

// TestLines checks that a finding has the line of its words.
func TestLines(t *testing.T) {
	t.Parallel()
	page := "# Title\n\nA line\nof those\nwho wait.\n\n| a | tells |\n"
	comment := "// A line\n// of those\n// who wait.\n\n/*\nIt\ntells.\n*/\n"
	for _, test := range []struct {
		found []finding
		want  []int
	}{
		{searchPage("page.md", page), []int{4, 7}},
		{inGo(t, comment), []int{4, 9}},
		{inGo(t, "const text = `\n\nIt\ntells`\n"), []int{6}},
	} {
		var lines []int
		for _, f := range test.found {
			lines = append(lines, f.line)
		}
		if !slices.Equal(lines, test.want) {
			t.Errorf("got %v, want %v", test.found, test.want)
		}
	}
}

// TestCodeIsNotProse checks that examples in pages and comments are skipped.
func TestCodeIsNotProse(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"The call `m.tells` returns.",
		"    go run tells",
		"```\ntells\n```",
		"[page](docs/tells.md)",
	} {
		if found := searchPage("page.md", text); len(found) > 0 {
			t.Errorf("%q: got %v", text, found)
		}
	}
	for _, text := range []string{
		"// Example:\n//\n//\ttells\n",
		"//go:generate tells\n",
		"import _ \"tells\"\n",
	} {
		if found := inGo(t, text); len(found) > 0 {
			t.Errorf("%q: got %v", text, found)
		}
	}
}

// TestGoPatterns searches declarations and comments of Go files.
func TestGoPatterns(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		source string
		want   string
	}{
		{"var certainly int\n", "P13"},
		{"var uncertain, stale int\n", ""},
		{"type T struct{ roomy bool }\n", "P13"},
		{"func (T) Steadfast() {}\n", "P13"},
		{"func f(late int) {}\n", "P13"},
		{"func f() { alone, err := g() }\n", "P13"},
		{"func f() { for twice := range 2 {} }\n", "P13"},
		{"// ErrX: it fails.\nvar ErrX = f()\n", "P18"},
		{"// ErrX is returned when it fails.\nvar ErrX = f()\n", ""},
		{"// f is a check.\nfunc f() {}\n", "P11"},
		{"// f checks.\nfunc f() {}\n", ""},
		{"// A T is a check.\ntype T struct{}\n", ""},
		{"// " + strings.Repeat("x ", 48) + "\n", ""},
		{"// " + strings.Repeat("x ", 49) + "\n", "P17"},
		{"// https://" + strings.Repeat("x", 200) + "\n", "P17"},
		{"//" + strings.Repeat("x", 200) + "\n", ""},
		{"var x = " + strings.Repeat("0", 90) + " // a number\n", "P17"},
	} {
		if got := patterns(inGo(t, test.source)); got != test.want {
			t.Errorf("%q: got %q, want %q", test.source, got, test.want)
		}
	}
}

// TestSearchTree checks which files are searched, and the limits.
func TestSearchTree(t *testing.T) {
	t.Parallel()
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	result, err := searchTree(fstest.MapFS{
		"b.go":              file("package b\n\n// f is f.\nfunc f() {}\n\n// It tells.\n"),
		"b_test.go":         file("package b\n\n// f is f.\nfunc f() {}\n"),
		"a.md":              file(strings.Repeat("Those who wait.\n\n", 4)),
		"docs/faults.md":    file("It tells.\n"),
		"testdata/a/a.md":   file("It tells.\n"),
		"sub/testdata/a.go": file("// It tells.\n"),
		"page.html":         file("It tells.\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := patterns(result.findings), "P2 P2 P2 P2 P11 P3"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if result.funcs != 1 {
		t.Errorf("got %d documented functions, want 1", result.funcs)
	}
	problems := result.problems()
	if len(problems) != 2 || !strings.HasPrefix(problems[0], "P3 ") || !strings.HasPrefix(problems[1], "P11 ") {
		t.Errorf("got %q", problems)
	}
	var table strings.Builder
	result.printCounts(&table)
	if !strings.Contains(table.String(), "P2   P3  P11\n") {
		t.Errorf("got %s", table.String())
	}
}

// inGo searches a file with these declarations.
func inGo(t *testing.T, declarations string) []finding {
	t.Helper()
	found, _, err := searchGo("file.go", []byte("package p\n\n"+declarations))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// patterns returns the patterns of findings, in order.
func patterns(found []finding) string {
	var names []string
	for _, f := range found {
		names = append(names, f.pattern)
	}
	return strings.Join(names, " ")
}
