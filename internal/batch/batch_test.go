package batch

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

var errFetch = errors.New("fetch failed")

// A fetch is a call of a source's fetch function. It ends when the test
// answers.
type fetch struct {
	ctx    context.Context
	keys   []int
	answer chan<- error
}

func (f fetch) ok() { f.answer <- nil }

// A result maps keys to the number of the fetch that they were in.
type result map[int]int

// A source is a Loader whose fetches the test answers.
type source struct {
	*Loader[int, result]
	t       *testing.T
	fetches chan fetch
	calls   sync.WaitGroup
}

func newSource(t *testing.T) *source {
	s := &source{t: t, fetches: make(chan fetch)}
	var mu sync.Mutex
	number := 0
	s.Loader = &Loader[int, result]{Timeout: time.Hour, SlotTimeout: time.Hour, Fetch: func(ctx context.Context, keys []int) (result, error) {
		mu.Lock()
		number++
		n := number
		mu.Unlock()
		answer := make(chan error)
		s.fetches <- fetch{ctx, keys, answer}
		if err := <-answer; err != nil {
			return nil, err
		}
		found := result{}
		for _, key := range keys {
			found[key] = n
		}
		return found, nil
	}}
	return s
}

// call is a Load of another goroutine. Its error is sent once Load returns.
func (s *source) call(ctx context.Context, key int) <-chan error {
	returned := make(chan error, 1)
	s.calls.Go(func() {
		found, err := s.Load(ctx, key)
		if _, ok := found[key]; !ok && err == nil {
			err = fmt.Errorf("a result without %d", key)
		}
		returned <- err
	})
	return returned
}

// start begins direct fetches of the keys from 0 on, and returns them.
func (s *source) start(n int) []fetch {
	s.t.Helper()
	var started []fetch
	for key := range n {
		s.call(context.Background(), key)
		started = append(started, <-s.fetches)
	}
	return started
}

// wait adds calls with n keys from first on to the pending batches.
func (s *source) wait(ctx context.Context, first, n int) (returned []<-chan error) {
	s.t.Helper()
	_, before := s.Stats()
	for i := range n {
		returned = append(returned, s.call(ctx, first+i))
	}
	s.until(func() bool {
		_, queued := s.Stats()
		return queued >= before+n
	})
	return returned
}

// until yields until a state is reached that other goroutines bring about.
func (s *source) until(reached func() bool) {
	s.t.Helper()
	for !reached() {
		if s.t.Context().Err() != nil {
			s.t.Fatal("the state was not reached")
		}
		runtime.Gosched()
	}
}

// finish checks that nothing of the Loader remains in use.
func (s *source) finish() {
	s.t.Helper()
	s.calls.Wait()
	s.until(func() bool {
		busy, queued := s.Stats()
		return busy == 0 && queued == 0
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting != 0 || s.pending != nil || len(s.queued) != 0 {
		s.t.Errorf("%d calls are counted as waiting, pending is %v, %d batches are queued", s.waiting, s.pending, len(s.queued))
	}
}

func sorted(keys []int) []int { return slices.Sorted(slices.Values(keys)) }

func wantError(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got the error %v, want %v", got, want)
	}
}

// Calls go straight through while a slot is free.
func TestDirect(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	started := s.start(maxDirect)
	for key, f := range started {
		if !slices.Equal(f.keys, []int{key}) {
			t.Errorf("fetch %d is of the keys %v", key, f.keys)
		}
	}
	if busy, queued := s.Stats(); busy != maxDirect || queued != 0 {
		t.Errorf("%d slots are in use and %d keys queued, want %d and 0", busy, queued, maxDirect)
	}
	for _, f := range started {
		f.ok()
	}
	s.finish()
}

// Calls that find no slot free share the fetch of the next free slot.
func TestWaitingCallsShareAFetch(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	started := s.start(maxDirect)
	returned := s.wait(t.Context(), 100, 40)
	// Under load, two slots are closed before one takes the batch.
	for range maxDirect - maxDirectBusy {
		started[0].ok()
		started = started[1:]
	}
	s.until(func() bool {
		busy, _ := s.Stats()
		return busy == maxDirectBusy
	})
	if _, queued := s.Stats(); queued != 40 {
		t.Fatalf("%d keys are queued, want 40", queued)
	}
	started[0].ok()
	shared := <-s.fetches
	if len(shared.keys) != 40 || sorted(shared.keys)[0] != 100 {
		t.Errorf("the batch is of the keys %v", shared.keys)
	}

	// A call joins no fetch that has begun.
	next := s.wait(t.Context(), 1000, 1)
	shared.ok()
	for _, r := range returned {
		wantError(t, <-r, nil)
	}
	own := <-s.fetches
	if !slices.Equal(own.keys, []int{1000}) {
		t.Errorf("the next call's fetch is of the keys %v", own.keys)
	}
	own.ok()
	wantError(t, <-next[0], nil)
	started[1].ok()
	s.finish()
}

// Under load direct fetches use fewer slots, until some calls after the peak.
func TestSlotsUnderLoad(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	limit := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.directLimit()
	}
	started := s.start(maxDirect)
	if n := limit(); n != maxDirect {
		t.Errorf("direct fetches may use %d slots for %d calls, want %d", n, maxDirect, maxDirect)
	}
	s.wait(t.Context(), 100, busyThreshold-maxDirect)
	if n := limit(); n != maxDirectBusy {
		t.Errorf("direct fetches may use %d slots for %d calls, want %d", n, busyThreshold, maxDirectBusy)
	}
	for _, f := range started {
		f.ok()
	}
	(<-s.fetches).ok()
	s.finish()
	for range busyThreshold {
		s.start(1)[0].ok()
		s.finish()
	}
	if n := limit(); n != maxDirect {
		t.Errorf("direct fetches may use %d slots after the peak, want %d", n, maxDirect)
	}
}

// Full batches run in further slots, up to a limit. Others are queued in order.
func TestFullBatches(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	started := s.start(maxDirect)
	first := 100
	for range MaxConcurrent - maxDirect {
		for i := range MaxKeys {
			s.call(t.Context(), first+i)
		}
		f := <-s.fetches
		if len(f.keys) != MaxKeys || sorted(f.keys)[0] != first {
			t.Errorf("a full batch has %d keys from %d on", len(f.keys), sorted(f.keys)[0])
		}
		started = append(started, f)
		first += MaxKeys
	}
	s.wait(t.Context(), first, MaxKeys)
	s.wait(t.Context(), first+MaxKeys, MaxKeys)
	s.wait(t.Context(), first+2*MaxKeys, 5)
	if busy, queued := s.Stats(); busy != MaxConcurrent || queued != 2*MaxKeys+5 {
		t.Errorf("%d slots are in use and %d keys queued, want %d and %d", busy, queued, MaxConcurrent, 2*MaxKeys+5)
	}
	started[0].ok()
	for i, size := range []int{MaxKeys, MaxKeys} {
		f := <-s.fetches
		if len(f.keys) != size || sorted(f.keys)[0] != first+i*MaxKeys {
			t.Errorf("queued batch %d has %d keys from %d on", i, len(f.keys), sorted(f.keys)[0])
		}
		f.ok()
	}
	for _, f := range started[1:] {
		f.ok()
	}
	last := <-s.fetches
	if len(last.keys) != 5 {
		t.Errorf("the last batch has %d keys, want 5", len(last.keys))
	}
	last.ok()
	s.finish()
}

// A caller that gives up leaves the others of its batch their result.
func TestCancelledCall(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	started := s.start(maxDirect)
	ctx, cancel := context.WithCancel(t.Context())
	left := s.wait(ctx, 100, 1)[0]
	stayed := s.wait(t.Context(), 101, 1)[0]
	cancel()
	wantError(t, <-left, context.Canceled)
	for _, f := range started {
		f.ok()
	}
	shared := <-s.fetches
	if !slices.Equal(sorted(shared.keys), []int{100, 101}) {
		t.Errorf("the batch is of the keys %v", shared.keys)
	}
	if shared.ctx.Err() != nil {
		t.Errorf("the batch was cancelled with its first caller: %v", shared.ctx.Err())
	}
	shared.ok()
	wantError(t, <-stayed, nil)
	s.finish()
}

// A batch without an answer fails its callers after Timeout, even if it has no
// slot yet.
func TestTimeoutOfABatch(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	started := s.start(maxDirect)
	s.Timeout = time.Millisecond
	returned := s.call(context.Background(), 100)
	wantError(t, <-returned, context.DeadlineExceeded)
	for _, f := range started {
		f.ok()
	}
	expired := <-s.fetches
	wantError(t, expired.ctx.Err(), context.DeadlineExceeded)
	expired.answer <- expired.ctx.Err()
	s.finish()
}

// A caller that reads an answered batch late gets the answer, although the
// batch's context has ended. A batch that was canceled before is an error.
func TestBatchAnswerAfterCancel(t *testing.T) {
	t.Parallel()
	answered, cancelled := newBatch[int, result](time.Hour), newBatch[int, result](time.Hour)
	close(answered.done)
	answered.cancel()
	cancelled.cancel()
	for range 100 {
		wantError(t, answered.wait(t.Context()), nil)
	}
	wantError(t, cancelled.wait(t.Context()), context.Canceled)
}

// The error of a fetch is returned to all its calls, and to no others.
func TestErrors(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	direct := s.call(t.Context(), 1)
	(<-s.fetches).answer <- errFetch
	wantError(t, <-direct, errFetch)

	s.finish()
	started := s.start(maxDirect)
	returned := s.wait(t.Context(), 100, 10)
	for _, f := range started {
		f.ok()
	}
	(<-s.fetches).answer <- errFetch
	for _, r := range returned {
		wantError(t, <-r, errFetch)
	}
	s.finish()
}

// A panic in a batch fails its calls. The Loader remains usable.
func TestPanicOfABatch(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	load := s.Fetch
	s.Fetch = func(ctx context.Context, keys []int) (result, error) {
		if _, err := load(ctx, keys); err == errFetch {
			panic("a bug")
		}
		return nil, nil
	}
	started := s.start(maxDirect)
	returned := s.wait(t.Context(), 100, 3)
	for _, f := range started {
		f.ok()
	}
	(<-s.fetches).answer <- errFetch
	for _, r := range returned {
		var panicked *PanicError
		if err := <-r; !errors.As(err, &panicked) || panicked.Value != "a bug" || err.Error() != "panic: a bug" {
			t.Errorf("got the error %v, want a PanicError", err)
		}
	}
	s.finish()
}

// A direct fetch without an answer keeps its call waiting, but not its slot.
func TestSlotTimeout(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	s.SlotTimeout = time.Millisecond
	hung := s.start(maxDirect)
	s.until(func() bool {
		busy, _ := s.Stats()
		return busy == 0
	})
	s.SlotTimeout = time.Hour
	next := s.start(1)
	for _, f := range append(hung, next...) {
		f.ok()
	}
	s.finish()
}

// A slot that was taken from a direct fetch runs the pending batch.
func TestSlotTimeoutRunsTheBatch(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	s.SlotTimeout = time.Millisecond
	var hung []fetch
	var returned []<-chan error
	for len(returned) < 50 {
		returned = append(returned, s.call(t.Context(), len(returned)))
	}
	keys := 0
	for keys < len(returned) {
		f := <-s.fetches
		hung = append(hung, f)
		keys += len(f.keys)
	}
	for _, f := range hung {
		f.ok()
	}
	for _, r := range returned {
		wantError(t, <-r, nil)
	}
	s.finish()
}

// A direct fetch honours the deadline of its caller, but not cancellation.
func TestContextOfADirectFetch(t *testing.T) {
	t.Parallel()
	deadlines := func(ctx context.Context) (left time.Duration) {
		if at, ok := ctx.Deadline(); ok {
			left = time.Until(at).Round(time.Minute)
		}
		return left
	}
	type key struct{}
	for name, test := range map[string]struct {
		deadline time.Duration // of the caller
		timesOut func() bool
		want     time.Duration
	}{
		"no deadline":                     {0, nil, time.Hour},
		"a fetch that times out":          {0, func() bool { return true }, 0},
		"a fetch that may not time out":   {0, func() bool { return false }, time.Hour},
		"an earlier deadline":             {time.Minute, func() bool { return true }, time.Minute},
		"a later deadline than Timeout's": {2 * time.Hour, func() bool { return true }, time.Hour},
	} {
		s := newSource(t)
		s.TimesOut = test.timesOut
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		if test.deadline != 0 {
			ctx, cancel = context.WithTimeout(ctx, test.deadline)
		}
		returned := s.call(ctx, 1)
		f := <-s.fetches
		if got := deadlines(f.ctx); got != test.want {
			t.Errorf("%s: the fetch has %v, want %v", name, got, test.want)
		}
		if f.ctx.Value(key{}) != "value" {
			t.Errorf("%s: the fetch has lost the values of its context", name)
		}
		cancel()
		if err := f.ctx.Err(); (err != nil) != (test.deadline != 0) {
			t.Errorf("%s: after cancellation the fetch's context has the error %v", name, err)
		}
		f.ok()
		wantError(t, <-returned, nil)
		s.finish()
	}

	// A caller that has left already gets no fetch, and keeps no slot.
	s := newSource(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 * maxDirect {
		wantError(t, <-s.call(ctx, 1), context.Canceled)
	}
	s.finish()
}

// Concurrent calls all get a result that has their key, in few fetches.
func TestConcurrentCalls(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	running, most := 0, 0
	l := &Loader[int, map[int]int]{Timeout: time.Hour, SlotTimeout: time.Hour}
	l.Fetch = func(_ context.Context, keys []int) (map[int]int, error) {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		runtime.Gosched()
		squares := map[int]int{}
		for _, key := range keys {
			squares[key] = key * key
		}
		mu.Lock()
		running--
		mu.Unlock()
		return squares, nil
	}
	var calls sync.WaitGroup
	for worker := range 200 {
		calls.Go(func() {
			for i := range 50 {
				key := worker*50 + i
				if squares, err := l.Load(t.Context(), key); err != nil || squares[key] != key*key {
					t.Errorf("%d: %d, %v", key, squares[key], err)
				}
			}
		})
	}
	calls.Wait()
	if most > MaxConcurrent {
		t.Errorf("%d fetches ran concurrently, more than %d", most, MaxConcurrent)
	}
}
