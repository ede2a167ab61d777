package drivertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
)

func migrateCases() []protocolCase {
	return []protocolCase{
		{"a claim installs what the migrations did beside the holder's commits, if none has changed what they read", migrationsKeepNobodyOut},
		{"migrations run once more, under the claim, if a commit has changed what they read", changedReads},
		{"what a follower has rehearsed is not run again by its claim", rehearsedOnce},
		{"a migration under the claim that outlives MigrationTimeout ends with 75 and writes nothing", lateMigration},
		{"a migration that took longer than MigrationTimeout is not tried under the claim", hopelessMigration},
		{"a claim of a higher generation breaks one whose migrations hang under the claim", higherGenerationBreaks},
		{"a raise breaks a claim whose migrations hang under the claim", raiseBreaks},
		{"a stop breaks a claim whose migrations hang under the claim", stopBreaks},
		{"a claim of the same or a lower generation breaks none", equalsDoNotBreak},
		{"a request that a dead process left behind breaks no claim", staleRequest},
		{"a migration that is left behind can change nothing", leftBehind},
	}
}

// reading is a configuration with one migration, which copies the entry "in" to
// "out", and calls during with the number of the run in the middle of it.
func reading(g generation.Generation, during func(tx *catalog.Tx, run int64) error) catalog.Config {
	cfg := config(g)
	var runs atomic.Int64
	cfg.Migrations = []catalog.Migration{{Version: 1, Name: "copy", Up: func(tx *catalog.Tx) error {
		in, _, err := entries().Get(tx, "in")
		return errors.Join(err, during(tx, runs.Add(1)), entries().Set(tx, "out", in))
	}}}
	return cfg
}

// hanging is a configuration whose migration is forced under the claim by a
// commit of holder, and hangs there: it closes the channel, and waits for its
// context.
func (s *scene) hanging(g generation.Generation, holder *catalog.Catalog) (cfg catalog.Config, hangs chan struct{}) {
	hangs = make(chan struct{})
	return reading(g, func(tx *catalog.Tx, run int64) error {
		switch run {
		case 1:
			return put(Context(s), holder, "in", "changed")
		case 2:
			close(hangs)
		}
		<-tx.Context().Done()
		return context.Cause(tx.Context())
	}), hangs
}

func (s *scene) awaits(what string, c <-chan struct{}) {
	s.Helper()
	select {
	case <-c:
	case <-time.After(Patience):
		require.FailNow(s, "too late: "+what)
	}
}

func reached(revision uint64) func(driver.Head) bool {
	return func(h driver.Head) bool { return h.Revision >= revision }
}

func migrationsKeepNobodyOut(s *scene) {
	holder := s.claims(1)
	for _, key := range []string{"in", "scan/a", "scan/b", "scan/c"} {
		s.put(holder, key, "1")
	}
	var runs int64
	next := s.claimsOver(s.store(), reading(2, func(tx *catalog.Tx, run int64) error {
		runs = run
		err := entries().Scan(tx, "scan/", func(key string, _ []byte) bool { return key < "scan/b" })
		return errors.Join(err, put(Context(s), holder, "scan/c", "during"), put(Context(s), holder, "new", "during"))
	}))
	require.EqualValues(s, 1, runs)
	require.Equal(s, map[string]string{"in": "1", "out": "1", "scan/a": "1", "scan/b": "1", "scan/c": "during", "new": "during"}, s.contents(next))
	require.EqualValues(s, 1, next.Claim().DataVersion)
	s.supersededBy("g2.e2", put(Context(s), holder, "stale", "v"))
	s.put(next, "k", "v")
	require.Equal(s, map[string]int{"in": 1, "scan/a": 1, "scan/b": 1, "scan/c": 2, "new": 1, "out": 1, "k": 1}, s.commits())
}

func changedReads(s *scene) {
	for what, change := range map[string]func(*catalog.Tx) error{
		"a key that was read":           func(tx *catalog.Tx) error { return entries().Set(tx, "in", []byte("2")) },
		"a key that was missing":        func(tx *catalog.Tx) error { return entries().Set(tx, "missing", nil) },
		"a key that is gone":            func(tx *catalog.Tx) error { _, err := entries().Delete(tx, "in"); return err },
		"a new key in what was scanned": func(tx *catalog.Tx) error { return entries().Set(tx, "scan/b", nil) },
		"a first entry of a collection": func(tx *catalog.Tx) error { return catalog.Bytes("empty").Set(tx, "k", nil) },
		"the last key of a short scan":  func(tx *catalog.Tx) error { return catalog.Bytes("short").Set(tx, "b", nil) },
	} {
		at := s.anew()
		holder := at.claims(1)
		require.NoError(s, holder.Update(Context(s), func(tx *catalog.Tx) error {
			return errors.Join(entries().Set(tx, "in", []byte("1")), entries().Set(tx, "scan/a", nil), entries().Set(tx, "scan/c", nil),
				catalog.Bytes("short").Set(tx, "a", nil), catalog.Bytes("short").Set(tx, "b", nil))
		}))
		var ran int64
		next := at.claimsOver(at.store(), reading(2, func(tx *catalog.Tx, run int64) error {
			ran = run
			_, _, err1 := entries().Get(tx, "missing")
			err2 := entries().Scan(tx, "scan/", func(string, []byte) bool { return true })
			err3 := catalog.Bytes("empty").Scan(tx, "", func(string, []byte) bool { return true })
			err4 := catalog.Bytes("short").Scan(tx, "", func(key string, _ []byte) bool { return key < "b" })
			if err := errors.Join(err1, err2, err3, err4); err != nil || run > 1 {
				return err
			}
			return holder.Update(Context(s), change)
		}))
		require.EqualValues(s, 2, ran, what)
		found := at.contents(next)
		require.Equal(s, found["in"], found["out"], what)
		at.end()
	}
}

func rehearsedOnce(s *scene) {
	holder := s.claims(1)
	s.put(holder, "in", "1")
	var ran int64
	cfg := reading(2, func(_ *catalog.Tx, run int64) error { ran = run; return nil })
	f, err := catalog.Follow(Context(s), s.store(), cfg)
	require.NoError(s, err)
	last, current := f.Rehearsed()
	require.False(s, current)
	require.Empty(s, last.Migrations)
	last, err = f.Rehearse(Context(s))
	require.NoError(s, err)
	require.Equal(s, "copy", last.Migrations[0].Name)
	require.Positive(s, last.Took)
	s.put(holder, "other", "v")
	head := holder.Head()
	require.NoError(s, f.Wait(Context(s), reached(head.Revision)))
	_, current = f.Rehearsed()
	require.True(s, current)
	again, err := f.Rehearse(Context(s))
	require.NoError(s, err)
	require.Equal(s, last, again, "it ran again though nothing that it read has changed")

	s.put(holder, "in", "2")
	head = holder.Head()
	require.NoError(s, f.Wait(Context(s), reached(head.Revision)))
	_, current = f.Rehearsed()
	require.False(s, current)
	again, err = f.RehearsePaused(Context(s))
	require.NoError(s, err)
	SameHead(s, head, again.Head)
	c, err := f.Open(Context(s), catalog.ClaimOptions{})
	require.NoError(s, err)
	require.EqualValues(s, 2, ran)
	require.Equal(s, "2", s.contents(c)["out"])
	require.NoError(s, c.Close())
	_, err = f.Rehearse(Context(s))
	require.ErrorIs(s, err, catalog.ErrClosed)
}

func lateMigration(s *scene) {
	holder := s.claims(1)
	var ran atomic.Int64 // the last run may be left behind
	cfg := reading(2, func(tx *catalog.Tx, run int64) error {
		if ran.Store(run); run == 1 {
			return put(Context(s), holder, "in", "changed")
		}
		<-tx.Context().Done()
		return context.Cause(tx.Context())
	})
	cfg.MigrationTimeout = 200 * time.Millisecond
	_, err := catalog.Open(Context(s), s.store(), cfg)
	require.EqualValues(s, 2, ran.Load())
	require.ErrorIs(s, err, catalog.ErrMigrationTimeout)
	require.ErrorContains(s, err, "200ms")
	require.Equal(s, exitcodes.TempFail, exitcodes.CodeOf(err))
	require.NotErrorIs(s, err, catalog.ErrUnknownOutcome)
	s.put(holder, "k", "goes on")
	require.Len(s, ReadClaims(s, s.store(), 0), 1)
}

func hopelessMigration(s *scene) {
	holder := s.claims(1)
	var ran int64
	cfg := reading(2, func(tx *catalog.Tx, run int64) error {
		ran = run
		begun := time.Now()
		for n := 0; time.Since(begun) < 20*time.Millisecond; n++ {
			if err := put(Context(s), holder, "in", fmt.Sprint(n)); err != nil {
				return err
			}
		}
		return nil
	})
	cfg.MigrationTimeout = 10 * time.Millisecond
	_, err := catalog.Open(Context(s), s.store(), cfg)
	require.ErrorIs(s, err, catalog.ErrMigrationTimeout)
	require.EqualValues(s, 1, ran)
	s.put(holder, "k", "was not held up")
}

// opens opens the catalog on a goroutine of its own.
func (s *scene) opens(ctx context.Context, cfg catalog.Config) <-chan error {
	st := s.store()
	return async(func() error {
		c, err := catalog.Open(ctx, st, cfg)
		if err == nil {
			err = errors.Join(errors.New("it has claimed"), c.Close())
		}
		return err
	})
}

func (s *scene) result(what string, c <-chan error) error {
	s.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(Patience):
		require.FailNow(s, "too late: "+what)
		return nil
	}
}

func higherGenerationBreaks(s *scene) {
	holder := s.claims(1)
	cfg, hangs := s.hanging(2, holder)
	two := s.opens(Context(s), cfg)
	s.awaits("the run under the claim", hangs)
	long := config(3)
	long.Holder.Name = strings.Repeat("ж", 2*driver.MaxRequest) // a request says who asks, and has a limit
	three := s.claimsOver(s.store(), long)
	require.Equal(s, "g3.e2", three.Token().String())
	s.supersededBy("g3.e2", s.result("generation 2", two))
	s.put(three, "k", "v")
}

func raiseBreaks(s *scene) {
	holder := s.claims(1)
	cfg, hangs := s.hanging(2, holder)
	ctx, stop := context.WithCancel(Context(s))
	defer stop()
	two := s.opens(ctx, cfg)
	s.awaits("the run under the claim", hangs)
	claim, err := s.raises(s.store(), "")
	require.NoError(s, err)
	require.Equal(s, "g1.e2", claim.Token.String())
	stop() // it tries again
	require.Error(s, s.result("generation 2", two))
	require.Len(s, ReadClaims(s, s.store(), 0), 2)
}

func stopBreaks(s *scene) {
	holder := s.claims(1)
	cfg, hangs := s.hanging(2, holder)
	mine := errors.New("stop")
	ctx, stop := context.WithCancelCause(Context(s))
	two := s.opens(ctx, cfg)
	s.awaits("the run under the claim", hangs)
	stop(mine)
	require.ErrorIs(s, s.result("generation 2", two), mine)
	s.put(holder, "k", "goes on")
	require.Len(s, ReadClaims(s, s.store(), 0), 1)
}

func equalsDoNotBreak(s *scene) {
	holder := s.claims(1)
	cfg, hangs := s.hanging(2, holder)
	stopping, stop := context.WithCancel(Context(s))
	two := s.opens(stopping, cfg)
	s.awaits("the run under the claim", hangs)
	asked, err := s.store().Notes(Context(s), "preempt") // by generation 2, on a slow machine
	require.NoError(s, err)
	for _, g := range []generation.Generation{1, 2} {
		other := config(g)
		other.ClaimTimeout = 4 * 500 * time.Millisecond // several requests
		err := s.result("a claim that is kept out", s.opens(Context(s), other))
		require.Equal(s, exitcodes.TempFail, exitcodes.CodeOf(err), "generation %v: %v", g, err)
		notes, err := s.store().Notes(Context(s), "preempt")
		require.NoError(s, err)
		if g == 1 {
			require.Equal(s, asked, notes, "a generation that leads already can outrank nobody, and asks nobody")
		}
	}
	select {
	case err := <-two:
		require.FailNow(s, "it gave way", "%v", err)
	default:
	}
	stop()
	require.ErrorIs(s, s.result("generation 2", two), context.Canceled)
}

func staleRequest(s *scene) {
	holder := s.claims(1)
	cfg, hangs := s.hanging(2, holder)
	first, stop := context.WithCancel(Context(s))
	two := s.opens(first, cfg)
	s.awaits("the run under the claim", hangs)
	_, err := s.raises(s.store(), "") // which leaves a request that outranks every generation
	require.NoError(s, err)
	stop()
	require.Error(s, s.result("generation 2", two))
	three := s.claims(1)
	var ran int64
	four := s.claimsOver(s.store(), reading(4, func(tx *catalog.Tx, run int64) error {
		if ran = run; run == 1 {
			return put(Context(s), three, "in", "changed again")
		}
		select { // long enough for the request to be seen
		case <-time.After(300 * time.Millisecond):
			return nil
		case <-tx.Context().Done():
			return context.Cause(tx.Context())
		}
	}))
	require.EqualValues(s, 2, ran)
	require.Equal(s, "changed again", s.contents(four)["out"])
}

func leftBehind(s *scene) {
	holder := s.claims(1)
	ctx, stop := context.WithCancel(Context(s))
	defer stop()
	runs, done := make(chan struct{}), make(chan error, 1)
	resume := make(chan struct{})
	cfg := reading(2, func(tx *catalog.Tx, _ int64) error {
		close(runs)
		<-resume // and not tx.Context: it does not care
		err := entries().Set(tx, "late", nil)
		_, _, other := entries().Get(tx, "in")
		require.ErrorIs(s, other, catalog.ErrFinished)
		done <- err
		return err
	})
	two := s.opens(ctx, cfg)
	s.awaits("the migration", runs)
	stop()
	require.ErrorIs(s, s.result("generation 2", two), context.Canceled)
	close(resume)
	require.ErrorIs(s, s.result("the migration", done), catalog.ErrFinished)
	s.put(holder, "k", "v")
	require.Equal(s, map[string]string{"k": "v"}, s.contents(holder))
}
