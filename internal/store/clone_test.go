package store

import (
	"database/sql"
	"net/netip"
	"reflect"
	"testing"
)

// A struct without references is not copied.
func TestShares(t *testing.T) {
	t.Parallel()
	type plainUser struct {
		ID   int64
		Name sql.NullString
		At   sql.NullTime
		IP   netip.Addr
		UUID [16]byte
	}
	if shares(reflect.TypeFor[plainUser]()) {
		t.Error("a struct without references is copied")
	}
	if !shares(reflect.TypeFor[struct{ Roles []string }]()) {
		t.Error("a slice is not copied")
	}
}
