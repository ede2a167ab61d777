package errormatrix

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/etcd"
)

// askUsers makes an administrator's mistakes about users, before there are any.
func (x *matrix) askUsers(t *testing.T, c *clientv3.Client) {
	t.Run("an administrator's mistakes about users", func(t *testing.T) {
		ctx := drivertest.Context(t)
		x.ask(t, "ErrRootUserNotExist", second(c.AuthEnable(ctx)))
		_, err := c.UserAdd(ctx, "some", "right")
		require.NoError(t, err)
		_, err = c.RoleAdd(ctx, "role")
		require.NoError(t, err)
		x.ask(t, "ErrUserAlreadyExist", second(c.UserAdd(ctx, "some", "right")))
		x.ask(t, "ErrRoleAlreadyExist", second(c.RoleAdd(ctx, "role")))
		x.ask(t, "ErrUserNotFound", second(c.UserDelete(ctx, "nobody")))
		x.ask(t, "ErrRoleNotFound", second(c.RoleDelete(ctx, "nothing")))
		x.ask(t, "ErrRoleNotGranted", second(c.UserRevokeRole(ctx, "some", "role")))
		x.ask(t, "ErrPermissionNotGranted", second(c.RoleRevokePermission(ctx, "role", "a", "b")))
		x.ask(t, "ErrUserEmpty", second(c.UserAdd(ctx, "", "right")))
		x.ask(t, "ErrRoleEmpty", second(c.RoleAdd(ctx, "")))
		x.ask(t, "ErrAuthNotEnabled", second(c.Authenticate(ctx, "some", "right")))
		_, err = pb.NewAuthClient(c.ActiveConnection()).RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "role"})
		x.ask(t, "ErrGRPCPermissionNotGiven", err)
	})
}

// provokeAnswers makes an administrator's other mistakes, and those that our
// own requests must not have.
func (x *matrix) provokeAnswers(t *testing.T) {
	m := alone(t)
	c := m.admin(clientv3.Config{})
	t.Run("malformed requests", func(t *testing.T) {
		ctx := drivertest.Context(t)
		put := clientv3.OpPut("key", "value")
		for range 3 {
			_, err := c.Do(ctx, put)
			require.NoError(t, err)
		}
		_, err := c.Compact(ctx, 3)
		require.NoError(t, err)
		x.ask(t, "ErrCompacted", second(c.Get(ctx, "key", clientv3.WithRev(1))))
		x.ask(t, "ErrFutureRev", second(c.Get(ctx, "key", clientv3.WithRev(1<<40))))
		x.ask(t, "ErrDuplicateKey", second(c.Txn(ctx).Then(put, put).Commit()))
		x.ask(t, "ErrEmptyKey", second(c.Put(ctx, "", "value")))
		x.ask(t, "ErrKeyNotFound", second(c.Put(ctx, "none", "", clientv3.WithIgnoreValue())))
		kv := pb.NewKVClient(c.ActiveConnection())
		x.ask(t, "ErrValueProvided", second(kv.Put(ctx, &pb.PutRequest{Key: []byte("key"), Value: []byte("v"), IgnoreValue: true})))
		x.ask(t, "ErrLeaseProvided", second(kv.Put(ctx, &pb.PutRequest{Key: []byte("key"), Lease: 1, IgnoreLease: true})))
		x.ask(t, "ErrInvalidSortOption", second(kv.Range(ctx, &pb.RangeRequest{Key: []byte("key"), SortOrder: 77})))
		x.ask(t, "ErrLeaseNotFound", second(c.Revoke(ctx, 12345)))
		leases := pb.NewLeaseClient(c.ActiveConnection())
		_, err = leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 60})
		require.NoError(t, err)
		x.ask(t, "ErrLeaseExist", second(leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 60})))
	})
	t.Run("an administrator's mistakes about members", func(t *testing.T) {
		ctx := drivertest.Context(t)
		x.ask(t, "ErrMemberNotFound", second(c.MemberRemove(ctx, 12345)))
		x.ask(t, "ErrMemberBadURLs", second(pb.NewClusterClient(c.ActiveConnection()).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"nonsense"}})))
		x.ask(t, "ErrPeerURLExist", second(c.MemberAdd(ctx, []string{"http://" + m.peer})))
		status, err := c.Status(ctx, c.Endpoints()[0])
		require.NoError(t, err)
		x.ask(t, "ErrMemberNotLearner", second(c.MemberPromote(ctx, status.Header.MemberId)))
		x.ask(t, "ErrBadLeaderTransferee", second(c.MoveLeader(ctx, 12345)))
		x.ask(t, "ErrWrongDowngradeVersionFormat", second(c.Downgrade(ctx, clientv3.DowngradeAction(pb.DowngradeRequest_VALIDATE), "nonsense")))
		x.ask(t, "ErrInvalidDowngradeTargetVersion", second(c.Downgrade(ctx, clientv3.DowngradeAction(pb.DowngradeRequest_VALIDATE), "2.0.0")))
	})
	x.in(t, "a client that receives too little, and is closed", m, func(k *kv) {
		small, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + m.client}, Logger: zap.NewNop(), MaxCallRecvMsgSize: 10_000, MaxCallSendMsgSize: 10_000})
		require.NoError(k.t, err)
		require.NoError(k.t, k.commit(50_000))
		s := openEtcd(k.t, k.url, etcd.Config{Client: small})
		err = s.Log(drivertest.Context(k.t), 0, func(driver.Record) error { return nil })
		x.expect(k.t, met, "8", false, err)
		head := drivertest.ReadHead(k.t, k.well)
		require.NoError(k.t, small.Close())
		err = k.after(drivertest.Context(k.t), s, head, 1)
		x.saw(x.judged(k.t, driver.OutcomeOf(err) == driver.Unknown, err), met)
	})
}

// provokeCluster takes two of three members away, under a commit.
func (x *matrix) provokeCluster(t *testing.T) {
	all := []*member{newMember(t, "a"), newMember(t, "b"), newMember(t, "c")}
	for _, m := range all {
		m.start(all)
	}
	var leader *member
	for _, m := range all {
		c := m.admin(clientv3.Config{})
		status, err := c.Status(t.Context(), c.Endpoints()[0])
		require.NoError(t, err)
		if status.Leader == status.Header.MemberId {
			leader = m
		} else {
			x.ask(t, "ErrNotLeader", second(c.MoveLeader(t.Context(), status.Header.MemberId)))
		}
	}
	require.NotNil(t, leader)
	t.Run("the quorum lost", func(t *testing.T) {
		k := &kv{ledger: new(ledger), t: t, x: x, url: "etcd://" + leader.client + "/catalog"}
		k.well = openEtcd(t, k.url, etcd.Config{})
		k.claim(t, k.well)
		head := drivertest.ReadHead(t, k.well)
		for _, m := range all {
			if m != leader {
				m.signal(syscall.SIGSTOP)
			}
		}
		failed := make(chan error, 1)
		go func() { failed <- k.after(drivertest.Context(t), k.well, head, 1) }() // it was proposed, and nobody answers
		_, readErr := openEtcd(t, k.url, etcd.Config{}).Head(drivertest.Context(t))
		err := <-failed
		x.saw(x.judged(t, driver.OutcomeOf(err) == driver.Unknown, err), met)
		x.saw(x.judged(t, false, readErr), met)
		for _, m := range all {
			if m != leader {
				m.signal(syscall.SIGCONT)
			}
		}
		require.Eventually(t, func() bool {
			_, err := k.well.Head(drivertest.Context(t))
			return err == nil
		}, drivertest.Patience, often)
		k.check(t, k.well)
	})
}
