package etcd_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testetcd"
)

// overTwoEndpoints opens the catalog of url over a client with two endpoints of the
// same server, to which copies of a request are sent soon.
func overTwoEndpoints(t *testing.T, url string, intercept grpc.UnaryClientInterceptor) *etcd.Store {
	t.Helper()
	host, port, err := net.SplitHostPort(strings.Split(url, "/")[2])
	require.NoError(t, err)
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{net.JoinHostPort(host, port), net.JoinHostPort("localhost", port)}, MaxUnaryRetries: 1, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(intercept)},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return open(t, "etcd:///"+testetcd.Prefix(t, url), etcd.Config{Client: client, HedgeAfter: 20 * time.Millisecond})
}

// theFirstHangs returns an interceptor by which the first Txn that has a write
// beneath the key gets no answer and is sent nowhere. It calls meanwhile before any
// copy of that Txn is sent.
func theFirstHangs(key string, meanwhile func()) grpc.UnaryClientInterceptor {
	var copies atomic.Int64
	ready := make(chan struct{})
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if txn, ok := req.(*pb.TxnRequest); ok && writes(txn, key) {
			if copies.Add(1) == 1 {
				meanwhile()
				close(ready)
				<-ctx.Done()
				return ctx.Err()
			}
			<-ready
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	}
}

func TestAClaimThatIsRefusedBesideACopyWithoutAnswerIsOfUnknownOutcomeAndDoesNotHold(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	rival := open(t, url, etcd.Config{})
	head := claim(t, rival)
	s := overTwoEndpoints(t, url, theFirstHangs("/head\x00end", func() {
		_, err := rival.Post(within(t, time.Minute), driver.Note{Key: "abort", Value: []byte("now")})
		assert.NoError(t, err)
	}))
	c, err := s.Claim(within(t, time.Minute))
	require.NoError(t, err)
	next, rec := claimAfter(c.Head())
	err = c.Install(within(t, time.Minute), next, rec, driver.Note{Key: "abort"})
	require.ErrorIs(t, err, driver.ErrConflict)
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err), "%v", err)
	now, err := s.Head(within(t, time.Minute))
	require.NoError(t, err)
	require.Equal(t, head.Claim.ID, now.Claim.ID)
}

func TestARecordOfLossesThatIsRefusedBesideACopyWithoutAnswerIsOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	rival := open(t, url, etcd.Config{})
	none := lossesOf(t, rival, "theirs")
	s := overTwoEndpoints(t, url, theFirstHangs("losses", func() {
		_, err := rival.PutLosses(within(t, time.Minute), none, nil)
		assert.NoError(t, err)
	}))
	mine := none
	mine.Text = []byte("mine")
	_, err := s.PutLosses(within(t, time.Minute), mine, nil)
	require.ErrorIs(t, err, driver.ErrConflict)
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err), "%v", err)
}

func TestARecordOfLossesWhoseAnswerIsLostIsOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	p, s := tapped(t, testetcd.URL(t))
	record := lossesOf(t, s, "a loss")
	p.on(unanswered, "losses")
	_, err := s.PutLosses(within(t, time.Minute), record, nil)
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err), "%v", err)
	written, err := s.Losses(within(t, time.Minute))
	require.NoError(t, err)
	require.Equal(t, "a loss", string(written.Text))
}

// A commit waits for the end of a claim without writing anything, and is then sent
// again. Neither the end of its time meanwhile nor a refusal then says anything of a
// copy that was sent before.
func TestACopyWithoutAnswerLeavesACommitInDoubtWhateverEndsItBehindAClaim(t *testing.T) {
	t.Parallel()
	for _, says := range []error{context.DeadlineExceeded, rpctypes.ErrGRPCRequestTooManyRequests} {
		url := testetcd.URL(t)
		rival := open(t, url, etcd.Config{})
		head := claim(t, rival)
		claiming, err := rival.Claim(within(t, time.Minute))
		require.NoError(t, err)
		hangs, waits := theFirstHangs("/head\x00end", func() {}), make(chan struct{})
		var once sync.Once
		var refuses atomic.Bool
		s := overTwoEndpoints(t, url, func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if get, ok := req.(*pb.RangeRequest); ok && strings.HasSuffix(string(get.Key), "/wanted") {
				once.Do(func() { close(waits) })
			}
			if txn, ok := req.(*pb.TxnRequest); ok && refuses.Load() && writes(txn, "/head\x00end") {
				return says
			}
			return hangs(ctx, method, req, reply, cc, invoke, opts...)
		})
		ctx, expire := expires(t)
		done := make(chan error, 1)
		go func() { done <- s.Append(ctx, head, record(head, "waits")) }()
		<-waits
		if refuses.Store(true); says == context.DeadlineExceeded {
			expire()
		} else {
			claiming.Abandon()
		}
		err = <-done
		require.Equal(t, exitcodes.Retry, classed(t, err).Disposition(), "%v", err)
		require.Equal(t, driver.Unknown, driver.OutcomeOf(err), "%v", err)
		claiming.Abandon()
	}
}

// A copy that was on its way while another one was refused puts the claim-wanted key as
// soon as that is free, under the lease that the claim keeps alive.
func TestAClaimDoesNotWaitForItsOwnCopyThatComesLate(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	other, err := open(t, url, etcd.Config{}).Claim(within(t, time.Minute))
	require.NoError(t, err)
	waits, landed, onItsWay := make(chan struct{}), make(chan struct{}), make(chan func() error, 1)
	var once sync.Once
	var copies atomic.Int64
	s := overTwoEndpoints(t, url, func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		switch req := req.(type) {
		case *pb.TxnRequest:
			if writes(req, "/wanted") && copies.Add(1) == 1 {
				onItsWay <- func() error {
					return invoke(context.WithoutCancel(ctx), method, req, new(pb.TxnResponse), cc, opts...)
				}
				<-ctx.Done()
				return ctx.Err()
			}
		case *pb.RangeRequest:
			if strings.HasSuffix(string(req.Key), "/wanted") {
				once.Do(func() { close(waits) })
				<-landed
			}
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	})
	done := make(chan error, 1)
	go func() {
		c, err := s.Claim(within(t, time.Minute))
		if err == nil {
			next, rec := claimAfter(c.Head())
			err = c.Install(within(t, time.Minute), next, rec)
		}
		done <- err
	}()
	<-waits // another copy was refused
	other.Abandon()
	require.NoError(t, (<-onItsWay)())
	close(landed)
	require.NoError(t, <-done)
}
