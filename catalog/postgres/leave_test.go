package postgres

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/testpg"
)

func TestNoHealthyConnectionIsClosedBecauseOfAnotherServer(t *testing.T) {
	t.Parallel()
	_, conns, err := parseDSN(testpg.URL(t))
	require.NoError(t, err)
	elsewhere, err := pgx.ParseConfig(testpg.NewServer(t).URL)
	require.NoError(t, err)
	var other atomic.Bool
	conns.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		if other.Load() {
			c.Host, c.Port, c.Database = elsewhere.Host, elsewhere.Port, elsewhere.Database
		}
		return nil
	}
	l, err := newLinks(t.Context(), conns, Config{}, nil)
	require.NoError(t, err)
	var taken []*pgxpool.Conn
	defer func() {
		for _, conn := range taken { // those of a test that failed
			conn.Release()
		}
		l.close()
	}()
	take := func(pool *pgxpool.Pool) (*pgxpool.Conn, uint32) {
		conn, err := l.acquire(t.Context(), pool)
		require.NoError(t, err)
		taken = append(taken, conn)
		return conn, conn.Conn().PgConn().PID()
	}
	healthy, before := take(l.liveness)
	give(healthy)

	other.Store(true)
	wrong, _ := take(l.pool)
	idle, _ := take(l.pool)
	busy, stale := take(l.pool)
	give(idle)
	l.leave(wrong, errTimeline)
	give(wrong)
	require.EqualValues(t, 1, l.pool.Stat().TotalConns(), "an idle connection to the same server is closed at once")
	give(busy)
	again, fresh := take(l.pool)
	give(again)
	require.NotEqual(t, stale, fresh, "one that was busy is closed when it is taken again")
	healthy, after := take(l.liveness)
	give(healthy)
	require.Equal(t, before, after)
}
