package postgres

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/internal/testpg"
)

func TestOnlyTheServerToWriteToIsAdmitted(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	m := newSightings()
	require.NoError(t, m.admit(ctx, server{system: "1", timeline: 1}), "nothing was seen yet")
	require.ErrorIs(t, m.admit(ctx, server{system: "1", standby: true}), errStandby)

	m.meet("1", 3)
	m.meet("1", 2) // an older server was asked later
	require.EqualValues(t, 3, m.highest())
	require.ErrorIs(t, m.admit(ctx, server{system: "1", timeline: 2}), errTimeline)
	require.NoError(t, m.admit(ctx, server{system: "1", timeline: 3}))
	require.NoError(t, m.admit(ctx, server{system: "2", timeline: 1}), "nobody has said where the catalog is")
	m.meet("2", 9)
	require.Zero(t, m.highest(), "of two systems, neither is known to be the catalog's")

	m.settle("1", 2)
	require.EqualValues(t, 3, m.highest(), "a claim on an older timeline takes nothing back")
	require.ErrorIs(t, m.admit(ctx, server{system: "2", timeline: 9}), errElsewhere)
	require.NoError(t, m.admit(driver.Adopting(ctx), server{system: "2", timeline: 9}))
	require.ErrorIs(t, m.admit(driver.Adopting(ctx), server{system: "1", timeline: 2}), errTimeline)
	require.NoError(t, m.admit(ctx, server{timeline: 9}), "a role that may not ask for the system is not told apart")
}

func TestAConnectionIsStaleIfItsServerIsNotTheOneToWriteToOrWasLeftSince(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	m := newSightings()
	s := server{system: "1", timeline: 1, started: 1}
	m.meet(s.system, s.timeline)
	old := &dialed{server: s, at: time.Now().Add(-time.Second)}
	require.False(t, m.stale(ctx, old))
	m.leave(s)
	require.True(t, m.stale(ctx, old))
	require.False(t, m.stale(ctx, &dialed{server: s, at: time.Now().Add(time.Second)}), "made after it was left")
	other := &dialed{server: server{system: "1", timeline: 1, started: 2}, at: old.at}
	require.False(t, m.stale(ctx, other), "to another process")
	m.meet("1", 2)
	require.True(t, m.stale(ctx, other), "a server took over")
}

func TestAServerIsLeftOnlyIfAnotherOneMayDoWhatItCant(t *testing.T) {
	t.Parallel()
	for _, err := range []error{errStandby, errTimeline, errElsewhere, errMoved, &pgconn.PgError{Code: "25006"}} {
		require.True(t, wrongServer(err), "%v", err)
	}
	for _, err := range []error{nil, driver.ErrConflict, driver.ErrBlocked, errCut, &pgconn.PgError{Code: "57P01"}} {
		require.False(t, wrongServer(err), "%v", err)
	}
}

func TestAProcessThatHasClaimedOrReadTheHeadKnowsTheSystemOfTheClaim(t *testing.T) {
	t.Parallel()
	claimer, dsn := held(t)
	reader, err := Open(t.Context(), dsn, Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reader.Close()) })
	drivertest.ReadHead(t, reader)
	for _, s := range []*Store{claimer, reader} {
		require.ErrorIs(t, s.known.Load().admit(t.Context(), server{system: "another", timeline: 99}), errElsewhere)
	}
}

func TestAConnectionAloneTellsTheTimeline(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), testpg.URL(t), Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	conn, err := s.acquire(drivertest.Context(t), s.pool)
	require.NoError(t, err)
	defer s.give(conn)
	require.EqualValues(t, dialedOf(conn.Conn().PgConn()).server.timeline, s.known.Load().highest())
	require.Positive(t, s.known.Load().highest())
}

// TestNoHookOfTheApplicationsLetsAWrongServerIn is also about target_session_attrs,
// which pgx keeps in the same hook.
func TestNoHookOfTheApplicationsLetsAWrongServerIn(t *testing.T) {
	t.Parallel()
	config, err := pgxpool.ParseConfig(testpg.URL(t))
	require.NoError(t, err)
	asked := 0
	config.ConnConfig.ValidateConnect = func(context.Context, *pgconn.PgConn) error { asked++; return nil }
	m := newSightings()
	prepare(config, m)
	conn, err := pgx.ConnectConfig(t.Context(), config.ConnConfig.Copy())
	require.NoError(t, err)
	found := dialedOf(conn.PgConn()).server
	require.NoError(t, conn.Close(t.Context()))
	require.Equal(t, 1, asked)
	m.meet(found.system, found.timeline+1)
	_, err = pgx.ConnectConfig(t.Context(), config.ConnConfig.Copy())
	require.ErrorIs(t, err, errTimeline)
	require.Equal(t, 1, asked, "the hook is not asked about it")
}

// TestEachAnswerIsHeldAgainstWhatWasSeen is about a pooler, behind which a connection
// that was admitted may lead to another server by the next statement.
func TestEachAnswerIsHeldAgainstWhatWasSeen(t *testing.T) {
	t.Parallel()
	s, _ := held(t)
	ctx := drivertest.Context(t)
	conn, err := s.acquire(ctx, s.pool)
	require.NoError(t, err)
	defer s.give(conn)
	now, err := s.readState(ctx, conn)
	require.NoError(t, err)

	standby := now
	standby.standby = true
	require.ErrorIs(t, s.admit(ctx, conn, standby), errStandby)
	other := now
	other.started = now.started.Add(time.Second)
	require.ErrorIs(t, s.admit(ctx, conn, other), errMoved, "another process answered before")

	known := *s.place.Load()
	s.known.Load().meet(known.system, now.timeline+1)
	require.ErrorIs(t, s.admit(ctx, conn, now), errTimeline)
	_, err = s.readServer(ctx, conn)
	require.ErrorIs(t, err, errTimeline, "also where there is no head yet")
	known.system = "1"
	s.place.Store(&known)
	require.ErrorIs(t, s.admit(ctx, conn, now), errElsewhere, "the timelines of two systems are not compared")
}
