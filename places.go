package session

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/candysession/session/throttle"
)

// maxPresent is how many attempts of one network may have a place or wait.
const maxPresent = 256

// places keeps the clients of one network from filling the queue for bcrypt: only
// a few of their attempts may be in it. Further ones wait outside.
type places struct {
	mu        sync.Mutex
	byNetwork map[string]*networkPlaces
}

type networkPlaces struct {
	taken   chan struct{}
	present int // attempts that have a place or wait for one
}

// enter waits for a place, and returns a function that gives it back. Its error
// matches [throttle.ErrBusy].
func (p *places) enter(ctx context.Context, network string) (leave func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.byNetwork[network]
	if n == nil {
		n = &networkPlaces{taken: make(chan struct{}, 4*max(1, runtime.GOMAXPROCS(0)-1))}
		if p.byNetwork == nil {
			p.byNetwork = map[string]*networkPlaces{}
		}
		p.byNetwork[network] = n
	}
	if n.present == maxPresent {
		return nil, fmt.Errorf("%w: the network has no place left", throttle.ErrBusy)
	}
	n.present++
	p.mu.Unlock()
	select {
	case n.taken <- struct{}{}:
	case <-ctx.Done():
		err = fmt.Errorf("%w: %w", throttle.ErrBusy, ctx.Err())
	}
	p.mu.Lock()
	if err != nil {
		p.left(network, n)
		return nil, err
	}
	return func() {
		<-n.taken
		p.mu.Lock()
		defer p.mu.Unlock()
		p.left(network, n)
	}, nil
}

// left counts an attempt as gone. It is called with p.mu held.
func (p *places) left(network string, n *networkPlaces) {
	if n.present--; n.present == 0 {
		delete(p.byNetwork, network)
	}
}

// loggedTexts remembers the first few texts that were logged, so that each is
// logged once and clients can't fill the log.
type loggedTexts struct {
	mu   sync.Mutex
	seen map[string]bool
}

// isNew reports whether a text is to be logged.
func (t *loggedTexts) isNew(text string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen[text] || len(t.seen) == 10 {
		return false
	}
	if t.seen == nil {
		t.seen = map[string]bool{}
	}
	t.seen[text] = true
	return true
}
