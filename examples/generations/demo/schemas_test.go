package demo

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/examples/guarded/process"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testpg"
	"github.com/fencepost/fencepost/reap"
)

func TestASchemaOnWhichANewerOneDependsIsNotDropped(t *testing.T) {
	t.Parallel()
	_, dsn, drop, err := process.NewDatabase(t.Context(), testpg.URL(t), "schemas")
	require.NoError(t, err)
	defer func() { require.NoError(t, drop()) }()
	conn, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	s := schemas{conn, "orders_"}
	for _, token := range []fence.Token{{Generation: 7, Epoch: 1}, {Generation: 8, Epoch: 2}} {
		require.NoError(t, s.make(t.Context(), token))
	}
	_, err = conn.Exec(t.Context(), `create view orders_g8.before as select * from orders_g7.orders; create table orders_g7."a ""second"" one" (id int)`)
	require.NoError(t, err)
	blue := reap.Item{ID: "orders_g7", Made: fence.Token{Generation: 7}}
	err = s.delete(t.Context(), blue)
	require.ErrorContains(t, err, "2BP01") // dependent_objects_still_exist
	require.NotErrorIs(t, err, reap.ErrGone)
	_, err = conn.Exec(t.Context(), `drop view orders_g8.before`)
	require.NoError(t, err, "it is there still")
	require.NoError(t, s.delete(t.Context(), blue))
	require.ErrorIs(t, s.delete(t.Context(), blue), reap.ErrGone)
	items, err := s.list(t.Context())
	require.NoError(t, err)
	require.Len(t, items, 1)
}
