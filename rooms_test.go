package session

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	databasePackages = []string{"database/sql", "database/sql/driver", "github.com/jmoiron/sqlx", "github.com/go-sql-driver/mysql"}
	sqlText          = regexp.MustCompile(`^(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|SHOW)\b`)
	cookieText       = regexp.MustCompile(`\b(SameSite|HttpOnly|SetCookie)\b|http\.Cookie\b`)
)

// What each file must not know: imports, statements of SQL, words of the code. A change that breaks a wall should
// rather find the room where it belongs.
var rooms = map[string]struct {
	imports []string
	sql     bool // may hold SQL text
	words   *regexp.Regexp
}{
	"session.go":        {imports: []string{"database/sql", "database/sql/driver", "github.com/go-sql-driver/mysql"}, words: cookieText},
	"config.go":         {imports: []string{"database/sql", "database/sql/driver", "os/exec", "io/fs"}, words: regexp.MustCompile(`\bos\.(Open|Create|Write|Mkdir|Remove)|net\.(Dial|Listen|Lookup)|http\.(Get|Post|Client)\b`)},
	"store.go":          {imports: []string{"net/http"}, sql: true},
	"tokentable.go":     {imports: []string{"net/http"}, sql: true},
	"stamp.go":          {imports: []string{"net/http"}, sql: true},
	"setup.go":          {sql: true, words: cookieText},
	"open.go":           {imports: []string{"net/http"}},
	"retry.go":          {imports: []string{"net/http"}},
	"lookup.go":         {imports: []string{"net/http"}, words: cookieText},
	"account.go":        {imports: []string{"github.com/go-sql-driver/mysql"}, words: cookieText},
	"user.go":           {imports: []string{"net/http"}, words: cookieText},
	"cache.go":          {imports: append([]string{"net/http"}, databasePackages...)},
	"token.go":          {imports: append([]string{"net/http"}, databasePackages...)},
	"twins.go":          {imports: append([]string{"net/http"}, databasePackages...), words: cookieText},
	"memo.go":           {imports: append([]string{"net/http"}, databasePackages...)},
	"password.go":       {imports: append([]string{"net/http"}, databasePackages...)},
	"cookie.go":         {imports: databasePackages},
	"fingerprint.go":    {imports: databasePackages},
	"candypack.go":      {imports: databasePackages},
	"throttle.go":       {imports: databasePackages},
	"identifier.go":     {imports: []string{"net/http"}, sql: true},
	"throttle_mysql.go": {imports: []string{"net/http"}, sql: true},
	"event.go":          {imports: databasePackages, words: cookieText},
	"middleware.go":     {imports: databasePackages, words: cookieText},
	"cleanup.go":        {imports: append([]string{"net/http"}, databasePackages...)},
	"errors.go":         {imports: []string{"*"}},
}

func TestRoomsKeepTheirWalls(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir(".")
	noError(t, err)
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		room, ok := rooms[name]
		if !ok {
			t.Errorf("%s is a new room: say in this test what it must not know", name)
			continue
		}
		source, err := os.ReadFile(name)
		noError(t, err)
		file, err := parser.ParseFile(gotoken.NewFileSet(), name, source, parser.SkipObjectResolution)
		noError(t, err)
		for _, spec := range file.Imports {
			path, _ := strconv.Unquote(spec.Path.Value)
			if slices.Contains(room.imports, path) || slices.Contains(room.imports, "*") && path != "errors" {
				t.Errorf("%s must not import %s", name, path)
			}
		}
		if !room.sql {
			ast.Inspect(file, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == gotoken.STRING {
					if text, _ := strconv.Unquote(lit.Value); sqlText.MatchString(text) {
						t.Errorf("%s must not hold SQL: %s", name, lit.Value)
					}
				}
				return true
			})
		}
		if room.words != nil {
			if word := room.words.Find(source); word != nil {
				t.Errorf("%s must not speak of %s", name, word)
			}
		}
	}
}

// The library needs three modules and a cache, and what they need.
func TestModuleRequiresLittle(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("go.mod")
	noError(t, err)
	for _, line := range strings.Split(string(source), "\n") {
		module, isRequired := strings.CutPrefix(strings.TrimPrefix(strings.TrimSpace(line), "require "), "github.com/")
		if strings.HasPrefix(line, "\t") && isRequired && !strings.HasSuffix(line, "// indirect") &&
			!strings.HasPrefix(module, "hashicorp/golang-lru/v2 ") && !strings.HasPrefix(module, "jmoiron/sqlx ") && !strings.HasPrefix(module, "go-sql-driver/mysql ") {
			t.Errorf("go.mod requires %s", line)
		}
	}
}
