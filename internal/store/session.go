package store

import (
	"bytes"
	"database/sql"
	"strings"
)

// A SessionRow is a session with its user, as a lookup found it.
type SessionRow[U any] struct {
	Record
	User    U
	Changed bool  // the account is not as it was at login
	Err     error // the user's columns do not fit U
}

// A selection lists the values that a lookup reads. A value that a table does
// not need costs its lookups nothing.
type selection struct {
	columns columnSet // except user, which is compared with the users table's key
	stamp   bool      // and the password hash
	account bool      // Config.AccountColumns

	// text has keys read as bytes, because the character set of a connection
	// may make two strings one.
	text bool
}

// selectionOf returns the selection of a lookup in these tables.
func (s *Store) selectionOf(tokens *tokenTable, users *Users) selection {
	stamped := tokens.columns.has("stamp") && s.comparesStamps()
	sel := selection{
		text:    users.Key.kind == textColumn,
		stamp:   stamped && (users.HasPassword || users.account != ""),
		account: stamped && users.account != "",
	}
	sel.columns = tokens.columns & columnsWhere(func(c tokenColumn) bool { return !c.unread && c.name != "user" && (c.name != "stamp" || sel.stamp) })
	return sel
}

// selectSessions returns the statement of a lookup: n sessions, chosen by a
// column, joined with their users. For each it reads one entry of the index
// token_x, if the lookup is by that, and one of each primary key. scanner.scan
// reads the result.
func (s *Store) selectSessions(sel selection, users *Users, names []string, by LookupColumn, n int) string {
	var list []string
	for c := range sel.columns.all() {
		list = append(list, c.read("t."))
	}
	key, user := "u."+s.keyName, "t.user"
	list = append(list, "UNIX_TIMESTAMP()", key)
	if sel.text {
		list = append(list, "CAST("+user+" AS BINARY)", "CAST("+key+" AS BINARY)")
	} else {
		list = append(list, user)
	}
	password, account := s.stampColumns(users, "u.")
	if sel.stamp {
		list = append(list, password)
	}
	if sel.account {
		list = append(list, account)
	}
	for _, name := range names {
		list = append(list, "u."+quoteColumn(name))
	}
	condition := " = ?"
	if n > 1 {
		condition = " IN (" + placeholders(n) + ")"
	}
	return "SELECT " + strings.Join(list, ", ") + " FROM " + s.tokensName + " t LEFT JOIN " + s.usersName + " u ON " + key + " = t.user WHERE t." + string(by) + condition
}

// A scanner reads the rows of a lookup. It finds the destinations once, scans
// each row to the same ones, and returns copies. Its strings share one
// allocation per row. It is not safe for concurrent use.
type scanner[U any] struct {
	store        *Store
	mapper       *Mapper[U]
	selection    selection // of the destinations
	destinations []any
	row          SessionRow[U]
	texts        []text
	raw          rawColumns
	values       []any // of a map
	buffer       []byte
}

// A text is a string of the record, and the bytes that it is made of.
type text struct {
	raw  sql.RawBytes
	into *string
}

// rawColumns are compared, and not kept.
type rawColumns struct {
	user     sql.RawBytes // the session's
	key      sql.RawBytes // the user's, if it is text
	stamp    sql.RawBytes
	password sql.RawBytes
	account  sql.RawBytes
}

// scan reads the current row. An error in a user column fails only that row.
func (s *scanner[U]) scan(rows *sql.Rows, sel selection, users *Users) (SessionRow[U], error) {
	s.row = SessionRow[U]{}
	if s.destinations == nil || sel != s.selection || s.mapper.nested || s.mapper.toRow != nil && len(s.values) != len(users.columns) {
		s.setDestinations(sel, users)
	}
	clear(s.values)
	for i := range s.texts {
		s.texts[i].raw = nil
	}
	s.raw = rawColumns{}
	err := rows.Scan(s.destinations...)
	s.split()
	s.compare()
	if err != nil && s.row.Hash == "" {
		return SessionRow[U]{}, err // not even a session
	}
	if s.row.Owner == nil {
		// Without a user its columns are NULL, which most field types cannot
		// hold.
		var none U
		s.row.User, err = none, nil
	}
	if err != nil {
		s.row.Err = unreadable(err)
	}
	if err == nil && s.row.Owner != nil && s.mapper.toRow != nil {
		s.row.User = s.mapper.newRow(s.values, users)
	}
	return s.row, nil
}

// setDestinations finds where the columns of selectSessions are scanned to.
func (s *scanner[U]) setDestinations(sel selection, users *Users) {
	s.selection = sel
	if s.texts == nil {
		s.texts = make([]text, 0, len(tokenColumns)) // destinations point into it
	}
	s.texts = s.texts[:0]
	list := make([]any, 0, len(tokenColumns)+8)
	for c := range sel.columns.all() {
		field := c.field(&s.row.Record)
		into, isText := field.(*string)
		switch {
		case c.name == "stamp":
			field = &s.raw.stamp
		case isText:
			s.texts = append(s.texts, text{into: into})
			field = &s.texts[len(s.texts)-1].raw
		}
		list = append(list, field)
	}
	list = append(list, &s.row.Now, &s.row.Owner, &s.raw.user)
	if sel.text {
		list = append(list, &s.raw.key)
	}
	if sel.stamp {
		list = append(list, &s.raw.password)
	}
	if sel.account {
		list = append(list, &s.raw.account)
	}
	s.destinations = append(list, s.mapper.destinations(&s.row.User, &s.values, users)...)
}

// compare compares what the row says of its account with the account that the
// database has found: the key byte by byte, and the stamp.
func (s *scanner[U]) compare() {
	if len(s.raw.stamp) == stampSize {
		s.row.Stamp = bytes.Clone(s.raw.stamp)
	}
	if s.row.Owner == nil {
		return
	}
	key := []byte(s.raw.key)
	if key == nil {
		key = KeyBytes(s.row.Owner)
	}
	if !bytes.Equal(s.raw.user, key) {
		s.row.Owner = nil // the column's collation or type treats another key as equal
		return
	}
	if s.row.Stamp != nil {
		s.row.Changed = !bytes.Equal(s.raw.stamp, s.store.stamp(s.raw.password, s.raw.account))
	}
}

// split converts the texts to strings that share one allocation.
func (s *scanner[U]) split() {
	s.buffer = s.buffer[:0]
	for _, t := range s.texts {
		s.buffer = append(s.buffer, t.raw...)
	}
	all := string(s.buffer)
	for _, t := range s.texts {
		*t.into, all = all[:len(t.raw)], all[len(t.raw):]
	}
}
