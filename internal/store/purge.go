package store

import (
	"context"
	"time"
)

// SelectIdle returns a statement that finds the sessions that have been idle
// for longer than an age, given twice in seconds, longest first, up to a limit.
// The range of the index active is in local time, which repeats an hour when
// daylight saving ends, so the exact condition is checked too. Tests explain
// the statement.
func (s *Store) SelectIdle() string {
	return "SELECT id FROM " + s.tokensName + " WHERE " + s.idleIndexSQL + " AND " + s.idleSQL + " ORDER BY active LIMIT ?"
}

// FindIdle returns up to limit sessions that have been idle for longer than
// age, longest first.
func (s *Store) FindIdle(ctx context.Context, age time.Duration, limit int) (ids []uint64, err error) {
	if err := s.CheckPool(ctx); err != nil {
		return nil, err
	}
	err = s.doOnTokens(ctx, "find idle sessions", func(ctx context.Context) error {
		ids = nil
		return s.db.SelectContext(ctx, &ids, s.SelectIdle(), seconds(age), seconds(age), limit)
	})
	return ids, err
}

// DeleteIdle deletes those of the sessions that are still idle for longer than
// age, and returns how many.
func (s *Store) DeleteIdle(ctx context.Context, ids []uint64, age time.Duration) (int64, error) {
	return s.deleteIDs(ctx, ids, " AND "+s.idleSQL, seconds(age))
}

// Age moves the login and the last renewal of a session back in time, in tests
// of apps.
func (s *Store) Age(ctx context.Context, selector string, by time.Duration) error {
	_, err := s.db.ExecContext(ctx, "UPDATE "+s.tokensName+" SET date = FROM_UNIXTIME(UNIX_TIMESTAMP(date) - ?), active = FROM_UNIXTIME(UNIX_TIMESTAMP(active) - ?) WHERE token_x = ?", seconds(by), seconds(by), selector)
	return err
}
