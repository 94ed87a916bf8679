// Command english searches comments, string literals and pages for turns of
// phrase that docs/style.md advises against. It prints each as file:line, the
// pattern and the words, and exits with status 1 if there are too many.
//
//	go run ./internal/cmd/english          # the findings
//	go run ./internal/cmd/english -counts  # how many there are in each file
package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The names of the patterns, as docs/style.md numbers them.
const (
	headlessWho    = "P1"
	oneThat        = "P2"
	tells          = "P3"
	hearsOf        = "P4"
	whatAsNoun     = "P5"
	soMany         = "P6"
	rests          = "P9"
	funcIs         = "P11"
	moodName       = "P13"
	wideComment    = "P17"
	sentinelColumn = "P18"
)

// limits holds how often a pattern may occur in the whole tree. A pattern that
// is not listed may not occur.
var limits = map[string]int{oneThat: 4, whatAsNoun: 7}

// maxFuncIs is the share of documented functions, in percent, whose comment may
// begin with "X is".
const maxFuncIs = 10

// skipped holds paths that are not searched: results that programs have
// written, recordings of another program, and the text that quotes the patterns.
var skipped = []string{
	".git",
	"bench/RESULTS.md",
	"docs/browsers.md",
	"docs/faults.md",
	"docs/style.md",
	"internal/cmd/english",
}

func main() {
	log.SetFlags(0)
	counts := flag.Bool("counts", false, "print how many findings each file has")
	flag.Parse()
	root := "."
	if flag.NArg() > 0 {
		root = flag.Arg(0)
	}
	result, err := searchTree(os.DirFS(root))
	if err != nil {
		log.Fatal(err)
	}
	if *counts {
		result.printCounts(os.Stdout)
	} else {
		for _, f := range result.findings {
			fmt.Printf("%s:%d: %s: %s\n", f.file, f.line, f.pattern, f.words)
		}
	}
	problems := result.problems()
	for _, problem := range problems {
		fmt.Fprintln(os.Stderr, problem)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
}

// A finding is one occurrence of a pattern.
type finding struct {
	file    string
	line    int
	pattern string
	words   string
}

// A result holds the findings of a tree, in the order of files and lines.
type result struct {
	findings []finding
	funcs    int // documented functions outside of tests
}

// searchTree searches every Go file and page of a tree.
func searchTree(tree fs.FS) (result, error) {
	var all result
	err := fs.WalkDir(tree, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if slices.Contains(skipped, path) || entry.IsDir() && entry.Name() == "testdata" {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		extension := filepath.Ext(path)
		if entry.IsDir() || extension != ".go" && extension != ".md" {
			return nil
		}
		source, err := fs.ReadFile(tree, path)
		if err != nil {
			return err
		}
		if extension == ".md" {
			all.findings = append(all.findings, searchPage(path, string(source))...)
			return nil
		}
		findings, funcs, err := searchGo(path, source)
		all.findings = append(all.findings, findings...)
		all.funcs += funcs
		return err
	})
	slices.SortStableFunc(all.findings, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.line, b.line))
	})
	return all, err
}

// counts returns how many findings there are of each pattern.
func (r *result) counts() map[string]int {
	n := map[string]int{}
	for _, f := range r.findings {
		n[f.pattern]++
	}
	return n
}

// problems returns a sentence for each pattern that occurs too often.
func (r *result) problems() []string {
	var problems []string
	n := r.counts()
	for _, pattern := range slices.SortedFunc(maps.Keys(n), comparePatterns) {
		limit := limits[pattern]
		if pattern == funcIs {
			limit = r.funcs * maxFuncIs / 100
		}
		if n[pattern] > limit {
			problems = append(problems, fmt.Sprintf("%s occurs %d times; the limit is %d (see docs/style.md)", pattern, n[pattern], limit))
		}
	}
	return problems
}

// printCounts prints a table of files and patterns.
func (r *result) printCounts(w io.Writer) {
	byFile := map[string]map[string]int{}
	for _, f := range r.findings {
		if byFile[f.file] == nil {
			byFile[f.file] = map[string]int{}
		}
		byFile[f.file][f.pattern]++
	}
	total := r.counts()
	patterns := slices.SortedFunc(maps.Keys(total), comparePatterns)
	row := func(name string, n map[string]int) {
		fmt.Fprintf(w, "%-40s", name)
		for _, pattern := range patterns {
			if n[pattern] == 0 {
				fmt.Fprintf(w, " %4s", ".")
			} else {
				fmt.Fprintf(w, " %4d", n[pattern])
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%-40s", "")
	for _, pattern := range patterns {
		fmt.Fprintf(w, " %4s", pattern)
	}
	fmt.Fprintln(w)
	for _, file := range slices.Sorted(maps.Keys(byFile)) {
		row(file, byFile[file])
	}
	row("total", total)
	fmt.Fprintf(w, "%d of %d documented functions begin with \"X is\"\n", total[funcIs], r.funcs)
}

// comparePatterns orders P2 before P10.
func comparePatterns(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}
