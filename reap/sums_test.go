package reap_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/reap"
)

// A world is a server with several reapers and faults, all by one random number.
type world struct {
	t      *testing.T
	random *rand.Rand
	policy reap.Policy
	items  map[string]reap.Item
	used   map[string]bool
	made   int

	lists, deleted, wasted int // by the pass
	tried                  map[string]int
	last                   reap.Report
}

const nowGeneration = 8

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, random: rand.New(rand.NewPCG(seed, 1)), items: map[string]reap.Item{}, used: map[string]bool{}, tried: map[string]int{}}
	w.policy = reap.Policy{
		Keep: w.random.IntN(4) - 1, OnConflict: reap.Conflict(w.random.IntN(3)), Limit: 1 + w.random.IntN(12),
		MaxConflicts: w.random.IntN(5), MaxFailures: w.random.IntN(5), OnWait: w.wait,
		InUse: func(_ context.Context, item reap.Item) (bool, error) {
			if w.chance(30) {
				return false, errors.New("the index can't be read")
			}
			return w.used[item.ID], nil
		},
	}
	if w.chance(4) {
		w.policy.MinAge = reap.NoMinAge
	}
	if w.chance(3) {
		w.policy.Led = []generation.Generation{3, 8, 5, 5, 9}
	}
	for range w.random.IntN(25) {
		w.make()
	}
	return w
}

func (w *world) chance(oneIn int) bool { return w.random.IntN(oneIn) == 0 }

// make puts an item that may be of any generation and age.
func (w *world) make() {
	w.made++
	item := reap.Item{
		ID: fmt.Sprintf("item-%d", w.made), Made: token(generation.Generation(1 + w.random.IntN(9))),
		At: time.Now().Add(-time.Duration(w.random.IntN(1200)) * time.Second),
	}
	switch w.random.IntN(12) {
	case 0:
		item.Made = fence.Token{}
	case 1:
		item.At = time.Time{}
	case 2:
		w.used[item.ID] = true
	}
	w.items[item.ID] = item
}

// wait is told of a wait: meanwhile others make and delete items.
func (w *world) wait(told reap.Wait) {
	require.Positive(w.t, told.For)
	require.NotEmpty(w.t, told.Reason)
	require.NotEmpty(w.t, told.Detail)
	for id := range w.items {
		if w.chance(6) {
			delete(w.items, id)
		}
	}
	if w.chance(2) {
		w.make()
	}
}

func (w *world) source() reap.Source {
	return reap.Source{List: w.list, Delete: w.delete, Remaining: func() int { return w.random.IntN(4500) - 1 }}
}

func (w *world) list(context.Context) (all []reap.Item, err error) {
	w.lists++
	switch {
	case w.chance(25):
		return nil, errors.New("500")
	case w.chance(10):
		return nil, &reap.LimitedError{RetryAfter: time.Duration(w.random.IntN(60)) * time.Second}
	}
	for _, item := range w.items {
		all = append(all, item)
		if w.chance(8) { // of another page
			item.Made, item.At = fence.Token{}, time.Time{}
			all = append(all, item)
		}
	}
	return all, nil
}

func (w *world) delete(_ context.Context, item reap.Item) error {
	switch {
	case w.chance(12):
		return &reap.LimitedError{}
	case w.chance(200):
		w.tried[item.ID]++
		return fmt.Errorf("refused: %w", &fence.Error{Held: token(8), Guard: "bucket"})
	}
	w.tried[item.ID]++
	there, ok := w.items[item.ID]
	switch {
	case w.chance(12):
		return errors.New("503")
	case !ok, w.chance(9):
		delete(w.items, item.ID)
		w.wasted++
		return fmt.Errorf("404: %w", reap.ErrGone)
	}
	require.Equal(w.t, there, item)
	w.mayDelete(item)
	delete(w.items, item.ID)
	w.deleted++
	return nil
}

// mayDelete says once more, in other words, which items may be deleted.
func (w *world) mayDelete(item reap.Item) {
	older := 0
	for g := item.Made.Generation; g < nowGeneration; g++ {
		if w.policy.Led == nil || g > item.Made.Generation && slices.Contains(w.policy.Led, g) {
			older++
		}
	}
	keep := map[int]int{-1: 0, 0: 1, 1: 1, 2: 2}[w.policy.Keep]
	if w.policy.Led == nil {
		older-- // its own
	}
	require.GreaterOrEqual(w.t, older, keep, "kept for a rollback")
	require.Less(w.t, item.Made.Generation, generation.Generation(nowGeneration))
	require.NotZero(w.t, item.Made)
	require.False(w.t, w.used[item.ID])
	if w.policy.MinAge == 0 {
		require.GreaterOrEqual(w.t, time.Since(item.At), 10*time.Minute)
		require.NotZero(w.t, item.At)
	}
}

// check compares a report with what has really happened.
func (w *world) check(r reap.Report) {
	require.NoError(w.t, r.Check())
	require.Equal(w.t, []int{w.lists, w.deleted, w.wasted}, []int{r.Lists, r.Deleted, r.Gone})
	require.GreaterOrEqual(w.t, r.Listed, w.last.Listed)
	require.GreaterOrEqual(w.t, r.Slept(), w.last.Slept())
	w.last = r
}

func TestTheSumsOfAReportAddUpAfterEveryStep(t *testing.T) {
	t.Parallel()
	stops := map[reap.Stop]int{}
	for seed := range uint64(400) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed)
			r, err := reap.Pass(t.Context(), w.source(), token(nowGeneration), w.policy.WithStep(w.check))
			w.check(r)
			w.ended(r, err)
			stops[r.Stopped]++
			for id, n := range w.tried {
				require.Equal(t, 1, n, "%s: tried more than once", id)
			}
		})
	}
	t.Log(stops)
	for _, s := range []reap.Stop{
		reap.StoppedDone, reap.StoppedYoung, reap.StoppedYielded, reap.StoppedRoom, reap.StoppedConflicts,
		reap.StoppedFailures, reap.StoppedFenced, reap.StoppedList,
	} {
		require.Contains(t, stops, s, "no seed comes to this end")
	}
}

// ended checks that the error and what is left agree with the stop.
func (w *world) ended(r reap.Report, err error) {
	switch r.Stopped {
	case reap.StoppedDone, reap.StoppedYoung:
		require.NoError(w.t, err)
		require.Zero(w.t, r.Left)
		require.Equal(w.t, r.Stopped == reap.StoppedYoung, r.Kept.Young > 0)
	case reap.StoppedFailures:
		require.ErrorIs(w.t, err, reap.ErrFailures)
	case reap.StoppedFenced:
		require.ErrorIs(w.t, err, fence.ErrFenced)
	case reap.StoppedList:
		require.Error(w.t, err)
	default:
		require.NoError(w.t, err)
	}
}

func TestTheHostLockIsHeldDuringEachCallOfTheSourceAndDuringNoWait(t *testing.T) {
	t.Parallel()
	lock := reap.HostLock{Path: filepath.Join(t.TempDir(), "lock")}
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed)
			src, p, waited := w.source(), w.policy, 0
			p.Lock = lock.Path
			p.OnWait = func(told reap.Wait) {
				held, err := lock.TryLock()
				require.NoError(t, err, "%v", told)
				require.NoError(t, held.Unlock())
				waited++
				w.wait(told)
			}
			isLocked := func() {
				_, err := lock.TryLock()
				require.ErrorIs(t, err, reap.ErrLocked)
			}
			_, _ = reap.Pass(t.Context(), reap.Source{
				List:   func(ctx context.Context) ([]reap.Item, error) { isLocked(); return src.List(ctx) },
				Delete: func(ctx context.Context, item reap.Item) error { isLocked(); return src.Delete(ctx, item) },
			}, token(nowGeneration), p)
			held, err := lock.TryLock()
			require.NoError(t, err, "behind the pass")
			require.NoError(t, held.Unlock())
		})
	}
}
