package configfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// A lookupFunc returns the value of a variable, and whether it is set.
type lookupFunc func(name string) (value string, ok bool)

// envLookup returns a function that looks up variables in the environment of
// the process, and then in an optional .env file.
func envLookup(path string) (lookupFunc, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the variables: %w", err)
	}
	file := parseEnv(text)
	return func(name string) (string, bool) {
		if value, ok := os.LookupEnv(name); ok {
			return value, true
		}
		value, ok := file[name]
		return value, ok
	}, nil
}

// parseEnv parses a .env file: lines of NAME=value, optionally after "export".
// Quoted values are taken literally; unquoted values end at a comment.
func parseEnv(text []byte) map[string]string {
	file := map[string]string{}
	for line := range strings.Lines(string(bytes.TrimPrefix(text, byteOrderMark))) {
		name, value, _ := strings.Cut(line, "=")
		if words := strings.Fields(name); len(words) == 2 && words[0] == "export" {
			name = words[1]
		}
		file[strings.TrimSpace(name)] = envValue(strings.TrimSpace(value))
	}
	return file
}

// envValue returns the value of a line, without quotes or a comment.
func envValue(text string) string {
	if text != "" && (text[0] == '"' || text[0] == '\'') {
		if value, _, ok := strings.Cut(text[1:], text[:1]); ok {
			return value
		}
	}
	for i := 1; i < len(text); i++ {
		if text[i] == '#' && (text[i-1] == ' ' || text[i-1] == '\t') {
			return strings.TrimSpace(text[:i])
		}
	}
	return text
}

// expand replaces ${NAME} in the strings of a block and returns the keys that
// it changed. A value whose key unquoted reports becomes a JSON number, boolean
// or list.
func expand(path, block string, values map[string]json.RawMessage, lookup lookupFunc, unquoted func(key string) bool) (expanded map[string]bool, err error) {
	expanded = map[string]bool{}
	for key, raw := range values {
		var text string
		if json.Unmarshal(raw, &text) != nil || !variable.MatchString(text) {
			continue
		}
		var missing string
		text = variable.ReplaceAllStringFunc(text, func(match string) string {
			name := match[2 : len(match)-1]
			value, ok := lookup(name)
			if !ok && missing == "" {
				missing = name
			}
			return value
		})
		if missing != "" {
			return nil, &Error{Where: path, Name: block + "." + key, Allowed: "the variable " + missing + " is set neither in the environment nor in .env"}
		}
		if unquoted(key) {
			values[key] = json.RawMessage(text)
		} else {
			values[key], _ = json.Marshal(text)
		}
		expanded[key] = true
	}
	return expanded, nil
}

// variable matches a variable in a string of the file.
var variable = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]*\}`)
