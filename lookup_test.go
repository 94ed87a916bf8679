package session

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/candysession/session/internal/batch"
	"github.com/candysession/session/internal/store"
	"github.com/candysession/session/internal/testdb"
	"github.com/candysession/session/internal/token"
)

// queued returns the number of requests that wait in batches.
func queued(l *store.Lookup[user]) int {
	_, queued := l.Loader.Stats()
	return queued
}

// slotsBusy returns the number of slots in use.
func slotsBusy(l *store.Lookup[user]) int {
	busy, _ := l.Loader.Stats()
	return busy
}

// fillSlots takes every direct slot with a lookup of an unknown selector, so that
// the next requests wait in one batch.
func fillSlots(f *fixture[user]) *sync.WaitGroup {
	var wg sync.WaitGroup
	for range directSlots {
		wg.Go(func() {
			if _, err := f.auth.bySelector.Find(context.Background(), token.New().Selector, ""); err != ErrUnknownSession && !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrConfig) {
				f.t.Error(err)
			}
		})
	}
	waitUntil(f.t, func() bool { return slotsBusy(f.auth.bySelector) == directSlots })
	return &wg
}

func TestLookupBatches(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	ours, bobs := newBrowser(""), newBrowser("")
	f.login(ours, alice)
	f.login(bobs, bob)
	release := lockTables(f)
	wg := fillSlots(f)
	cancelled, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := f.auth.bySelector.Find(cancelled, selectorOf(ours), selectorOf(ours))
		left <- err
	}()
	for i := range 39 {
		wg.Go(func() {
			selector, id := selectorOf(ours), int64(1)
			switch i % 3 {
			case 1:
				selector, id = selectorOf(bobs), 2
			case 2:
				selector, id = token.New().Selector, 0
			}
			found, err := f.auth.bySelector.Find(context.Background(), selector, selector)
			if id == 0 && err != ErrUnknownSession || id != 0 && (err != nil || found.User.ID != id || found.Selector != selector) {
				t.Errorf("%d: %+v, %v", id, found.User, err)
			}
		})
	}
	waitUntil(t, func() bool { return queued(f.auth.bySelector) == 40 })

	// One client disconnects. The others get their rows.
	cancel()
	wantError(t, <-left, context.Canceled)
	release()
	wg.Wait()
	waitUntil(t, func() bool { return slotsBusy(f.auth.bySelector) == 0 })
	if got := f.auth.bySelector.Prepared(); fmt.Sprint(got) != "[1 64]" {
		t.Errorf("40 waiting requests did not share one statement for 64 keys: there are statements for %v", got)
	}
}

// A database that does not respond keeps requests waiting, but not their slots.
func TestHungLookupsFreeTheirSlots(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b := newBrowser("")
	f.login(b, alice)
	release := lockTables(f)
	f.auth.bySelector.Loader.SlotTimeout = time.Millisecond
	var wg sync.WaitGroup
	for range directSlots + 3 {
		wg.Go(func() {
			if found, err := f.auth.bySelector.Find(context.Background(), selectorOf(b), selectorOf(b)); err != nil || found.User.ID != 1 {
				t.Errorf("%v, %v", found, err)
			}
		})
	}
	waitUntil(t, func() bool { return slotsBusy(f.auth.bySelector) == 0 || queued(f.auth.bySelector) == 0 })

	// A deadline also holds for a request that has a slot.
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := f.auth.bySelector.Find(ctx, selectorOf(b), selectorOf(b)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("past its deadline: %v", err)
	}
	release()
	wg.Wait()
	waitUntil(t, func() bool { return isIdle(f.auth.bySelector) })
	f.wantLoggedIn(b)
}

// Full batches use slots of their own, up to a limit, and every request gets
// its row.
func TestFullLookupBatches(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b := newBrowser("")
	f.login(b, alice)
	release := lockTables(f)
	wg := fillSlots(f)
	const n = batch.MaxKeys*(batch.MaxConcurrent+2) + 5
	for range n {
		wg.Go(func() {
			if found, err := f.auth.bySelector.Find(context.Background(), selectorOf(b), selectorOf(b)); err != nil || found.User.ID != 1 {
				t.Errorf("%+v, %v", found.User, err)
			}
		})
	}
	waitUntil(t, func() bool { return queued(f.auth.bySelector) == n-batch.MaxKeys*(batch.MaxConcurrent-directSlots) })
	if busy := slotsBusy(f.auth.bySelector); busy != batch.MaxConcurrent {
		t.Errorf("%d slots are in use, want %d", busy, batch.MaxConcurrent)
	}
	release()
	wg.Wait()
	waitUntil(t, func() bool { return isIdle(f.auth.bySelector) })
}

func TestFailedBatchFailsAllItsRequests(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	b := newBrowser("")
	f.login(b, alice)
	release := lockTables(f)
	wg := fillSlots(f)
	for range 10 {
		wg.Go(func() {
			if _, err := f.auth.bySelector.Find(context.Background(), selectorOf(b), selectorOf(b)); !errors.Is(err, ErrConfig) {
				t.Error(err)
			}
		})
	}
	waitUntil(t, func() bool { return queued(f.auth.bySelector) == 10 })
	release("ALTER TABLE users RENAME COLUMN email TO mail")
	wg.Wait()
	mustExec(t, f.db, "ALTER TABLE users RENAME COLUMN mail TO email")
	f.wantLoggedIn(b)
}

// A strict is a user that can't be read without a name. Scan panics for one
// name.
type strict struct {
	ID   int64      `db:"id"`
	Name strictName `db:"name"`
}

type strictName string

func (n *strictName) Scan(v any) error {
	text, ok := v.([]byte)
	switch {
	case !ok:
		return errors.New("no name")
	case string(text) == "panic":
		panic("a bug of the app")
	}
	*n = strictName(text)
	return nil
}

var _ sql.Scanner = (*strictName)(nil)

func TestOneBadRowFailsOnlyItsOwnRequest(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	mustExec(t, f.db, "UPDATE users SET name = 'Alice' WHERE id = 1")
	named := newManager[strict](t, f.db, f.dsn, Config{})
	ours, bobs, gone := newBrowser(""), newBrowser(""), newBrowser("")
	f.login(ours, alice)
	f.login(bobs, bob)
	f.login(gone, bob)
	mustExec(t, f.db, "INSERT INTO users (id, email) VALUES (3, 'gone@example.com')")
	mustExec(t, f.db, "UPDATE user_tokens SET user = 99 WHERE token_x = ?", selectorOf(gone))
	rows, err := named.auth.bySelector.Read(t.Context(), []any{selectorOf(ours), selectorOf(bobs), selectorOf(gone)})
	noError(t, err)
	if found, err := rows.Row(selectorOf(ours)); err != nil || found.User.Name != "Alice" {
		t.Errorf("alice: %+v, %v", found.User, err)
	}
	if _, err := rows.Row(selectorOf(bobs)); err == nil || !strings.Contains(err.Error(), "no name") {
		t.Errorf("bob: %v", err)
	}
	if found, err := rows.Row(selectorOf(gone)); err != nil || found.Owner != nil {
		t.Errorf("gone: %+v, %v", found, err)
	}
	// A user who can't be read gets an error, and is not logged out.
	if response := bobs.do(named.auth.Middleware(http.NotFoundHandler()), "GET", "/"); response.StatusCode != http.StatusServiceUnavailable {
		t.Error(response.Status)
	}
}

// A Scan method that panics fails the request of its row.
func TestPanicInScan(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	mustExec(t, f.db, "UPDATE users SET name = 'panic' WHERE id = 1")
	named := newManager[strict](t, f.db, f.dsn, Config{})
	b := newBrowser("")
	f.login(b, alice)
	rows, err := named.auth.bySelector.Read(t.Context(), []any{selectorOf(b)})
	noError(t, err)
	if _, err := rows.Row(selectorOf(b)); err == nil || !strings.Contains(err.Error(), "a bug of the app") {
		t.Error(err)
	}
}

// Revocation is exact. Under load, when lookups share statements, no lookup
// that starts after a revocation returns the session. This is counted, not
// timed.
func TestRevocationIsExactUnderLoad(t *testing.T) {
	t.Parallel()
	testdb.SkipEmbedded(t, "loses concurrent writes")
	f := setup(t, Config{})
	var stop atomic.Bool
	var checks atomic.Int64
	background := newBrowser("")
	f.login(background, bob)
	secret := tokenOf(background)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for !stop.Load() {
				_, err := f.auth.sessionByToken(context.Background(), secret, f.auth.verifier.KeyFor(secret))
				if err == nil {
					_, err = f.auth.bySelector.Find(context.Background(), secret.Selector, secret.Selector)
				}
				if err != nil {
					t.Error(err)
					return
				}
				checks.Add(1)
			}
		})
	}
	var revokers sync.WaitGroup
	var accepted, acceptedRevoked atomic.Int64
	for range 8 {
		revokers.Go(func() {
			for range 40 {
				b := newBrowser("")
				var id string
				f.serve(b, func(w http.ResponseWriter, r *http.Request) {
					if _, err := f.auth.LoginAs(w, r, 1); err != nil {
						t.Error(err)
					}
					id = f.auth.Session(r).ID
				})
				if f.errOf(b) == nil {
					accepted.Add(1)
				}
				if err := f.auth.Revoke(context.Background(), 1, id); err != nil {
					t.Error(err)
				}
				for range 3 {
					if f.errOf(b) == nil {
						acceptedRevoked.Add(1)
					}
				}
			}
		})
	}
	revokers.Wait()
	stop.Store(true)
	wg.Wait()
	if acceptedRevoked.Load() != 0 || accepted.Load() != 8*40 {
		t.Errorf("%d of %d checks of a revoked session accepted it; %d of %d of a valid one did", acceptedRevoked.Load(), 3*8*40, accepted.Load(), 8*40)
	}
	t.Log(fmt.Sprint(checks.Load(), " other checks meanwhile"))
}
