package configfile

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

type color int

const (
	red color = iota + 1
	blue
)

type config struct {
	Name    string        `config:"name"`
	Secret  string        `config:"secret" env:"SESSION_SECRET_FILE"`
	MaxWait time.Duration `config:"maxWait"`
	Color   color         `config:"color"`
	InGo    func()
	Nested  struct {
		Size int      `config:"size"`
		On   bool     `config:"on"`
		List []string `config:"list"`
		InGo string
	}
}

var testSettings = SettingsOf(reflect.TypeFor[config](), Choice{"red", red}, Choice{"blue", blue})

func write(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTags(t *testing.T) {
	t.Parallel()
	var got []string
	testSettings.Each(func(field, key, env string) { got = append(got, field+" "+key+" "+env) })
	want := []string{
		"Name name SESSION_NAME", "Secret secret SESSION_SECRET_FILE", "MaxWait maxWait SESSION_MAX_WAIT", "Color color SESSION_COLOR",
		"Nested.Size size SESSION_SIZE", "Nested.On on SESSION_ON", "Nested.List list SESSION_LIST",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the settings are %q", got)
	}
	defer func() {
		if recover() == nil {
			t.Error("a tag on an unreadable type does not panic")
		}
	}()
	SettingsOf(reflect.TypeFor[struct {
		Done chan int `config:"done"`
	}]())
}

func TestFileThenEnvironment(t *testing.T) {
	path := write(t, `{"auth": {"name": "app", "maxWait": 1500, "color": "blue", "size": 3, "on": true, "list": ["a", "b"]}}`)
	t.Setenv("SESSION_COLOR", " red ")
	t.Setenv("SESSION_LIST", `["c"]`)
	t.Setenv("SESSION_SECRET_FILE", "s")
	t.Setenv("SESSION_SIZE", "")
	var c config
	dsn, err := testSettings.Load(path, &c)
	if err != nil || dsn != "" || c.Name != "app" || c.Secret != "s" || c.MaxWait != 1500*time.Millisecond || c.Color != red || c.Nested.Size != 3 || !c.Nested.On || !slices.Equal(c.Nested.List, []string{"c"}) {
		t.Errorf("%+v, %q, %v", c, dsn, err)
	}
	for _, test := range []struct{ path, field, where, name string }{
		{path, "Name", path, "auth.name"},
		{path, "Nested.Size", path, "auth.size"},
		{path, "Color", "environment", "SESSION_COLOR"},
		{"", "Name", "environment", "SESSION_NAME"},
		{path, "InGo", path, "InGo"},
	} {
		if where, name := testSettings.Locate(test.path, test.field); where != test.where || name != test.name {
			t.Errorf("%s is located at %s, %s", test.field, where, name)
		}
	}
}

// The invalid value of a variable may be a secret. It is not in the error.
func TestErrors(t *testing.T) {
	t.Setenv("SESSION_TEST_VALUE", "hunter2")
	for text, want := range map[string]string{
		`{"auth": {"color": "green"}}`:                  `auth.color = "green": must be "red" or "blue"`,
		`{"auth": {"color": null}}`:                     `auth.color = null: must be "red" or "blue"`,
		`{"auth": {"color": "${SESSION_TEST_VALUE}"}}`:  `auth.color: must be "red" or "blue"`,
		`{"auth": {"size": "${SESSION_TEST_VALUE}"}}`:   `auth.size: must be a whole number`,
		`{"auth": {"list": "a"}}`:                       `auth.list = "a": must be a list of strings, such as ["created_at"]`,
		`{"auth": {"Nested.Size": 1}}`:                  `auth.Nested.Size: is not a setting; known are name, secret, maxWait, color, size, on, list`,
		`{"auth": {"maxwait": 1}}`:                      `auth.maxwait: is not a setting; did you mean maxWait?`,
		`{"auth": {}, "mysql": []}`:                     `mysql: must be a JSON object`,
		`{"auth": {}, "mysql": {"host": 1}}`:            `mysql.host: must be a string: a host name, an address, or the path of a socket`,
		`{"auth": {}, "mysql": {"user": "${MISSING}"}}`: `mysql.user: the variable MISSING is set neither in the environment nor in .env`,
	} {
		path := write(t, text)
		var c config
		_, err := testSettings.Load(path, &c)
		var invalid *Error
		if !errors.As(err, &invalid) || invalid.Where != path || err.Error() != path+": "+want {
			t.Errorf("%s: error is %v", text, err)
		}
	}
	var c config
	if _, err := testSettings.Load("none.json", &c); !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "read the configuration: ") {
		t.Error(err)
	}
}

func TestSocketAndIPv6(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"/run/mysqld/mysqld.sock": "app@unix(/run/mysqld/mysqld.sock)/app",
		"::1":                     "app@tcp([::1]:3306)/app",
		"localhost":               "app@tcp(localhost:3306)/app",
	} {
		var c config
		dsn, err := testSettings.Load(write(t, `{"auth": {}, "mysql": {"host": "`+host+`", "user": "app", "database": "app"}}`), &c)
		if err != nil || !strings.HasPrefix(dsn, want) {
			t.Errorf("%s: %q, %v", host, dsn, err)
		}
	}
}

// A name or value of .env is part of the file.
func FuzzParseEnv(f *testing.F) {
	f.Add("A=1\nexport B='two # 2' # 3\n\ufeffC=\"\n=\n#D=4")
	f.Fuzz(func(t *testing.T, text string) {
		for name, value := range parseEnv([]byte(text)) {
			if !strings.Contains(text, name) || !strings.Contains(text, value) || strings.Contains(name+value, "\n") {
				t.Fatalf("%q = %q", name, value)
			}
		}
	})
}
