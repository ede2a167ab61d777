package postgres

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
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

// TestOnlyWhatTheRightsOfAGuardCanLockIsEndedForAClaim has others in the claim's way:
// an earlier claim, one that waits for the guard itself behind that, the view's owner
// at work, and one that has looked at the view.
func TestOnlyWhatTheRightsOfAGuardCanLockIsEndedForAClaim(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s, err := Open(t.Context(), dsn, Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	drivertest.Install(t, s, 1)
	ctx := drivertest.Context(t)
	const guard, await = `begin; select fencepost.guard('main', 'g1.e1')`, `begin; select fencepost.await_guards('main'); rollback`
	owner, reader, zombie, look := testpg.Connect(t, dsn), testpg.Connect(t, dsn), testpg.Connect(t, dsn), testpg.Connect(t, dsn)
	_, err = owner.Exec(ctx, `begin; lock table fencepost."main@g1.e1" in share update exclusive mode`)
	require.NoError(t, err)
	_, err = reader.Exec(ctx, `begin; lock table fencepost."main@g1.e1" in access share mode`)
	require.NoError(t, err)
	_, err = zombie.Exec(ctx, guard)
	require.NoError(t, err)
	var ended sync.WaitGroup
	queue := func(sql string) (pid int32) { // returns once it waits
		conn := testpg.Connect(t, dsn)
		pid = int32(conn.PgConn().PID())
		ended.Go(func() {
			_, err := conn.Exec(ctx, sql)
			assert.NoError(t, err)
		})
		require.Eventually(t, func() (waits bool) {
			err := look.QueryRow(ctx, `select cardinality(pg_blocking_pids($1)) > 0`, pid).Scan(&waits)
			return err == nil && waits
		}, time.Minute, time.Millisecond)
		return pid
	}
	earlier := queue(await)
	writer := queue(guard + `; rollback`)
	claim := queue(await)
	var inTheWay []int32
	require.NoError(t, look.QueryRow(ctx, `select array_agg(distinct p) from unnest(pg_blocking_pids($1)) as p`, claim).Scan(&inTheWay))
	require.ElementsMatch(t, []int32{int32(owner.PgConn().PID()), int32(reader.PgConn().PID()), int32(zombie.PgConn().PID()), earlier, writer}, inTheWay)
	rows, err := look.Query(ctx, guardedBySQL, s.args(claim, "main")...)
	require.NoError(t, err)
	holders, err := pgx.CollectRows(rows, scanBlocker)
	require.NoError(t, err)
	var found []int32
	for _, h := range holders {
		found = append(found, int32(h.pid))
	}
	require.ElementsMatch(t, []int32{int32(reader.PgConn().PID()), int32(zombie.PgConn().PID())}, found)
	for _, other := range inTheWay {
		if !slices.Contains(found, other) {
			require.ErrorIs(t, look.QueryRow(ctx, terminateSQL, s.args(claim, "main", other)...).Scan(new(bool)), pgx.ErrNoRows)
		}
	}
	for _, conn := range []*pgx.Conn{owner, reader, zombie} {
		_, err := conn.Exec(ctx, `rollback`)
		require.NoError(t, err)
	}
	ended.Wait()
}
