package etcd

import (
	"context"
	"errors"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// do sends an operation to the cluster.
func (c *cluster) do(ctx context.Context, op clientv3.Op, req request) (resp clientv3.OpResponse, inDoubt bool, err error) {
	req.size = max(req.size, sizeOf(op))
	return race(ctx, c, req, func(ctx context.Context, s *session) (clientv3.OpResponse, error) { return s.Do(ctx, op) })
}

// sizeOf returns the bytes of the values that op puts.
func sizeOf(op clientv3.Op) (n int) {
	if !op.IsTxn() {
		return len(op.ValueBytes())
	}
	_, then, _ := op.Txn()
	for _, put := range then {
		n += len(put.ValueBytes())
	}
	return n
}

// Do sends an operation that can be repeated.
func (c *cluster) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	resp, _, err := c.do(ctx, op, request{})
	return resp, err
}

// Page reads keys whose answer may be as large as a page.
func (c *cluster) Page(ctx context.Context, op clientv3.Op) (*clientv3.GetResponse, error) {
	resp, _, err := c.do(ctx, op, request{size: pageBytes})
	return resp.Get(), err
}

// Get reads keys.
func (c *cluster) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	resp, err := c.Do(ctx, clientv3.OpGet(key, opts...))
	return resp.Get(), err
}

// Grant asks for a lease of ttl seconds. Of several copies each is a lease, and
// those that nobody knows expire.
func (c *cluster) Grant(ctx context.Context, ttl int64) (*clientv3.LeaseGrantResponse, error) {
	resp, _, err := race(ctx, c, request{}, func(ctx context.Context, s *session) (*clientv3.LeaseGrantResponse, error) { return s.Grant(ctx, ttl) })
	return resp, err
}

// KeepAliveOnce renews a lease.
func (c *cluster) KeepAliveOnce(ctx context.Context, id clientv3.LeaseID) error {
	_, _, err := race(ctx, c, request{}, func(ctx context.Context, s *session) (*pb.LeaseKeepAliveResponse, error) { return s.renew(ctx, id) })
	return err
}

// renew renews a lease once. The client's own KeepAliveOnce does not return while its
// server can't be reached.
func (s *session) renew(ctx context.Context, id clientv3.LeaseID) (*pb.LeaseKeepAliveResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := clientv3.RetryLeaseClient(s.Client).LeaseKeepAlive(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	resp, err := stream.Recv() // after io.EOF it says why
	if err == nil && resp.TTL <= 0 {
		err = rpctypes.ErrLeaseNotFound
	}
	return resp, err
}

// Revoke ends a lease. It may be gone already, by another copy.
func (c *cluster) Revoke(ctx context.Context, id clientv3.LeaseID) error {
	_, _, err := race(ctx, c, request{}, func(ctx context.Context, s *session) (*clientv3.LeaseRevokeResponse, error) { return s.Revoke(ctx, id) })
	return err
}

// MemberList asks who belongs to the cluster.
func (c *cluster) MemberList(ctx context.Context) (*clientv3.MemberListResponse, error) {
	resp, _, err := race(ctx, c, request{}, func(ctx context.Context, s *session) (*clientv3.MemberListResponse, error) { return s.MemberList(ctx) })
	return resp, err
}

// AlarmList asks for the cluster's alarms.
func (c *cluster) AlarmList(ctx context.Context) (*clientv3.AlarmResponse, error) {
	resp, _, err := race(ctx, c, request{}, func(ctx context.Context, s *session) (*clientv3.AlarmResponse, error) { return s.AlarmList(ctx) })
	return resp, err
}

// A txn is a Txn that is being made.
type txn struct {
	cluster         *cluster
	ctx             context.Context
	when            []clientv3.Cmp
	then, otherwise []clientv3.Op
	request
}

// Txn begins a Txn.
func (c *cluster) Txn(ctx context.Context) *txn { return &txn{cluster: c, ctx: ctx} }

func (t *txn) If(when ...clientv3.Cmp) *txn { t.when = when; return t }
func (t *txn) Then(ops ...clientv3.Op) *txn { t.then = ops; return t }
func (t *txn) Else(ops ...clientv3.Op) *txn { t.otherwise = ops; return t }

// Once says whether no two copies may be under way.
func (t *txn) Once(once bool) *txn { t.once = once; return t }

// Paged says that the answer may be as large as a page.
func (t *txn) Paged() *txn { t.size = pageBytes; return t }

// Commit sends a Txn that can be repeated.
func (t *txn) Commit() (*clientv3.TxnResponse, error) {
	resp, _, err := t.Land()
	return resp, err
}

// Land sends a Txn that lands once, and says what is known of it if it is refused
// or fails.
func (t *txn) Land() (*clientv3.TxnResponse, phase, error) {
	resp, inDoubt, err := t.cluster.do(t.ctx, clientv3.OpTxn(t.when, t.then, t.otherwise), t.request)
	if inDoubt {
		return resp.Txn(), doubt, err
	}
	return resp.Txn(), sent, err
}
