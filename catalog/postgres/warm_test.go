package postgres

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/internal/testpg"
)

// statementsOf returns the statements that each idle connection of s has prepared.
func statementsOf(t *testing.T, s *Store) (all [][]string) {
	t.Helper()
	for _, conn := range s.pool.AcquireAllIdle(t.Context()) {
		defer conn.Release()
		rows, err := conn.Query(t.Context(), `select name from pg_prepared_statements where statement !~ 'pg_prepared_statements' order by 1`)
		require.NoError(t, err)
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		all = append(all, names)
	}
	return all
}

func TestAClaimAndItsFirstCommitsPrepareNothingThatWarmDidNot(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	first, err := Open(t.Context(), dsn, Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, first.Close()) }()
	drivertest.Install(t, first, 1)
	version, err := first.Post(drivertest.Context(t), driver.Note{Key: "k", Value: []byte("v")})
	require.NoError(t, err)

	s, err := Open(t.Context(), dsn, Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	_, err = s.Head(drivertest.Context(t)) // as who follows does
	require.NoError(t, err)
	require.NoError(t, s.Warm(drivertest.Context(t)))
	before := statementsOf(t, s)
	require.Len(t, before, warmConns)
	require.Equal(t, before[0], before[1])

	claiming, err := s.Claim(drivertest.Context(t))
	require.NoError(t, err)
	claim := drivertest.NextClaim(t, claiming.Head(), 2)
	require.NoError(t, claiming.Install(drivertest.Context(t), claim, drivertest.ClaimRecord(claim), driver.Note{Key: "k", Version: version}))
	drivertest.Append(t, s, claim.Head(), []byte("a"))
	_, err = s.Post(drivertest.Context(t), driver.Note{Key: "k", Value: []byte("w"), Version: version})
	require.NoError(t, err)
	_, err = s.Notes(drivertest.Context(t), "k")
	require.NoError(t, err)
	require.Equal(t, before, statementsOf(t, s), "nor was a further connection needed")
}

func TestWarmIsAskedByOneAtATimeAndSoonAgainForNothing(t *testing.T) {
	t.Parallel()
	s, _ := held(t)
	s.pool.Reset()
	s.warming.Lock()
	require.NoError(t, s.Warm(t.Context()))
	require.Zero(t, s.pool.Stat().TotalConns())
	s.warming.Unlock()
	require.NoError(t, s.Warm(t.Context()))
	var marked []any
	for _, conn := range s.pool.AcquireAllIdle(t.Context()) {
		marked = append(marked, conn.Conn().PgConn().CustomData()[markWarm])
		conn.Release()
	}
	require.Equal(t, []any{true, true}, marked, "none is warmed a second time")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, s.Warm(ended), "there is nothing to do")
	s.warming.Lock()
	s.warmed = s.warmed.Add(-time.Minute)
	s.warming.Unlock()
	require.Error(t, s.Warm(ended))
}

func TestAClosedStoreIsNotWarmThoughItsServerIs(t *testing.T) {
	t.Parallel()
	server, err := Connect(t.Context(), testpg.URL(t), Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close()) }()
	open, err := server.Open(t.Context(), "open")
	require.NoError(t, err)
	closed, err := server.Open(t.Context(), "closed")
	require.NoError(t, err)
	drivertest.Install(t, open, 1)
	require.NoError(t, open.Warm(drivertest.Context(t)))
	require.NoError(t, closed.Close())
	require.ErrorIs(t, closed.Warm(drivertest.Context(t)), errClosed)
}

func TestWarmTakesNoConnectionThatSomebodyMayWant(t *testing.T) {
	t.Parallel()
	server, err := Connect(t.Context(), testpg.URL(t), Config{MaxConns: 2})
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close()) }()
	busy, err := server.Open(t.Context(), "busy")
	require.NoError(t, err)
	waits, err := server.Open(t.Context(), "waits")
	require.NoError(t, err)
	head := drivertest.Install(t, waits, 1)
	claiming, err := busy.Claim(drivertest.Context(t))
	require.NoError(t, err)
	defer claiming.Abandon()
	require.EqualValues(t, 1, server.links.pool.Stat().AcquiredConns())
	acquired := server.links.pool.Stat().AcquireCount()
	require.NoError(t, waits.Warm(drivertest.Context(t)))
	require.Equal(t, acquired, server.links.pool.Stat().AcquireCount())
	drivertest.Append(t, waits, head, []byte("a"))
	claiming.Abandon()
	require.NoError(t, waits.Warm(drivertest.Context(t)))
	require.Equal(t, acquired+2, server.links.pool.Stat().AcquireCount(), "the commit's, and one that was free")
}

func TestAClaimThatIsRefusedLeavesItsStatementsPrepared(t *testing.T) {
	t.Parallel()
	s, _ := held(t)
	require.NoError(t, s.Warm(drivertest.Context(t)))
	before := statementsOf(t, s)
	claiming, err := s.Claim(drivertest.Context(t))
	require.NoError(t, err)
	claim := drivertest.NextClaim(t, claiming.Head(), 2)
	err = claiming.Install(drivertest.Context(t), claim, drivertest.ClaimRecord(claim), driver.Note{Key: "other", Version: 7})
	require.ErrorIs(t, err, driver.ErrConflict)
	require.Equal(t, before, statementsOf(t, s))
}

func TestWarmOpensNothingWhereThereIsNothingToClaim(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), testpg.URL(t), Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	require.NoError(t, s.Warm(drivertest.Context(t)))
	require.Zero(t, s.pool.Stat().TotalConns())
	drivertest.Install(t, s, 1)
	other, err := Open(t.Context(), s.pool.Config().ConnString(), Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close()) }()
	require.NoError(t, other.Warm(drivertest.Context(t)))
	require.EqualValues(t, warmConns, other.pool.Stat().TotalConns(), "who has not looked yet looks")
}

func TestTheFirstLookAtADatabaseWithoutASchemaIsNoErrorOfTheServers(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s, err := Open(t.Context(), dsn, Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	failed := func() (n int64) {
		require.NoError(t, testpg.Connect(t, dsn).QueryRow(t.Context(), `select xact_rollback from pg_stat_database where datname = current_database()`).Scan(&n))
		return n
	}
	before := failed()
	claiming, err := s.Claim(drivertest.Context(t))
	require.NoError(t, err)
	defer claiming.Abandon()
	claim := drivertest.NextClaim(t, claiming.Head(), 1)
	require.NoError(t, claiming.Install(drivertest.Context(t), claim, drivertest.ClaimRecord(claim)))
	require.NoError(t, s.Close()) // a session tells its figures at its end
	require.Equal(t, before, failed())
}
