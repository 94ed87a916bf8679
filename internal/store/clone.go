package store

import (
	"reflect"
	"regexp"
	"time"
)

// Clone returns a user to hand out. Requests may share a user that was read, by
// a statement or the cache, and must not see each other's changes.
func (m *Mapper[U]) Clone(user U) U {
	if !m.shares {
		return user
	}
	clone := user // only this escapes to the heap
	unshare(reflect.ValueOf(&clone).Elem(), map[reference]reflect.Value{})
	return clone
}

// A reference is a pointer or map that was copied already. A struct and its
// first field have one address, so the type is part of it.
type reference struct {
	at any // unsafe.Pointer
	of reflect.Type
}

// unshare copies everything that a value refers to. Only strings, functions,
// channels and immutable values stay shared.
func unshare(v reflect.Value, seen map[reference]reflect.Value) {
	if !shares(v.Type()) {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		ref := reference{v.UnsafePointer(), v.Type()}
		copied, ok := seen[ref]
		if !ok {
			copied = reflect.New(v.Type().Elem())
			seen[ref] = copied
			copied.Elem().Set(v.Elem())
			unshare(copied.Elem(), seen)
		}
		v.Set(copied.Convert(v.Type()))
	case reflect.Map:
		if v.IsNil() {
			return
		}
		ref := reference{v.UnsafePointer(), v.Type()}
		copied, ok := seen[ref]
		if !ok {
			copied = reflect.MakeMapWithSize(v.Type(), v.Len())
			seen[ref] = copied
			for entries := v.MapRange(); entries.Next(); {
				value := reflect.New(v.Type().Elem()).Elem()
				value.Set(entries.Value())
				unshare(value, seen)
				copied.SetMapIndex(entries.Key(), value)
			}
		}
		v.Set(copied)
	case reflect.Slice:
		if v.IsNil() {
			return
		}
		copied := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(copied, v)
		v.Set(copied)
		unshareAll(v, seen)
	case reflect.Array:
		unshareAll(v, seen)
	case reflect.Interface:
		if v.IsNil() {
			return
		}
		copied := reflect.New(v.Elem().Type()).Elem()
		copied.Set(v.Elem())
		unshare(copied, seen)
		v.Set(copied)
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Field(i)
			if !field.CanSet() { // it is not exported
				field = reflect.NewAt(field.Type(), field.Addr().UnsafePointer()).Elem()
			}
			unshare(field, seen)
		}
	}
}

// unshareAll copies everything that the elements of a slice or an array refer
// to.
func unshareAll(v reflect.Value, seen map[reference]reflect.Value) {
	if shares(v.Type().Elem()) {
		for i := range v.Len() {
			unshare(v.Index(i), seen)
		}
	}
}

// shares reports whether copies of a value of this type may refer to one thing
// that can be changed.
func shares(t reflect.Type) bool {
	switch t.PkgPath() {
	case "time", "net/netip", "unique", "reflect", "regexp":
		// These are never changed, or compared by their pointers.
		return false
	}
	switch t.Kind() {
	case reflect.Pointer:
		return t != reflect.TypeFor[*time.Location]() && t != reflect.TypeFor[*regexp.Regexp]()
	case reflect.Map, reflect.Slice, reflect.Interface:
		return true
	case reflect.Array:
		return t.Len() > 0 && shares(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if shares(t.Field(i).Type) {
				return true
			}
		}
	}
	return false
}
