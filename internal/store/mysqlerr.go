package store

import (
	"errors"
	"fmt"
	"strings"

	"github.com/candysession/session/internal/retry"
	"github.com/go-sql-driver/mysql"
)

// Error numbers of MySQL and MariaDB, by the symbols of their documentation.
// Package retry has the numbers that allow another try.
const (
	erDBAccessDenied       = 1044
	erBadNull              = 1048
	erBadField             = 1054
	erDupFieldName         = 1060
	erDupKeyName           = 1061
	erDupEntry             = 1062
	erTooLongKey           = 1071
	erFieldSpecifiedTwice  = 1110
	erTableAccessDenied    = 1142
	erColumnAccessDenied   = 1143
	erNoSuchTable          = 1146
	erWarnDataOutOfRange   = 1264
	erWarnDataTruncated    = 1265
	erCantAggregate2       = 1267
	erCantAggregate3       = 1270
	erCantAggregateN       = 1271
	erTruncatedWrongValue  = 1292
	erInvalidCharacter     = 1300
	erNoDefaultForField    = 1364
	erWrongValueForField   = 1366
	erProcAccessDenied     = 1370
	erDataTooLong          = 1406
	erNoReferencedRow2     = 1452
	erSignalException      = 1644
	erIndexColumnTooLong   = 1709
	erGeneratedIgnored     = 1906 // MariaDB
	erNonDefaultGenerated  = 3105 // MySQL
	erInvalidJSONText      = 3140 // MySQL
	erCheckViolated        = 3819 // MySQL
	erCannotConvertString  = 3854 // MySQL
	erImpossibleConversion = 3988 // MySQL
	erConstraintFailed     = 4025 // MariaDB
)

// accessDenied are the errors of a database user who lacks a right.
var accessDenied = []uint16{erDBAccessDenied, erTableAccessDenied, erColumnAccessDenied, erProcAccessDenied}

// unwritable are the errors of text whose characters are not in the character
// set of the column or of the connection.
var unwritable = []uint16{
	erCantAggregate2,
	erCantAggregate3,
	erCantAggregateN,
	erInvalidCharacter,
	erWrongValueForField,
	erCannotConvertString,
	erImpossibleConversion,
}

// invalidValueErrors mean that a new user has an invalid value, not that the
// database has failed.
var invalidValueErrors = []uint16{
	erBadNull,
	erFieldSpecifiedTwice,
	erWarnDataOutOfRange,
	erWarnDataTruncated,
	erTruncatedWrongValue,
	erInvalidCharacter,
	erNoDefaultForField,
	erWrongValueForField,
	erDataTooLong,
	erNoReferencedRow2,
	erSignalException,
	erGeneratedIgnored,
	erNonDefaultGenerated,
	erInvalidJSONText,
	erCheckViolated,
	erCannotConvertString,
	erImpossibleConversion,
	erConstraintFailed,
}

// IsUnwritable reports whether text has characters that the column or the
// connection lacks.
func IsUnwritable(err error) bool { return retry.HasNumber(err, unwritable...) }

// unanswered reports whether a statement failed without an answer that shows
// its outcome: it may have been executed, or may be executed yet.
func unanswered(err error) bool {
	var answer *mysql.MySQLError
	return err != nil && (!errors.As(err, &answer) || retry.ConnectionLost(err))
}

// Wrap adds the operation to an error, and ErrUnavailable, or ErrConfig or
// ErrInvalidArgument where the error shows that. Errors of this package stay as
// they are.
func (s *Store) Wrap(op string, err error) error {
	for _, known := range []error{ErrUnavailable, ErrConfig, ErrInvalidArgument, ErrClosed} {
		if errors.Is(err, known) {
			return err
		}
	}
	switch {
	case retry.HasNumber(err, erBadField):
		s.ForgetUsers() // the table may have changed since it was read
		return fmt.Errorf("%w: %s: add the column to the table %s, or tag the field of the user struct db:\"-\": %w", ErrConfig, op, s.usersName, err)
	case retry.HasNumber(err, unwritable...):
		return fmt.Errorf("%w: %s: the value has characters that the column or the connection lacks: %w", ErrInvalidArgument, op, err)
	case retry.HasNumber(err, accessDenied...):
		return fmt.Errorf("%w: %s: %s: %w", ErrConfig, op, s.missingGrant(err), err)
	}
	return fmt.Errorf("session: %s: %w: %w", op, ErrUnavailable, err)
}

// missingGrant returns what the database user must be granted. The server names
// the right in front of "command denied", and the table behind.
func (s *Store) missingGrant(err error) string {
	var my *mysql.MySQLError
	if !errors.As(err, &my) {
		return ""
	}
	right, rest, ok := strings.Cut(my.Message, " command denied")
	right = strings.Trim(strings.ToUpper(right), "'")
	table := s.tokensName
	if _, users := SplitName(s.cfg.UsersTable); strings.Contains(rest, "'"+users+"'") || strings.Contains(rest, "`"+users+"`") {
		table = s.usersName
	}
	switch {
	case my.Number == erProcAccessDenied:
		return "this database user may not run a routine of the app's trigger or view; GRANT EXECUTE on it"
	case !ok || right == "":
		return "this database user lacks a right; GRANT SELECT, INSERT, UPDATE, DELETE ON " + s.tokensName + " and SELECT, UPDATE ON " + s.usersName
	}
	return "this database user lacks a right; GRANT " + right + " ON " + table
}
