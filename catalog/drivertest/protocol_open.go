package drivertest

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

const retryDisposition = exitcodes.Retry

var errAnswerLost = errors.New("the answer was lost on its way")

func openCases() []protocolCase {
	return []protocolCase{
		{"the first open gives epoch 1, each re-open one more, contents unchanged", reopen},
		{"a lower generation is superseded and writes nothing, even where its build could not read the data version", lowerGeneration},
		{"a writer without a generation is refused with code 78", noGeneration},
		{"a handle that was closed writes nothing more", closedHandle},
		{"a failing function writes nothing and fails alone", failingUpdate},
		{"an entry over the limits is refused and nothing is lost", oversizedEntry},
		{"a function that ends its goroutine ends no other caller's handle", goexitUpdate},
		{"a function that panics panics in its caller", panickingUpdate},
		{"Close is not starved by Updates, and those after it are refused", closeUnderLoad},
	}
}

func reopen(s *scene) {
	want := map[string]string{}
	for epoch := 1; epoch <= 4; epoch++ {
		c := s.claims(7)
		require.Equal(s, fence.Token{Generation: 7, Epoch: c.Token().Epoch}, c.Token())
		require.EqualValues(s, epoch, c.Token().Epoch)
		require.Equal(s, want, s.contents(c))
		key := c.Token().String()
		s.put(c, key, "kept")
		want[key] = "kept"
		require.NoError(s, c.Close())
	}
	c := s.claims(9)
	require.Equal(s, "g9.e5", c.Token().String(), "a new generation does not reset the epoch")
	require.Equal(s, want, s.contents(c))
}

func lowerGeneration(s *scene) {
	cfg := config(5)
	cfg.Migrations = []catalog.Migration{{Version: 1, Name: "first", Up: func(*catalog.Tx) error { return nil }}}
	c := s.claimsOver(s.store(), cfg)
	s.put(c, "k", "v")
	st := s.store()
	before, notes := ReadHead(s, st), ReadNotes(s, st, "")

	_, err := catalog.Open(Context(s), s.store(), config(4)) // knows no data version at all
	s.supersededBy("g5.e1", err)
	require.Equal(s, exitcodes.GracefulExit, exitcodes.Of(err))
	_, err = catalog.Follow(Context(s), s.store(), config(4))
	s.supersededBy("g5.e1", err)

	SameHead(s, before, ReadHead(s, st))
	require.Equal(s, notes, ReadNotes(s, st, ""))
	s.put(c, "k", "still")
}

func noGeneration(s *scene) {
	_, err := catalog.Open(Context(s), s.store(), config(generation.None))
	require.ErrorIs(s, err, generation.ErrMissing)
	require.Equal(s, exitcodes.Config, exitcodes.CodeOf(err))
	require.True(s, ReadHead(s, s.store()).IsZero())
}

func closedHandle(s *scene) {
	c := s.claims(1)
	s.put(c, "k", "v")
	require.NoError(s, c.Close())
	require.NoError(s, c.Close(), "closing twice")
	head := ReadHead(s, s.store())
	require.ErrorIs(s, put(Context(s), c, "k", "late"), catalog.ErrClosed)
	require.ErrorIs(s, c.Confirm(Context(s)), catalog.ErrClosed)
	SameHead(s, head, ReadHead(s, s.store()))
}

func failingUpdate(s *scene) {
	c := s.claims(1)
	mine := errors.New("no")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s.check(put(Context(s), c, "good", "v"))
		})
		wg.Go(func() {
			err := c.Update(Context(s), func(tx *catalog.Tx) error {
				if err := entries().Set(tx, "bad", nil); err != nil {
					return err
				}
				return mine
			})
			if !errors.Is(err, mine) {
				s.Errorf("Update = %v, want the function's own error", err)
			}
		})
	}
	wg.Wait()
	require.Zero(s, s.commits()["bad"])
	require.Equal(s, map[string]string{"good": "v"}, s.contents(c))
}

func goexitUpdate(s *scene) {
	c := s.claims(1)
	err := c.Update(Context(s), func(tx *catalog.Tx) error {
		s.check(entries().Set(tx, "gone", nil))
		runtime.Goexit()
		return nil
	})
	require.ErrorContains(s, err, "Goexit")
	require.Equal(s, driver.NotApplied, catalog.OutcomeOf(err))
	s.put(c, "k", "v")
	require.NoError(s, c.Close())
	require.Equal(s, map[string]int{"k": 1}, s.commits())
}

func panickingUpdate(s *scene) {
	c := s.claims(1)
	require.PanicsWithValue(s, "boom", func() {
		defer func() {
			if text, ok := recover().(string); ok && strings.HasPrefix(text, "boom\n") {
				panic("boom")
			}
		}()
		s.check(c.Update(Context(s), func(tx *catalog.Tx) error {
			s.check(entries().Set(tx, "gone", nil))
			panic("boom")
		}))
	})
	s.put(c, "k", "v")
	require.Equal(s, map[string]int{"k": 1}, s.commits())
}

func closeUnderLoad(s *scene) {
	c := s.claims(1)
	load := &load{scene: s, acked: map[string]bool{}}
	load.start(c)
	before := c.Head().Revision
	require.Eventually(s, func() bool { return c.Head().Revision > before+3 }, Patience, time.Millisecond)
	require.NoError(s, c.Close())
	require.ErrorIs(s, put(Context(s), c, "late", "v"), catalog.ErrClosed)
	load.wg.Wait()
	s.lostNothing(load.acked)
}

func oversizedEntry(s *scene) {
	st := s.store()
	c := s.claimsOver(st, config(1))
	s.put(c, "k", "v")
	huge := make([]byte, st.Limits().Payload)
	err := c.Update(Context(s), func(tx *catalog.Tx) error { return entries().Set(tx, "huge", huge) })
	require.ErrorIs(s, err, driver.ErrTooLarge)
	require.ErrorContains(s, err, st.String())
	require.Equal(s, driver.NotApplied, catalog.OutcomeOf(err))
	err = put(Context(s), c, string(huge[:catalog.MaxKey+1]), "v")
	require.ErrorIs(s, err, catalog.ErrInvalidEntry)
	require.Equal(s, exitcodes.None, exitcodes.Of(err))
	s.put(c, "k", "w")
	require.Equal(s, map[string]string{"k": "w"}, s.contents(c))
}

func fenceCases() []protocolCase {
	return []protocolCase{
		{"an open holder whose own generation opens again hears fenced by epoch on its next write or confirm", fencedOnNextCall},
		{"and on reads once pushed", fencedByPush},
		{"an open holder whose catalog a higher generation opens hears superseded", supersededHolder},
		{"fenced first by epoch and then by generation: superseded", fencedThenSuperseded},
		{"fenced by epoch, noticed, and superseded later: superseded", noticedThenSuperseded},
		{"the write in flight at a claim never becomes durable behind it, and its caller hears the right reason", writeInFlight},
		{"a fenced handle stays fenced", staysFenced},
		{"a fence that was pushed is known before the store is asked", knownBeforeAsking},
		{"a claimer that was superseded while it followed hears so, and not that its build is too old", supersededBeforeIncompatible},
	}
}

// deaf is a store that can't tell of changes, so that a handle over it notices
// a fence by asking only.
func deaf(st driver.Store) driver.Store { return &hooked{Store: st} }

// slowly makes a handle poll once an hour.
func slowly(cfg catalog.Config) catalog.Config {
	cfg.PollInterval = time.Hour
	return cfg
}

func fencedOnNextCall(s *scene) {
	for _, call := range []func(*catalog.Catalog) error{
		func(c *catalog.Catalog) error { return put(Context(s), c, "stale", "v") },
		func(c *catalog.Catalog) error { return c.Confirm(Context(s)) },
	} {
		first := s.claimsOver(deaf(s.store()), slowly(config(1)))
		s.put(first, "k", "v")
		second := s.claims(1)
		err := call(first)
		s.fencedBy(second.Token().String(), err)
		require.Equal(s, exitcodes.Halt, exitcodes.Of(err))
		require.Equal(s, exitcodes.Restart, exitcodes.CodeOf(err))
		require.Equal(s, driver.NotApplied, catalog.OutcomeOf(err))
	}
	require.Zero(s, s.commits()["stale"])
}

func fencedByPush(s *scene) {
	first := s.claims(1)
	second := s.claims(1)
	s.awaitDone(first.Done())
	s.fencedBy("g1.e2", first.Err())
	s.fencedBy("g1.e2", first.View(func(*catalog.Reader) error {
		s.Error("a read was let through")
		return nil
	}))
	s.put(second, "k", "v")
}

func supersededHolder(s *scene) {
	pushed, asked := s.claims(1), (*catalog.Catalog)(nil)
	require.NoError(s, pushed.Confirm(Context(s)))
	next := s.claims(2)
	s.awaitDone(pushed.Done())
	s.supersededBy("g2.e2", pushed.Err())
	s.supersededBy("g2.e2", pushed.View(func(*catalog.Reader) error { return nil }))
	require.NoError(s, next.Close())

	asked = s.claimsOver(deaf(s.store()), slowly(config(2)))
	s.claims(3)
	err := put(Context(s), asked, "stale", "v")
	s.supersededBy("g3.e4", err)
	require.Equal(s, exitcodes.Success, exitcodes.CodeOf(err))
	require.Zero(s, s.commits()["stale"])
}

func fencedThenSuperseded(s *scene) {
	first := s.claimsOver(deaf(s.store()), slowly(config(1)))
	s.claims(1)
	s.claims(2)
	err := put(Context(s), first, "stale", "v")
	s.supersededBy("g2.e3", err)
	require.NotErrorIs(s, err, catalog.ErrLostCommit, "it is the first of the claims behind mine that was built on my commits")
	require.NotErrorIs(s, first.Close(), catalog.ErrLostCommit)
	require.Zero(s, s.commits()["stale"])
}

func noticedThenSuperseded(s *scene) {
	first := s.claimsOver(deaf(s.store()), slowly(config(1)))
	s.claims(1)
	s.fencedBy("g1.e2", put(Context(s), first, "stale", "v"))
	s.claims(2)
	s.supersededBy("g2.e3", put(Context(s), first, "stale", "v"))
	s.supersededBy("g2.e3", first.Close())
}

func writeInFlight(s *scene) {
	for _, next := range []generation.Generation{1, 2} {
		sent, goOn := make(chan struct{}), make(chan struct{})
		st := s.store()
		held := &hooked{Store: st}
		held.onAppend = func(ctx context.Context, prior driver.Head, rec driver.Record) error {
			close(sent)
			<-goOn
			held.onAppend = nil
			return st.Append(ctx, prior, rec)
		}
		first := s.claimsOver(held, slowly(config(1)))
		fate := async(func() error { return put(Context(s), first, "stale", "v") })
		<-sent
		second := s.claims(next)
		s.put(second, "k", "v")
		close(goOn)
		err := <-fate
		if next == 1 {
			s.fencedBy(second.Token().String(), err)
		} else {
			s.supersededBy(second.Token().String(), err)
		}
		require.Equal(s, driver.NotApplied, catalog.OutcomeOf(err))
		require.Zero(s, s.commits()["stale"])
	}
}

func staysFenced(s *scene) {
	first := s.claims(1)
	s.claims(1)
	s.awaitDone(first.Done())
	for range 20 {
		require.ErrorIs(s, put(Context(s), first, "stale", "v"), fence.ErrFenced)
		require.ErrorIs(s, first.Confirm(Context(s)), fence.ErrFenced)
	}
	require.ErrorIs(s, first.Close(), fence.ErrFenced)
	require.ErrorIs(s, put(Context(s), first, "stale", "v"), fence.ErrFenced)
	require.Zero(s, s.commits()["stale"])
}

func knownBeforeAsking(s *scene) {
	st := s.store()
	sent, goOn := make(chan struct{}), make(chan struct{})
	appends := 0
	h := &hooked{Store: st, onAppend: func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		if appends++; appends == 1 {
			close(sent)
			<-goOn
		}
		return st.Append(ctx, prior, rec)
	}}
	first := s.claimsOver(h, config(1)) // polls
	inFlight := async(func() error { return put(Context(s), first, "stale", "v") })
	<-sent
	queued := async(func() error { return put(Context(s), first, "stale", "v") })
	s.claims(2)
	s.awaitDone(first.Done())
	close(goOn)
	s.supersededBy("g2.e2", <-inFlight)
	s.supersededBy("g2.e2", <-queued)
	s.supersededBy("g2.e2", first.Close())
	require.Equal(s, 1, appends, "writes that the store was asked for")
}

func supersededBeforeIncompatible(s *scene) {
	require.NoError(s, s.claims(1).Close())
	f, err := catalog.Follow(Context(s), deaf(s.store()), slowly(config(1)))
	require.NoError(s, err)
	s.claimsOver(s.store(), migrating(2, 3))
	_, err = f.Open(Context(s), catalog.ClaimOptions{})
	s.supersededBy("g2.e2", err)
	require.NotErrorIs(s, err, catalog.ErrIncompatible)
}
