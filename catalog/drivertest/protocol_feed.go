package drivertest

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
)

func feedCases() []protocolCase {
	return []protocolCase{
		{"a feed gives a snapshot and then every commit, in order, once", feedFollows},
		{"a feed goes on behind the revision of its last event", feedResumes},
		{"a feed of an empty catalog begins with its first commit", feedOfNothing},
		{"a feed ends with its reader's error, and as superseded", feedEnds},
		{"a slow reader holds up nobody and misses nothing", slowReader},
	}
}

// A reader keeps what a feed gives it.
type reader struct {
	*scene
	entries map[string]string
	last    uint64
	events  int
	until   func(r *reader) bool
}

var errRead = errors.New("the reader has what it wants")

func (r *reader) take(e catalog.Event) error {
	if e.Revision <= r.last {
		r.Errorf("revision %d came after %d", e.Revision, r.last)
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
	r.last = e.Revision
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
func (r *reader) read(after uint64) {
	r.Helper()
	err := catalog.Feed(Context(r), r.refusing(), config(0), after, r.take)
	require.ErrorIs(r, err, errRead)
}

func feedFollows(s *scene) {
	const commits = 50
	c := s.claims(1)
	s.put(c, "before", "v")
	r := s.reader(func(r *reader) bool { return r.entries["last"] != "" })
	done := async(func() error { return catalog.Feed(Context(s), s.open(), config(0), 0, r.take) })
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
	first.read(0)
	require.Len(s, first.entries, 10, "the snapshot")
	s.put(c, "a", "v")
	s.put(c, "b", "v")
	second := s.reader(func(r *reader) bool { return r.entries["b"] != "" })
	second.last = first.last
	second.read(first.last)
	require.Equal(s, map[string]string{"a": "v", "b": "v"}, second.entries)
	require.Equal(s, 2, second.events)
	maps.Copy(first.entries, second.entries)
	require.Equal(s, s.contents(c), first.entries)

	err := catalog.Feed(Context(s), s.store(), config(0), 1000, second.take)
	require.ErrorContains(s, err, "above the newest one")
}

func feedOfNothing(s *scene) {
	behind := catalog.Feed(Context(s), s.store(), config(0), 7, func(catalog.Event) error { return errRead })
	require.ErrorContains(s, behind, "above the newest one", "a reader that knows more than an empty catalog")
	r := s.reader(func(r *reader) bool { return r.entries["k"] != "" })
	done := async(func() error { return catalog.Feed(Context(s), s.open(), config(0), 0, r.take) })
	s.put(s.claims(1), "k", "v")
	require.ErrorIs(s, <-done, errRead)
	require.Equal(s, map[string]string{"k": "v"}, r.entries)
}

func feedEnds(s *scene) {
	s.put(s.claims(1), "k", "v")
	begun := make(chan struct{})
	r := s.reader(func(*reader) bool { close(begun); return false })
	done := async(func() error { return catalog.Feed(Context(s), s.open(), config(1), 0, r.take) })
	<-begun
	s.claims(2)
	s.supersededBy("g2.e2", <-done)

	ctx, cancel := context.WithCancelCause(Context(s))
	mine := errors.New("mine")
	r = s.reader(func(*reader) bool { cancel(mine); return false })
	require.ErrorIs(s, catalog.Feed(ctx, s.store(), config(2), 0, r.take), mine)
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
	done := async(func() error { return catalog.Feed(Context(s), s.open(), config(0), 0, r.take) })
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
