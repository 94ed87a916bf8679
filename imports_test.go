package session

import (
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// importRules are the modules and packages, beyond the standard library, that
// each package may import. docs/architecture.md explains them.
var importRules = map[string][]string{
	"session":             {"internal/batch", "internal/configfile", "internal/password", "internal/pool", "internal/store", "internal/testhook", "internal/token", "throttle", "github.com/jmoiron/sqlx", "github.com/go-sql-driver/mysql", "github.com/hashicorp/golang-lru/v2", "golang.org/x/crypto/bcrypt"},
	"sessiontest":         {"github.com/candysession/session", "internal/testhook"},
	"throttle":            {"internal/retry", "github.com/jmoiron/sqlx", "github.com/hashicorp/golang-lru/v2/simplelru"},
	"internal/batch":      {},
	"internal/configfile": {"github.com/go-sql-driver/mysql"},
	"internal/password":   {"golang.org/x/crypto/bcrypt", "golang.org/x/text/unicode/norm"},
	"internal/pool":       {"github.com/go-sql-driver/mysql", "github.com/jmoiron/sqlx"},
	"internal/retry":      {"github.com/go-sql-driver/mysql"},
	"internal/store":      {"internal/batch", "internal/pool", "internal/retry", "github.com/jmoiron/sqlx", "github.com/go-sql-driver/mysql"},
	"internal/testhook":   {},
	"internal/token":      {"golang.org/x/crypto/bcrypt"},
}

// TestImportRules checks that no package imports what docs/architecture.md
// keeps it apart from. A new package needs a rule.
func TestImportRules(t *testing.T) {
	t.Parallel()
	const module = "github.com/candysession/session"
	list := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")
	list.Env = append(os.Environ(), "GOWORK=off")
	out, err := list.Output()
	noError(t, err)
	found := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		path, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		name := strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
		if name == "" {
			name = "session"
		}
		if strings.HasPrefix(name, "internal/cmd/") || name == "internal/testdb" {
			continue // programs and test support
		}
		allowed, ok := importRules[name]
		if !ok {
			t.Errorf("package %s has no rule", name)
			continue
		}
		found[name] = true
		for imported := range strings.FieldsSeq(imports) {
			if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
				continue // the standard library
			}
			imported = strings.TrimPrefix(imported, module+"/")
			if !slices.ContainsFunc(allowed, func(rule string) bool { return imported == rule || strings.HasPrefix(imported, rule+"/") }) {
				t.Errorf("package %s must not import %s", name, imported)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(importRules)) {
		if !found[name] {
			t.Errorf("there is no package %s", name)
		}
	}
}

// TestDependencies checks that the module requires no more than it needs.
func TestDependencies(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("go.mod")
	noError(t, err)
	allowed := []string{"github.com/hashicorp/golang-lru/v2", "github.com/jmoiron/sqlx", "github.com/go-sql-driver/mysql", "golang.org/x/crypto", "golang.org/x/text"}
	for line := range strings.Lines(string(source)) {
		if module, version, ok := strings.Cut(strings.TrimSpace(line), " v"); ok && !strings.HasSuffix(version, "// indirect") && !slices.Contains(allowed, strings.TrimPrefix(module, "require ")) {
			t.Errorf("go.mod requires %s", line)
		}
	}
}
