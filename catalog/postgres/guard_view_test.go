package postgres

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testpg"
)

// lockable opens a store whose catalog main was claimed by g1.e1.
func lockable(t *testing.T) (dsn string, s *Store) {
	t.Helper()
	dsn = testpg.URL(t)
	s, err := Open(t.Context(), dsn, Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	drivertest.Install(t, s, 1)
	return dsn, s
}

func viewsOf(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), `select relname::text from pg_class where relnamespace = 'fencepost'::regnamespace and relkind = 'v' order by 1`)
	require.NoError(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return names
}

func TestServerAndClientNameTheViewOfATokenAlikeAndNoNameIsCut(t *testing.T) {
	t.Parallel()
	dsn, _ := lockable(t)
	conn := testpg.Connect(t, dsn)
	longest := fence.Token{Generation: math.MaxInt64, Epoch: math.MaxInt64}
	for _, key := range []string{"a", "main", strings.Repeat("b", 21), strings.Repeat("b", 22), strings.Repeat("c", 63), registerPrefix + "main", registerPrefix + strings.Repeat("d", 63)} {
		for _, token := range []fence.Token{{Generation: 1, Epoch: 1}, longest} {
			var name string
			require.NoError(t, conn.QueryRow(t.Context(), `select fencepost.guard_view($1, $2)`, key, token.String()).Scan(&name))
			require.Equal(t, name, viewName(key, token))
			require.LessOrEqual(t, len(name), 63)
		}
	}
}

// TestATokenThatPostgresWouldCutToTheNewestIsMalformed has a name of 63 bytes, behind
// which PostgreSQL cuts.
func TestATokenThatPostgresWouldCutToTheNewestIsMalformed(t *testing.T) {
	t.Parallel()
	dsn, _ := lockable(t)
	conn := testpg.Connect(t, dsn)
	longest := fence.Token{Generation: math.MaxInt64, Epoch: math.MaxInt64}
	name := strings.Repeat("r", 21-len(registerPrefix))
	_, err := conn.Exec(t.Context(), `select fencepost.raise($1, $2, $2, 'null')`, name, int64(math.MaxInt64))
	require.NoError(t, err)
	guard := func(token string) error {
		_, err := conn.Exec(t.Context(), `select fencepost.guard($1, $2)`, registerPrefix+name, token)
		return guardError(err)
	}
	require.NoError(t, guard(longest.String()))
	for _, more := range []string{"0", " ", "@", strings.Repeat("x", 1<<20)} {
		require.ErrorIs(t, guard(longest.String()+more), fence.ErrMalformed)
	}
	require.ErrorIs(t, guard("g09223372036854775807.e9223372036854775807"), fence.ErrMalformed)
}

// TestAClaimThatWaitsForAnotherOneHoldsTheViewThatItLeaves has the view renamed while
// a claim waits for it.
func TestAClaimThatWaitsForAnotherOneHoldsTheViewThatItLeaves(t *testing.T) {
	t.Parallel()
	dsn, _ := lockable(t)
	ctx := drivertest.Context(t)
	first, second, look := testpg.Connect(t, dsn), testpg.Connect(t, dsn), testpg.Connect(t, dsn)
	waits := func(conn *pgx.Conn) func() bool {
		return func() (blocked bool) {
			require.NoError(t, look.QueryRow(context.WithoutCancel(ctx), `select cardinality(pg_blocking_pids($1)) > 0`, int32(conn.PgConn().PID())).Scan(&blocked))
			return blocked
		}
	}
	for epoch, level := range []string{"read committed", "repeatable read"} {
		_, err := first.Exec(ctx, `begin; select fencepost.await_guards('main')`)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() {
			_, err := second.Exec(ctx, `begin isolation level `+level+`; select fencepost.await_guards('main')`)
			done <- err
		}()
		require.Eventually(t, waits(second), time.Minute, time.Millisecond)
		_, err = first.Exec(ctx, `update fencepost.token set generation = 2, epoch = $1`, epoch+2)
		require.NoError(t, err)
		_, err = first.Exec(ctx, `commit`)
		require.NoError(t, err)
		err = <-done
		if level == "repeatable read" {
			require.Equal(t, "40001", sqlState(err), "it can't find the new one")
			continue
		}
		require.NoError(t, err)
		var mode string
		require.NoError(t, second.QueryRow(ctx, `select mode from pg_locks where relation = 'fencepost."main@g2.e2"'::regclass and granted and pid = pg_backend_pid()`).Scan(&mode))
		require.Equal(t, "AccessExclusiveLock", mode)
		_, err = second.Exec(ctx, `rollback`)
		require.NoError(t, err)
	}
}

// TestOfATokenWhoseRowsWereEmptiedNothingIsLeftToLock has an operator empty the
// tables, of which the view stays, and the service begin anew.
func TestOfATokenWhoseRowsWereEmptiedNothingIsLeftToLock(t *testing.T) {
	t.Parallel()
	dsn, s := lockable(t)
	conn := testpg.Connect(t, dsn)
	zombie, err := Begin(drivertest.Context(t), conn, fence.Token{Generation: 1, Epoch: 1})
	require.NoError(t, err)
	require.NoError(t, zombie.Commit(t.Context()))
	require.Equal(t, []string{"main@g1.e1"}, viewsOf(t, conn))
	testpg.Exec(t, dsn, `truncate fencepost.head, fencepost.token, fencepost.claim, fencepost.log`)
	require.NoError(t, s.Close())
	s, err = Open(t.Context(), dsn, Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	drivertest.Install(t, s, 7)
	require.Equal(t, []string{"main@g7.e1"}, viewsOf(t, conn))
	_, err = Begin(drivertest.Context(t), conn, fence.Token{Generation: 1, Epoch: 1})
	require.ErrorIs(t, guardError(err), fence.ErrNeverIssued)
	testpg.Exec(t, dsn, `create view fencepost."main@g6.e6" as select true`, `update fencepost.token set epoch = 9`)
	require.Equal(t, []string{"main@g7.e9"}, viewsOf(t, conn))
}

// TestARowThatIsNotWrittenMovesNoView has a statement insert a token that is there.
func TestARowThatIsNotWrittenMovesNoView(t *testing.T) {
	t.Parallel()
	dsn, _ := lockable(t)
	testpg.Exec(t, dsn, `insert into fencepost.token select catalog, 9, 9, claim_id, system_id, timeline from fencepost.token on conflict do nothing`)
	require.Equal(t, []string{"main@g1.e1"}, viewsOf(t, testpg.Connect(t, dsn)))
}

// TestBehindAnOldSnapshotAStaleTokenIsNotCalledOneThatWasNeverIssued has a snapshot by
// which it is the newest.
func TestBehindAnOldSnapshotAStaleTokenIsNotCalledOneThatWasNeverIssued(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		dsn, _ := lockable(t)
		conn := testpg.Connect(t, dsn)
		_, err := conn.Exec(t.Context(), `begin isolation level `+level+`; select count(*) from fencepost.token`)
		require.NoError(t, err)
		testpg.Exec(t, dsn, `update fencepost.token set generation = 2, epoch = 2`)
		_, err = conn.Exec(t.Context(), `select fencepost.guard('main', 'g1.e1')`)
		require.Equal(t, "40001", sqlState(err))
	}
}

// TestACopyThatTakesThePlaceOfADatabaseIsNoticedOnAKnownConnection restores a dump over
// the database, which brings the view of the same token.
func TestACopyThatTakesThePlaceOfADatabaseIsNoticedOnAKnownConnection(t *testing.T) {
	t.Parallel()
	dsn, _ := lockable(t)
	token := fence.Token{Generation: 1, Epoch: 1}
	conn := testpg.Connect(t, dsn)
	begin := func() error {
		tx, err := Begin(drivertest.Context(t), conn, token)
		if err == nil {
			err = tx.Commit(t.Context())
		}
		return err
	}
	require.NoError(t, begin())
	testpg.Exec(t, dsn, `create table dump as select * from fencepost.token`, `delete from fencepost.token`, `insert into fencepost.token select * from dump`)
	require.Equal(t, []string{"main@g1.e1"}, viewsOf(t, conn))
	require.Eventually(t, func() bool {
		err := begin()
		if err != nil {
			require.ErrorIs(t, err, ErrCopied)
		}
		return err != nil
	}, time.Minute, 10*time.Millisecond)
	require.ErrorIs(t, begin(), ErrCopied)
}
