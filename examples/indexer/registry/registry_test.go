package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/work"
	"github.com/fencepost/fencepost/work/worktest"
)

// A shelf is an index in memory. It refuses tokens below the highest that it has seen,
// as the index in git does.
type shelf struct {
	mu     sync.Mutex
	files  map[string]string
	newest fence.Token
	syncs  int

	before func(name string) error // called before each sync, without the lock
}

func newShelf() *shelf { return &shelf{files: map[string]string{}} }

func (s *shelf) Sync(ctx context.Context, token fence.Token, name string, content []byte) (string, error) {
	if s.before != nil {
		if err := s.before(name); err != nil {
			return "", err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if token.Compare(s.newest) < 0 {
		return "", &fence.Error{Held: token, Current: s.newest, Guard: "shelf"}
	}
	s.newest, s.files[name] = token, string(content)
	s.syncs++
	return fmt.Sprint(s.syncs), ctx.Err()
}

func (s *shelf) content() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.files)
}

func open(t *testing.T, store *memory.Store, g generation.Generation) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: g})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func accept(t *testing.T, c *catalog.Catalog, change Change) error {
	t.Helper()
	return c.Update(t.Context(), func(tx *catalog.Tx) error { return Accept(tx, change, time.Now()) })
}

// change is one of left-pad 1.0.0.
func change(id string, op Op) Change {
	c := Change{ID: id, Op: op, Name: "left-pad", Version: "1.0.0"}
	if op == Publish {
		c.Checksum = strings.Repeat("0", checksum)
	}
	return c
}

func told(t *testing.T, c *catalog.Catalog, id string) Fate {
	t.Helper()
	var f Fate
	require.NoError(t, c.View(func(r *catalog.Reader) (err error) {
		f, err = Tell(r, c.Head(), id, time.Now())
		return err
	}))
	return f
}

func do(t *testing.T, c *catalog.Catalog, fn func(tx *catalog.Tx) error) {
	t.Helper()
	require.NoError(t, c.Update(t.Context(), fn))
}

// start runs the jobs of c in the background.
func start(t *testing.T, c *catalog.Catalog, index Index) (stop func()) {
	t.Helper()
	q, err := work.New(c, work.Config{Kinds: Kinds(c, index)})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = q.Run(ctx) }() // it ends with ctx, or with the token
	return func() { cancel(); <-done }
}

func TestEachStageOfAChangeIsToldOverFailuresCoalescingAndAPromotion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, index := memory.New(), newShelf()
		runs := make(chan error)
		index.before = func(string) error { return <-runs }
		c := open(t, store, 1)
		require.NoError(t, accept(t, c, change("one", Publish)))
		require.Equal(t, Queued, told(t, c, "one").Stage)
		stop := start(t, c, index)
		synctest.Wait()
		require.Equal(t, Running, told(t, c, "one").Stage)
		require.NoError(t, accept(t, c, change("two", Yank)))
		synctest.Wait()
		require.Equal(t, Queued, told(t, c, "two").Stage, "the sync that runs has read the package before")

		runs <- errors.New("the index is away")
		synctest.Wait()
		for _, id := range []string{"one", "two"} {
			f := told(t, c, id)
			require.Contains(t, []Stage{Retrying, Queued}, f.Stage)
		}
		f := told(t, c, "one")
		require.Equal(t, Retrying, f.Stage)
		require.Equal(t, "the index is away", f.Error)
		require.Equal(t, 1, f.Attempt)
		require.WithinDuration(t, time.Now(), f.Retry, firstRetry)

		<-time.After(firstRetry) // one run for both
		synctest.Wait()
		require.Equal(t, Running, told(t, c, "one").Stage)
		require.Equal(t, Running, told(t, c, "two").Stage)
		runs <- errors.New("still away")
		synctest.Wait()
		require.Equal(t, Retrying, told(t, c, "one").Stage, "the failure is that of the newer job")
		require.Equal(t, "still away", told(t, c, "one").Error)
		stop()

		next := open(t, store, 2) // a promotion: nothing of it is forgotten
		require.Equal(t, Retrying, told(t, next, "one").Stage)
		require.Equal(t, "still away", told(t, next, "two").Error)
		stop = start(t, next, index)
		<-time.After(lastRetry)
		synctest.Wait()
		require.NoError(t, accept(t, next, change("three", Unyank)))
		runs <- nil
		synctest.Wait()
		require.Equal(t, Running, told(t, next, "three").Stage, "the sync that has ended has not read it")
		for _, id := range []string{"one", "two"} {
			f := told(t, next, id)
			require.Equal(t, InIndex, f.Stage)
			require.Equal(t, next.Token(), f.Token)
			require.Equal(t, "1", f.Commit)
			require.Empty(t, f.Error)
		}
		runs <- nil
		synctest.Wait()
		require.Equal(t, InIndex, told(t, next, "three").Stage)
		stop()
	})
}

func TestOneSyncRunsAtATimeAndWhatDoesNotNeedTheIndexRunsMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		index, c := newShelf(), open(t, memory.New(), 1)
		runs := make(chan error)
		index.before = func(string) error { return <-runs }
		other := change("two", Publish)
		other.Name = "right-pad"
		require.NoError(t, accept(t, c, change("one", Publish)))
		require.NoError(t, accept(t, c, other))
		stop := start(t, c, index)
		synctest.Wait()
		require.Equal(t, Running, told(t, c, "one").Stage)
		require.Equal(t, Queued, told(t, c, "two").Stage)
		announced := 0
		require.NoError(t, c.View(func(r *catalog.Reader) error {
			return Feed(r, func(Announced) bool { announced++; return true })
		}))
		require.Equal(t, 2, announced)
		runs <- nil
		synctest.Wait()
		require.Equal(t, InIndex, told(t, c, "one").Stage)
		require.Equal(t, Running, told(t, c, "two").Stage)
		runs <- nil
		synctest.Wait()
		require.Equal(t, InIndex, told(t, c, "two").Stage)
		stop()
	})
}

func TestAChangeWhoseSyncWasGivenUpIsDeadUntilItIsRetriedOrFollowed(t *testing.T) {
	t.Parallel()
	index, c := newShelf(), open(t, memory.New(), 1)
	require.NoError(t, accept(t, c, change("one", Publish)))
	require.NoError(t, accept(t, c, change("two", Yank)))
	job := told(t, c, "one").Job
	do(t, c, func(tx *catalog.Tx) error { return work.Abandon(tx, job, "for good") })
	require.Equal(t, Queued, told(t, c, "one").Stage, "the sync of the second change reads the first one too")
	second := told(t, c, "two").Job
	do(t, c, func(tx *catalog.Tx) error { return work.Abandon(tx, second, "for good") })
	for _, id := range []string{"one", "two"} {
		require.Equal(t, Dead, told(t, c, id).Stage)
		require.Equal(t, "for good", told(t, c, id).Error)
	}
	do(t, c, func(tx *catalog.Tx) error { return work.Clear(tx, job) })
	do(t, c, func(tx *catalog.Tx) error { return work.Clear(tx, second) })
	require.Equal(t, Lost, told(t, c, "one").Stage)
	require.NoError(t, accept(t, c, change("three", Unyank)))
	require.Equal(t, Queued, told(t, c, "one").Stage)
	worktest.RunAll(t, c, work.Config{Kinds: worktest.Twice(Kinds(c, index)...)})
	require.Equal(t, InIndex, told(t, c, "one").Stage)

	index.files["left-pad"] = "from a backup"
	do(t, c, func(tx *catalog.Tx) error { _, err := Resync(tx); return err })
	require.Equal(t, Queued, told(t, c, "one").Stage)
	worktest.RunAll(t, c, work.Config{Kinds: Kinds(c, index)})
	require.Equal(t, InIndex, told(t, c, "one").Stage)
	require.Contains(t, index.files["left-pad"], `"version":"1.0.0"`)
	require.ErrorIs(t, c.View(func(r *catalog.Reader) error { _, err := Tell(r, driver.Head{}, "none", time.Now()); return err }), ErrNotFound)
}

func TestAChangeThatIsSentAgainIsDoneOnce(t *testing.T) {
	t.Parallel()
	index, c := newShelf(), open(t, memory.New(), 1)
	for range 3 {
		require.NoError(t, accept(t, c, change("one", Publish)))
	}
	require.ErrorIs(t, accept(t, c, change("one", Yank)), ErrExists)
	require.ErrorIs(t, accept(t, c, change("two", Publish)), ErrExists)
	require.NoError(t, accept(t, c, change("three", Yank)))
	require.NoError(t, accept(t, c, change("one", Publish)), "also behind another one")
	st := worktest.RunAll(t, c, work.Config{Kinds: Kinds(c, index)})
	require.EqualValues(t, 4, st.Totals.Enqueued, "a sync and an announcement for each")
	require.Contains(t, index.files["left-pad"], `"yanked":true`)
	var announced []Announced
	require.NoError(t, c.View(func(r *catalog.Reader) error {
		return Feed(r, func(a Announced) bool { announced = append(announced, a); return true })
	}))
	require.Equal(t, []Announced{{Publish, "left-pad", "1.0.0", "one"}, {Yank, "left-pad", "1.0.0", "three"}}, announced)
}

func TestAChangeThatCantBeOneIsRefusedAndEnqueuesNothing(t *testing.T) {
	t.Parallel()
	c := open(t, memory.New(), 1)
	for _, spoil := range []func(*Change){
		func(c *Change) { c.ID = "" },
		func(c *Change) { c.ID = strings.Repeat("x", maxID+1) },
		func(c *Change) { c.ID = "a/b" },
		func(c *Change) { c.Op = "" },
		func(c *Change) { c.Op = "delete" },
		func(c *Change) { c.Name = "../etc" },
		func(c *Change) { c.Name = ".git" },
		func(c *Change) { c.Version = "" },
		func(c *Change) { c.Version = "1/2" },
		func(c *Change) { c.Version = "1.0\n" },
		func(c *Change) { c.Version = "a\xffb" },
		func(c *Change) { c.Checksum = "" },
		func(c *Change) { c.Checksum = strings.Repeat("Z", checksum) },
		func(c *Change) { c.Op = Yank },
	} {
		bad := change("one", Publish)
		spoil(&bad)
		require.ErrorIs(t, accept(t, c, bad), ErrInvalid, "%+v", bad)
	}
	require.ErrorIs(t, accept(t, c, change("one", Yank)), ErrNotFound)
	require.ErrorIs(t, accept(t, c, change("one", Unyank)), ErrNotFound)
	require.NoError(t, c.View(func(r *catalog.Reader) error {
		st, err := work.Read(r, driver.Head{}, time.Now())
		require.Zero(t, st.Totals.Enqueued)
		return err
	}))
}

// Several generations follow one another, at any moment, over an index that fails at
// any moment, and workers that are delayed until long behind the next holder's sync.
func TestChangesInQuickSuccessionEndWithTheIndexEqualInAnyOrderOfExecution(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			play(t, rand.New(rand.NewPCG(seed, 1)))
		})
	}
}

func play(t *testing.T, by *rand.Rand) {
	store, index := memory.New(), newShelf()
	var mu sync.Mutex
	chance := func(n int) int { mu.Lock(); defer mu.Unlock(); return by.IntN(n) }
	var healthy atomic.Bool
	index.before = func(string) error {
		delay := time.Duration(chance(300)) * time.Millisecond
		if chance(6) == 0 { // until long behind the next holder's sync
			delay *= 50
		}
		<-time.After(delay)
		if !healthy.Load() && chance(3) == 0 {
			return errors.New("the index is away")
		}
		return nil
	}
	c := open(t, store, 1)
	stops := []func(){start(t, c, index)}
	var ids []string
	published := map[string]bool{}
	for g, n := generation.Generation(1), 0; n < 100; n++ {
		if chance(20) == 0 {
			if chance(2) == 0 {
				g++
			}
			c = open(t, store, g)
			stops = append(stops, start(t, c, index))
		}
		next := Change{ID: fmt.Sprint(n), Op: []Op{Yank, Unyank}[chance(2)], Name: []string{"a", "b", "c"}[chance(3)], Version: fmt.Sprint(chance(3))}
		if key := entry(next.Name, next.Version); !published[key] {
			published[key] = true
			next.Op, next.Checksum = Publish, strings.Repeat("0", checksum)
		}
		require.NoError(t, accept(t, c, next))
		ids = append(ids, next.ID)
		<-time.After(time.Duration(chance(50)) * time.Millisecond)
	}
	healthy.Store(true)
	<-time.After(time.Minute)
	var wanted map[string]string
	announced := map[string]int{}
	require.NoError(t, c.View(func(r *catalog.Reader) (err error) {
		if wanted, err = All(r); err != nil {
			return err
		}
		return Feed(r, func(a Announced) bool { announced[a.Change]++; return true })
	}))
	require.Equal(t, wanted, index.content())
	require.Len(t, announced, len(ids))
	for _, id := range ids {
		require.Equal(t, InIndex, told(t, c, id).Stage)
		require.Equal(t, 1, announced[id])
	}
	for _, stop := range stops {
		stop()
	}
}
