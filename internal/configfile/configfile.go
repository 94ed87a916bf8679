// Package configfile reads the settings of a struct from a config.json and from
// the environment. A field is a setting if it has a tag with its key:
//
//	UsersTable string `config:"table"`
//
// Fields of type time.Duration are in milliseconds. A type whose values are
// chosen by name needs a [Choice] for each. A nested struct without a tag has
// settings of its own.
//
// The environment overrides the file. The variable of a setting is SESSION_ and
// its key in capitals with underscores, or what the tag env says.
package configfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// MaxDuration is the longest duration that a setting may have.
const MaxDuration = 50 * 365 * 24 * time.Hour

// The names of the blocks of the file.
const (
	settingsBlock = "auth"
	mysqlBlock    = "mysql"
)

// dsnVariable is the variable that replaces the mysql block.
const dsnVariable = "SESSION_DSN"

// An Error reports an invalid setting.
type Error struct {
	Where   string // the file, with line and column if known, or "environment"
	Name    string // the setting, as the user wrote it there
	Value   string // empty if it is missing, or may be a secret
	Allowed string
}

// Error returns the setting and its allowed values.
func (e *Error) Error() string {
	text := ""
	if e.Where != "" {
		text += e.Where + ": "
	}
	text += e.Name
	if e.Value != "" {
		text += " = " + e.Value
	}
	return text + ": " + e.Allowed
}

// Load reads the file, unless the path is empty, and then the environment into
// the struct that config points to. It returns the data source name that the
// "mysql" block or SESSION_DSN describe, or "" if there is neither.
//
// It returns an [*Error], or the error from reading a file.
func (s *Settings) Load(path string, config any) (dsn string, err error) {
	if path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("read the configuration: %w", err)
		}
		if dsn, err = s.Parse(path, data, config); err != nil {
			return "", err
		}
	}
	if err := s.readEnv(config); err != nil {
		return "", err
	}
	if override := os.Getenv(dsnVariable); override != "" {
		dsn = override
	}
	return dsn, nil
}

// Parse reads the text of a file into the struct that config points to, as Load
// does. It leaves out what the environment overrides.
func (s *Settings) Parse(path string, data []byte, config any) (dsn string, err error) {
	data = bytes.TrimPrefix(data, byteOrderMark)
	file, err := parseFile(path, data)
	if err != nil {
		return "", err
	}
	if _, ok := file[settingsBlock]; !ok {
		return "", &Error{Where: path, Name: `block "auth"`, Allowed: `is missing; "auth": {} gives the defaults`}
	}
	lookup, err := envLookup(filepath.Join(filepath.Dir(path), ".env"))
	if err != nil {
		return "", err
	}
	if err := s.readBlock(path, file[settingsBlock], lookup, config); err != nil {
		return "", err
	}
	if raw, ok := file[mysqlBlock]; ok && os.Getenv(dsnVariable) == "" {
		return parseMySQL(path, raw, lookup)
	}
	return "", nil
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// parseFile parses the file into its blocks and reports the position of a
// syntax error.
func parseFile(path string, data []byte) (map[string]json.RawMessage, error) {
	var blocks map[string]json.RawMessage
	err := json.Unmarshal(data, &blocks)
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		before := data[:min(int(syntax.Offset), len(data))]
		line := 1 + bytes.Count(before, []byte("\n"))
		column := max(1, len(before)-(bytes.LastIndexByte(before, '\n')+1))
		return nil, &Error{Where: fmt.Sprintf("%s:%d:%d", path, line, column), Name: "JSON", Allowed: syntax.Error()}
	case err != nil || blocks == nil:
		return nil, notAnObject(path, "the file")
	}
	return blocks, nil
}

// parseBlock parses a block. Its syntax was checked with that of the file.
func parseBlock(path, name string, block json.RawMessage) (map[string]json.RawMessage, error) {
	var values map[string]json.RawMessage
	if json.Unmarshal(block, &values) != nil || values == nil {
		return nil, notAnObject(path, name)
	}
	return values, nil
}

// notAnObject returns the error of a file or block that is no JSON object.
func notAnObject(path, name string) error {
	return &Error{Where: path, Name: name, Allowed: "must be a JSON object"}
}

// readBlock sets the fields of config to the values of the settings' block.
func (s *Settings) readBlock(path string, block json.RawMessage, lookup lookupFunc, config any) error {
	values, err := parseBlock(path, settingsBlock, block)
	if err != nil {
		return err
	}
	for _, o := range s.list {
		if os.Getenv(o.env) != "" {
			delete(values, o.key) // the environment takes precedence
		}
	}
	expanded, err := expand(path, settingsBlock, values, lookup, s.unquoted)
	if err != nil {
		return err
	}
	into := reflect.ValueOf(config).Elem()
	for _, o := range s.list {
		raw, ok := values[o.key]
		if !ok {
			continue
		}
		if allowed := s.set(into.FieldByIndex(o.index), raw); allowed != "" {
			invalid := &Error{path, settingsBlock + "." + o.key, string(raw), allowed}
			if expanded[o.key] {
				invalid.Value = "" // the variable may hold a secret
			}
			return invalid
		}
		delete(values, o.key)
	}
	return unknownKey(path, settingsBlock, values, s.keys())
}

// unknownKey returns an error for one of the keys that no setting has, or nil
// if there is none.
func unknownKey(path, block string, rest map[string]json.RawMessage, known []string) error {
	for key := range rest {
		allowed := "is not a setting; known are " + strings.Join(known, ", ")
		for _, k := range known {
			if strings.EqualFold(k, key) {
				allowed = "is not a setting; did you mean " + k + "?"
			}
		}
		return &Error{Where: path, Name: block + "." + key, Allowed: allowed}
	}
	return nil
}

// readEnv sets the fields of config whose variables are set.
func (s *Settings) readEnv(config any) error {
	into := reflect.ValueOf(config).Elem()
	for _, o := range s.list {
		value := strings.TrimSpace(os.Getenv(o.env))
		if value == "" {
			continue
		}
		raw := json.RawMessage(value)
		if o.quoted {
			raw, _ = json.Marshal(value)
		}
		if allowed := s.set(into.FieldByIndex(o.index), raw); allowed != "" {
			return &Error{"environment", o.env, strconv.Quote(value), allowed}
		}
	}
	return nil
}
