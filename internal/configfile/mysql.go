package configfile

import (
	"encoding/json"
	"net"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// parseMySQL builds a data source name from the "mysql" block. Errors omit
// values, one of which is the password.
func parseMySQL(path string, block json.RawMessage, lookup lookupFunc) (string, error) {
	values, err := parseBlock(path, mysqlBlock, block)
	if err != nil {
		return "", err
	}
	if _, err := expand(path, mysqlBlock, values, lookup, func(key string) bool { return key == "port" }); err != nil {
		return "", err
	}
	const port1to65535 = "must be a number from 1 to 65535"
	host, port := "localhost", 3306
	dsn := mysql.NewConfig()
	var known []string
	for _, k := range []struct {
		key     string
		into    any
		allowed string
	}{
		{"host", &host, "must be a string: a host name, an address, or the path of a socket"},
		{"port", &port, port1to65535},
		{"user", &dsn.User, "must be a string"},
		{"password", &dsn.Passwd, "must be a string"},
		{"database", &dsn.DBName, "must be a string"},
	} {
		if raw, ok := values[k.key]; ok && !decode(raw, k.into) {
			return "", &Error{Where: path, Name: mysqlBlock + "." + k.key, Allowed: k.allowed}
		}
		delete(values, k.key)
		known = append(known, k.key)
	}
	if err := unknownKey(path, mysqlBlock, values, known); err != nil {
		return "", err
	}
	switch {
	case port < 1 || port > 65535:
		return "", &Error{path, "mysql.port", strconv.Itoa(port), port1to65535}
	case dsn.User == "":
		return "", &Error{Where: path, Name: "mysql.user", Allowed: "is missing"}
	case dsn.DBName == "":
		return "", &Error{Where: path, Name: "mysql.database", Allowed: "is missing"}
	}
	dsn.Net, dsn.Addr = "tcp", net.JoinHostPort(host, strconv.Itoa(port))
	if strings.HasPrefix(host, "/") {
		dsn.Net, dsn.Addr = "unix", host
	}
	return dsn.FormatDSN(), nil
}
