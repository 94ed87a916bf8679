package store

import (
	"context"

	"github.com/candysession/session/internal/retry"
)

// do runs op within Config.Timeout, as retryWithin does, and adds the
// operation's name to its error. op must be idempotent.
func (s *Store) do(ctx context.Context, name string, op func(context.Context) error) error {
	err := s.retryOnce(ctx, func(ctx context.Context, _ bool) error { return op(ctx) })
	if err != nil {
		return s.Wrap(name, err)
	}
	return nil
}

// doOnTokens checks the token table, and then runs op, which uses it, as do
// does.
func (s *Store) doOnTokens(ctx context.Context, name string, op func(context.Context) error) error {
	return s.doOnceOnTokens(ctx, name, func(ctx context.Context, _ bool) error { return op(ctx) })
}

// doOnceOnTokens does the same as doOnTokens for an op that is not idempotent.
// If mayHaveRun is true, an earlier try may have taken effect, and op must not
// take effect twice.
func (s *Store) doOnceOnTokens(ctx context.Context, name string, op func(ctx context.Context, mayHaveRun bool) error) error {
	if _, err := s.tokenTable(ctx); err != nil {
		return s.Wrap(name, err)
	}
	if err := s.retryOnce(ctx, op); err != nil {
		return s.Wrap(name, err)
	}
	return nil
}

// retryOnce sets the deadline of Config.Timeout, and runs op as retryWithin
// does.
func (s *Store) retryOnce(ctx context.Context, op func(ctx context.Context, mayHaveRun bool) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	return s.retryWithin(ctx, op)
}

// retryWithin runs op, for a context that has its deadline. It retries failures
// that allow it, as package retry does, for half of Config.Timeout. It creates
// a missing token table. After the error of an unknown column a table has
// changed, so retryWithin has the tables read again, and tries once more.
func (s *Store) retryWithin(ctx context.Context, op func(ctx context.Context, mayHaveRun bool) error) error {
	var createErr error // allows no further try
	err := retry.Do(ctx, s.cfg.Timeout/2, func(ctx context.Context, mayHaveRun bool) error {
		for forgot := false; ; forgot = true {
			err := op(ctx, mayHaveRun)
			if retry.HasNumber(err, erNoSuchTable) {
				if _, createErr = s.createTable(ctx, s.db); createErr != nil {
					return nil
				}
				err = op(ctx, mayHaveRun)
			}
			if forgot || !retry.HasNumber(err, erBadField) {
				return err
			}
			s.forgetTables()
		}
	})
	if createErr != nil {
		return createErr
	}
	return err
}
