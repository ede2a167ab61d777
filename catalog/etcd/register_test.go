package etcd_test

import (
	"context"
	"errors"
	"strings"
	"sync"
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
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testetcd"
)

func openRegister(t *testing.T, url string, cfg etcd.Config) *etcd.Register {
	t.Helper()
	r, err := etcd.OpenRegister(t.Context(), url, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// elsewhere is a register, and a client that writes beside it.
func elsewhere(t *testing.T) (r *etcd.Register, client *clientv3.Client, prefix string) {
	t.Helper()
	url := testetcd.URL(t)
	return openRegister(t, url+"/register", etcd.Config{}), testetcd.Client(t, url), testetcd.Prefix(t, url) + "/register"
}

func holding(name string) fence.Holder { return fence.Holder{Name: name} }

func TestARegisterInEtcdOnlyRisesAndItsGuardsRefuseWhatIsLower(t *testing.T) {
	t.Parallel()
	r, client, prefix := elsewhere(t)
	ctx, blue := within(t, time.Minute), holding("holder")
	before, err := client.Get(ctx, prefix)
	require.NoError(t, err)
	require.NoError(t, r.Prove(ctx, tokenOf(1, 1)))
	now, err := r.State(ctx)
	require.NoError(t, err)
	require.True(t, now.Token.IsZero(), "a proof makes nothing")
	_, err = etcd.GuardKV(ctx, client, prefix, tokenOf(1, 1))
	notAToken(t, err, fence.ErrNeverIssued)
	require.NotNil(t, before)

	require.NoError(t, r.Raise(ctx, tokenOf(1, 1), blue))
	old, err := etcd.GuardKV(ctx, client, prefix, tokenOf(1, 1))
	require.NoError(t, err)
	write := func() error { _, err := old.Put(ctx, prefix+"-row", "v"); return err }
	require.NoError(t, write())
	require.NoError(t, r.Raise(ctx, tokenOf(1, 1), blue), "again")
	require.NoError(t, write(), "whoever holds it goes on")
	require.NoError(t, r.Prove(ctx, tokenOf(2, 7)))
	require.NoError(t, write(), "a proof changes nothing")
	require.NoError(t, r.Raise(ctx, tokenOf(2, 7), blue))
	refusedAs(t, write(), tokenOf(1, 1), tokenOf(2, 7))
	for _, stale := range []fence.Token{tokenOf(1, 1), tokenOf(2, 6), tokenOf(1, 9)} {
		_, guard := etcd.GuardKV(ctx, client, prefix, stale)
		for _, err := range []error{guard, r.Raise(ctx, stale, blue), r.Prove(ctx, stale)} {
			refusedAs(t, err, stale, tokenOf(2, 7))
		}
	}
	for want, never := range map[error]fence.Token{fence.ErrMissing: {}, fence.ErrNeverIssued: tokenOf(0, 9), fence.ErrMalformed: tokenOf(1<<63, 1)} {
		notAToken(t, r.Raise(ctx, never, blue), want)
		notAToken(t, r.Prove(ctx, never), want)
	}
	_, err = etcd.GuardKV(ctx, client, prefix, tokenOf(2, 8))
	notAToken(t, err, fence.ErrNeverIssued)
	now, err = r.State(ctx)
	require.NoError(t, err)
	require.Equal(t, tokenOf(2, 7), now.Token)
	require.Equal(t, "holder", now.Holder.Name)
}

func TestAProofInEtcdWritesNothingAtAll(t *testing.T) {
	t.Parallel()
	r, client, prefix := elsewhere(t)
	ctx := within(t, time.Minute)
	require.NoError(t, r.Raise(ctx, tokenOf(1, 1), fence.Holder{}))
	first, err := client.Get(ctx, prefix, clientv3.WithPrefix())
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, r.Prove(ctx, tokenOf(9, 9)))
	}
	now, err := client.Get(ctx, prefix, clientv3.WithPrefix())
	require.NoError(t, err)
	require.Equal(t, first.Kvs, now.Kvs, "not even the revision of the key")
}

func TestRegistersInEtcdThatAreRaisedAtOnceEndAtTheHighest(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	const processes = 12
	var wg sync.WaitGroup
	for i := range processes {
		r := openRegister(t, url+"/register", etcd.Config{})
		wg.Go(func() {
			if err := r.Raise(within(t, time.Minute), tokenOf(1, epoch.Epoch(i+1)), fence.Holder{}); i == processes-1 || !errors.Is(err, fence.ErrFenced) {
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	now, err := openRegister(t, url+"/register", etcd.Config{}).State(within(t, time.Minute))
	require.NoError(t, err)
	require.Equal(t, tokenOf(1, processes), now.Token)
}

func TestARegisterAndACatalogHaveNoPrefixInCommon(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	ctx := within(t, time.Minute)
	claim(t, open(t, url+"/one", etcd.Config{}))
	r := openRegister(t, url+"/one", etcd.Config{})
	_, newest := r.State(ctx)
	for _, err := range []error{newest, r.Raise(ctx, tokenOf(9, 9), fence.Holder{}), r.Prove(ctx, tokenOf(9, 9))} {
		require.ErrorContains(t, err, "give the register a prefix of its own")
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	}
	require.NoError(t, openRegister(t, url+"/two", etcd.Config{}).Raise(ctx, tokenOf(1, 1), fence.Holder{}))
	_, err := open(t, url+"/two", etcd.Config{}).Head(ctx)
	require.ErrorIs(t, err, driver.ErrCorrupt, "a catalog claims nothing over a register")
}

func TestARegisterThatCantBeRaisedForWantOfRightsSaysSoBefore(t *testing.T) {
	t.Parallel()
	_, as, root := guarded(t)
	ctx := within(t, time.Minute)
	own := strings.Replace(as("app"), "/catalog", "/rows", 1)
	grantRight := func(right clientv3.PermissionType) {
		_, err := root.RoleGrantPermission(ctx, "catalog", "rows/token", "", right)
		require.NoError(t, err)
	}
	r := openRegister(t, own, etcd.Config{})
	for _, right := range []int{-1, int(clientv3.PermRead)} {
		if right >= 0 {
			grantRight(clientv3.PermissionType(right))
		}
		for _, err := range []error{r.Prove(ctx, tokenOf(1, 1)), r.Raise(ctx, tokenOf(1, 1), fence.Holder{})} {
			require.ErrorIs(t, err, rpctypes.ErrPermissionDenied)
			require.ErrorContains(t, err, `etcdctl role grant-permission ROLE readwrite "rows/token"`)
			require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
		}
	}
	grantRight(clientv3.PermissionType(clientv3.PermReadWrite))
	require.NoError(t, r.Prove(ctx, tokenOf(1, 1)))
	require.NoError(t, r.Raise(ctx, tokenOf(1, 1), fence.Holder{}))
}

func TestARegisterInAFullClusterSaysSoBeforeAndIsReadOn(t *testing.T) {
	t.Parallel()
	server := testetcd.NewServer(t, testetcd.Options{Quota: 2 << 20})
	r, client := openRegister(t, server.URL()+"/register", etcd.Config{}), testetcd.Client(t, server.URL())
	ctx := within(t, time.Minute)
	require.NoError(t, r.Raise(ctx, tokenOf(1, 1), fence.Holder{}))
	require.Eventually(t, func() bool {
		_, err := client.Put(ctx, "filler", strings.Repeat("x", 500<<10))
		return errors.Is(err, rpctypes.ErrNoSpace)
	}, time.Minute, time.Millisecond)
	for _, err := range []error{r.Prove(ctx, tokenOf(2, 2)), r.Raise(ctx, tokenOf(2, 2), fence.Holder{})} {
		require.ErrorIs(t, err, driver.ErrFull)
		require.ErrorContains(t, err, "disarm")
		require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
	}
	now, err := r.State(ctx)
	require.NoError(t, err)
	require.Equal(t, tokenOf(1, 1), now.Token)
}

func TestARaiseThatGetsNoAnswerEndsWithItsContextAndOneEndpointThatHangsStopsNone(t *testing.T) {
	t.Parallel()
	both, url := throughTwo(t, testetcd.URL(t))
	r := openRegister(t, url+"/register", hedged())
	require.NoError(t, r.Raise(within(t, time.Minute), tokenOf(1, 1), fence.Holder{}))
	both[0].lose(requests)
	for n := range 6 { // which one is asked first is left to chance
		next := tokenOf(2, epoch.Epoch(n+2))
		require.NoError(t, r.Prove(within(t, time.Minute), next))
		require.NoError(t, r.Raise(within(t, time.Minute), next, fence.Holder{}))
	}
	both[1].lose(requests)
	for _, call := range []func(context.Context) error{
		func(ctx context.Context) error { return r.Prove(ctx, tokenOf(3, 9)) },
		func(ctx context.Context) error { return r.Raise(ctx, tokenOf(3, 9), fence.Holder{}) },
	} {
		err := call(within(t, 200*time.Millisecond))
		require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
		require.ErrorContains(t, err, "(register)")
	}
	both[0].lose(nothing)
	both[1].lose(nothing)
	require.Eventually(t, func() bool { return r.Raise(within(t, time.Minute), tokenOf(3, 9), fence.Holder{}) == nil }, time.Minute, time.Millisecond,
		"whether the one before has landed or not")
}

// TestARaiseWhoseAnswerIsLostIsFoundByTheNextTryAndOneThatComesLateLowersNothing has a
// tap between the register and its server.
func TestARaiseWhoseAnswerIsLostIsFoundByTheNextTryAndOneThatComesLateLowersNothing(t *testing.T) {
	t.Parallel()
	url, ctx, p := testetcd.URL(t), within(t, time.Minute), new(tap)
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{strings.Split(url, "/")[2]}, MaxUnaryRetries: 1, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(p.pass)},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	r := openRegister(t, "etcd:///"+testetcd.Prefix(t, url)+"/register", etcd.Config{Client: client})
	require.NoError(t, r.Raise(ctx, tokenOf(1, 1), fence.Holder{}))
	newest := func() fence.Token {
		now, err := r.State(ctx)
		require.NoError(t, err)
		return now.Token
	}

	p.on(unanswered, "/token")
	err = r.Raise(ctx, tokenOf(2, 2), fence.Holder{})
	require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err))
	require.Equal(t, tokenOf(2, 2), newest())
	p.set(func(txn *pb.TxnRequest) fate {
		assert.Fail(t, "a raise that has landed is not sent again")
		return sound
	})
	require.NoError(t, r.Raise(ctx, tokenOf(2, 2), fence.Holder{}))

	p.on(delayed, "/token")
	require.Error(t, r.Raise(ctx, tokenOf(3, 3), fence.Holder{}))
	p.on(sound, "")
	require.NoError(t, r.Raise(ctx, tokenOf(4, 4), fence.Holder{}))
	late, err := p.onItsWay[0](ctx)
	require.NoError(t, err)
	require.False(t, late.Succeeded)
	require.Equal(t, tokenOf(4, 4), newest())
}

func TestWhatStrangersWriteIntoARegistersKeyIsRefusedAndBounded(t *testing.T) {
	t.Parallel()
	r, client, prefix := elsewhere(t)
	ctx := within(t, time.Minute)
	for _, value := range []string{
		"", "g1.e1", "{}", "\x00\xff", strings.Repeat("x", 1<<20), `{"token":"g1.e1"}`,
		`{"token":"g01.e1","id":"00000000000000000000000000000001","revision":1,"prior_claim":"00000000000000000000000000000001"}`,
	} {
		_, err := client.Put(ctx, prefix+"/token", value)
		require.NoError(t, err)
		_, newest := r.State(ctx)
		_, guard := etcd.GuardKV(ctx, client, prefix, tokenOf(1, 1))
		for _, err := range []error{newest, guard, r.Raise(ctx, tokenOf(9, 9), fence.Holder{}), r.Prove(ctx, tokenOf(9, 9))} {
			require.ErrorIs(t, err, driver.ErrCorrupt)
			require.Less(t, len(err.Error()), 1000)
		}
	}
}

func TestAHolderThatNoRegisterCouldReadAgainIsNotWritten(t *testing.T) {
	t.Parallel()
	r, _, _ := elsewhere(t)
	ctx := within(t, time.Minute)
	require.Error(t, r.Raise(ctx, tokenOf(1, 1), fence.Holder{Since: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)}))
	require.NoError(t, r.Raise(ctx, tokenOf(1, 1), fence.Holder{Name: "\xff\u2028", Since: time.Now()}))
	now, err := r.State(ctx)
	require.NoError(t, err)
	require.Equal(t, "\ufffd\u2028", now.Holder.Name)
}
