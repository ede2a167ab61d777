package drivertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
)

func feedCases() []protocolCase {
	return []protocolCase{
		{"a feed gives a snapshot and then every commit, in order, once", feedFollows},
		{"a feed goes on behind the revision of its last event", feedResumes},
		{"a feed of an empty catalog begins with its first commit", feedOfNothing},
		{"a feed ends with its reader's error, and as superseded", feedEnds},
		{"a reader whose place was lost with a restore gets a snapshot", feedAfterRestore},
		{"a store that falls behind what a feed has handed out has lost a commit", feedFindsLoss},
		{"a store that stalls is asked again", feedStalls},
		{"a slow reader holds up nobody and misses nothing", slowReader},
	}
}

// A reader keeps what a feed gives it.
type reader struct {
	*scene
	entries map[string]string
	last    catalog.Position
	events  int
	until   func(r *reader) bool
}

var errRead = errors.New("the reader has what it wants")

func (r *reader) take(e catalog.Event) error {
	if e.Revision <= r.last.Revision && !e.Snapshot {
		r.Errorf("revision %d came after %d", e.Revision, r.last.Revision)
	}
	if e.Snapshot {
		clear(r.entries)
	}
	for _, c := range e.Changes {
		if c.Delete {
			delete(r.entries, c.Key)
			continue
		}
		r.entries[c.Key] = string(c.Value)
	}
	r.last = e.Position
	r.events++
	if r.until(r) {
		return errRead
	}
	return nil
}

func (s *scene) reader(until func(*reader) bool) *reader {
	return &reader{scene: s, entries: map[string]string{}, until: until}
}

// read feeds r from a revision until it has what it wants.
func (r *reader) read(after catalog.Position) {
	r.Helper()
	err := catalog.Feed(Context(r), r.refusing(), config(0), after, r.take)
	require.ErrorIs(r, err, errRead)
}

func feedFollows(s *scene) {
	const commits = 50
	c := s.claims(1)
	s.put(c, "before", "v")
	r := s.reader(func(r *reader) bool { return r.entries["last"] != "" })
	done := async(func() error { return catalog.Feed(Context(s), s.open(), config(0), catalog.Position{}, r.take) })
	for i := range commits {
		s.put(c, fmt.Sprint(i%7), fmt.Sprint(i))
	}
	require.NoError(s, c.Update(Context(s), func(tx *catalog.Tx) error {
		_, err := entries().Delete(tx, "before")
		return err
	}))
	s.put(c, "last", "v")
	require.ErrorIs(s, <-done, errRead)
	require.Equal(s, s.contents(c), r.entries)
}

func feedResumes(s *scene) {
	c := s.claims(1)
	for i := range 10 {
		s.put(c, fmt.Sprint(i), "v")
	}
	first := s.reader(func(r *reader) bool { return r.events == 1 })
	first.read(catalog.Position{})
	require.Len(s, first.entries, 10, "the snapshot")
	s.put(c, "a", "v")
	c = s.claims(1) // a commit without changes, which is no event
	s.put(c, "b", "v")
	second := s.reader(func(r *reader) bool { return r.entries["b"] != "" })
	second.last = first.last
	second.read(first.last)
	require.Equal(s, map[string]string{"a": "v", "b": "v"}, second.entries)
	require.Equal(s, 2, second.events)
	maps.Copy(first.entries, second.entries)
	require.Equal(s, s.contents(c), first.entries)

	err := catalog.Feed(Context(s), s.store(), config(0), catalog.Position{Revision: 1000}, second.take)
	require.ErrorContains(s, err, "above the newest one")
}

func feedOfNothing(s *scene) {
	behind := catalog.Feed(Context(s), s.store(), config(0), catalog.Position{Revision: 7}, func(catalog.Event) error { return errRead })
	require.ErrorContains(s, behind, "above the newest one", "a reader that knows more than an empty catalog")
	r := s.reader(func(r *reader) bool { return r.entries["k"] != "" })
	done := async(func() error { return catalog.Feed(Context(s), s.open(), config(0), catalog.Position{}, r.take) })
	s.put(s.claims(1), "k", "v")
	require.ErrorIs(s, <-done, errRead)
	require.Equal(s, map[string]string{"k": "v"}, r.entries)
}

func feedEnds(s *scene) {
	s.put(s.claims(1), "k", "v")
	begun := make(chan struct{})
	r := s.reader(func(*reader) bool { close(begun); return false })
	done := async(func() error { return catalog.Feed(Context(s), s.open(), config(1), catalog.Position{}, r.take) })
	<-begun
	s.claims(2)
	s.supersededBy("g2.e2", <-done)

	ctx, cancel := context.WithCancelCause(Context(s))
	mine := errors.New("mine")
	r = s.reader(func(*reader) bool { cancel(mine); return false })
	require.ErrorIs(s, catalog.Feed(ctx, s.store(), config(2), catalog.Position{}, r.take), mine)
}

func slowReader(s *scene) {
	const commits = 200
	c := s.claims(1)
	s.put(c, "k", "v")
	holding, goOn := make(chan struct{}), make(chan struct{})
	r := s.reader(func(r *reader) bool {
		if r.events == 1 {
			close(holding)
			<-goOn
		}
		return r.entries["last"] != ""
	})
	done := async(func() error { return catalog.Feed(Context(s), s.open(), config(0), catalog.Position{}, r.take) })
	<-holding
	for i := range commits {
		s.put(c, fmt.Sprint(i), "v")
	}
	s.put(c, "last", "v")
	close(goOn)
	require.ErrorIs(s, <-done, errRead)
	require.Equal(s, s.contents(c), r.entries)
	require.Equal(s, commits+2, r.events)
}

func feedAfterRestore(s *scene) {
	c := s.claims(1)
	for i := range 10 {
		s.put(c, fmt.Sprint("kept", i), "v")
	}
	upTo := c.Head().Revision
	s.put(c, "lost", "v")
	first := s.reader(func(r *reader) bool { return r.entries["lost"] != "" })
	first.read(catalog.Position{})
	require.NoError(s, c.Close())
	backup := s.restores(upTo)
	next := backup.claims(1)
	for i := range 10 {
		backup.put(next, fmt.Sprint("new", i), "v")
	}
	late := backup.reader(func(r *reader) bool { return r.entries["new9"] != "" })
	late.entries, late.last = first.entries, first.last
	late.read(first.last)
	require.Equal(s, backup.contents(next), late.entries)
}

func feedFindsLoss(s *scene) {
	here := s.anew()
	c := here.claims(1)
	here.put(c, "a", "v")
	upTo := c.Head().Revision
	for i := range 10 {
		here.put(c, fmt.Sprint(i), "v")
	}
	require.NoError(s, c.Close())
	there := here.restores(upTo)
	there.claims(1)
	there.claims(1)
	var switched atomic.Bool
	st := &switching{Store: here.store(), other: there.store(), to: &switched}
	r := here.reader(func(*reader) bool { switched.Store(true); return false })
	require.ErrorIs(s, catalog.Feed(Context(s), st, config(0), catalog.Position{}, r.take), catalog.ErrLostCommit)
}

func feedStalls(s *scene) {
	c := s.claims(1)
	s.put(c, "a", "v")
	var stalls atomic.Int64
	st := &hooked{Store: s.store()}
	st.onLog = func(ctx context.Context, after uint64, fn func(driver.Record) error) error {
		if after > 0 && stalls.Add(1) == 1 {
			<-ctx.Done()
			return &driver.Error{Store: st.String(), Op: "log", Err: ctx.Err()}
		}
		return st.Store.Log(ctx, after, fn)
	}
	cfg := config(0)
	cfg.StoreTimeout = 200 * time.Millisecond
	begun := make(chan struct{})
	r := s.reader(func(r *reader) bool {
		if r.events == 1 {
			close(begun)
		}
		return r.entries["b"] != ""
	})
	done := async(func() error { return catalog.Feed(Context(s), st, cfg, catalog.Position{}, r.take) })
	s.awaitDone(begun) // else one snapshot has both
	s.put(c, "b", "v")
	require.ErrorIs(s, <-done, errRead)
	require.Greater(s, stalls.Load(), int64(1), "the store has not stalled")
}
