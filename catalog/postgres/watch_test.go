package postgres

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/internal/testpg"
)

func TestAWatcherLeavesAServerThatTheStoreHasLeft(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), testpg.URL(t), Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	s.ear.quiet = time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, err := s.readServer(ctx, testpg.Connect(t, s.pool.Config().ConnString()))
	require.NoError(t, err)
	s.place.Store(&place{started: st.started})
	heard := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() { done <- s.Watch(ctx, func() { heard <- struct{}{} }) }()
	<-heard
	testpg.Exec(t, s.pool.Config().ConnString(), `select pg_notify('`+channel(s.catalog)+`', '')`)
	<-heard
	s.place.Store(&place{started: st.started.Add(time.Microsecond)})
	require.ErrorIs(t, <-done, errMoved)
}

// TestWhoWatchesAgainSoonFindsTheConnection is the way of a follower that
// becomes a holder: else a process of the server ends, and another begins,
// beside the claim and the first commits.
func TestWhoWatchesAgainSoonFindsTheConnection(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), testpg.URL(t), Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	s.ear.linger = time.Hour
	look := testpg.Connect(t, s.pool.Config().ConnString())
	listening := func() (pids []int) {
		rows, err := look.Query(drivertest.Context(t), `select pid from pg_stat_activity where datname = current_database()
			and query like any (array['listen %', 'unlisten %'])`)
		require.NoError(t, err)
		pids, err = pgx.CollectRows(rows, pgx.RowTo[int])
		require.NoError(t, err)
		return pids
	}
	begin := func(call func(context.Context, func()) error) (end func()) {
		ctx, cancel := context.WithCancel(t.Context())
		begun, done := make(chan struct{}, 1), make(chan error, 1)
		go func() { done <- call(ctx, func() { begun <- struct{}{} }) }()
		<-begun
		return func() {
			cancel()
			require.ErrorIs(t, <-done, context.Canceled)
		}
	}
	end := begin(s.Watch)
	first := listening()
	require.Len(t, first, 1)
	end()
	end = begin(s.Watch)
	require.Equal(t, first, listening())
	end()
}

func TestTheConnectionEndsAWhileAfterTheLastWatcherHasLeft(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), testpg.URL(t), Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	s.ear.linger = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	heard, done := make(chan struct{}, 1), make(chan error, 1)
	go func() { done <- s.Watch(ctx, func() { heard <- struct{}{} }) }()
	<-heard
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	s.ear.tasks.Wait()
	require.Eventually(t, func() bool { return len(testpg.Backends(t, s.pool.Config().ConnString(), "fencepost")) == 0 },
		time.Minute, time.Millisecond, "of a store that has asked for nothing else")
}
