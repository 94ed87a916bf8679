package session

import (
	"context"
	"sync"

	"github.com/candysession/session/internal/store"
)

// twins has logins of one browser that overlap share one session, where users
// may have only so many: otherwise the later login would end the session of the
// earlier, and the browser, which keeps the answer that arrives last, could be
// left with the one that ended. A nil *twins shares nothing.
//
// Logins and requests are told apart by pointers. What it holds is never more
// than the logins that are under way.
type twins struct {
	mu    sync.Mutex
	clock uint64         // counts beginnings and ends
	begun map[any]uint64 // when each login that is under way began, by its request
	made  map[twinKey]*twin
	held  map[any][]*twin // by the state of a request whose handler runs
}

// A twinKey is what logins have in common that are taken for those of one
// browser.
type twinKey struct {
	user    string
	before  string // the selector that the request came with
	browser string
	ip      string
}

// A twin is a session that logins may share.
type twin struct {
	ready  chan struct{} // closed when it is saved, or will not be
	saved  bool
	token  token
	record store.Record
	users  int    // requests that have not been answered
	ended  uint64 // when the last of them was; 0 while there is one
}

func newTwins(maxSessions int) *twins {
	if maxSessions == 0 {
		return nil
	}
	return &twins{begun: map[any]uint64{}, made: map[twinKey]*twin{}, held: map[any][]*twin{}}
}

// begin notes that a login begins, and returns what to call at its end.
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

// meet finds the session that a login may share, which began before all
// answers with it were given, or makes room for a new one. It waits while that
// is being saved. The request may be nil; otherwise its answer is given when
// done is called for it.
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

// use counts a request among those of a twin, with t.mu held.
func (t *twins) use(shared *twin, request any) {
	shared.users++
	shared.ended = 0
	if request != nil {
		t.held[request] = append(t.held[request], shared)
	}
}

// release takes back one use, with t.mu held.
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

// save tells those who wait what was saved.
func (t *twins) save(own *twin, token token, record store.Record) {
	if t != nil {
		own.token, own.record, own.saved = token, record, true
	}
}

// leave ends the wait of others for a twin that is the first one's, saved or
// not, and without a request also its use.
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

// done notes that a request was answered.
func (t *twins) done(request any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, shared := range t.held[request] {
		t.answered(shared)
	}
	delete(t.held, request)
}

// answered notes that one request of a twin was answered, with t.mu held.
func (t *twins) answered(shared *twin) {
	if shared.users--; shared.users == 0 {
		t.clock++
		shared.ended = t.clock
		t.sweep()
	}
}

// sweep forgets what no login that is under way may share, with t.mu held.
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
