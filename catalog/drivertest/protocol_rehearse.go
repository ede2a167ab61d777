package drivertest

import (
	"context"
	"errors"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

func rehearseCases() []protocolCase {
	return []protocolCase{
		{"a rehearsal runs the migrations for real and writes nothing", rehearsalWritesNothing},
		{"a rehearsal notices supersession", rehearsalSuperseded},
		{"a migration that fails in the claim fails in the rehearsal", rehearsalFails},
		{"migrations that do not fit into one commit fail in the rehearsal", rehearsalTooLarge},
	}
}

// refusing is a store that no write may reach.
func (s *scene) refusing() driver.Store {
	h := &hooked{Store: s.store()}
	h.onAppend = func(context.Context, driver.Head, driver.Record) error { panic("an append") }
	h.onPost = func(context.Context, driver.Note) (int64, error) { panic("a post") }
	h.onInstall = func(context.Context, driver.Claiming, driver.Claim, driver.Record, []driver.Note) error {
		panic("a claim")
	}
	return h
}

func rehearsalWritesNothing(s *scene) {
	c := s.claimsOver(s.store(), migrating(1, 2))
	s.put(c, "k", "v")
	st := s.store()
	head, log := ReadHead(s, st), ReadLog(s, st, 0)
	r, err := catalog.Rehearse(Context(s), s.refusing(), migrating(2, 4))
	require.NoError(s, err)
	require.Equal(s, map[string]string{"k": "v", "steps": "1234"}, s.contents(r))
	steps := r.Migrations()
	require.Len(s, steps, 2)
	require.EqualValues(s, 3, steps[0].Version)
	require.Equal(s, "step 4", steps[1].Name)
	for _, step := range steps {
		require.Equal(s, 1, step.Sets)
		require.Positive(s, step.Took)
		require.Positive(s, step.Bytes)
	}
	require.NoError(s, r.Update(func(tx *catalog.Tx) error { return entries().Set(tx, "private", nil) }))
	mine := errors.New("no")
	require.ErrorIs(s, r.Update(func(tx *catalog.Tx) error { return errors.Join(mine, entries().Set(tx, "bad", nil)) }), mine)
	require.Contains(s, s.contents(r), "private")
	require.NotContains(s, s.contents(r), "bad")
	SameHead(s, head, r.Head())
	require.NoError(s, r.Close())
	require.ErrorIs(s, r.Update(func(*catalog.Tx) error { return nil }), catalog.ErrClosed)

	SameHead(s, head, ReadHead(s, st))
	SameLog(s, log, ReadLog(s, st, 0))
	require.NoError(s, c.Confirm(Context(s)), "the rehearsal has fenced the holder")
	next := s.claimsOver(s.store(), migrating(2, 4))
	require.Equal(s, "1234", s.contents(next)["steps"], "the claim did something else")
	require.NotContains(s, s.contents(next), "private")
}

func rehearsalSuperseded(s *scene) {
	s.claims(1)
	r, err := catalog.Rehearse(Context(s), s.store(), config(2))
	require.NoError(s, err)
	s.claims(3)
	s.awaitDone(r.Done())
	s.supersededBy("g3.e2", r.Err())
	s.supersededBy("g3.e2", r.View(func(*catalog.Reader) error { return nil }))
	s.supersededBy("g3.e2", r.Update(func(*catalog.Tx) error { return nil }))
	s.supersededBy("g3.e2", r.Close())
	_, err = catalog.Rehearse(Context(s), s.store(), config(2))
	s.supersededBy("g3.e2", err)
}

func rehearsalFails(s *scene) {
	s.claimsOver(s.store(), migrating(1, 1))
	cfg := migrating(2, 2)
	mine := errors.New("the data are not as expected")
	cfg.Migrations[1].Up = func(*catalog.Tx) error { return mine }
	_, err := catalog.Rehearse(Context(s), s.refusing(), cfg)
	require.ErrorIs(s, err, mine)
	cfg.Migrations = cfg.Migrations[:0]
	_, err = catalog.Rehearse(Context(s), s.refusing(), cfg)
	require.ErrorIs(s, err, catalog.ErrIncompatible)
}

func rehearsalTooLarge(s *scene) {
	st := s.refusing()
	cfg := migrating(2, 1)
	cfg.Migrations[0].Up = func(tx *catalog.Tx) error {
		return entries().Set(tx, "huge", make([]byte, st.Limits().Payload))
	}
	_, err := catalog.Rehearse(Context(s), st, cfg)
	require.ErrorIs(s, err, driver.ErrTooLarge)
	require.Equal(s, exitcodes.Config, exitcodes.CodeOf(err))
}
