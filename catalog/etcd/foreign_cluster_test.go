package etcd_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/internal/testetcd"
)

// A logged is a log that a test looks into.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// A server that comes back from a snapshot has the same keys, so that every
// condition holds there, too.
func TestNoCopyOfAWriteGoesToAServerThatCameBackAsAnotherCluster(t *testing.T) {
	t.Parallel()
	one, two := testetcd.NewServer(t, testetcd.Options{}), testetcd.NewServer(t, testetcd.Options{})
	two.Stop()
	log, cfg := new(logged), hedged()
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	host := func(s *testetcd.Server) string { return strings.Split(s.URL(), "/")[2] }
	s := open(t, "etcd://"+host(one)+","+host(two)+"/catalog", cfg)
	head := commit(t, s, claim(t, s), 3, "before")

	two.Start()
	clone := testetcd.Client(t, two.URL())
	all, err := testetcd.Client(t, one.URL()).Get(within(t, time.Minute), "catalog", clientv3.WithPrefix())
	require.NoError(t, err)
	for _, kv := range all.Kvs {
		_, err := clone.Put(within(t, time.Minute), string(kv.Key), string(kv.Value))
		require.NoError(t, err)
	}
	one.Signal(syscall.SIGSTOP)
	rec, done := record(head, "one store's"), make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { done <- s.Append(ctx, head, rec) }()
	require.Eventually(t, func() bool { return log.has("belongs to another cluster") || len(done) > 0 }, time.Minute, time.Millisecond)
	one.Signal(syscall.SIGCONT)
	if err := <-done; err != nil {
		require.NoError(t, resend(t, s, head, rec))
	}
	require.Contains(t, ids(t, open(t, one.URL(), etcd.Config{})), rec.ID)
	require.NotContains(t, ids(t, open(t, two.URL(), etcd.Config{})), rec.ID, "it landed in two stores")
}

// A namedServer says of which cluster it is, and has no leader.
type namedServer struct {
	pb.UnimplementedKVServer
	pb.UnimplementedMaintenanceServer
	cluster     uint64
	says        error // instead of its cluster
	asked, txns atomic.Int64
}

func (s *namedServer) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	s.asked.Add(1)
	return &pb.StatusResponse{Header: &pb.ResponseHeader{ClusterId: s.cluster}}, s.says
}

func (s *namedServer) Txn(context.Context, *pb.TxnRequest) (*pb.TxnResponse, error) {
	s.txns.Add(1)
	return nil, rpctypes.ErrGRPCNoLeader
}

// serve starts s at an address, and returns that and what stops s.
func (s *namedServer) serve(t *testing.T, address string) (at string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	require.NoError(t, err)
	server := grpc.NewServer()
	pb.RegisterKVServer(server, s)
	pb.RegisterMaintenanceServer(server, s)
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = server.Serve(l) })
	stop = func() { server.Stop(); tasks.Wait() }
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func TestAServerIsAskedForItsClusterAgainWhereItComesBackAndGetsNoWriteBeforeItHasSaid(t *testing.T) {
	t.Parallel()
	for what, later := range map[string]*namedServer{
		"of another cluster":          {cluster: 2},
		"one that can't say just now": {says: rpctypes.ErrGRPCNoLeader},
	} {
		one, two := &namedServer{cluster: 1}, &namedServer{cluster: 1}
		first, _ := one.serve(t, "127.0.0.1:0")
		second, stop := two.serve(t, "127.0.0.1:0")
		s := open(t, "etcd://"+first+","+second+"/p", etcd.Config{HedgeAfter: -1})
		post := func() error {
			_, err := s.Post(within(t, time.Minute), driver.Note{Key: "k", Value: []byte("v"), Version: 1})
			return err
		}
		require.Eventually(t, func() bool { return post() != nil && one.txns.Load() > 0 && two.txns.Load() > 0 }, time.Minute, time.Millisecond, "both are known")
		stop()
		later.serve(t, second)
		require.Eventually(t, func() bool { return post() != nil && (later.asked.Load() > 0 || later.txns.Load() > 0) }, time.Minute, time.Millisecond, what)
		for range 3 {
			require.Error(t, post())
		}
		require.Zero(t, later.txns.Load(), what)
	}
}
