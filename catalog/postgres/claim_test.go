package postgres_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/step"
	"github.com/fencepost/fencepost/internal/testpg"
)

func TestABlockedClaimNamesTheSessionThatIsIdleInATransaction(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	claim(t, s)
	zombie := testpg.Connect(t, withParam(t, dsn, "application_name", "zombie"))
	_, err := zombie.Exec(t.Context(), `begin; select from fencepost.head for update`)
	require.NoError(t, err)

	for name, table := range map[string]*postgres.Store{"a claim": s, "another process's": open(t, dsn)} {
		err := blocked(t, table)
		e := fails(t, err, exitcodes.Retry, driver.NotApplied)
		require.ErrorIs(t, err, driver.ErrBlocked, name)
		require.ErrorContains(t, err, fmt.Sprintf("process %d ", zombie.PgConn().PID()))
		require.ErrorContains(t, err, "zombie")
		require.ErrorContains(t, err, "127.0.0.1")
		require.ErrorContains(t, err, "idle in transaction since 2")
		require.NotEmpty(t, e.Remedy)
	}

	_, err = zombie.Exec(t.Context(), `rollback`)
	require.NoError(t, err)
	claim(t, s)
}

func TestAClaimBehindABlockedClaimNamesTheSessionAtTheRoot(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	first, second := open(t, dsn), open(t, dsn)
	claim(t, first)
	zombie := testpg.Connect(t, dsn)
	_, err := zombie.Exec(t.Context(), `begin; select from fencepost.token for share`)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := tryClaim(within(t, soon), first)
		done <- err
	}()
	between := waiting(t, dsn)
	err = blocked(t, second)
	require.ErrorIs(t, err, driver.ErrBlocked)
	require.ErrorContains(t, err, fmt.Sprintf("process %d ", zombie.PgConn().PID()))
	require.NotContains(t, err.Error(), fmt.Sprintf("process %d ", between), "who waits as well is not to be ended")
	_, err = zombie.Exec(t.Context(), `rollback`)
	require.NoError(t, err)
	require.NoError(t, <-done)
}

func TestACommitWaitsForAClaimUnderWayAndIsThenRefused(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	head := claim(t, s)
	c, err := s.Claim(within(t, soon))
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- s.Append(within(t, soon), head, next(head)) }()
	require.Eventually(t, func() bool { return testpg.Waiting(dsn) != 0 }, soon, often)
	installed, rec := nextClaim(c.Head())
	require.NoError(t, c.Install(within(t, soon), installed, rec))
	require.ErrorIs(t, <-done, driver.ErrConflict)
	require.Len(t, records(t, s), 2)
}

func TestAClaimThatStopsReleasesTheOthers(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	stopped, err := postgres.Open(t.Context(), dsn, postgres.Config{ClaimIdle: 2 * time.Second})
	require.NoError(t, err)
	defer func() { require.NoError(t, stopped.Close()) }()
	c, err := stopped.Claim(within(t, soon))
	require.NoError(t, err)
	claim(t, open(t, dsn))
	next, rec := nextClaim(c.Head())
	fails(t, c.Install(within(t, soon), next, rec), exitcodes.Retry, driver.NotApplied)
	require.Len(t, records(t, open(t, dsn)), 1)
}

func TestAClaimThatIsRenewedOutlivesClaimIdle(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s, err := postgres.Open(t.Context(), dsn, postgres.Config{ClaimIdle: time.Second})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	c, err := s.Claim(within(t, soon))
	require.NoError(t, err)
	for begun := time.Now(); time.Since(begun) < 3*time.Second; <-time.After(200 * time.Millisecond) {
		require.NoError(t, c.Renew(within(t, soon)))
	}
	next, rec := nextClaim(c.Head())
	require.NoError(t, c.Install(within(t, soon), next, rec))
	fails(t, c.Renew(within(t, soon)), exitcodes.None, driver.NotApplied)
}

func TestCloseEndsAClaimUnderWay(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s, err := postgres.Open(t.Context(), dsn, postgres.Config{})
	require.NoError(t, err)
	c, err := s.Claim(within(t, soon))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	claim(t, open(t, dsn))
	next, rec := nextClaim(c.Head())
	fails(t, c.Install(within(t, soon), next, rec), exitcodes.None, driver.NotApplied)
	c.Abandon()
}

func TestNoAbandonedClaimLeavesASessionInATransaction(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	claim(t, s)
	conn := testpg.Connect(t, dsn)
	idle := func() (n int) {
		require.NoError(t, conn.QueryRow(t.Context(), `select count(*) from pg_stat_activity
			where datname = current_database() and state like 'idle in transaction%'`).Scan(&n))
		return n
	}
	c, err := s.Claim(within(t, soon))
	require.NoError(t, err)
	require.Equal(t, 1, idle())
	c.Abandon()
	require.Zero(t, idle())

	ctx, cancel := context.WithCancel(t.Context())
	c, err = s.Claim(ctx)
	require.NoError(t, err)
	cancel()
	next, rec := nextClaim(c.Head())
	fails(t, c.Install(ctx, next, rec), exitcodes.None, driver.NotApplied)
	require.Eventually(t, func() bool { return idle() == 0 }, soon, often)
	require.Len(t, records(t, s), 1)
}

func TestAClaimHoldsOnConditionOfItsNotes(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	ctx := within(t, soon)
	version, err := s.Post(ctx, driver.Note{Key: "intent", Value: []byte("promote 1")})
	require.NoError(t, err)
	install := func(when ...driver.Note) error {
		c, err := s.Claim(ctx)
		require.NoError(t, err)
		next, rec := nextClaim(c.Head())
		return c.Install(ctx, next, rec, when...)
	}
	require.NoError(t, install(driver.Note{Key: "intent", Version: version}, driver.Note{Key: "abort"}))
	require.ErrorIs(t, install(driver.Note{Key: "intent", Version: version + 1}), driver.ErrConflict)
	require.ErrorIs(t, install(driver.Note{Key: "intent"}), driver.ErrConflict)
	require.ErrorIs(t, install(driver.Note{Key: "abort", Version: 5}), driver.ErrConflict)
	notes, err := s.Notes(ctx, "")
	require.NoError(t, err)
	require.Equal(t, []driver.Note{{Key: "intent", Value: []byte("promote 1"), Version: version}}, notes)
	require.Len(t, records(t, s), 1)
}

func TestANoteThatMustBeMissingStaysMissingUntilTheClaimHasEnded(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	claim(t, s)
	posted := make(chan error, 1)
	ctx := step.With(within(t, soon), func(p step.Point) {
		if p != step.ClaimHeadWritten {
			return
		}
		go func() {
			_, err := s.Post(within(t, soon), driver.Note{Key: "abort", Value: []byte("x")})
			posted <- err
		}()
		require.Eventually(t, func() bool { return testpg.Waiting(dsn) != 0 }, soon, often)
	})
	c, err := s.Claim(ctx)
	require.NoError(t, err)
	next, rec := nextClaim(c.Head())
	require.NoError(t, c.Install(ctx, next, rec, driver.Note{Key: "abort"}))
	require.NoError(t, <-posted)
}

func TestANoteThatAClaimStandsOnStaysUntilTheClaimHasEnded(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	claim(t, s)
	version, err := s.Post(within(t, soon), driver.Note{Key: "intent", Value: []byte("promote 1")})
	require.NoError(t, err)
	var posted <-chan error
	ctx := step.With(within(t, soon), func(p step.Point) {
		if p != step.ClaimHeadWritten {
			return
		}
		posted = async(func() error {
			_, err := s.Post(within(t, soon), driver.Note{Key: "intent", Version: version})
			return err
		})
		require.Eventually(t, func() bool { return testpg.Waiting(dsn) != 0 || len(posted) > 0 }, soon, often)
		require.Empty(t, posted, "the note was removed under the claim")
	})
	c, err := s.Claim(ctx)
	require.NoError(t, err)
	next, rec := nextClaim(c.Head())
	require.NoError(t, c.Install(ctx, next, rec, driver.Note{Key: "intent", Version: version}))
	require.NoError(t, <-posted)
}

func TestAClaimThatIsNotItsRecordsIsADefectAndWritesNothing(t *testing.T) {
	t.Parallel()
	s := open(t, testpg.URL(t))
	head := claim(t, s)
	for name, spoil := range map[string]func(*driver.Claim, *driver.Record){
		"id":       func(c *driver.Claim, _ *driver.Record) { c.ID = driver.NewID() },
		"token":    func(c *driver.Claim, _ *driver.Record) { c.Token.Epoch++ },
		"revision": func(c *driver.Claim, _ *driver.Record) { c.Revision++ },
		"place":    func(c *driver.Claim, r *driver.Record) { c.Revision++; r.Revision++ },
	} {
		c, err := s.Claim(within(t, soon))
		require.NoError(t, err)
		next, rec := nextClaim(c.Head())
		spoil(&next, &rec)
		err = c.Install(within(t, soon), next, rec)
		require.Error(t, err, name)
		fails(t, err, exitcodes.Panic, driver.NotApplied)
		require.Equal(t, head, drivertest.ReadHead(t, s), name)
	}
}

func TestClaimAndCommitPassTheirPointsInOrder(t *testing.T) {
	t.Parallel()
	s := open(t, testpg.URL(t))
	var passed []step.Point
	ctx := step.With(within(t, soon), func(p step.Point) { passed = append(passed, p) })
	head, err := tryClaim(ctx, s)
	require.NoError(t, err)
	require.NoError(t, s.Append(ctx, head, next(head)))
	require.Equal(t, []step.Point{
		step.ClaimBegun, step.ClaimHeadWritten, step.ClaimLogWritten, step.ClaimCommitted,
		step.CommitBegun, step.CommitLanded,
	}, passed)
}
