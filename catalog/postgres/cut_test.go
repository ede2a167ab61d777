package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/internal/testpg"
)

// TestAWaitThatWasCutBeforeIsNotTheNextWritesAffair marks the one connection before
// every kind of write, as an earlier write whose wait was cut does.
func TestAWaitThatWasCutBeforeIsNotTheNextWritesAffair(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), testpg.URL(t), Config{MaxConns: 1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	ctx := drivertest.Context(t)
	cut := func() {
		conn, err := s.acquire(ctx, s.pool)
		require.NoError(t, err)
		conn.Conn().PgConn().CustomData()[markCut] = true
		s.give(conn)
	}
	cut()
	_, err = s.Post(ctx, driver.Note{Key: "first", Value: []byte("v")})
	require.NoError(t, err)
	cut()
	_, err = s.Post(ctx, driver.Note{Key: "second", Value: []byte("v")})
	require.NoError(t, err)
	cut()
	head := drivertest.Install(t, s, 1)
	cut()
	head = drivertest.Append(t, s, head, nil)
	l, err := s.Losses(ctx)
	require.NoError(t, err)
	l.Text = []byte("lost")
	cut()
	_, err = s.PutLosses(ctx, l, &head)
	require.NoError(t, err)
	id := driver.NewID()
	cut()
	require.NoError(t, s.Stage(ctx, head.Claim, id, 0, nil))
	cut()
	require.NoError(t, s.Publish(ctx, head.Claim, driver.Snapshot{ID: id, Revision: head.Revision, Commit: head.Commit, Token: head.Claim.Token, Parts: 1}))
}
