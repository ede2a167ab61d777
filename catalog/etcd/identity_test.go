package etcd

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
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
	require.NoError(t, says(a, 1))
	require.NoError(t, says(b, 1))
	require.ErrorIs(t, says(a, 2), errForeign)
	require.ErrorIs(t, says(b, 2), errForeign, "c has said nothing")

	i = new(identity)
	require.ErrorIs(t, i.agree([]*member{a, b, c}, []uint64{0, 1, 2}), errClusters)
	require.Zero(t, i.id)
	require.NoError(t, i.agree([]*member{a, b, c}, []uint64{0, 0, 0}))
	require.Zero(t, i.id, "nobody has answered")
	require.NoError(t, i.agree([]*member{a, b, c}, []uint64{0, 1, 1}))
	require.EqualValues(t, 1, i.id)
	require.ErrorIs(t, says(a, 2), errForeign)
}

func TestNoRequestForKeysTakesAConnectionOverWhichItsServerHasNotSaidItsCluster(t *testing.T) {
	t.Parallel()
	check := connectionCheck{new(link)}
	over := func(port int, method string) error {
		ctx := peer.NewContext(t.Context(), &peer.Peer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}})
		_, err := check.GetRequestMetadata(credentials.NewContextWithRequestInfo(ctx, credentials.RequestInfo{Method: method}))
		return err
	}
	const txn, status = "/etcdserverpb.KV/Txn", "/etcdserverpb.Maintenance/Status"
	require.ErrorContains(t, over(1, txn), notKnown)
	require.NoError(t, over(1, status))
	said := "127.0.0.1:1"
	check.link.known.Store(&said)
	require.NoError(t, over(1, txn))
	require.ErrorContains(t, over(2, txn), notKnown, "gRPC has connected anew")
	require.NoError(t, over(2, status))
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
