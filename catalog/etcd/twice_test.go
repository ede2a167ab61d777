package etcd_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/testetcd"
)

// mayChange reports whether a request may change something.
func mayChange(req any) bool {
	txn, ok := req.(*pb.TxnRequest)
	if !ok {
		return false
	}
	for _, op := range txn.Success {
		if op.GetRequestPut() != nil || op.GetRequestDeleteRange() != nil {
			return true
		}
	}
	return false
}

// interceptedBy returns the etcd of a test with a client that is made as a
// caller would who knows nothing of this package.
func interceptedBy(t *testing.T, intercept grpc.UnaryClientInterceptor) func(t *testing.T) driver.Store {
	url := testetcd.URL(t)
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{strings.Split(url, "/")[2]}, Logger: zap.NewNop(), MaxCallRecvMsgSize: 8 << 20,
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(intercept)},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	prefix := testetcd.Prefix(t, url)
	return func(t *testing.T) driver.Store { return open(t, "etcd:///"+prefix, etcd.Config{Client: client}) }
}

// everyWriteTwice sends each write twice, and gives the answer to the second.
func everyWriteTwice(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if mayChange(req) {
		if err := invoke(ctx, method, req, new(pb.TxnResponse), cc, opts...); err != nil {
			return err
		}
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

// retriedByTheClient has the server's answer to every fifth write lost in a way
// that the client itself retries, unless MaxUnaryRetries is 1.
func retriedByTheClient() grpc.UnaryClientInterceptor {
	var n atomic.Int64
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := invoke(ctx, method, req, reply, cc, opts...)
		if mayChange(req) && err == nil && n.Add(1)%5 == 0 {
			reply.(*pb.TxnResponse).Reset()
			return status.Error(codes.Unavailable, "there is no connection available")
		}
		return err
	}
}

func TestAClientThatSendsWritesTwiceLosesNothingAndFencesNobody(t *testing.T) {
	t.Parallel()
	for name, intercept := range map[string]grpc.UnaryClientInterceptor{"every write": everyWriteTwice, "by itself": retriedByTheClient()} {
		t.Run(name, func(t *testing.T) {
			opens := interceptedBy(t, intercept)
			store, cfg := opens(t), catalog.Config{Generation: 1, CompactAfter: 1 << 10, PollInterval: 20 * time.Millisecond}
			entries := catalog.Bytes("c")
			put := func(c *catalog.Catalog, key string, value []byte) error {
				return c.Update(context.Background(), func(tx *catalog.Tx) error { return entries.Set(tx, key, value) })
			}
			want := map[string]int{}
			for g := range 3 {
				cfg.Generation = generation.Generation(1 + g)
				c, err := catalog.Open(t.Context(), store, cfg)
				require.NoError(t, err)
				require.EqualValues(t, 1+2*g, c.Token().Epoch, "a claim was made twice")
				var wg sync.WaitGroup
				for w := range 4 {
					wg.Go(func() {
						for i := range 5 {
							assert.NoError(t, put(c, fmt.Sprint(g, w, i), []byte("v")))
							assert.NoError(t, c.Confirm(context.Background()))
						}
					})
				}
				wg.Wait()
				for range 2 { // the log is larger than the entries then
					require.NoError(t, put(c, "large", make([]byte, 3<<20)), "in chunks")
				}
				want["large"] = 3 << 20
				for w := range 4 {
					for i := range 5 {
						want[fmt.Sprint(g, w, i)] = 1
					}
				}
				require.Eventually(t, func() bool {
					snapshot, err := catalog.Compacted(context.Background(), store)
					return err == nil && snapshot.Revision > c.Claim().Revision
				}, drivertest.Patience, 10*time.Millisecond)
				require.NoError(t, c.Close())
				_, err = catalog.Raise(t.Context(), store, cfg, catalog.RaiseOptions{Reason: "test"})
				require.NoError(t, err)
			}
			have := map[string]int{}
			require.NoError(t, catalog.Snapshot(t.Context(), store, cfg, func(_ driver.Head, r *catalog.Reader) error {
				return entries.Scan(r, "", func(key string, v []byte) bool { have[key] = len(v); return true })
			}))
			require.Equal(t, want, have)
			board, given := catalog.NewBoard(store, cfg), map[generation.Generation]bool{}
			for range 5 {
				next, err := board.NextGeneration(t.Context())
				require.NoError(t, err)
				require.False(t, given[next])
				given[next] = true
			}
		})
	}
}
