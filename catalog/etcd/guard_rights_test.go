package etcd_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

func TestAGuardNeedsNoRightButToReadTheTokenAndSaysSo(t *testing.T) {
	t.Parallel()
	server, as, root := guarded(t)
	ctx, store := within(t, time.Minute), open(t, as("root"), etcd.Config{})
	first := claimBy(t, store, 1).Token
	_, err := root.UserAdd(ctx, "writer", "secret-writer")
	require.NoError(t, err)
	_, err = root.RoleAdd(ctx, "writer")
	require.NoError(t, err)
	_, err = root.UserGrantRole(ctx, "writer", "writer")
	require.NoError(t, err)
	may := func(key, end string, right clientv3.PermissionType) {
		_, err := root.RoleGrantPermission(ctx, "writer", key, end, right)
		require.NoError(t, err)
	}
	may("rows/", "rows0", clientv3.PermissionType(clientv3.PermReadWrite))
	client, err := clientv3.New(clientv3.Config{Endpoints: root.Endpoints(), Username: "writer", Password: "secret-writer", Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	const remedy = `etcdctl role grant-permission ROLE read "catalog/token"`
	require.Equal(t, "catalog", server.URL()[len(server.URL())-7:])

	_, err = etcd.GuardKV(ctx, client, "catalog", first)
	require.ErrorContains(t, err, remedy)
	require.Equal(t, exitcodes.Config, classed(t, err).ExitCode())

	may("catalog/token", "", clientv3.PermissionType(clientv3.PermRead))
	kv, err := etcd.GuardKV(ctx, client, "catalog", first)
	require.NoError(t, err)
	again, err := etcd.GuardKV(ctx, client, "catalog", first)
	require.NoError(t, err)
	_, err = kv.Put(ctx, "rows/a", "v")
	require.NoError(t, err)
	_, err = kv.Put(ctx, "elsewhere", "v")
	require.ErrorIs(t, err, rpctypes.ErrPermissionDenied)
	_, err = client.Put(ctx, "catalog/token", "forged")
	require.ErrorIs(t, err, rpctypes.ErrPermissionDenied)

	second := claimBy(t, store, 2).Token
	_, err = kv.Put(ctx, "rows/a", "stale")
	refusedAs(t, err, first, second)
	_, err = again.Txn(ctx).If(clientv3.Compare(clientv3.Version("rows/b"), ">", 0)).Else(clientv3.OpPut("rows/a", "stale")).Commit()
	refusedAs(t, err, first, second)

	for _, token := range []fence.Token{first, tokenOf(1, 2)} {
		_, err = etcd.GuardKV(ctx, client, "catalog", token)
		refusedAs(t, err, token, second)
		require.ErrorContains(t, err, `needs the right to read what begins with "catalog/claim/"`)
	}
	_, err = etcd.GuardKV(ctx, client, "catalog", tokenOf(9, 9))
	notAToken(t, err, fence.ErrNeverIssued) // whatever the history
	may("catalog/claim/", "catalog/claim0", clientv3.PermissionType(clientv3.PermRead))
	_, err = etcd.GuardKV(ctx, client, "catalog", first)
	refusedAs(t, err, first, second)
	_, err = etcd.GuardKV(ctx, client, "catalog", tokenOf(1, 2))
	notAToken(t, err, fence.ErrNeverIssued)

	kv, err = etcd.GuardKV(ctx, client, "catalog", second)
	require.NoError(t, err)
	_, err = root.RoleRevokePermission(ctx, "writer", "catalog/token", "")
	require.NoError(t, err)
	_, err = kv.Delete(ctx, "rows/a")
	require.ErrorIs(t, err, rpctypes.ErrPermissionDenied)
	require.ErrorContains(t, err, remedy)
	row, err := root.Get(ctx, "rows/a")
	require.NoError(t, err)
	require.Equal(t, "v", string(row.Kvs[0].Value))
}
