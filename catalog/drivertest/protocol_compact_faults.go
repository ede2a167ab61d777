package drivertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

func compactionAnswersLost(s *scene) {
	h, r, cfg := s.compacting()
	publish, trim := h.onPublish, h.onTrim
	var stages, publishes, trims int
	loseTrim := false // the one behind the snapshot; there is one before, of nothing
	h.onStage = func(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
		err := h.Store.Stage(ctx, by, id, n, part)
		if stages++; stages == 1 && err == nil {
			return lost(h.Store, "stage")
		}
		return err
	}
	h.onPublish = func(ctx context.Context, by driver.Claim, snapshot driver.Snapshot) error {
		err := publish(ctx, by, snapshot)
		if publishes++; publishes == 1 && err == nil {
			loseTrim = true
			return lost(h.Store, "publish")
		}
		return err
	}
	h.onTrim = func(ctx context.Context, by driver.Claim) (bool, error) {
		more, err := trim(ctx, by)
		if loseTrim && err == nil {
			loseTrim = false
			trims++
			return more, lost(h.Store, "trim")
		}
		return more, err
	}
	c := s.claimsOver(h, cfg)
	s.put(c, "k", "v")
	found := s.compactsNow(c, r)
	require.NotZero(s, found.Parts)
	require.NoError(s, c.Err())
	require.Equal(s, s.contents(c), s.contents(s.follows(0)))
	require.NoError(s, c.Close())
	require.Greater(s, stages, 1)
	require.Greater(s, publishes, 1)
	require.Equal(s, 1, trims, "answers that were lost")
}

func compactionFails(s *scene) {
	h, r, cfg := s.compacting()
	told := newLogs()
	cfg.Logger = told.logger()
	failing := errors.New("no compaction today")
	var stages int
	h.onStage = func(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
		if stages++; stages == 1 {
			return &driver.Error{Class: driver.Class{Disposition: exitcodes.Halt}, Store: h.String(), Op: "stage", Err: failing}
		}
		return h.Store.Stage(ctx, by, id, n, part)
	}
	cfg.CompactAfter = 32 << 10
	c := s.claimsOver(h, cfg)
	s.awaitDone(r.tidy)
	s.put(c, "k", string(pattern(40<<10)))
	s.tells(told, "was not compacted")
	require.NoError(s, c.Update(Context(s), func(tx *catalog.Tx) error { // a small one: the log before it still counts
		_, err := entries().Delete(tx, "k")
		return err
	}))
	s.awaitDone(r.tidy)
	require.EqualValues(s, 1, r.times.Load(), "compactions")
	require.NoError(s, c.Err())
	require.Contains(s, told.String(), failing.Error())
	require.Equal(s, 1, strings.Count(told.String(), "was not compacted"))
	require.Equal(s, s.contents(c), s.contents(s.follows(0)))
}

func compactionLeftBehind(s *scene) {
	c := s.claims(1)
	for i := range 20 {
		s.put(c, fmt.Sprint(i), "v")
	}
	want, st := s.contents(c), s.store()
	log := ReadLog(s, st, 0)
	snapshotOf := func(rec driver.Record) driver.Snapshot {
		return driver.Snapshot{ID: driver.NewID(), Revision: rec.Revision, Commit: rec.ID, Token: rec.Token, Parts: 1}
	}
	dead := snapshotOf(log[5])
	require.NoError(s, st.Stage(Context(s), c.Claim(), dead.ID, 0, []byte("never published")))
	require.NoError(s, c.Close())

	h, r, cfg := s.compacting()
	cfg.CompactAfter = 1 << 20
	next := s.claimsOver(h, cfg)
	s.awaitDone(r.tidy)
	require.ErrorIs(s, st.Publish(Context(s), next.Claim(), dead), driver.ErrCorrupt, "the parts are still there")
	require.Equal(s, want, s.contents(next))
	require.NoError(s, next.Close())

	// The next one dies behind its Publish, and before its Trim.
	h, _, cfg = s.compacting()
	trim, died, once := h.onTrim, make(chan struct{}), sync.Once{}
	h.onTrim = func(ctx context.Context, by driver.Claim) (bool, error) {
		if found, err := catalog.Compacted(ctx, st); err != nil || found.IsZero() {
			return trim(ctx, by)
		}
		once.Do(func() { close(died) })
		<-ctx.Done()
		return false, lost(st, "trim")
	}
	cfg.StoreTimeout, cfg.RetryBudget = time.Second, time.Millisecond
	next = s.claimsOver(h, cfg)
	s.put(next, "compact", string(pattern(1000)))
	s.awaitDone(died)
	require.NoError(s, next.Close())
	want = s.contents(s.follows(0))
	require.Len(s, want, 21)
	kept, err := catalog.Compacted(Context(s), st)
	require.NoError(s, err)
	require.NotEmpty(s, ReadLog(s, st, kept.Revision-2), "nothing was left behind")

	h, r, cfg = s.compacting()
	third := s.claimsOver(h, cfg)
	s.awaitDone(r.tidy)
	require.ErrorIs(s, st.Log(Context(s), kept.Revision-2, func(driver.Record) error { return nil }), driver.ErrCompacted)
	require.Equal(s, want, s.contents(third))
}

func closeDuringCompaction(s *scene) {
	h, _, cfg := s.compacting()
	cfg.CompactAfter = 4 * driver.MaxPart
	reached, goOn := make(chan struct{}), make(chan struct{})
	stages := 0
	h.onStage = func(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
		if stages++; stages == 1 {
			close(reached)
			<-goOn
		}
		return h.Store.Stage(ctx, by, id, n, part)
	}
	c := s.claimsOver(h, cfg)
	for i := range 9 {
		s.put(c, fmt.Sprint(i), string(pattern(driver.MaxPart/2)))
	}
	want := s.contents(c)
	s.awaitDone(reached)
	closed := async(c.Close)
	s.awaitDone(c.Done())
	close(goOn)
	require.NoError(s, <-closed)
	require.Equal(s, 1, stages, "parts of five that were staged")
	require.Equal(s, want, s.contents(s.follows(0)))
}

func snapshotLacksAPart(s *scene) {
	h, r, cfg := s.compacting()
	c := s.claimsOver(h, cfg)
	for i := range 3 {
		s.put(c, fmt.Sprint(i), string(pattern(driver.MaxPart/2)))
	}
	require.Greater(s, s.compactsNow(c, r).Parts, 1)
	require.Equal(s, s.contents(c), s.contents(s.follows(0)))
	st := s.store()
	for what, spoil := range map[string]func(n int, part []byte) ([]byte, bool){
		"the first is missing": func(n int, part []byte) ([]byte, bool) { return part, n > 0 },
		"the last is missing":  func(n int, part []byte) ([]byte, bool) { return part, n == 0 },
		"all are missing":      func(n int, part []byte) ([]byte, bool) { return part, false },
		"one is cut":           func(n int, part []byte) ([]byte, bool) { return part[:len(part)-min(n, 1)], true },
		"one is longer":        func(n int, part []byte) ([]byte, bool) { return append(part, 1), true },
	} {
		spoilt := &hooked{Store: st, onSnapshot: func(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
			n := 0
			return st.Snapshot(ctx, func(snapshot driver.Snapshot, part []byte) error {
				part, there := spoil(n, part)
				if n++; !there {
					return nil
				}
				return fn(snapshot, part)
			})
		}}
		_, err := catalog.Follow(Context(s), spoilt, config(0))
		require.ErrorIs(s, err, driver.ErrCorrupt, what)
		require.Equal(s, exitcodes.Panic, exitcodes.Of(err), what)
	}
}

// claimMeetsCompaction compacts the log behind what a follower has read: before it
// begins to follow, and before it claims.
func claimMeetsCompaction(s *scene) {
	h, r, cfg := s.compacting()
	c := s.claimsOver(h, cfg)
	s.put(c, "before", "v")
	st := s.store()
	behind := ReadHead(s, st)
	stale, lagging := s.lags()
	compacted, newest := false, stale.onHead
	stale.onHead = func(ctx context.Context) (driver.Head, error) {
		if compacted {
			return newest(ctx)
		}
		s.compactsNow(c, r) // between the reading of the head and that of the log
		compacted = true
		return behind, nil
	}
	var snapshots atomic.Int64
	stale.onSnapshot = func(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
		snapshots.Add(1)
		return st.Snapshot(ctx, fn)
	}
	f, err := catalog.Follow(Context(s), stale, slowly(config(1)))
	require.NoError(s, err)
	require.NotZero(s, snapshots.Load(), "the follower has found the log as it was")
	require.Equal(s, "v", s.contents(f)["before"])

	lagging.Store(true) // so that the follower reads no further
	s.compactsNow(c, r)
	want := s.contents(c)
	lagging.Store(false)
	snapshots.Store(0)
	next, err := f.Open(Context(s), catalog.ClaimOptions{})
	require.NoError(s, err)
	require.NotZero(s, snapshots.Load(), "the claim has found the log as it was")
	require.Equal(s, want, s.contents(next))
	require.NoError(s, next.Close())
}

// snapshotOfAnotherPast switches a follower to a catalog whose newest token is
// higher, and whose snapshot is of a lower one than the follower has read.
func snapshotOfAnotherPast(s *scene) {
	here, there := s.anew(), s.anew()
	s.put(here.claims(2), "k", "v")
	h, r, cfg := there.compacting()
	c := there.claimsOver(h, cfg)
	s.put(c, "other", "v")
	there.compactsNow(c, r)
	require.NoError(s, c.Close())

	var switched atomic.Bool
	st := &switching{Store: here.store(), other: there.store(), to: &switched}
	f, err := catalog.Follow(Context(s), st, config(0))
	require.NoError(s, err)
	s.Cleanup(func() { _ = f.Close() }) // its reason is asserted below
	newer := config(3)
	newer.CompactAfter = 1 << 40
	there.claimsOver(there.store(), newer)
	switched.Store(true)
	s.awaitDone(f.Done())
	require.ErrorIs(s, f.Err(), catalog.ErrLostCommit)
}

// A switching store reads from another one from some moment on.
type switching struct {
	driver.Store
	other driver.Store
	to    *atomic.Bool
}

func (s *switching) now() driver.Store {
	if s.to.Load() {
		return s.other
	}
	return s.Store
}

func (s *switching) Head(ctx context.Context) (driver.Head, error) { return s.now().Head(ctx) }

func (s *switching) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	return s.now().Log(ctx, after, fn)
}

func (s *switching) Snapshot(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
	return s.now().Snapshot(ctx, fn)
}

// farAway is a store whose every answer takes a while.
func farAway(st driver.Store) driver.Store {
	travel := func() { <-time.After(25 * time.Millisecond) }
	return &hooked{
		Store:  st,
		onHead: func(ctx context.Context) (driver.Head, error) { travel(); return st.Head(ctx) },
		onLog: func(ctx context.Context, after uint64, fn func(driver.Record) error) error {
			travel()
			return st.Log(ctx, after, fn)
		},
		onSnapshot: func(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
			travel()
			return st.Snapshot(ctx, fn)
		},
	}
}

func compactionStarvesNobody(s *scene) {
	h, r, cfg := s.compacting()
	c := s.claimsOver(h, cfg)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		value := string(pattern(64 << 10))
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if put(s.Context(), c, fmt.Sprint(i%4), value) != nil {
				return // fenced
			}
		}
	}()
	for r.times.Load() < 2 {
		s.awaitDone(r.tidy)
	}
	f, err := catalog.Follow(Context(s), farAway(s.store()), config(0))
	require.NoError(s, err)
	seen, _ := f.Head()
	require.NoError(s, f.Wait(Context(s), func(head driver.Head) bool { return head.Revision > seen.Revision+10 }))
	require.NoError(s, f.Close())
	next := s.claimsOver(farAway(s.store()), config(2))
	close(stop)
	<-done
	s.awaitDone(c.Done())
	require.Equal(s, s.contents(next), s.contents(s.follows(0)))
}
