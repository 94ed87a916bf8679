package configfile

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"reflect"
	"regexp"
	"strings"
	"time"
)

// Settings are the settings of one struct type.
type Settings struct {
	list    []setting
	choices map[reflect.Type][]Choice
}

// A setting is a field, its key in the file and its environment variable.
type setting struct {
	key    string
	env    string
	field  string // such as Cookie.Name
	index  []int  // for reflect.Value.FieldByIndex
	quoted bool   // whether its JSON is a string, which variables hold without quotes
}

// A Choice is the name of a value. Settings of the value's type are chosen by
// name.
type Choice struct {
	Name  string
	Value any
}

// SettingsOf returns the settings of a struct type. It panics if a tag belongs
// to a field whose type cannot be read.
func SettingsOf(config reflect.Type, choices ...Choice) *Settings {
	s := &Settings{choices: map[reflect.Type][]Choice{}}
	for _, c := range choices {
		t := reflect.TypeOf(c.Value)
		s.choices[t] = append(s.choices[t], c)
	}
	s.add(config, "", nil)
	return s
}

// add appends the settings of a struct, which is at an index of the outer one.
func (s *Settings) add(config reflect.Type, prefix string, at []int) {
	for i := range config.NumField() {
		field := config.Field(i)
		index := append(at[:len(at):len(at)], i)
		key := field.Tag.Get("config")
		if key == "" {
			if field.Type.Kind() == reflect.Struct {
				s.add(field.Type, prefix+field.Name+".", index)
			}
			continue
		}
		env := field.Tag.Get("env")
		if env == "" {
			env = "SESSION_" + strings.ToUpper(camelBoundary.ReplaceAllString(key, "${1}_${2}"))
		}
		quoted := s.choices[field.Type] != nil || field.Type.Kind() == reflect.String
		if !quoted && !readable[field.Type] {
			panic(fmt.Sprintf("configfile: %s has the type %v", prefix+field.Name, field.Type))
		}
		s.list = append(s.list, setting{key, env, prefix + field.Name, index, quoted})
	}
}

// camelBoundary matches where a word of a key ends and the next one begins.
var camelBoundary = regexp.MustCompile(`([a-z])([A-Z])`)

// readable are the types that are neither strings nor chosen by name.
var readable = map[reflect.Type]bool{
	reflect.TypeFor[int]():           true,
	reflect.TypeFor[bool]():          true,
	reflect.TypeFor[[]string]():      true,
	reflect.TypeFor[time.Duration](): true,
}

// keys returns the keys in the order of the fields.
func (s *Settings) keys() []string {
	keys := make([]string, len(s.list))
	for i, o := range s.list {
		keys[i] = o.key
	}
	return keys
}

// unquoted reports whether the setting is no string in JSON.
func (s *Settings) unquoted(key string) bool {
	for _, o := range s.list {
		if o.key == key {
			return !o.quoted
		}
	}
	return false
}

// Each calls f with the field, key and variable of each setting. Tests use it.
func (s *Settings) Each(f func(field, key, env string)) {
	for _, o := range s.list {
		f(o.field, o.key, o.env)
	}
}

// Locate returns the source of a field's value and the setting's name there:
// the file and its key, or the environment and a variable. It returns the path
// and the field if the field is no setting.
func (s *Settings) Locate(path, field string) (where, name string) {
	for _, o := range s.list {
		switch {
		case o.field != field:
		case path == "" || os.Getenv(o.env) != "":
			return "environment", o.env
		default:
			return path, settingsBlock + "." + o.key
		}
	}
	return path, field
}

// set sets a field to a JSON value. It returns which values are allowed if that
// is not one of them.
func (s *Settings) set(field reflect.Value, raw json.RawMessage) (allowed string) {
	if choices := s.choices[field.Type()]; choices != nil {
		return choose(field, raw, choices)
	}
	into := field.Addr().Interface()
	switch into := into.(type) {
	case *time.Duration:
		return setDuration(into, raw)
	case *int:
		allowed = "must be a whole number"
	case *bool:
		allowed = "must be true or false"
	case *[]string:
		allowed = `must be a list of strings, such as ["created_at"]`
	default:
		allowed = "must be a string"
	}
	if !decode(raw, into) {
		return allowed
	}
	return ""
}

// setDuration sets a duration to a number of milliseconds. It returns which
// values are allowed if raw is not one of them.
func setDuration(d *time.Duration, raw json.RawMessage) (allowed string) {
	var ms float64
	if !decode(raw, &ms) || ms != math.Trunc(ms) || ms < 0 || ms > float64(MaxDuration/time.Millisecond) {
		return "must be a whole number of milliseconds, at most fifty years, such as 2592000000 for 30 days"
	}
	*d = time.Duration(ms) * time.Millisecond
	return ""
}

// choose sets a field to the value of the choice that raw names. It returns
// which names are allowed if raw is not one of them.
func choose(field reflect.Value, raw json.RawMessage, choices []Choice) (allowed string) {
	var name string
	ok := decode(raw, &name)
	var names []string
	for _, c := range choices {
		if ok && c.Name == name {
			field.Set(reflect.ValueOf(c.Value))
			return ""
		}
		names = append(names, c.Name)
	}
	return `must be "` + strings.Join(names, `" or "`) + `"`
}

// decode unmarshals JSON and reports whether that worked. Unlike json.Unmarshal
// it rejects null, instead of ignoring it.
func decode(raw json.RawMessage, into any) bool {
	return string(raw) != "null" && json.Unmarshal(raw, into) == nil
}
