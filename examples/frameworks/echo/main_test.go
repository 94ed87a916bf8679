package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/candysession/session/examples/frameworks/internal/drive"
	"github.com/candysession/session/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

func TestSessions(t *testing.T) {
	s := &site{auth: drive.Manager[User](t)}
	request := func() *http.Request { return httptest.NewRequest("GET", "/account", nil) }
	drive.Check(t, s.auth, s.routes(), &s.visits, request, http.StatusUnauthorized)
}
