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

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
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
		{"a follower and a claimer far away keep up with a holder that compacts all the time", compactionStarvesNobody},
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
	st := s.store()
	defer func() { s.check(st.Close()) }()
	for above, i := c.Head().Revision, 0; ; i++ {
		s.put(c, "compact", string(pattern(enough+i)))
		found, err := catalog.Compacted(Context(s), st)
		require.NoError(s, err)
		if found.Revision <= above {
			continue
		}
		for r.upTo.Load() < found.Revision {
			s.awaitDone(r.tidy)
		}
		return found
	}
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
	live := 0
	for key, value := range s.contents(c) {
		live += len(key) + len(value)
	}
	for s.stored() > 10*live { // the last compaction is still to come
		s.awaitDone(r.tidy)
	}
	s.Logf("%d commits on %d keys: %d bytes live, %d stored, %d compactions", commits, keys, live, s.stored(), r.times.Load())
	const written = commits * (232 + 80) // in the log, more or less
	require.Less(s, r.times.Load(), 2*written/cfg.CompactAfter, "compactions")
	require.Error(s, s.store().Log(Context(s), 0, func(driver.Record) error { return nil }), "the log's beginning is still there")
	require.Equal(s, s.contents(c), s.contents(s.follows(0)))
}

// stored returns how many bytes snapshot and log have.
func (s *scene) stored() (total int) {
	s.Helper()
	st := s.store()
	defer func() { s.check(st.Close()) }()
	from := uint64(0)
	require.NoError(s, st.Snapshot(Context(s), func(snapshot driver.Snapshot, part []byte) error {
		from = snapshot.Revision - 1
		total += len(part)
		return nil
	}))
	for { // the records below the snapshot count as long as they are there
		err := st.Log(Context(s), from, func(rec driver.Record) error { total += len(rec.Payload); return nil })
		if !errors.Is(err, driver.ErrCompacted) {
			require.NoError(s, err)
			return total
		}
		from++
	}
}

func compactionBesideCommits(s *scene) {
	const commits = 300
	h, r, cfg := s.compacting()
	c := s.claimsOver(h, cfg)
	along := s.follows(0)
	fed := s.reader(func(r *reader) bool { return r.entries["last"] != "" })
	done := async(func() error { return catalog.Feed(Context(s), s.open(), config(0), catalog.Position{}, fed.take) })
	random := rand.New(rand.NewPCG(1, 2))
	for i := range commits {
		if i == commits/2 {
			s.compactsNow(c, r)
		}
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
	require.Greater(s, r.times.Load(), int64(1), "compactions")
}

// logs collects what a Logger is told.
type logs struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{} // gets one after a line
}

func newLogs() *logs { return &logs{wrote: make(chan struct{}, 1)} }

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.wrote <- struct{}{}:
	default:
	}
	return l.text.Write(b)
}

// tells waits until l has been told text.
func (s *scene) tells(l *logs, text string) {
	s.Helper()
	for !strings.Contains(l.String(), text) {
		s.awaitDone(l.wrote)
	}
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
	told := newLogs()
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
	told := newLogs()
	observer := config(0)
	observer.Logger = told.logger()
	done := async(func() error {
		return catalog.Feed(Context(s), s.open(), observer, catalog.Position{}, func(e catalog.Event) error {
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
