package etcd

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAServerOfAnotherClusterIsRefusedUntilAllAreOfThat(t *testing.T) {
	t.Parallel()
	a, b, c := &member{endpoint: "a"}, &member{endpoint: "b"}, &member{endpoint: "c"}
	i, log := new(identity), slog.New(slog.DiscardHandler)
	says := func(m *member, id uint64) error { return i.belongs(m, id, 3, log) }
	require.NoError(t, says(a, 1))
	require.NoError(t, says(b, 1))
	require.ErrorIs(t, says(c, 2), errForeign)
	require.NoError(t, says(a, 1))
	require.ErrorIs(t, says(a, 2), errForeign, "b is of the first one, as far as is known")
	require.NoError(t, says(b, 2), "the cluster was restored as a whole")
	require.NoError(t, says(a, 2))
	require.ErrorIs(t, says(c, 1), errForeign)

	i = new(identity)
	require.ErrorIs(t, i.agree([]*member{a, b, c}, []uint64{0, 1, 2}), errClusters)
	require.Zero(t, i.id)
	require.NoError(t, i.agree([]*member{a, b, c}, []uint64{0, 0, 0}))
	require.Zero(t, i.id, "nobody has answered")
	require.NoError(t, i.agree([]*member{a, b, c}, []uint64{0, 1, 1}))
	require.EqualValues(t, 1, i.id)
	require.ErrorIs(t, says(a, 2), errForeign)
}

// A stream that began at a home which has moved just then would stay at a server
// that hangs, until its lease ends.
func TestAStreamThatBeginsWhileTheHomeMovesEndsWithItOrBeginsAtTheNewOne(t *testing.T) {
	t.Parallel()
	c := newCluster(t.Context(), target{hosts: []string{"a:1", "b:1"}}, Config{}.withDefaults())
	defer func() { require.NoError(t, c.close()) }()
	for range 20_000 {
		old := c.residence()
		c.detour = c.after(old)
		var moving sync.WaitGroup
		moving.Go(func() { c.settle(old, false) })
		home, stream, end := c.stream(context.Background())
		moving.Wait()
		if home == old {
			select {
			case <-stream.Done():
			case <-time.After(5 * time.Second):
				require.Fail(t, "it stays at the server that was left")
			}
		}
		end()
	}
}
