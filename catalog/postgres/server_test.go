package postgres_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testpg"
)

func TestAStandbyIsRefusedAndSoIsAnOlderTimeline(t *testing.T) {
	t.Parallel()
	primary := testpg.NewServer(t)
	claimed := open(t, primary.URL)
	want := claim(t, claimed)
	standby := primary.Standby(t)
	p, through := newProxy(t, standby.URL)
	s := open(t, through)

	_, headErr := s.Head(within(t, soon))
	_, claimErr := s.Claim(within(t, soon))
	_, notesErr := s.Notes(within(t, soon), "")
	_, postErr := s.Post(within(t, soon), driver.Note{Key: "k", Value: []byte("v")})
	logErr := s.Log(within(t, soon), 0, func(driver.Record) error { return nil })
	for _, err := range []error{headErr, claimErr, notesErr, postErr, logErr} {
		e := fails(t, err, exitcodes.Retry, driver.NotApplied)
		require.ErrorContains(t, err, "standby")
		require.Contains(t, e.Remedy, "primary")
	}
	fails(t, s.Append(within(t, soon), want, next(want)), exitcodes.Retry, driver.NotApplied)

	standby.Promote()
	got, err := s.Head(within(t, soon))
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.NotZero(t, p.conns.Load())

	// The same name now leads back to the old primary, which knows nothing.
	p.server.Store(primary.Address())
	standby.Stop()
	require.Eventually(t, func() bool {
		_, err = s.Head(within(t, soon))
		return err != nil
	}, soon, often)
	fails(t, err, exitcodes.Retry, driver.NotApplied)
	require.ErrorContains(t, err, "older timeline than one already seen: 1, seen was 2")
}

func TestTheHeadIsReadAgainAtOnceWhenTheServerIsBack(t *testing.T) {
	t.Parallel()
	server := testpg.NewServer(t)
	s := open(t, server.URL)
	want := claim(t, s)
	_, err := s.Head(within(t, soon))
	require.NoError(t, err)
	server.Stop()
	_, err = s.Head(within(t, soon))
	fails(t, err, exitcodes.Retry, driver.NotApplied)
	server.Start()
	got, err := s.Head(within(t, soon))
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestBrokenConnectionsForLivenessAreDialledAgainInTheSameCall(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	want := claim(t, s)
	_, err := s.Head(within(t, soon))
	require.NoError(t, err)
	broken := testpg.Backends(t, dsn, "fencepost")
	require.NotEmpty(t, broken)
	testpg.Exec(t, dsn, `select pg_terminate_backend(pid) from pg_stat_activity
		where datname = current_database() and application_name = 'fencepost'`)
	require.Eventually(t, func() bool { // others may have taken their place
		there := testpg.Backends(t, dsn, "fencepost")
		return !slices.ContainsFunc(broken, func(pid int) bool { return slices.Contains(there, pid) })
	}, soon, often)
	got, err := s.Head(within(t, soon))
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestAWatcherIsWokenByEveryClaimOfItsCatalogAndByNothingElse(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	for _, catalog := range []string{"main", "a-name-as-long-as-they-may-be-which-is-sixty-three-characters-x"} {
		t.Run(catalog, func(t *testing.T) {
			here := withParam(t, dsn, "catalog", catalog)
			s, other := open(t, here), open(t, here)
			var woken atomic.Int64
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Watch(ctx, func() { woken.Add(1) }) }()
			reaches := func(n int64) {
				require.Eventually(t, func() bool { return woken.Load() == n }, soon, often)
			}
			reaches(1)
			claim(t, other)
			reaches(2)
			_, err := other.Post(within(t, soon), driver.Note{Key: "k", Value: []byte("v")})
			require.NoError(t, err)
			claim(t, open(t, withParam(t, dsn, "catalog", "another")))
			claim(t, other)
			reaches(3)
			cancel()
			fails(t, <-done, exitcodes.None, driver.NotApplied)
			require.EqualValues(t, 3, woken.Load())
		})
	}
}

func TestAWatcherWhoseServerEndsSaysSo(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	begun := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() { done <- s.Watch(t.Context(), func() { begun <- struct{}{} }) }()
	<-begun
	testpg.Exec(t, dsn, `select pg_terminate_backend(pid) from pg_stat_activity
		where datname = current_database() and application_name = 'fencepost'`)
	fails(t, <-done, exitcodes.Retry, driver.NotApplied)
}

func TestNotesAreReplacedByCompareAndSwapAndOrderedByBytes(t *testing.T) {
	t.Parallel()
	s := open(t, testpg.URL(t))
	ctx := within(t, soon)
	post := func(n driver.Note) int64 {
		v, err := s.Post(ctx, n)
		require.NoError(t, err)
		return v
	}
	b, upper := post(driver.Note{Key: "p_b", Value: []byte{}}), post(driver.Note{Key: "p_B", Value: []byte("B")})
	post(driver.Note{Key: "pxb", Value: []byte("the prefix is no pattern")})
	notes, err := s.Notes(ctx, "p_")
	require.NoError(t, err)
	require.Equal(t, []driver.Note{
		{Key: "p_B", Value: []byte("B"), Version: upper},
		{Key: "p_b", Value: []byte{}, Version: b},
	}, notes)
	for _, stale := range []driver.Note{
		{Key: "p_b", Value: []byte("x")},
		{Key: "p_b"},
		{Key: "p_b", Value: []byte("x"), Version: b ^ 1},
		{Key: "p_b", Version: b ^ 1},
		{Key: "none", Value: []byte("x"), Version: 1},
	} {
		_, err := s.Post(ctx, stale)
		require.ErrorIs(t, err, driver.ErrConflict)
		fails(t, err, exitcodes.None, driver.NotApplied)
	}
	again := post(driver.Note{Key: "p_b", Value: []byte("x"), Version: b})
	require.NotEqual(t, b, again)
	require.Zero(t, post(driver.Note{Key: "p_b", Version: again}))
	require.NotEqual(t, b, post(driver.Note{Key: "p_b", Value: []byte{}}))
	_, err = s.Post(ctx, driver.Note{Key: "with\x00zero", Value: []byte{}})
	fails(t, err, exitcodes.None, driver.NotApplied)
}

func TestTheStoreWorksWithoutPreparedStatements(t *testing.T) {
	t.Parallel()
	s := open(t, withParam(t, testpg.URL(t), "default_query_exec_mode", "exec"))
	head := claim(t, s)
	rec := next(head)
	require.NoError(t, s.Append(within(t, soon), head, rec))
	require.Equal(t, rec, records(t, s)[1])
	_, err := s.Post(within(t, soon), driver.Note{Key: "k", Value: []byte("v")})
	require.NoError(t, err)
	notes, err := s.Notes(within(t, soon), "")
	require.NoError(t, err)
	require.Len(t, notes, 1)
}

// A pooler in transaction mode is played by a session that forgets what was
// prepared in it.
func TestAPreparedStatementThatMeetsAPoolerIsTheLastOne(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	config, err := pgxpool.ParseConfig(dsn)
	require.NoError(t, err)
	postgres.Prepare(config)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	defer pool.Close()
	s, err := postgres.Open(t.Context(), dsn, postgres.Config{Pool: pool})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	head := claim(t, s)
	rec := next(head)
	require.NoError(t, s.Append(within(t, soon), head, rec))
	forget := func() {
		for _, conn := range pool.AcquireAllIdle(t.Context()) {
			_, err := conn.Exec(t.Context(), "deallocate all")
			require.NoError(t, err)
			conn.Release()
		}
	}
	head = head.After(rec)
	rec = next(head)
	forget()
	fails(t, s.Append(within(t, soon), head, rec), exitcodes.Retry, driver.NotApplied)
	require.NoError(t, s.Append(within(t, soon), head, rec))
	head = head.After(rec)
	forget()
	require.NoError(t, s.Append(within(t, soon), head, next(head)))
}

func TestCloseEndsAWatcherAndWaitsForIt(t *testing.T) {
	t.Parallel()
	dsn := withParam(t, testpg.URL(t), "application_name", "watched")
	s, err := postgres.Open(t.Context(), dsn, postgres.Config{})
	require.NoError(t, err)
	begun := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() { done <- s.Watch(t.Context(), func() { begun <- struct{}{} }) }()
	<-begun
	require.Len(t, testpg.Backends(t, dsn, "watched"), 1)
	require.NoError(t, s.Close())
	err = <-done
	fails(t, err, exitcodes.None, driver.NotApplied)
	require.ErrorContains(t, err, "the store is closed")
	require.Eventually(t, func() bool { return len(testpg.Backends(t, dsn, "watched")) == 0 }, soon, often)
	fails(t, s.Watch(t.Context(), func() {}), exitcodes.None, driver.NotApplied)
}

func TestAPlanThatAnAlteredTableMadeUselessIsTriedAgain(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	claim(t, s)
	version, err := s.Post(within(t, soon), driver.Note{Key: "k", Value: []byte("v")})
	require.NoError(t, err)
	want := []driver.Note{{Key: "k", Value: []byte("v"), Version: version}}
	notes, err := s.Notes(within(t, soon), "")
	require.NoError(t, err)
	require.Equal(t, want, notes)
	testpg.Exec(t, dsn, `alter table fencepost.board alter column key type varchar(100) collate "C"`)
	_, err = s.Notes(within(t, soon), "")
	fails(t, err, exitcodes.Retry, driver.NotApplied)
	require.ErrorContains(t, err, "cached plan")
	notes, err = s.Notes(within(t, soon), "")
	require.NoError(t, err)
	require.Equal(t, want, notes)
}
