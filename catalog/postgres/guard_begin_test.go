package postgres_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testpg"
)

// A countedConn counts what is sent: once a round trip.
type countedConn struct {
	net.Conn
	sent *atomic.Int64
}

func (c countedConn) Write(b []byte) (int, error) {
	c.sent.Add(1)
	return c.Conn.Write(b)
}

// counted returns a pool of one connection and how many round trips it has made.
func counted(t *testing.T, dsn string) (*pgxpool.Pool, *atomic.Int64) {
	t.Helper()
	config, err := pgxpool.ParseConfig(dsn)
	require.NoError(t, err)
	config.MaxConns = 1
	sent := new(atomic.Int64)
	config.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return countedConn{conn, sent}, err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool, sent
}

func TestAGuardedTransactionBeginsByOneRoundTrip(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	token := drivertest.Install(t, open(t, dsn), 1).Claim.Token
	pool, sent := counted(t, dsn)
	begin := func(by postgres.Beginner) {
		tx, err := postgres.Begin(within(t, soon), by, token)
		require.NoError(t, err)
		defer func() { require.NoError(t, tx.Rollback(within(t, soon))) }()
	}
	begin(pool)
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	for _, by := range []postgres.Beginner{conn, conn.Conn(), another{conn}} {
		before := sent.Load()
		begin(by)
		require.EqualValues(t, 2, sent.Load()-before, "and one rolls back")
	}
	conn.Release()
	before := sent.Load()
	begin(pool)
	require.EqualValues(t, 2, sent.Load()-before)
	_, err = postgres.Begin(within(t, soon), another{pool}, tokenOf(9, 9))
	require.ErrorIs(t, err, fence.ErrNeverIssued)
}

// another is a Beginner that this package does not know.
type another struct{ postgres.Beginner }

// TestAPoolKeepsItsConnectionsHoweverAGuardedTransactionEnds has one of a single
// connection, which nothing may lose or keep.
func TestAPoolKeepsItsConnectionsHoweverAGuardedTransactionEnds(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	token := drivertest.Install(t, s, 1).Claim.Token
	pool, _ := counted(t, dsn)
	for range 2 {
		tx, err := postgres.Begin(within(t, soon), pool, token)
		require.NoError(t, err)
		require.NoError(t, tx.Commit(within(t, soon)))
		require.ErrorIs(t, tx.Commit(within(t, soon)), pgx.ErrTxClosed)
		require.ErrorIs(t, tx.Rollback(within(t, soon)), pgx.ErrTxClosed)

		tx, err = postgres.Begin(within(t, soon), pool, token)
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), `select 1/0`)
		require.Error(t, err)
		require.ErrorIs(t, tx.Commit(within(t, soon)), pgx.ErrTxCommitRollback)

		tx, err = postgres.Begin(within(t, soon), pool, token)
		require.NoError(t, err)
		nested, err := tx.Begin(t.Context())
		require.NoError(t, err)
		require.NoError(t, nested.Rollback(t.Context()))
		require.NoError(t, tx.Rollback(within(t, soon)))

		_, err = postgres.Begin(within(t, soon), pool, tokenOf(9, 9))
		require.ErrorIs(t, err, fence.ErrNeverIssued)
		_, err = postgres.Begin(within(t, soon), pool, fence.Token{})
		require.ErrorIs(t, err, fence.ErrMissing)
	}
	newer := claim(t, s).Claim.Token
	_, err := postgres.Begin(within(t, soon), pool, token)
	require.ErrorIs(t, err, fence.ErrFenced, "on a connection that is known")
	tx, err := postgres.Begin(within(t, soon), pool, newer)
	require.NoError(t, err)
	require.NoError(t, tx.Commit(within(t, soon)))
	stat := pool.Stat()
	require.Zero(t, stat.AcquiredConns())
	require.EqualValues(t, 1, stat.NewConnsCount())
}
