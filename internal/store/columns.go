package store

import (
	"iter"
	"strings"
)

// A tokenColumn is a column of the token table. The table, its migration, and
// the statements that read and add rows are made from tokenColumns, so a new
// column is a new entry there.
type tokenColumn struct {
	name       string
	definition string            // in CREATE TABLE; keyType stands for the type of the users' key
	added      bool              // CandyPack's table lacks it; Migrate adds it
	unread     bool              // the lookup of a request does not read it
	expression string            // reads it, with {} for the column; "" for the column itself
	field      func(*Record) any // a pointer to the field with its value
	written    bool              // a new row has the field's value, not the default
}

// keyType stands for the type of the users' key in a definition.
const keyType = "{key}"

// tokenColumns are the columns of a new token table, in their order.
var tokenColumns = []tokenColumn{
	{
		name:       "id",
		definition: "BIGINT UNSIGNED NOT NULL AUTO_INCREMENT",
		field:      func(r *Record) any { return &r.ID },
	},
	{
		name:       "user",
		definition: keyType + " NOT NULL",
		field:      func(r *Record) any { return &r.Owner },
		written:    true,
	},
	{
		name:       "token_x",
		definition: "VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL",
		field:      func(r *Record) any { return &r.Selector },
		written:    true,
	},
	{
		name:       "token_y",
		definition: "VARCHAR(72) CHARACTER SET ascii COLLATE ascii_bin NOT NULL",
		field:      func(r *Record) any { return &r.Hash },
		written:    true,
	},
	{
		name:       "browser",
		definition: "VARCHAR(255) NOT NULL DEFAULT ''",
		field:      func(r *Record) any { return &r.Browser },
		written:    true,
	},
	{
		name:       "ip",
		definition: "VARCHAR(45) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT ''",
		field:      func(r *Record) any { return &r.IP },
		written:    true,
	},
	{
		name:       "date",
		definition: "TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP",
		expression: "UNIX_TIMESTAMP({})",
		field:      func(r *Record) any { return &r.Created },
	},
	{
		name:       "active",
		definition: "TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP",
		expression: "UNIX_TIMESTAMP({})",
		field:      func(r *Record) any { return &r.Active },
	},
	{
		name:       "stamp",
		definition: "BINARY(8) NULL",
		added:      true,
		field:      func(r *Record) any { return &r.Stamp },
		written:    true,
	},
	{
		name:       "method",
		definition: "TINYINT UNSIGNED NOT NULL DEFAULT 0",
		added:      true,
		unread:     true,
		field:      func(r *Record) any { return &r.Method },
		written:    true,
	},
	{
		name:       "life",
		definition: "INT UNSIGNED NOT NULL DEFAULT 0",
		added:      true,
		field:      func(r *Record) any { return &r.Life },
		written:    true,
	},
	{
		name:       "transient",
		definition: "TINYINT UNSIGNED NOT NULL DEFAULT 0",
		added:      true,
		unread:     true,
		field:      func(r *Record) any { return &r.Transient },
		written:    true,
	},
}

// read returns the expression that reads the column of the table with an alias,
// such as "t.", or "".
func (c tokenColumn) read(alias string) string {
	if c.expression == "" {
		return alias + c.name
	}
	return strings.ReplaceAll(c.expression, "{}", alias+c.name)
}

// A columnSet is a set of tokenColumns: bit i stands for tokenColumns[i].
type columnSet uint32

// originalColumns are the columns that every token table has.
var originalColumns = columnsWhere(func(c tokenColumn) bool { return !c.added })

// columnsWhere returns the set of the columns for which is returns true.
func columnsWhere(is func(tokenColumn) bool) (set columnSet) {
	for i, c := range tokenColumns {
		if is(c) {
			set |= 1 << i
		}
	}
	return set
}

// all returns the columns of the set, in their order.
func (set columnSet) all() iter.Seq[tokenColumn] {
	return func(yield func(tokenColumn) bool) {
		for i, c := range tokenColumns {
			if set&(1<<i) != 0 && !yield(c) {
				return
			}
		}
	}
}

// has reports whether the column with this name is in the set.
func (set columnSet) has(name string) bool {
	return set&columnsWhere(func(c tokenColumn) bool { return c.name == name }) != 0
}

// selected returns the list of a SELECT that reads the columns. The server's
// time follows them: Record.Now.
func (set columnSet) selected() string {
	var list strings.Builder
	for c := range set.all() {
		list.WriteString(c.read("") + ", ")
	}
	return list.String() + "UNIX_TIMESTAMP()"
}

// places returns where a row of selected is scanned to.
func (set columnSet) places(r *Record) (places []any) {
	for c := range set.all() {
		places = append(places, c.field(r))
	}
	return append(places, &r.Now)
}

// missing returns the columns that Migrate adds to a table that has the set.
func (set columnSet) missing() (missing []tokenColumn) {
	for c := range (columnsWhere(func(c tokenColumn) bool { return c.added }) &^ set).all() {
		missing = append(missing, c)
	}
	return missing
}

// definitions lists columns with their types.
func definitions(columns []tokenColumn, separator string) string {
	list := make([]string, len(columns))
	for i, c := range columns {
		list[i] = c.name + " " + c.definition
	}
	return strings.Join(list, separator)
}
