package session

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/candysession/session/internal/configfile"
)

// configSettings are the fields of Config with a tag config, which holds their key in
// the file. Where a variable would be mistaken for that of a secret, as
// SESSION_PASSWORD would, the tag env holds another name.
var configSettings = configfile.SettingsOf(reflect.TypeFor[Config](),
	configfile.Choice{Name: "off", Value: CandyPackOff},
	configfile.Choice{Name: "share", Value: CandyPackShare},
	configfile.Choice{Name: "switch", Value: CandyPackSwitch},
	configfile.Choice{Name: "strict", Value: http.SameSiteStrictMode},
	configfile.Choice{Name: "lax", Value: http.SameSiteLaxMode},
	configfile.Choice{Name: "family", Value: FingerprintFamily},
	configfile.Choice{Name: "exact", Value: FingerprintExact},
	configfile.Choice{Name: "off", Value: FingerprintOff},
)

// LoadConfig reads a Config from the "auth" block of a config.json. From its
// optional "mysql" block it builds a data source name for [Open], which is empty
// if there is no such block. Times are in milliseconds. A setting that is absent
// or 0 has its default. Other blocks of the file are ignored.
//
//	{
//	  "auth": {
//	    "table": "users", "key": "id", "token": "user_tokens",
//	    "maxAge": 2592000000, "updateAge": 86400000
//	  },
//	  "mysql": {
//	    "host": "localhost", "port": 3306, "user": "app",
//	    "password": "${MYSQL_PASSWORD}", "database": "app"
//	  }
//	}
//
// In both blocks ${NAME} is replaced by a variable of the environment, or of a
// file .env in the same directory.
//
// The environment overrides the file. The variable of a setting is SESSION_ and
// the key in capitals with underscores (SESSION_MAX_AGE, SESSION_LOGIN_URL), in
// the same units. For key, password and token it is SESSION_KEY_COLUMN,
// SESSION_PASSWORD_COLUMN and SESSION_TOKEN_TABLE. SESSION_DSN replaces the mysql
// block. An empty variable counts as unset. If path is empty, LoadConfig reads
// only the environment.
//
// LoadConfig returns an error matching [ErrConfig], or the error from reading the
// file. An error never contains the password.
func LoadConfig(path string) (cfg Config, dsn string, err error) {
	dsn, err = configSettings.Load(path, &cfg)
	if err != nil {
		return Config{}, "", fileError(err)
	}
	if _, err := cfg.withDefaults(); err != nil {
		return Config{}, "", locate(err, path)
	}
	return cfg, dsn, nil
}

// fileError returns an error of configfile as one of this package.
func fileError(err error) error {
	var invalid *configfile.Error
	if errors.As(err, &invalid) {
		return (*configError)(invalid)
	}
	return fmt.Errorf("session: %w", err)
}

// locate makes an error about a field of Config name the key or variable that
// set it.
func locate(err error, path string) error {
	var invalid *configError
	if errors.As(err, &invalid) {
		field := strings.TrimPrefix(invalid.Name, "Config.")
		invalid.Where, invalid.Name = configSettings.Locate(path, field)
	}
	return err
}
