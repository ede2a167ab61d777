package etcd_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/crashtest"
	"github.com/fencepost/fencepost/internal/testetcd"
)

func TestTheDeathOfAProcessThatShowsAClaimIsTold(t *testing.T) {
	t.Parallel()
	crashtest.RunPresence(t, testetcd.URL(t), openAt, 5*time.Second)
}

// A shown is a claim that a store shows, and the key by which it does.
type shown struct {
	claim driver.ID
	key   *presenceKey
	done  chan error
}

// A presenceKey is the key of a presence, as another client sees it.
type presenceKey struct {
	client *clientv3.Client
	name   string
}

func (k *presenceKey) get(t *testing.T) *clientv3.GetResponse {
	t.Helper()
	resp, err := k.client.Get(within(t, time.Minute), k.name)
	require.NoError(t, err)
	return resp
}

// lease returns the lease on which the key hangs.
func (k *presenceKey) lease(t *testing.T) clientv3.LeaseID {
	t.Helper()
	resp := k.get(t)
	require.Len(t, resp.Kvs, 1)
	require.NotZero(t, resp.Kvs[0].Lease)
	return clientv3.LeaseID(resp.Kvs[0].Lease)
}

func keyOf(t *testing.T, url string, claim driver.ID) *presenceKey {
	return &presenceKey{testetcd.Client(t, url), testetcd.Prefix(t, url) + "/presence/" + claim.String()}
}

// show has s show claim until ctx ends.
func show(ctx context.Context, t *testing.T, s *etcd.Store, url string, claim driver.ID) shown {
	t.Helper()
	p := shown{claim, keyOf(t, url, claim), make(chan error, 1)}
	seen := make(chan struct{})
	go func() { p.done <- s.Present(ctx, claim, func() { close(seen) }) }()
	select {
	case <-seen:
	case err := <-p.done:
		require.FailNow(t, "not shown", "%v", err)
	}
	return p
}

// lookOut returns what gets the losses of a claim, once the watch has begun: the
// loss of a key that is put for the purpose was told.
func lookOut(t *testing.T, s *etcd.Store, url string, claim driver.ID) <-chan struct{} {
	t.Helper()
	lost, done, key := make(chan struct{}, 100), make(chan error, 1), keyOf(t, url, claim)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- s.WatchPresence(ctx, claim, func() { lost <- struct{}{} }) }()
	t.Cleanup(func() { cancel(); <-done })
	for begun := false; !begun; {
		_, err := key.client.Put(within(t, time.Minute), key.name, "to be seen going")
		require.NoError(t, err)
		_, err = key.client.Delete(within(t, time.Minute), key.name)
		require.NoError(t, err)
		begun = told(lost, time.Second)
	}
	for told(lost, 200*time.Millisecond) { // those of slower turns
	}
	return lost
}

// told reports whether a loss is before so much time has passed.
func told(lost <-chan struct{}, within time.Duration) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-lost:
		return true
	case <-timer.C:
		return false
	}
}

func TestAPresenceWhoseLeaseIsRevokedIsLostAndMayBeShownAgain(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, claim := open(t, url, etcd.Config{}), driver.NewID()
	lost := lookOut(t, open(t, url, etcd.Config{}), url, claim)
	for range 2 {
		p := show(t.Context(), t, s, url, claim)
		_, err := p.key.client.Revoke(within(t, time.Minute), p.key.lease(t))
		require.NoError(t, err)
		require.True(t, told(lost, drivertest.Patience))
		err = <-p.done
		require.ErrorContains(t, err, "the lease of a presence ended")
		require.Equal(t, exitcodes.Retry, classed(t, err).Disposition())
	}
	require.Empty(t, lost, "told twice")
}

func TestAPresenceIsRenewedWithoutAnyWrite(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, claim := open(t, url, etcd.Config{}), driver.NewID()
	lost := lookOut(t, s, url, claim)
	ctx, cancel := context.WithCancel(t.Context())
	p := show(ctx, t, s, url, claim)
	before := p.key.get(t).Kvs
	require.False(t, told(lost, 5*time.Second), "the lease of 3 s was not renewed")
	require.Equal(t, before, p.key.get(t).Kvs)
	require.EqualValues(t, 1, before[0].Version)
	cancel()
	require.ErrorIs(t, <-p.done, context.Canceled)
	require.True(t, told(lost, drivertest.Patience))
}

// Whose lease was lost puts the key anew, maybe before that lease has ended.
func TestAPresenceThatIsShownAnewIsNotLostWithItsEarlierLease(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, claim := open(t, url, etcd.Config{}), driver.NewID()
	lost, key := lookOut(t, s, url, claim), keyOf(t, url, claim)
	earlier, err := key.client.Grant(within(t, time.Minute), 60)
	require.NoError(t, err)
	_, err = key.client.Put(within(t, time.Minute), key.name, "earlier", clientv3.WithLease(earlier.ID))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	p := show(ctx, t, s, url, claim)
	_, err = key.client.Revoke(within(t, time.Minute), earlier.ID)
	require.NoError(t, err)
	require.NotEqual(t, earlier.ID, key.lease(t))
	require.False(t, told(lost, time.Second))
	cancel()
	require.ErrorIs(t, <-p.done, context.Canceled)
	require.True(t, told(lost, drivertest.Patience))
}

func TestCloseRevokesTheLeaseOfAPresenceAndWaitsForThat(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, err := etcd.Open(t.Context(), url, etcd.Config{})
	require.NoError(t, err)
	p := show(t.Context(), t, s, url, driver.NewID())
	require.NoError(t, s.Close())
	require.ErrorContains(t, <-p.done, "the store is closed")
	require.Empty(t, p.key.get(t).Kvs)
}

func TestAPresenceEndsWithAReasonWhereItsServerDoesAndIsShownWhenThatIsBack(t *testing.T) {
	t.Parallel()
	private := testetcd.NewServer(t, testetcd.Options{})
	s, claim := open(t, private.URL(), etcd.Config{}), driver.NewID()
	p := show(t.Context(), t, s, private.URL(), claim)
	private.Kill()
	err := <-p.done
	require.ErrorContains(t, err, "the lease of a presence ended")
	require.Equal(t, exitcodes.Retry, classed(t, err).Disposition())
	private.Start()
	ctx, cancel := context.WithCancel(t.Context())
	p = show(ctx, t, s, private.URL(), claim)
	cancel()
	require.ErrorIs(t, <-p.done, context.Canceled)
}

// What a store shows lies apart from what it keeps: no reader of the board or of
// the head sees it, nor a watch of these, and no compaction takes it.
func TestWhatAStoreShowsWakesNoWatchAndOutlivesATrim(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s := open(t, url, etcd.Config{})
	head := claim(t, s)
	woken, done := make(chan struct{}, 100), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- s.Watch(ctx, func() { woken <- struct{}{} }) }()
	<-woken
	p := show(ctx, t, s, url, head.Claim.ID)
	_, err := s.Trim(within(t, time.Minute), head.Claim)
	require.NoError(t, err)
	require.Len(t, p.key.get(t).Kvs, 1)
	require.False(t, told(woken, 500*time.Millisecond))
	cancel()
	require.ErrorIs(t, <-p.done, context.Canceled)
	require.ErrorIs(t, <-done, context.Canceled)
}

// All watches of a client share a stream, which keeps the token that it began
// with.
func TestAPresenceIsWatchedAlsoWhereTheTokenOfTheSharedStreamIsInvalid(t *testing.T) {
	t.Parallel()
	_, as, root := guarded(t, "catalog")
	s := open(t, as("app"), etcd.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	begun, watching := make(chan struct{}, 100), make(chan error, 1)
	go func() { watching <- s.Watch(ctx, func() { begun <- struct{}{} }) }()
	<-begun
	invalidate(t, root)
	other, claim := open(t, as("app"), etcd.Config{}), driver.NewID()
	lost, done := make(chan struct{}, 100), make(chan error, 1)
	go func() { done <- s.WatchPresence(ctx, claim, func() { lost <- struct{}{} }) }()
	for seen, life := false, 100*time.Millisecond; !seen; life *= 2 {
		showing, hide := context.WithTimeout(ctx, life)
		err := other.Present(showing, claim, func() {})
		hide()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		seen = told(lost, time.Second)
		require.Empty(t, done, "the watch has ended")
	}
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	<-watching
}
