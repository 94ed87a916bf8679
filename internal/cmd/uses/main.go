// Command uses prints which files of the library use which others, by the
// declarations that the type checker resolves, and the circles among them. A
// circle is a largest set of files that use each other, directly or not. The
// program fails if a circle has more than 6 files.
//
//	go run ./internal/cmd/uses
package main

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// maxCircle is the number of files that may use each other in a circle.
const maxCircle = 6

func main() {
	log.SetFlags(0)
	uses, err := fileUses(".")
	if err != nil {
		log.Fatal(err)
	}
	for _, file := range slices.Sorted(maps.Keys(uses)) {
		fmt.Printf("%-18s %s\n", file, strings.Join(uses[file], " "))
	}
	largest := 0
	for _, circle := range circles(uses) {
		fmt.Printf("\na circle of %d: %s\n", len(circle), strings.Join(circle, " "))
		largest = max(largest, len(circle))
	}
	if largest > maxCircle {
		log.Fatalf("the largest circle has %d files; the limit is %d", largest, maxCircle)
	}
}

// fileUses returns, for each file of the package in a directory, the files
// that declare identifiers used in it.
func fileUses(dir string) (map[string][]string, error) {
	list := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}", ".")
	list.Dir = dir
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	exports := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, export, _ := strings.Cut(strings.TrimSpace(line), "\t")
		exports[path] = export
	}

	fset := token.NewFileSet()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	info := types.Info{Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })}
	pkg, err := config.Check("root", fset, files, &info)
	if err != nil {
		return nil, err
	}

	uses := map[string][]string{}
	for _, file := range files {
		uses[base(fset, file.Pos())] = nil
	}
	for ident, object := range info.Uses {
		if object.Pkg() != pkg || isParameter(object) {
			continue
		}
		from, to := base(fset, ident.Pos()), base(fset, object.Pos())
		if from != to && !slices.Contains(uses[from], to) {
			uses[from] = append(uses[from], to)
		}
	}
	for file := range uses {
		slices.Sort(uses[file])
	}
	return uses, nil
}

func base(fset *token.FileSet, pos token.Pos) string {
	return filepath.Base(fset.Position(pos).Filename)
}

// isParameter reports whether an object is a type parameter, which each method
// of a generic type shares with the type's declaration.
func isParameter(object types.Object) bool {
	name, ok := object.(*types.TypeName)
	if !ok {
		return false
	}
	_, ok = name.Type().(*types.TypeParam)
	return ok
}

// circles returns the sets of two files or more that reach each other, the
// largest first.
func circles(uses map[string][]string) (all [][]string) {
	reach := map[string]map[string]bool{}
	for file := range uses {
		seen := map[string]bool{}
		var visit func(string)
		visit = func(f string) {
			for _, next := range uses[f] {
				if !seen[next] {
					seen[next] = true
					visit(next)
				}
			}
		}
		visit(file)
		reach[file] = seen
	}
	done := map[string]bool{}
	for _, file := range slices.Sorted(maps.Keys(uses)) {
		if done[file] || !reach[file][file] {
			continue
		}
		var circle []string
		for _, other := range slices.Sorted(maps.Keys(uses)) {
			if reach[file][other] && reach[other][file] {
				circle = append(circle, other)
				done[other] = true
			}
		}
		all = append(all, circle)
	}
	slices.SortStableFunc(all, func(a, b []string) int { return len(b) - len(a) })
	return all
}
