package session

import (
	"context"
	"sync"

	"github.com/candysession/session/internal/store"
	"github.com/candysession/session/internal/token"
)

// twins lets concurrent logins of one browser share a session if
// Config.MaxSessions is set. Otherwise the later login would end the session of
// the earlier one, and the browser, which keeps the cookie of the response that
// arrives last, could keep that of the ended session. A nil *twins shares
// nothing.
//
// Logins and requests are identified by pointers. Its size is bounded by the
// number of logins in progress.
type twins struct {
	mu    sync.Mutex
	clock uint64         // counts starts and ends of logins
	begun map[any]uint64 // the start of each login in progress, by its request
	made  map[twinKey]*twin
	held  map[any][]*twin // by the state of a request whose handler runs
}

// A twinKey identifies the browser and user of a login.
type twinKey struct {
	user    string
	before  string // the selector that the request came with
	browser string
	ip      string
	options loginOptions
}

// A twin is a session that concurrent logins share.
type twin struct {
	ready  chan struct{} // closed when it is saved, or saving failed
	saved  bool
	token  token.Token
	record store.Record
	users  int    // requests without a response yet
	ended  uint64 // the time of the last response; 0 while users > 0
}

func newTwins(maxSessions int) *twins {
	if maxSessions == 0 {
		return nil
	}
	return &twins{begun: map[any]uint64{}, made: map[twinKey]*twin{}, held: map[any][]*twin{}}
}

// begin records the start of a login, and returns a function that records its
// end.
func (t *twins) begin(login any) (end func()) {
	if t == nil {
		return func() {}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clock++
	t.begun[login] = t.clock
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.begun, login)
		t.sweep()
	}
}

// meet returns the session that a login may share, or reserves a new one: first
// is then true. A login may share a session if it started before the last
// response with that session. meet waits while the session is being saved. If
// request is not nil, done must be called after its response.
func (t *twins) meet(ctx context.Context, login, request any, key twinKey, lives func(*twin) (bool, error)) (shared *twin, first bool, err error) {
	if t == nil {
		return nil, true, nil
	}
	for {
		t.mu.Lock()
		other := t.made[key]
		if other == nil || other.ended != 0 && t.begun[login] > other.ended {
			own := &twin{ready: make(chan struct{})}
			t.made[key] = own
			t.use(own, request)
			t.mu.Unlock()
			return own, true, nil
		}
		t.use(other, request)
		t.mu.Unlock()

		select {
		case <-other.ready:
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err == nil && other.saved {
			var living bool
			if living, err = lives(other); living && err == nil {
				return other, false, nil
			}
		}
		t.mu.Lock()
		t.release(other, request)
		if err == nil && t.made[key] == other {
			delete(t.made, key)
		}
		t.mu.Unlock()
		if err != nil {
			return nil, false, err
		}
	}
}

// use adds a request to a twin, with t.mu held.
func (t *twins) use(shared *twin, request any) {
	shared.users++
	shared.ended = 0
	if request != nil {
		t.held[request] = append(t.held[request], shared)
	}
}

// release undoes one use, with t.mu held.
func (t *twins) release(shared *twin, request any) {
	held := t.held[request]
	for i := range held {
		if held[i] == shared {
			t.held[request] = append(held[:i:i], held[i+1:]...)
			break
		}
	}
	t.answered(shared)
}

// save publishes a saved session to the logins that wait for it.
func (t *twins) save(own *twin, token token.Token, record store.Record) {
	if t != nil {
		own.token, own.record, own.saved = token, record, true
	}
}

// leave ends the wait for a twin if the caller is the first, and its use if there
// is no request.
func (t *twins) leave(shared *twin, first bool, request any) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if first {
		close(shared.ready)
	}
	if request == nil {
		t.answered(shared)
	}
}

// done records the response to a request.
func (t *twins) done(request any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, shared := range t.held[request] {
		t.answered(shared)
	}
	delete(t.held, request)
}

// answered records one response with a twin, with t.mu held.
func (t *twins) answered(shared *twin) {
	if shared.users--; shared.users == 0 {
		t.clock++
		shared.ended = t.clock
		t.sweep()
	}
}

// sweep removes the twins that no login in progress may share, with t.mu held.
func (t *twins) sweep() {
	oldest := t.clock + 1
	for _, at := range t.begun {
		oldest = min(oldest, at)
	}
	for key, shared := range t.made {
		if shared.ended != 0 && shared.ended < oldest {
			delete(t.made, key)
		}
	}
}
