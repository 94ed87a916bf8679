package store

import (
	"database/sql"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Check returns an error matching ErrConfig if a column of the users table
// cannot be read into its field of U, or cannot for a value that the table
// allows. Otherwise needsTime names a field that needs the driver to parse
// times, if there is one.
func (m *Mapper[U]) Check(users *Users) (needsTime string, err error) {
	root := reflect.TypeFor[U]()
	for i, name := range m.columns {
		field := fieldAt(root, m.fields[i])
		c, ok := users.Column(name)
		if !ok {
			return "", fmt.Errorf("%w: the users table has no column %s for field %s of %v; add the column, or tag the field db:\"-\"", ErrConfig, quoteColumn(name), field.Name, root)
		}
		if advice := misfit(c, field.Type); advice != "" {
			return "", fmt.Errorf("%w: column %s of the users table is %s, but field %s of %v is %v: %s", ErrConfig, quoteColumn(c.Name), c.Definition, field.Name, root, field.Type, advice)
		}
		if c.nullable && !users.view && !holdsNull(field.Type) {
			return "", fmt.Errorf("%w: column %s of the users table may be NULL, but field %s of %v is %v: make the column NOT NULL, or the field %s", ErrConfig, quoteColumn(c.Name), field.Name, root, field.Type, nullableType(field.Type))
		}
		if holdsTime(field.Type) {
			needsTime = field.Name
		}
	}
	return needsTime, nil
}

// fieldAt returns the field of a struct at a path, which may lead through
// pointers.
func fieldAt(t reflect.Type, path []int) (field reflect.StructField) {
	for _, i := range path {
		field = pointee(t).Field(i)
		t = field.Type
	}
	return field
}

// pointee returns the type at the end of all pointers.
func pointee(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

var (
	scannerType = reflect.TypeFor[sql.Scanner]()
	bytesType   = reflect.TypeFor[[]byte]()
	timeType    = reflect.TypeFor[time.Time]()
)

// scans reports whether a field of this type has a Scan method.
func scans(t reflect.Type) bool { return reflect.PointerTo(t).Implements(scannerType) }

// holdsNull reports whether database/sql can scan NULL into a field.
func holdsNull(t reflect.Type) bool {
	return t.Kind() == reflect.Pointer || t.Kind() == reflect.Interface || t == bytesType || t == reflect.TypeFor[sql.RawBytes]() || scans(t)
}

// nullableType returns types like this one that hold NULL.
func nullableType(t reflect.Type) string {
	switch {
	case t.Kind() == reflect.String:
		return "*" + t.String() + " or sql.NullString"
	case t.Kind() == reflect.Bool:
		return "*" + t.String() + " or sql.NullBool"
	case t == timeType:
		return "*time.Time or sql.NullTime"
	case t.Kind() == reflect.Int64:
		return "*" + t.String() + " or sql.NullInt64"
	}
	return "*" + t.String()
}

// plainType returns what a field is for database/sql: the type behind a
// pointer, or inside one of its own nullable types.
func plainType(t reflect.Type) reflect.Type {
	t = pointee(t)
	if t.Kind() == reflect.Struct && t.PkgPath() == "database/sql" && scans(t) {
		// such as NullString and Null[T]
		return t.Field(0).Type
	}
	return t
}

// holdsTime reports whether a field needs the driver to give it times.
func holdsTime(t reflect.Type) bool { return plainType(t) == timeType }

// misfit returns what to change if a field cannot hold the column's usual
// values, and "" if it can.
func misfit(c Column, t reflect.Type) string {
	plain := plainType(t)
	if scans(plain) {
		return ""
	}
	number := false // or a boolean, which is read from one
	switch plain.Kind() {
	case reflect.Interface, reflect.String:
		return ""
	case reflect.Slice:
		if plain.Elem().Kind() == reflect.Uint8 {
			return ""
		}
		return "give the type a Scan method"
	case reflect.Struct:
		if plain != timeType {
			return "give the type a Scan method"
		}
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		number = true
	default:
		return "give the type a Scan method"
	}
	whole := number && plain.Kind() != reflect.Float32 && plain.Kind() != reflect.Float64
	switch c.dataType {
	case "date", "datetime", "timestamp":
		if number {
			return "make the field time.Time or string"
		}
		return ""
	case "enum", "set": // of digits, perhaps
		number = false
	case "bit":
		if number && !(plain.Kind() == reflect.Bool && strings.EqualFold(c.Definition, "bit(1)")) {
			return "make the column an integer, or the field []byte"
		}
		number = false
	case "decimal":
		if whole && !strings.Contains(c.Definition, ",0)") {
			return "make the field float64 or string"
		}
		number = false
	case "float", "double":
		if whole {
			return "make the field float64 or string"
		}
		number = false
	case "tinyint", "smallint", "mediumint", "int", "bigint", "year":
		number = false
	}
	switch {
	case plain == timeType:
		return "make the field string"
	case number:
		return "make the field string"
	}
	return ""
}
