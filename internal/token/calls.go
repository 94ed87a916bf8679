package token

import (
	"context"
	"sync"
)

// calls are the comparisons in flight. The zero value is ready to use.
type calls struct {
	mu       sync.Mutex
	inFlight map[callKey]*call
}

// A callKey identifies a comparison of a token with a hash.
type callKey struct {
	Key
	hash string
}

// A call is an in-flight comparison shared by concurrent requests with the same
// token and row.
type call struct {
	done     chan struct{}
	matches  bool
	err      error
	canceled bool // the context of the request that made the call ended
}

// do calls compare, unless a call with the same key is in flight: then it waits
// and returns the result of that call. If the request that made the call was
// canceled, a waiting request makes another call.
func (c *calls) do(ctx context.Context, key callKey, compare func() (bool, error)) (bool, error) {
	for {
		current, isNew := c.join(key)
		if isNew {
			return c.run(ctx, key, current, compare)
		}
		select {
		case <-current.done:
			if !current.canceled {
				return current.matches, current.err
			}
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// join returns the call in flight for a key, or a new one.
func (c *calls) join(key callKey) (current *call, isNew bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if current, ok := c.inFlight[key]; ok {
		return current, false
	}
	if c.inFlight == nil {
		c.inFlight = map[callKey]*call{}
	}
	current = &call{done: make(chan struct{})}
	c.inFlight[key] = current
	return current, true
}

// run calls compare and shares the result.
func (c *calls) run(ctx context.Context, key callKey, current *call, compare func() (bool, error)) (bool, error) {
	defer func() {
		c.mu.Lock()
		delete(c.inFlight, key)
		c.mu.Unlock()
		close(current.done)
	}()
	current.matches, current.err = compare()
	current.canceled = current.err != nil && current.err == ctx.Err()
	return current.matches, current.err
}
