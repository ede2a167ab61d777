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

// TestASessionThatNoLongerBlocksAClaimIsNotEnded has one be found as a blocker, and
// go on to something else before it would be ended.
func TestASessionThatNoLongerBlocksAClaimIsNotEnded(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s, err := Open(t.Context(), dsn, Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	drivertest.Install(t, s, 1)
	ctx := drivertest.Context(t)
	innocent, zombie, claim, other := testpg.Connect(t, dsn), testpg.Connect(t, dsn), testpg.Connect(t, dsn), testpg.Connect(t, dsn)
	for _, conn := range []*pgx.Conn{innocent, zombie} {
		_, err := conn.Exec(ctx, `begin; select fencepost.guard('main', 'g1.e1')`)
		require.NoError(t, err)
	}
	claimed := make(chan error, 1)
	go func() {
		_, err := claim.Exec(ctx, `begin; select fencepost.await_guards('main'); rollback`)
		claimed <- err
	}()
	end := func(conn *pgx.Conn) (ended bool, err error) {
		err = other.QueryRow(ctx, terminateSQL, s.args(int32(claim.PgConn().PID()), "main", int32(conn.PgConn().PID()))...).Scan(&ended)
		return ended, err
	}
	require.Eventually(t, func() bool {
		rows, err := other.Query(context.WithoutCancel(ctx), guardedBySQL, s.args(int32(claim.PgConn().PID()), "main")...)
		require.NoError(t, err)
		found, err := pgx.CollectRows(rows, scanBlocker)
		require.NoError(t, err)
		return len(found) == 2
	}, 10*time.Second, time.Millisecond)
	_, err = innocent.Exec(ctx, `commit; begin`)
	require.NoError(t, err)
	_, err = end(innocent)
	require.ErrorIs(t, err, pgx.ErrNoRows)
	require.NoError(t, innocent.Ping(ctx))
	ended, err := end(zombie)
	require.NoError(t, err)
	require.True(t, ended)
	require.NoError(t, <-claimed)
}
