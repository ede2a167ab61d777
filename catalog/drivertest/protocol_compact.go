package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

func compactCases() []protocolCase {
	return []protocolCase{
		{"entries written over and over leave at most ten times their bytes", compactionBoundsTheStore},
		{"compaction goes on beside commits, and every reader finds the same entries", compactionBesideCommits},
		{"a follower that is too far behind reads a snapshot, and says so", followerFarBehind},
		{"a feed that is too far behind gives a snapshot, and says so", feedFarBehind},
		{"a compaction takes away no claim, no fence and no answer about a commit in doubt", compactionForgetsNothing},
		{"a fenced holder's compaction changes nothing, at whichever step it wakes", zombieCompacts},
		{"a compaction whose answers are lost lands once", compactionAnswersLost},
		{"a compaction that fails fails no commit, is said, and is made up for", compactionFails},
		{"what a holder that died left of a compaction, the next one clears up", compactionLeftBehind},
		{"Close does not wait until a compaction has come to its end", closeDuringCompaction},
		{"a snapshot that lacks a part is corruption", snapshotLacksAPart},
		{"a snapshot of another past than the one that was read is a lost commit", snapshotOfAnotherPast},
		{"a claim that meets a log compacted meanwhile reads the snapshot", claimMeetsCompaction},
	}
}

// ran tells of the compactions of a store that have run to their end.
type ran struct {
	times atomic.Int64
	upTo  atomic.Uint64 // the revision of the newest one's snapshot
	tidy  chan struct{} // gets one when all is deleted that can be
}

// compacting returns a store that tells of its compactions, and a configuration
// under which there is one as often as possible.
func (s *scene) compacting() (*hooked, *ran, catalog.Config) {
	st, r := s.store(), &ran{tidy: make(chan struct{}, 1)}
	h := &hooked{Store: st}
	var newest uint64 // one goroutine compacts
	h.onPublish = func(ctx context.Context, by driver.Claim, snapshot driver.Snapshot) error {
		err := st.Publish(ctx, by, snapshot)
		if err == nil {
			newest = snapshot.Revision
		}
		return err
	}
	h.onTrim = func(ctx context.Context, by driver.Claim) (bool, error) {
		more, err := st.Trim(ctx, by)
		if err == nil && !more && newest > r.upTo.Load() {
			r.times.Add(1)
			r.upTo.Store(newest)
		}
		if err == nil && !more {
			select {
			case r.tidy <- struct{}{}:
			default:
			}
		}
		return more, err
	}
	cfg := config(1)
	cfg.CompactAfter = 1
	return h, r, cfg
}

// compactsNow commits until a compaction has ended whose snapshot is above what
// was the newest revision, and returns that snapshot.
func (s *scene) compactsNow(c *catalog.Catalog, r *ran) driver.Snapshot {
	s.Helper()
	const enough = 64 << 10 // for the log to become larger than the entries soon
	for above, i := c.Head().Revision, 0; r.upTo.Load() <= above; i++ {
		s.put(c, "compact", string(pattern(enough+i)))
	}
	found, err := catalog.Compacted(Context(s), s.store())
	require.NoError(s, err)
	return found
}

func compactionBoundsTheStore(s *scene) {
	const keys, commits, writers = 1000, 20_000, 64
	h, r, cfg := s.compacting()
	cfg.CompactAfter = 256 << 10
	c := s.claimsOver(h, cfg)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range commits / writers {
				s.check(put(s.Context(), c, fmt.Sprint((i*writers+w)%keys), string(pattern(232))))
			}
		})
	}
	wg.Wait()
	require.NoError(s, c.Close())
	require.NotZero(s, r.times.Load(), "compactions")
	const written = commits * (232 + 80) // in the log, more or less
	require.Less(s, r.times.Load(), 2*written/cfg.CompactAfter, "compactions")
	live, stored, records := 0, 0, 0
	fresh := s.follows(0)
	for key, value := range s.contents(fresh) {
		live += len(key) + len(value)
	}
	snapshot, err := catalog.Compacted(Context(s), s.store())
	require.NoError(s, err)
	require.NoError(s, s.store().Snapshot(Context(s), func(_ driver.Snapshot, part []byte) error { stored += len(part); return nil }))
	for _, rec := range ReadLog(s, s.store(), snapshot.Revision-1) {
		stored += len(rec.Payload)
		records++
	}
	s.Logf("%d commits on %d keys: %d bytes live, %d stored, %d records of %d left, %d compactions",
		commits, keys, live, stored, records, c.Head().Revision, r.times.Load())
	require.LessOrEqual(s, stored, 10*live)
	require.Error(s, s.store().Log(Context(s), 0, func(driver.Record) error { return nil }), "the log's beginning is still there")
}

func compactionBesideCommits(s *scene) {
	const commits = 300
	h, r, cfg := s.compacting()
	c := s.claimsOver(h, cfg)
	along := s.follows(0)
	fed := s.reader(func(r *reader) bool { return r.entries["last"] != "" })
	done := async(func() error { return catalog.Feed(Context(s), s.open(), config(0), 0, fed.take) })
	random := rand.New(rand.NewPCG(1, 2))
	for i := range commits {
		require.NoError(s, c.Update(Context(s), func(tx *catalog.Tx) error {
			if random.IntN(3) == 0 {
				_, err := entries().Delete(tx, fmt.Sprint(random.IntN(20)))
				return err
			}
			return entries().Set(tx, fmt.Sprint(random.IntN(20)), pattern(random.IntN(2000)))
		}), "commit %d", i)
	}
	s.compactsNow(c, r)
	s.put(c, "last", "v")
	require.ErrorIs(s, <-done, errRead)
	want := s.contents(c)
	require.NoError(s, along.Wait(Context(s), func(h driver.Head) bool { return h.Commit == c.Head().Commit }))
	require.Equal(s, want, s.contents(along), "a follower")
	require.Equal(s, want, fed.entries, "a feed")
	require.Equal(s, want, s.contents(s.follows(0)), "a fresh follower")
	require.Equal(s, want, s.contents(s.claims(1)), "the next holder")
	require.Greater(s, r.times.Load(), int64(2), "compactions")
}

// logs collects what a Logger is told.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func followerFarBehind(s *scene) {
	h, r, cfg := s.compacting()
	c := s.claimsOver(h, cfg)
	s.put(c, "gone", "v")
	st := s.store()
	var held sync.Mutex // while it is locked, the follower can't look
	slow := &hooked{Store: st, onHead: func(ctx context.Context) (driver.Head, error) {
		held.Lock()
		defer held.Unlock()
		return st.Head(ctx)
	}}
	told := new(logs)
	observer := config(0)
	observer.Logger = told.logger()
	f, err := catalog.Follow(Context(s), slow, observer)
	require.NoError(s, err)
	s.Cleanup(func() { _ = f.Close() })
	require.Equal(s, map[string]string{"gone": "v"}, s.contents(f))

	held.Lock()
	require.NoError(s, c.Update(Context(s), func(tx *catalog.Tx) error {
		_, err := entries().Delete(tx, "gone")
		return err
	}))
	s.put(c, "kept", "v")
	s.compactsNow(c, r)
	held.Unlock()
	require.NoError(s, f.Wait(Context(s), func(h driver.Head) bool { return h.Commit == c.Head().Commit }))
	require.Equal(s, s.contents(c), s.contents(f))
	require.NotContains(s, s.contents(f), "gone")
	require.Contains(s, told.String(), "too far behind")
}

func feedFarBehind(s *scene) {
	h, r, cfg := s.compacting()
	c := s.claimsOver(h, cfg)
	s.put(c, "gone", "v")
	holding, goOn := make(chan struct{}), make(chan struct{})
	snapshots := 0
	slow := s.reader(func(r *reader) bool {
		if r.events == 1 {
			close(holding)
			<-goOn
		}
		return r.entries["last"] != ""
	})
	told := new(logs)
	observer := config(0)
	observer.Logger = told.logger()
	done := async(func() error {
		return catalog.Feed(Context(s), s.open(), observer, 0, func(e catalog.Event) error {
			if e.Snapshot {
				snapshots++
			}
			return slow.take(e)
		})
	})
	<-holding
	early := slow.last
	require.NoError(s, c.Update(Context(s), func(tx *catalog.Tx) error {
		_, err := entries().Delete(tx, "gone")
		return err
	}))
	s.compactsNow(c, r)
	s.put(c, "last", "v")
	want := s.contents(c)
	close(goOn)
	require.ErrorIs(s, <-done, errRead)
	require.Equal(s, want, slow.entries)
	require.Equal(s, 2, snapshots, "snapshots in the middle of a feed")
	require.Contains(s, told.String(), "too far behind")

	late := s.reader(func(r *reader) bool { return r.entries["last"] != "" })
	late.entries["stale"] = "v"
	late.last = early
	late.read(early)
	require.Equal(s, want, late.entries, "a reader that comes back too late")
}

func compactionForgetsNothing(s *scene) {
	for _, lands := range []bool{true, false} {
		s := s.anew()
		arrived, fenced := make(chan struct{}), make(chan struct{})
		old := s.claimsOver(s.loses(func(st driver.Store, ctx context.Context, prior driver.Head, rec driver.Record) {
			if lands {
				s.check(st.Append(ctx, prior, rec))
			}
			close(arrived)
			<-fenced
		}), config(1))
		fate := async(func() error { return put(Context(s), old, "doubt", "v") })
		<-arrived
		h, r, cfg := s.compacting()
		next := s.claimsOver(h, cfg)
		s.compactsNow(next, r)
		close(fenced)
		if err := <-fate; lands {
			require.NoError(s, err, "a commit that had landed, and was compacted since")
		} else {
			s.fencedBy("g1.e2", err)
		}
		s.awaitDone(old.Done())
		s.fencedBy("g1.e2", old.Err())
		_, there := s.contents(s.follows(0))["doubt"]
		require.Equal(s, lands, there)

		third := s.claims(2)
		s.awaitDone(next.Done())
		s.supersededBy("g2.e3", next.Err())
		history, err := catalog.History(Context(s), s.store())
		require.NoError(s, err)
		require.Len(s, history, 3)
		for i := 1; i < len(history); i++ {
			require.Equal(s, history[i-1].ID, history[i].PriorClaim)
		}
		require.Equal(s, third.Token(), history[2].Token)
		_, err = catalog.Open(Context(s), s.store(), config(1))
		s.supersededBy("g2.e3", err)
	}
}

func zombieCompacts(s *scene) {
	for _, step := range []string{"stage", "publish", "trim"} {
		s := s.anew()
		st := s.store()
		h := &hooked{Store: st}
		reached, wake, refused := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		published := false
		pause := func(at string, write func() error) error {
			if at != step || at == "trim" && !published {
				return write()
			}
			close(reached)
			<-wake
			err := write()
			refused <- err
			return err
		}
		h.onStage = func(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
			return pause("stage", func() error { return st.Stage(context.WithoutCancel(ctx), by, id, n, part) })
		}
		h.onPublish = func(ctx context.Context, by driver.Claim, snapshot driver.Snapshot) error {
			return pause("publish", func() error {
				err := st.Publish(context.WithoutCancel(ctx), by, snapshot)
				published = err == nil
				return err
			})
		}
		h.onTrim = func(ctx context.Context, by driver.Claim) (more bool, err error) {
			err = pause("trim", func() error {
				more, err = st.Trim(context.WithoutCancel(ctx), by)
				return err
			})
			return more, err
		}
		cfg := config(1)
		cfg.CompactAfter = 1
		cfg.StoreTimeout = 6 * Patience // it is the test that ends the pause
		zombie := s.claimsOver(h, cfg)
		s.put(zombie, "k", "old")
		s.awaitDone(reached)
		next := s.claims(1)
		s.put(next, "k", "new")
		snapshot, err := catalog.Compacted(Context(s), st)
		require.NoError(s, err)
		whole := max(snapshot.Revision, 1) - 1 // above that the next holder deletes nothing either
		before, log := ReadHead(s, st), ReadLog(s, st, whole)
		close(wake)
		require.ErrorIs(s, <-refused, driver.ErrConflict, "%s of a fenced holder", step)
		SameHead(s, before, ReadHead(s, st))
		SameLog(s, log, ReadLog(s, st, whole))
		after, err := catalog.Compacted(Context(s), st)
		require.NoError(s, err)
		require.Equal(s, snapshot, after)
		require.Equal(s, map[string]string{"k": "new"}, s.contents(s.follows(0)))
	}
}

func compactionAnswersLost(s *scene) {
	h, r, cfg := s.compacting()
	publish, trim := h.onPublish, h.onTrim
	var stages, publishes, trims int
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
			return lost(h.Store, "publish")
		}
		return err
	}
	h.onTrim = func(ctx context.Context, by driver.Claim) (bool, error) {
		more, err := trim(ctx, by)
		if trims++; publishes > 0 && trims%2 == 1 && err == nil {
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
}

func compactionFails(s *scene) {
	h, r, cfg := s.compacting()
	told := new(logs)
	cfg.Logger = told.logger()
	failing := errors.New("no compaction today")
	failed := make(chan struct{})
	var stages int
	h.onStage = func(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
		if stages++; stages == 1 {
			defer close(failed)
			return &driver.Error{Class: driver.Class{Disposition: exitcodes.Halt}, Store: h.String(), Op: "stage", Err: failing}
		}
		return h.Store.Stage(ctx, by, id, n, part)
	}
	cfg.CompactAfter = 32 << 10
	c := s.claimsOver(h, cfg)
	s.awaitDone(r.tidy)
	s.put(c, "k", string(pattern(40<<10)))
	s.awaitDone(failed)
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
	next := s.claimsOver(h, cfg)
	s.awaitDone(r.tidy)
	require.ErrorIs(s, st.Publish(Context(s), next.Claim(), dead), driver.ErrCorrupt, "the parts are still there")
	require.Equal(s, want, s.contents(next))

	// The next one dies behind its Publish, and before its Trim.
	h, _, cfg = s.compacting()
	trim, died := h.onTrim, make(chan struct{})
	h.onTrim = func(ctx context.Context, by driver.Claim) (bool, error) {
		if found, err := catalog.Compacted(ctx, st); err != nil || found.IsZero() {
			return trim(ctx, by)
		}
		close(died)
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

func claimMeetsCompaction(s *scene) {
	h, r, cfg := s.compacting()
	c := s.claimsOver(h, cfg)
	s.put(c, "before", "v")
	st := s.store()
	behind := ReadHead(s, st)
	compacted := false
	stale := &hooked{Store: st, onHead: func(ctx context.Context) (driver.Head, error) {
		if compacted {
			return st.Head(ctx)
		}
		s.compactsNow(c, r) // between the reading of the head and that of the log
		compacted = true
		return behind, nil
	}}
	next := s.claimsOver(stale, config(1))
	require.Equal(s, "v", s.contents(next)["before"])
	require.Equal(s, s.contents(c), s.contents(next))
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
	there.claims(3)
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
