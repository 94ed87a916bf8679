package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A phrase is a pattern that a regular expression finds in prose.
type phrase struct {
	pattern string
	find    *regexp.Regexp
	allow   *regexp.Regexp // a right use, where it begins at the finding; nil if there is none
}

// phrases are searched in comments, string literals and pages.
var phrases = []phrase{
	{
		headlessWho,
		regexp.MustCompile(`(?i)(?:^|[.:;|] +|\b(?:and|because|but|by|for|from|if|nor|of|on|or|so|than|that|to|until|where|while|with) )(who)(?: else)?\b`),
		regexp.MustCompile(`^Who\b[^.;:|]*\?`),
	},
	{oneThat, regexp.MustCompile(`(?i)\b(those|these|the ones?) (?:who|that|which)\b`), nil},
	// To tell apart is right; tell( is code.
	{tells, regexp.MustCompile(`(?i)\b(tells?|told|telling)\b`), regexp.MustCompile(`(?i)^(?:tells?|told|telling)(?:\(|(?: \S+){0,5}? apart\b)`)},
	{hearsOf, regexp.MustCompile(`(?i)\b(hears? of|heard of)\b`), nil},
	{whatAsNoun, regexp.MustCompile(`(?i)\b(what (?:is|was|are|were|has|had|it|they|he)|(?:is|are|was) what)\b`), regexp.MustCompile(`^What\b[^.;:|]*\?`)},
	{soMany, regexp.MustCompile(`(?i)\b(so (?:many|long|recently))\b`), regexp.MustCompile(`(?i)^so (?:many|long) (?:that|as)\b`)},
	{rests, regexp.MustCompile(`(?i)\b(rest(?:s|ed|ing)|(?:can|may|must|to|will) rest)\b`), nil},
}

// moods are words that say how or when, and so name no value.
var moods = []string{
	"again", "alone", "certain", "certainly", "hidden", "late", "patient", "prompt",
	"raced", "resting", "roomy", "silent", "steadfast", "tuned", "twice", "underway",
}

// maxColumns is the width of a line that ends with a comment.
const maxColumns = 100

// prose is text with the lines that it comes from.
type prose struct {
	text  strings.Builder
	lines []int // of each byte
}

// add appends the words of a line.
func (p *prose) add(line int, words string) {
	words = strings.Join(strings.Fields(words), " ")
	if words == "" {
		return
	}
	if p.text.Len() > 0 {
		words = " " + words
	}
	p.text.WriteString(words)
	for range len(words) {
		p.lines = append(p.lines, line)
	}
}

// search returns the phrases in the text.
func (p *prose) search(file string) (found []finding) {
	text := p.text.String()
	for _, phrase := range phrases {
		for _, at := range phrase.find.FindAllStringSubmatchIndex(text, -1) {
			begin := at[2]
			if phrase.allow != nil && phrase.allow.MatchString(text[begin:]) {
				continue
			}
			found = append(found, finding{file, p.lines[begin], phrase.pattern, around(text, begin, at[3])})
		}
	}
	return found
}

// around returns a part of text with a few words on each side.
func around(text string, begin, end int) string {
	const context = 30
	left, right := max(0, begin-context), min(len(text), end+context)
	for left > 0 && !utf8.RuneStart(text[left]) {
		left--
	}
	for right < len(text) && !utf8.RuneStart(text[right]) {
		right++
	}
	return text[left:right]
}

var (
	codeSpan = regexp.MustCompile("`[^`]*`")
	link     = regexp.MustCompile(`\]\([^)]*\)`)
)

// searchPage searches the prose of a Markdown page: what is not code.
func searchPage(file, source string) (found []finding) {
	paragraph := &prose{}
	flush := func() {
		found = append(found, paragraph.search(file)...)
		paragraph = &prose{}
	}
	code := false
	for i, line := range strings.Split(source, "\n") {
		fence := strings.HasPrefix(strings.TrimSpace(line), "```")
		if fence {
			code = !code
		}
		if fence || code || strings.HasPrefix(line, "    ") {
			flush()
			continue
		}
		table := strings.HasPrefix(line, "|")
		if table || strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "- ") {
			flush()
		}
		paragraph.add(i+1, link.ReplaceAllString(codeSpan.ReplaceAllString(line, "CODE"), "]"))
		if table || strings.HasPrefix(line, "#") {
			flush()
		}
	}
	flush()
	return found
}

// searchGo searches the comments, string literals and names of a Go file. funcs
// is the number of documented functions, outside of tests.
func searchGo(path string, source []byte) (found []finding, funcs int, err error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, 0, err
	}
	line := func(pos token.Pos) int { return fset.Position(pos).Line }
	report := func(pos token.Pos, pattern, words string) {
		found = append(found, finding{path, line(pos), pattern, words})
	}
	lines := strings.Split(string(source), "\n")
	for _, group := range file.Comments {
		text := &prose{}
		for _, comment := range group.List {
			if directive(comment.Text) {
				continue
			}
			for i, words := range strings.Split(commentText(comment.Text), "\n") {
				if strings.TrimSpace(words) == "" || strings.HasPrefix(words, "\t") {
					found = append(found, text.search(path)...)
					text = &prose{}
					continue
				}
				text.add(line(comment.Pos())+i, words)
			}
			for n := line(comment.Pos()); n <= line(comment.End()-1); n++ {
				if width := columns(lines[n-1]); width > maxColumns && strings.Contains(comment.Text, " ") {
					found = append(found, finding{path, n, wideComment, "the line has " + strconv.Itoa(width) + " columns"})
				}
			}
		}
		found = append(found, text.search(path)...)
		if name := sentinel.FindString(group.Text()); name != "" {
			report(group.Pos(), sentinelColumn, name)
		}
	}
	test := strings.HasSuffix(path, "_test.go")
	ast.Inspect(file, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.BasicLit:
			if node.Kind == token.STRING {
				found = append(found, searchLiteral(path, line(node.Pos()), node.Value)...)
			}
		case *ast.FuncDecl:
			if node.Doc != nil && !test {
				funcs++
				if words := strings.Fields(node.Doc.Text()); len(words) > 1 && words[0] == node.Name.Name && slices.Contains([]string{"is", "are", "was"}, words[1]) {
					report(node.Pos(), funcIs, words[0]+" "+words[1])
				}
			}
		}
		for _, name := range declared(node) {
			if slices.Contains(moods, lowerFirst(name.Name)) {
				report(name.Pos(), moodName, name.Name)
			}
		}
		return true
	})
	return found, funcs, nil
}

// sentinel matches the comment of an error that begins "ErrX: ".
var sentinel = regexp.MustCompile(`^[eE]rr\w+:`)

// directive reports whether a comment is for a tool, such as //go:build.
func directive(comment string) bool {
	return strings.HasPrefix(comment, "//go:") || strings.HasPrefix(comment, "//nolint") || strings.HasPrefix(comment, "//lint:")
}

// commentText returns a comment without its marks. Its lines are those of the
// source.
func commentText(comment string) string {
	if text, ok := strings.CutPrefix(comment, "//"); ok {
		return text
	}
	return strings.TrimSuffix(strings.TrimPrefix(comment, "/*"), "*/")
}

// searchLiteral searches a string literal that begins in a line.
func searchLiteral(path string, line int, literal string) (found []finding) {
	text, err := strconv.Unquote(literal)
	if err != nil {
		return nil
	}
	raw := strings.HasPrefix(literal, "`")
	p := &prose{}
	for i, words := range strings.Split(text, "\n") {
		if !raw {
			i = 0
		}
		if strings.TrimSpace(words) == "" {
			found = append(found, p.search(path)...)
			p = &prose{}
		}
		p.add(line+i, words)
	}
	return append(found, p.search(path)...)
}

// declared returns the names that a node declares.
func declared(node ast.Node) (names []*ast.Ident) {
	add := func(expressions ...ast.Expr) {
		for _, e := range expressions {
			if name, ok := e.(*ast.Ident); ok {
				names = append(names, name)
			}
		}
	}
	switch node := node.(type) {
	case *ast.FuncDecl:
		return []*ast.Ident{node.Name}
	case *ast.TypeSpec:
		return []*ast.Ident{node.Name}
	case *ast.ValueSpec:
		return node.Names
	case *ast.Field:
		return node.Names
	case *ast.AssignStmt:
		if node.Tok == token.DEFINE {
			add(node.Lhs...)
		}
	case *ast.RangeStmt:
		if node.Tok == token.DEFINE {
			add(node.Key, node.Value)
		}
	}
	return names
}

// columns returns the width of a line. A tab counts as four columns.
func columns(line string) int {
	return utf8.RuneCountInString(line) + 3*strings.Count(line, "\t")
}

func lowerFirst(name string) string {
	first, size := utf8.DecodeRuneInString(name)
	return string(unicode.ToLower(first)) + name[size:]
}
