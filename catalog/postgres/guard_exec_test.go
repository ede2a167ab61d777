package postgres_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testpg"
)

func TestAGuardedStatementIsCommittedOrHasChangedNothing(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	token := drivertest.Install(t, s, 1).Claim.Token
	testpg.Exec(t, dsn, `create table orders (id int primary key, note text)`)
	pool, sent := counted(t, withoutParam(t, dsn, "catalog"))
	const write = `insert into orders values ($1, $2)`

	tag, err := postgres.Exec(within(t, soon), pool, token, write, 1, "one")
	require.NoError(t, err)
	require.EqualValues(t, 1, tag.RowsAffected())
	require.Equal(t, 1, count(t, pool, "orders"))

	_, err = postgres.Exec(within(t, soon), pool, token, write, 1, "again")
	var refused *pgconn.PgError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "23505", refused.Code)
	require.Zero(t, pool.Stat().AcquiredConns())

	newer := claim(t, s).Claim.Token
	_, err = postgres.Exec(within(t, soon), pool, token, write, 2, "stale")
	require.ErrorIs(t, err, fence.ErrFenced)
	_, err = postgres.Exec(within(t, soon), pool, newer, write, 2, "two")
	require.NoError(t, err)
	before := sent.Load()
	_, err = postgres.Exec(within(t, soon), pool, newer, write, 3, "two")
	require.NoError(t, err)
	require.EqualValues(t, 3, sent.Load()-before, "one is the statement's")
	require.Equal(t, 3, count(t, pool, "orders where note in ('one', 'two')"))
	require.Equal(t, 3, count(t, pool, "orders"))
	require.EqualValues(t, 1, pool.Stat().NewConnsCount())
}

func TestTheOptionsOfAGuardedStatementStandBeforeItsArguments(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	token := drivertest.Install(t, open(t, dsn), 1).Claim.Token
	pool := orders(t, dsn)
	readOnly := postgres.WithTxOptions(pgx.TxOptions{AccessMode: pgx.ReadOnly})
	for name, c := range map[string]struct {
		args []any
		want string
	}{
		"of the guard":         {[]any{postgres.InCatalog("main"), 1}, ""},
		"of the guard and pgx": {[]any{postgres.InCatalog("main"), pgx.QueryExecModeExec, 2}, ""},
		"of pgx":               {[]any{pgx.QueryExecModeExec, 3}, ""},
		"another catalog's":    {[]any{postgres.InCatalog("other"), 4}, "no guard"},
		"read only":            {[]any{postgres.InCatalog("main"), readOnly, 5}, "read-only transaction"},
		"too late":             {[]any{6, postgres.InCatalog("other")}, "argument"},
	} {
		_, err := postgres.Exec(within(t, soon), pool, token, `insert into orders values ($1)`, c.args...)
		if c.want == "" {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, c.want, name)
	}
	require.Equal(t, 3, count(t, pool, "orders"))
}
