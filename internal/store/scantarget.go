package store

import (
	"bytes"
	"database/sql"
	"fmt"
	"reflect"
)

// A scanTarget stands for a field in Rows.Scan if the field has a Scan method
// of the app's, or is a boolean. A panic in the method becomes an error of that
// row, because database/sql would hold a lock and the connection for ever. The
// method may keep the bytes it gets.
type scanTarget struct{ field reflect.Value }

// guarded returns where database/sql scans a field to, given its address.
func guarded(field reflect.Value) any {
	t := field.Type().Elem()
	bottom := pointee(t)
	if scans(t) || scans(bottom) || bottom.Kind() == reflect.Bool {
		return &scanTarget{field.Elem()}
	}
	return field.Interface()
}

// Scan implements sql.Scanner.
func (s *scanTarget) Scan(source any) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	if b, ok := source.([]byte); ok {
		source = bytes.Clone(b)
	}
	return scanInto(s.field, source)
}

// scanInto does what database/sql does for a field that is a Scanner, a
// boolean, or a pointer to one of these. BIT(1) is a boolean too.
func scanInto(field reflect.Value, source any) error {
	if scanner, ok := field.Addr().Interface().(sql.Scanner); ok {
		if plainType(field.Type()).Kind() == reflect.Bool && field.Type().PkgPath() == "database/sql" {
			source = bit(source)
		}
		return scanner.Scan(source)
	}
	if field.Kind() == reflect.Pointer {
		if source == nil {
			field.SetZero()
			return nil
		}
		field.Set(reflect.New(field.Type().Elem()))
		return scanInto(field.Elem(), source)
	}
	var truth sql.Null[bool]
	if err := truth.Scan(bit(source)); err != nil {
		return err
	}
	if !truth.Valid {
		return fmt.Errorf("converting NULL to %v is unsupported", field.Type())
	}
	field.SetBool(truth.V)
	return nil
}

// bit returns the value of a BIT(1) as a boolean.
func bit(source any) any {
	if b, ok := source.([]byte); ok && len(b) == 1 && b[0] <= 1 {
		return b[0] == 1
	}
	return source
}
