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
	s, err := Open(t.Context(), testpg.URL(t), Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	s.warming.Lock()
	require.NoError(t, s.Warm(t.Context()))
	require.Zero(t, s.pool.Stat().TotalConns())
	s.warming.Unlock()
	require.NoError(t, s.Warm(t.Context()))
	require.NotZero(t, s.pool.Stat().TotalConns())
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, s.Warm(ended), "there is nothing to do")
	s.warming.Lock()
	s.warmed = s.warmed.Add(-time.Minute)
	s.warming.Unlock()
	require.Error(t, s.Warm(ended))
}
