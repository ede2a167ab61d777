package testetcd_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/internal/testetcd"
)

func TestEachTestGetsAPrefixOfItsOwnThatIsEmptiedAtItsEnd(t *testing.T) {
	t.Parallel()
	var first, second string
	t.Run("writes", func(t *testing.T) {
		first, second = testetcd.URL(t), testetcd.URL(t)
		client := testetcd.Client(t, first)
		_, err := client.Put(t.Context(), testetcd.Prefix(t, first)+"/key", "value")
		require.NoError(t, err)
	})
	require.NotEqual(t, first, second)
	resp, err := testetcd.Client(t, first).Get(t.Context(), testetcd.Prefix(t, first), clientv3.WithPrefix())
	require.NoError(t, err)
	require.Empty(t, resp.Kvs)
}

func TestAKilledServerComesBackAtItsAddressWithItsData(t *testing.T) {
	t.Parallel()
	server := testetcd.NewServer(t, testetcd.Options{})
	client := testetcd.Client(t, server.URL())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := client.Put(ctx, "key", "value")
	require.NoError(t, err)
	before, pid := server.URL(), server.PID()

	server.Kill()
	server.Start()

	require.Equal(t, before, server.URL())
	require.NotEqual(t, pid, server.PID())
	resp, err := client.Get(ctx, "key")
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 1)
	require.Equal(t, "value", string(resp.Kvs[0].Value))
}
