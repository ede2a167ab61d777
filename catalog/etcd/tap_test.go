package etcd_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/internal/testetcd"
)

// A fate is what a tap makes of a write.
type fate int

const (
	sound      fate = iota
	unanswered      // it is applied, and its answer is lost
	delayed         // it is on its way until the test lets it arrive
)

// A tap stands between a store and its connection, and decides the fate of
// each Txn.
type tap struct {
	mu       sync.Mutex
	decide   func(*pb.TxnRequest) fate
	onItsWay []func(context.Context) (*pb.TxnResponse, error)
}

// tapped opens the catalog of url through a tap.
func tapped(t *testing.T, url string) (*tap, *etcd.Store) {
	t.Helper()
	p := new(tap)
	host := strings.Split(url, "/")[2]
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{host}, MaxUnaryRetries: 1, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(p.pass)},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return p, open(t, "etcd:///"+testetcd.Prefix(t, url), etcd.Config{Client: client})
}

func (p *tap) pass(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	lost := status.Error(codes.Unavailable, "the connection was lost")
	txn, ok := req.(*pb.TxnRequest)
	if !ok {
		return invoker(ctx, method, req, reply, cc, opts...)
	}
	switch p.fate(txn) {
	case unanswered:
		if err := invoker(ctx, method, req, reply, cc, opts...); err != nil {
			return err
		}
		return lost
	case delayed:
		p.mu.Lock()
		defer p.mu.Unlock()
		p.onItsWay = append(p.onItsWay, func(ctx context.Context) (*pb.TxnResponse, error) {
			late := new(pb.TxnResponse)
			return late, invoker(ctx, method, req, late, cc, opts...)
		})
		return lost
	}
	return invoker(ctx, method, req, reply, cc, opts...)
}

func (p *tap) fate(txn *pb.TxnRequest) fate {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.decide == nil {
		return sound
	}
	return p.decide(txn)
}

// on gives the Txns that have a write beneath the key a fate, and the others
// none; nil fates let all pass.
func (p *tap) on(f fate, key string) {
	p.set(func(txn *pb.TxnRequest) fate {
		if writes(txn, key) {
			return f
		}
		return sound
	})
}

func (p *tap) set(decide func(*pb.TxnRequest) fate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.decide = decide
}

// writes reports whether a Txn puts or deletes a key that has part in it.
func writes(txn *pb.TxnRequest, part string) bool {
	for _, op := range txn.Success {
		if strings.Contains(string(op.GetRequestPut().GetKey())+"\n"+string(op.GetRequestDeleteRange().GetKey()), part) {
			return true
		}
	}
	return false
}

// arrive lets everything arrive that was delayed, in order, and returns what of
// it was applied.
func (p *tap) arrive(t *testing.T) (applied []bool) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, send := range p.onItsWay {
		resp, err := send(within(t, time.Minute))
		require.NoError(t, err)
		applied = append(applied, resp.Succeeded)
	}
	p.onItsWay = nil
	return applied
}

// keysBeneath returns the keys of the catalog of url that begin with dir.
func keysBeneath(t *testing.T, url, dir string) (keys []string) {
	t.Helper()
	prefix := testetcd.Prefix(t, url) + "/"
	resp, err := testetcd.Client(t, url).Get(within(t, time.Minute), prefix+dir, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	require.NoError(t, err)
	for _, kv := range resp.Kvs {
		keys = append(keys, strings.TrimPrefix(string(kv.Key), prefix))
	}
	return keys
}

// payloadOf returns n bytes in which no chunk looks like another.
func payloadOf(n int) string {
	b, x := make([]byte, n), uint32(2463534242)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return string(b)
}

// reads fails where the log above after is not these records.
func reads(t *testing.T, s driver.Store, after uint64, want ...driver.Record) {
	t.Helper()
	var got []driver.Record
	require.NoError(t, s.Log(within(t, time.Minute), after, func(rec driver.Record) error {
		got = append(got, rec)
		return nil
	}))
	require.Len(t, got, len(want))
	for i, rec := range want {
		require.Equal(t, rec.ID, got[i].ID)
		require.True(t, string(rec.Payload) == string(got[i].Payload), "payload of revision %d", rec.Revision)
	}
}

// notApplied fails where err leaves open what became of the write, or does not
// ask for another try.
func notApplied(t *testing.T, err error) {
	t.Helper()
	require.Equal(t, driver.NotApplied, driver.OutcomeOf(err), "%v", err)
	require.Equal(t, retry, classed(t, err).Disposition(), "%v", err)
}
