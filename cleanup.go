package session

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/candysession/session/internal/store"
)

// purgePause is how long a purge in the background rests after each chunk, as a multiple of what the chunk took. A
// server that has much to do takes longer, and so gets more rest.
const purgePause = 3

// A purger deletes expired rows, one purge at a time.
type purger struct {
	store *store.Store
	cfg   Config
	turn  chan struct{} // holds one token while a purge runs
	stop  context.Context
	end   context.CancelFunc

	mu      sync.Mutex // orders start and close
	closed  bool
	running sync.WaitGroup
}

func newPurger(s *store.Store, cfg Config) *purger {
	p := &purger{store: s, cfg: cfg, turn: make(chan struct{}, 1)}
	p.stop, p.end = context.WithCancel(context.Background())
	return p
}

// after purges when the request with this context has had its answer. Outside of a server a context may never end;
// then it purges at once.
func (p *purger) after(ctx context.Context) {
	if ctx.Done() == nil {
		p.start()
		return
	}
	context.AfterFunc(ctx, p.start)
}

// start purges in the background, unless a purge is running already.
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
		defer func() { recover() }() // of the app's Logger, where nobody else would
		if _, err := p.drain(p.stop, p.cfg.MaxAge, purgePause); err != nil && p.stop.Err() == nil {
			p.cfg.Logger.Warn("session: expired sessions not purged", "error", err)
		}
	})
}

// run purges now, after the purge that may be running.
func (p *purger) run(ctx context.Context, age time.Duration) (int64, error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
		return p.drain(ctx, age, 0)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// drain deletes chunk by chunk, and pauses between them for so many times as long as they took.
func (p *purger) drain(ctx context.Context, age time.Duration, pause int) (n int64, err error) {
	defer func() {
		if n > 0 {
			p.cfg.event(ctx, Event{Kind: EventPurged, Count: n})
		}
	}()
	for {
		begun := time.Now()
		ids, err := p.store.FindIdle(ctx, age, store.DeleteChunk)
		if err != nil || len(ids) == 0 {
			return n, err
		}
		deleted, err := p.store.DeleteIdle(ctx, ids, age)
		n += deleted
		if err != nil || len(ids) < store.DeleteChunk {
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

// close ends a purge in the background and waits for it.
func (p *purger) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.end()
	p.running.Wait()
}

// Purge deletes the sessions that were idle for more than Config.MaxAge, in small chunks, and tells how many there
// were, also if it fails on the way. Every login has this done in the background, when its request has been answered and
// with pauses, so there is no need to call it but to know when it is done. Sessions past Config.MaxLifetime are no
// longer renewed, and go when they have been idle so long.
func (m *Manager[U]) Purge(ctx context.Context) (n int64, err error) {
	return m.purge.run(ctx, m.cfg.MaxAge)
}

// PurgeIdle deletes the sessions that were idle for more than the given time, a second at least, whatever
// Config.MaxAge says: their users must log in again. A session that is in use counts as idle for up to
// Config.UpdateAge.
func (m *Manager[U]) PurgeIdle(ctx context.Context, olderThan time.Duration) (n int64, err error) {
	if olderThan < time.Second || olderThan > maxDuration {
		return 0, fmt.Errorf("%w: PurgeIdle: olderThan is %v; it must be from a second to 50 years", ErrInvalidArgument, olderThan)
	}
	return m.purge.run(ctx, olderThan)
}
