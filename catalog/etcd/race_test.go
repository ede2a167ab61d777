package etcd_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testetcd"
)

// throughTwo starts two proxies before the server of url, and returns the URL of
// the same catalog with both for endpoints.
func throughTwo(t *testing.T, url string) (both [2]*proxy, through string) {
	t.Helper()
	var hosts [2]string
	for i := range both {
		var one string
		both[i], one = startProxy(t, url)
		hosts[i] = strings.Split(one, "/")[2]
	}
	return both, strings.Replace(url, strings.Split(url, "/")[2], strings.Join(hosts[:], ","), 1)
}

// homeOf returns the proxy through which a store sends its calls, and the other.
func homeOf(t *testing.T, s driver.Store, both [2]*proxy) (home, other *proxy) {
	t.Helper()
	require.Eventually(t, func() bool {
		a, b := both[0].answered.Load(), both[1].answered.Load()
		_, err := s.Head(within(t, time.Minute))
		inA, inB := both[0].answered.Load() > a, both[1].answered.Load() > b
		if home, other = both[0], both[1]; inB {
			home, other = both[1], both[0]
		}
		return err == nil && a > 0 && b > 0 && inA != inB
	}, time.Minute, time.Millisecond)
	return home, other
}

// hedged is a Config by which a copy is sent soon, and nothing else finds out that
// an endpoint hangs.
func hedged() etcd.Config {
	return etcd.Config{HedgeAfter: 20 * time.Millisecond, KeepAlive: time.Hour}
}

func TestCommitsGoOnWhileAnEndpointHangsAndItIsLeftAlone(t *testing.T) {
	t.Parallel()
	both, url := throughTwo(t, testetcd.URL(t))
	s := open(t, url, hedged())
	c, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1, StoreTimeout: time.Minute, RetryBudget: time.Minute})
	require.NoError(t, err)
	for range 2 { // the second time the calls begin at the other one
		home, _ := homeOf(t, s, both)
		home.lose(requests)
		require.NoError(t, put(t, c, "while it hangs"))
		require.Positive(t, home.lost.Load(), "the commit was tried there")
		require.Eventually(t, func() bool { // once it is found out, nothing is sent there any more
			lost := home.lost.Load()
			for range 10 {
				require.NoError(t, errors.Join(put(t, c, "elsewhere"), c.Confirm(t.Context())))
			}
			return home.lost.Load() == lost
		}, time.Minute, time.Millisecond)
		home.lose(nothing)
	}
	commits := 0
	require.NoError(t, s.Log(t.Context(), c.Claim().Revision, func(driver.Record) error { commits++; return nil }))
	require.EqualValues(t, c.Head().Revision-c.Claim().Revision, commits, "each exactly once")
	require.NoError(t, c.Close())
}

func TestAWriteWhoseAnswerIsLostIsFoundByItsCopy(t *testing.T) {
	t.Parallel()
	both, url := throughTwo(t, testetcd.URL(t))
	s := open(t, url, hedged())
	head := claim(t, s)
	dropped := func() int64 { return both[0].dropped.Load() + both[1].dropped.Load() }
	for before := dropped(); dropped() == before; { // a busy machine may have moved the home
		rec := record(head, "small")
		home, _ := homeOf(t, s, both)
		home.lose(answers)
		require.NoError(t, s.Append(within(t, time.Minute), head, rec))
		home.lose(nothing)
		head = head.After(rec)
	}
	for before := dropped(); dropped() == before; {
		c, err := s.Claim(within(t, time.Minute))
		require.NoError(t, err)
		next, rec := claimAfter(head)
		home, _ := homeOf(t, s, both)
		home.lose(answers)
		require.NoError(t, c.Install(within(t, time.Minute), next, rec))
		home.lose(nothing)
		head = next.Head()
	}
	large := record(head, payloadOf(3<<20))
	home, _ := homeOf(t, s, both)
	home.lose(answers)
	require.NoError(t, s.Append(within(t, time.Minute), head, large))
	home.lose(nothing)
	reads(t, s, head.Revision, large)
	require.Len(t, ids(t, s), int(large.Revision))
}

// If somebody else has moved the head behind it, a refusal does not show what
// became of the first copy.
func TestARefusalBesideACopyWithoutAnswerIsOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	direct := testetcd.URL(t)
	rival := open(t, direct, etcd.Config{})
	both, url := throughTwo(t, direct)
	s := open(t, url, hedged())
	head := claim(t, s)
	version, err := s.Post(within(t, time.Minute), driver.Note{Key: "k", Value: []byte("1")})
	require.NoError(t, err)
	home, other := homeOf(t, s, both)
	home.lose(answers)
	other.lose(requests)
	before := other.lost.Load()

	done, rec := make(chan error, 2), record(head, "landed")
	go func() { done <- s.Append(within(t, time.Minute), head, rec) }()
	require.Eventually(t, func() bool {
		now, err := rival.Head(within(t, time.Minute))
		return err == nil && now.Commit == rec.ID && other.lost.Load() > before
	}, time.Minute, time.Millisecond)
	fenced := claim(t, rival)
	require.Equal(t, rec.ID, fenced.Claim.PriorCommit, "it is in the log")
	other.lose(nothing)
	err = <-done
	require.ErrorIs(t, err, driver.ErrConflict)
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err), "%v", err)

	other.lose(requests)
	before = other.lost.Load()
	note := driver.Note{Key: "k", Value: []byte("2"), Version: version}
	go func() { _, err := s.Post(within(t, time.Minute), note); done <- err }()
	require.Eventually(t, func() bool {
		notes, err := rival.Notes(within(t, time.Minute), "k")
		return err == nil && string(notes[0].Value) == "2" && other.lost.Load() > before
	}, time.Minute, time.Millisecond)
	other.lose(nothing)
	err = <-done
	require.ErrorIs(t, err, driver.ErrConflict)
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err), "%v", err)
	home.lose(nothing)
}

// A commit that is refused for a claim under way waits, and is sent again. A copy
// that was sent before may land still.
func TestACopyWithoutAnswerLeavesACommitInDoubtAlsoBehindAClaimThatItWaitedFor(t *testing.T) {
	t.Parallel()
	direct := testetcd.URL(t)
	rival := open(t, direct, etcd.Config{})
	both, url := throughTwo(t, direct)
	s := open(t, url, etcd.Config{HedgeAfter: 300 * time.Millisecond, KeepAlive: time.Hour}) // no later copy goes to the one that hangs
	head := claim(t, s)
	home, other := homeOf(t, s, both)
	claiming, err := rival.Claim(within(t, time.Minute))
	require.NoError(t, err)
	home.lose(requests)
	done, answered := make(chan error, 1), other.answered.Load()
	go func() { done <- s.Append(within(t, time.Minute), head, record(head, "waits")) }()
	require.Eventually(t, func() bool { return home.lost.Load() > 0 && other.answered.Load() > answered+500 }, time.Minute, time.Millisecond)
	next, rec := claimAfter(head)
	require.NoError(t, claiming.Install(within(t, time.Minute), next, rec))
	err = <-done
	require.ErrorIs(t, err, driver.ErrConflict)
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err), "%v", err)
	home.lose(nothing)
}

// hangsAlone makes a call that home does not answer, sees that nothing is sent to the
// other for it, ends its time and returns its error.
func hangsAlone(t *testing.T, home, other *proxy, call func(context.Context) error) error {
	t.Helper()
	ctx, expire := expires(t)
	for quiet := false; !quiet; { // its connection may still be greeted
		before := other.answered.Load()
		<-time.After(100 * time.Millisecond)
		quiet = other.answered.Load() == before
	}
	done, before := make(chan error, 1), other.answered.Load()
	go func() { done <- call(ctx) }()
	require.Never(t, func() bool { return other.answered.Load() > before+100 }, 500*time.Millisecond, 10*time.Millisecond)
	require.Positive(t, home.lost.Load())
	expire()
	return <-done
}

func TestNoCopyIsSentForWantOfAnAnswerWhereThatIsOff(t *testing.T) {
	t.Parallel()
	both, url := throughTwo(t, testetcd.URL(t))
	s := open(t, url+"?hedge-after=off", etcd.Config{})
	head := claim(t, s)
	home, other := homeOf(t, s, both)
	home.lose(requests)
	rec := record(head, "nowhere")
	err := hangsAlone(t, home, other, func(ctx context.Context) error { return s.Append(ctx, head, rec) })
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err))
	home.lose(nothing)
	require.NoError(t, resend(t, s, head, rec), "it was sent nowhere else")
}

func TestAWatchMovesAwayFromAHungEndpointAndMissesNothing(t *testing.T) {
	t.Parallel()
	direct := testetcd.URL(t)
	rival := open(t, direct, etcd.Config{})
	both, url := throughTwo(t, direct)
	s := open(t, url, hedged())
	claim(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	var tasks sync.WaitGroup
	var wakes atomic.Int64
	tasks.Go(func() { _ = s.WatchClaims(ctx, func() { wakes.Add(1) }) })
	require.Eventually(t, func() bool { return wakes.Load() > 0 }, time.Minute, time.Millisecond)

	home, _ := homeOf(t, s, both)
	home.lose(answers)
	for range 2 { // the first one while nobody asks the store anything, so that the watch is where it was
		before := wakes.Load()
		claim(t, rival)
		require.Eventually(t, func() bool {
			_, err := s.Head(within(t, time.Minute)) // as a catalog polls
			return err == nil && wakes.Load() > before
		}, time.Minute, time.Millisecond)
	}
	cancel()
	tasks.Wait()
	home.lose(nothing)
}

func TestAClientThatWasHandedInMayHaveAHungEndpoint(t *testing.T) {
	t.Parallel()
	both, url := throughTwo(t, testetcd.URL(t))
	client, err := clientv3.New(clientv3.Config{
		Endpoints: strings.Split(strings.Split(url, "/")[2], ","), MaxUnaryRetries: 1, MaxCallRecvMsgSize: 8 << 20, Logger: zap.NewNop(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	cfg := hedged()
	cfg.Client = client
	s := open(t, "etcd:///"+testetcd.Prefix(t, url), cfg)
	c, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1, StoreTimeout: time.Minute, RetryBudget: time.Minute})
	require.NoError(t, err)
	require.Eventually(t, func() bool { // the client is connected to both
		require.NoError(t, put(t, c, "both"))
		return both[0].answered.Load() > 1000 && both[1].answered.Load() > 1000
	}, time.Minute, time.Millisecond)
	both[0].lose(requests)
	for range 20 {
		require.NoError(t, put(t, c, "while one hangs"))
	}
	require.Positive(t, both[0].lost.Load())
	both[0].lose(nothing)
	require.NoError(t, c.Close())
}

// A sayingServer answers every Txn with the same error.
type sayingServer struct {
	pb.UnimplementedKVServer
	says error
	txns atomic.Int64
}

func (s *sayingServer) Txn(context.Context, *pb.TxnRequest) (*pb.TxnResponse, error) {
	s.txns.Add(1)
	return nil, s.says
}

func startSaying(t *testing.T, says error) (*sayingServer, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	saying, server := &sayingServer{says: says}, grpc.NewServer()
	pb.RegisterKVServer(server, saying)
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Stop(); tasks.Wait() })
	return saying, l.Addr().String()
}

func TestAWrongServerIsFollowedByAnotherAtOnce(t *testing.T) {
	t.Parallel()
	never := etcd.Config{HedgeAfter: -1} // no copy for want of an answer
	for _, says := range []error{
		rpctypes.ErrGRPCLeaderChanged, rpctypes.ErrGRPCNoLeader, rpctypes.ErrGRPCTimeout, rpctypes.ErrGRPCNotSupportedForLearner,
		rpctypes.ErrGRPCTimeoutDueToLeaderFail, rpctypes.ErrGRPCStopped,
	} {
		url := testetcd.URL(t)
		wrong, host := startSaying(t, says)
		version, err := open(t, url, never).Post(within(t, time.Minute), driver.Note{Key: "k", Value: []byte("v")})
		require.NoError(t, err)
		for wrong.txns.Load() == 0 { // which one is asked first is left to chance
			s := open(t, strings.Replace(url, "://", "://"+host+",", 1), never)
			version, err = s.Post(within(t, time.Minute), driver.Note{Key: "k", Value: []byte("v"), Version: version})
			require.NoError(t, err, says)
		}
		require.EqualValues(t, 1, wrong.txns.Load())
	}
}

func TestAWriteIsSentToEachWrongServerOnceAndIsThenOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	for says, outcome := range map[error]driver.Outcome{rpctypes.ErrGRPCTimeout: driver.Unknown, rpctypes.ErrGRPCNoLeader: driver.NotApplied} {
		one, first := startSaying(t, says)
		two, second := startSaying(t, says)
		s := open(t, "etcd://"+first+","+second+"/p", etcd.Config{HedgeAfter: -1})
		_, err := s.Post(within(t, time.Minute), driver.Note{Key: "k", Value: []byte("v"), Version: 1})
		require.Equal(t, exitcodes.Retry, classed(t, err).Disposition())
		require.Equal(t, outcome, driver.OutcomeOf(err), "%v", err)
		require.EqualValues(t, 1, one.txns.Load())
		require.EqualValues(t, 1, two.txns.Load())
	}
}

// A note that was removed is absent again, so that a copy of the write that made it
// could make it anew.
func TestOfANoteThatIsNewNoTwoCopiesAreUnderWay(t *testing.T) {
	t.Parallel()
	both, url := throughTwo(t, testetcd.URL(t))
	s := open(t, url, hedged())
	home, other := homeOf(t, s, both)
	home.lose(requests)
	note := driver.Note{Key: "new", Value: []byte("v")}
	err := hangsAlone(t, home, other, func(ctx context.Context) error { _, err := s.Post(ctx, note); return err })
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err), "%v", err)
	notes, err := s.Notes(within(t, time.Minute), "")
	require.NoError(t, err)
	require.Empty(t, notes, "it was sent elsewhere too")
	home.lose(nothing)

	one, first := startSaying(t, rpctypes.ErrGRPCTimeout)
	two, second := startSaying(t, rpctypes.ErrGRPCTimeout)
	s = open(t, "etcd://"+first+","+second+"/p", etcd.Config{})
	_, err = s.Post(within(t, time.Minute), note)
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err), "%v", err)
	require.EqualValues(t, 1, one.txns.Load()+two.txns.Load())
}

// The refusal of one copy says nothing of another that was given up.
func TestARefusalBehindAnAnswerThatLeavesItOpenIsOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	_, first := startSaying(t, rpctypes.ErrGRPCTimeout)
	_, second := startSaying(t, rpctypes.ErrGRPCPermissionDenied)
	var outcomes []driver.Outcome
	require.Eventually(t, func() bool { // which one is asked first is left to chance
		s := open(t, "etcd://"+first+","+second+"/p", etcd.Config{HedgeAfter: -1})
		_, err := s.Post(within(t, time.Minute), driver.Note{Key: "k", Value: []byte("v"), Version: 1})
		require.Equal(t, exitcodes.Config, classed(t, err).ExitCode(), "%v", err)
		if o := driver.OutcomeOf(err); len(outcomes) == 0 || outcomes[0] != o {
			outcomes = append(outcomes, o)
		}
		return len(outcomes) == 2
	}, time.Minute, time.Millisecond)
}

func TestAnEndpointThatHangsFromTheBeginningKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	server := testetcd.NewServer(t, testetcd.Options{})
	client, ctx := testetcd.Client(t, server.URL()), within(t, time.Minute)
	_, err := client.UserAdd(ctx, "root", "secret")
	require.NoError(t, err)
	_, err = client.UserGrantRole(ctx, "root", "root")
	require.NoError(t, err)
	_, err = client.AuthEnable(ctx)
	require.NoError(t, err)
	both, url := throughTwo(t, server.URL())
	both[0].lose(requests)
	for both[0].lost.Load() == 0 { // which one is asked first is left to chance
		s := open(t, strings.Replace(url, "://", "://root:secret@", 1), hedged())
		claim(t, s)
	}
	both[0].lose(nothing)
}

func TestARecordOfLossesWhoseAnswerIsLostIsFoundByItsCopy(t *testing.T) {
	t.Parallel()
	var writing atomic.Int64
	s := overTwoEndpoints(t, testetcd.URL(t),
		func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			err := invoke(ctx, method, req, reply, cc, opts...)
			if txn, ok := req.(*pb.TxnRequest); ok && writes(txn, "losses") && writing.Add(1) == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return err
		})
	version, err := s.PutLosses(within(t, time.Minute), lossesOf(t, s, "a loss"), nil)
	require.NoError(t, err)
	require.GreaterOrEqual(t, writing.Load(), int64(2)) // a busy machine may send further copies
	written, err := s.Losses(within(t, time.Minute))
	require.NoError(t, err)
	require.Equal(t, "a loss", string(written.Text))
	require.Equal(t, written.Version, version)
}

// lossesOf returns the record of losses with another text.
func lossesOf(t *testing.T, s *etcd.Store, text string) driver.Losses {
	t.Helper()
	l, err := s.Losses(within(t, time.Minute))
	require.NoError(t, err)
	l.Text = []byte(text)
	return l
}

// The copies of a page share the link with it: too many, and none arrives in time.
func TestAPageOverASlowLinkIsNotKeptOutByItsCopies(t *testing.T) {
	t.Parallel()
	both, url := throughTwo(t, testetcd.URL(t))
	s := open(t, url, etcd.Config{})
	const records, size = 4, 1000 << 10
	head := commit(t, s, claim(t, s), records, payloadOf(size))
	for range 100 {
		_, err := s.Head(within(t, time.Minute))
		require.NoError(t, err)
	}
	link := &slowLink{rate: 6 << 20}
	for _, p := range both {
		p.slowDown(link)
	}
	before := both[0].answered.Load() + both[1].answered.Load()
	require.Len(t, idsAbove(t, s, head.Claim.Revision), records)
	require.Less(t, both[0].answered.Load()+both[1].answered.Load()-before, int64(4*records*size))
	for _, p := range both {
		p.slowDown(nil)
	}
}
