package session

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// purgeChunk is the number of rows that one statement deletes: small enough to
// hold locks only briefly.
const purgeChunk = 500

// purgePause is the pause of a background purge after each chunk, as a multiple
// of the chunk's duration, so that a busy server gets longer pauses.
const purgePause = 3

// A purger deletes expired rows, one purge at a time.
type purger struct {
	store *store
	cfg   Config
	turn  chan struct{} // holds one token while a purge runs
	stop  context.Context
	end   context.CancelFunc

	mu      sync.Mutex // orders start and close
	closed  bool
	running sync.WaitGroup
}

func newPurger(s *store, cfg Config) *purger {
	p := &purger{store: s, cfg: cfg, turn: make(chan struct{}, 1)}
	p.stop, p.end = context.WithCancel(context.Background())
	return p
}

// after starts a background purge once ctx, a request's, is done. If ctx is never
// done, it starts the purge immediately.
func (p *purger) after(ctx context.Context) {
	if ctx.Done() == nil {
		p.start()
		return
	}
	context.AfterFunc(ctx, p.start)
}

// start starts a background purge, unless a purge is running.
func (p *purger) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	select {
	case p.turn <- struct{}{}:
	default:
		return
	}
	p.running.Go(func() {
		defer func() { <-p.turn }()
		defer func() { recover() }() // the app's Logger may panic
		if _, err := p.drain(p.stop, p.cfg.MaxAge, purgePause); err != nil && p.stop.Err() == nil {
			p.cfg.Logger.Warn("session: expired sessions not purged", "error", err)
		}
	})
}

// run purges now, after a running purge has ended.
func (p *purger) run(ctx context.Context, age time.Duration) (int64, error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
		return p.drain(ctx, age, 0)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// drain deletes chunk by chunk. Between chunks it pauses for a multiple of their
// duration.
func (p *purger) drain(ctx context.Context, age time.Duration, pause int) (n int64, err error) {
	defer func() {
		if n > 0 {
			p.cfg.event(ctx, Event{Kind: EventPurged, Count: n})
		}
	}()
	for {
		begun := time.Now()
		found, deleted, err := p.store.deleteIdle(ctx, age, purgeChunk)
		n += deleted
		if err != nil || found < purgeChunk {
			return n, err
		}
		if pause > 0 {
			select {
			case <-time.After(time.Duration(pause) * time.Since(begun)):
			case <-ctx.Done():
				return n, ctx.Err()
			}
		}
	}
}

// close stops a background purge and waits for it.
func (p *purger) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.end()
	p.running.Wait()
}

// Purge deletes sessions idle for longer than Config.MaxAge, in small chunks, and
// returns the number deleted even on error. Logins trigger a purge in the
// background, so calling Purge is optional. Sessions past Config.MaxLifetime are
// deleted once they have been idle for MaxAge.
func (m *Manager[U]) Purge(ctx context.Context) (n int64, err error) {
	return m.purge.run(ctx, m.cfg.MaxAge)
}

// PurgeIdle deletes sessions idle for longer than the given duration, regardless
// of Config.MaxAge; their users must log in again. The duration must be at least
// one second. A session in use counts as idle for up to Config.UpdateAge.
func (m *Manager[U]) PurgeIdle(ctx context.Context, olderThan time.Duration) (n int64, err error) {
	if olderThan < time.Second || olderThan > maxDuration {
		return 0, fmt.Errorf("%w: PurgeIdle: olderThan is %v; it must be from a second to 50 years", ErrInvalidArgument, olderThan)
	}
	return m.purge.run(ctx, olderThan)
}

// Stats describes the token table.
type Stats struct {
	Rows    int64     // all sessions
	Active  int64     // sessions idle for no longer than Config.MaxAge
	Expired int64     // other sessions, which the next purge deletes
	Oldest  time.Time // time of the least recent renewal; zero if there is no session
	Bytes   int64     // size of data and indexes, as estimated by the server
}

// Stats returns the size of the token table. It scans one index, which takes some
// tenths of a second for a million rows.
func (m *Manager[U]) Stats(ctx context.Context) (Stats, error) {
	return m.store.stats(ctx)
}
