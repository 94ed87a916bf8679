package session

import (
	"context"
	"net/http"
	"time"

	"github.com/candysession/session/internal/testhook"
)

func init() {
	testhook.Age = func(ctx context.Context, manager any, r *http.Request, by time.Duration) error {
		return manager.(interface {
			age(context.Context, *http.Request, time.Duration) error
		}).age(ctx, r, by)
	}
}

// age moves the login and the last renewal of a request's session back in time,
// for package sessiontest.
func (m *Manager[U]) age(ctx context.Context, r *http.Request, by time.Duration) error {
	t, err := m.cookies.read(r)
	if err != nil {
		return err
	}
	_, err = m.store.db.ExecContext(ctx, "UPDATE "+m.store.tokens+" SET date = FROM_UNIXTIME(UNIX_TIMESTAMP(date) - ?), active = FROM_UNIXTIME(UNIX_TIMESTAMP(active) - ?) WHERE token_x = ?", seconds(by), seconds(by), t.Selector)
	return err
}
