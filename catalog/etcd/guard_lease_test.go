package etcd_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/fence"
)

func TestWhatIsKnownOfALeaseIsCheckedLocally(t *testing.T) {
	t.Parallel()
	g := newGuardedRows(t)
	ctx, token := within(t, time.Minute), claimBy(t, g.store, 1).Token
	kv := g.kv(token)
	lost := errors.New("the handle has ended")
	var ended atomic.Bool // a lease that is kept alive asks, too
	lease := kv.Lease(g.client.Lease, func() error {
		if ended.Load() {
			return lost
		}
		return nil
	})
	granted, err := lease.Grant(ctx, 60)
	require.NoError(t, err)
	_, err = kv.Put(ctx, g.rows+"a", "v", clientv3.WithLease(granted.ID))
	require.NoError(t, err)
	calls := map[string]func(clientv3.Lease) error{
		"grant":  func(l clientv3.Lease) error { _, err := l.Grant(ctx, 60); return err },
		"once":   func(l clientv3.Lease) error { _, err := l.KeepAliveOnce(ctx, granted.ID); return err },
		"keep":   func(l clientv3.Lease) error { _, err := l.KeepAlive(ctx, granted.ID); return err },
		"revoke": func(l clientv3.Lease) error { _, err := l.Revoke(ctx, granted.ID); return err },
	}
	for _, name := range []string{"grant", "once", "keep"} {
		require.NoError(t, calls[name](lease), name)
	}
	ended.Store(true)
	for name, call := range calls {
		require.ErrorIs(t, call(lease), lost, name)
	}
	ended.Store(false)
	second := claimBy(t, g.store, 2).Token
	for _, name := range []string{"grant", "once", "keep"} {
		require.NoError(t, calls[name](lease), "%s: the process does not know yet", name)
	}
	_, err = kv.Put(ctx, g.rows+"a", "stale")
	refusedAs(t, err, token, second)
	for name, call := range calls {
		refusedAs(t, call(lease), token, second)
		refusedAs(t, call(kv.Lease(g.client.Lease, nil)), token, second)
		require.Equal(t, map[string]string{"a": "v"}, g.values(), name)
	}
	left, err := lease.TimeToLive(ctx, granted.ID)
	require.NoError(t, err)
	require.Positive(t, left.TTL)
	_, err = lease.Leases(ctx)
	require.NoError(t, err)
	require.NoError(t, calls["revoke"](g.client.Lease))
}

func TestALeaseIsNotKeptAliveOnceItsHolderWasRefused(t *testing.T) {
	t.Parallel()
	g := newGuardedRows(t)
	ctx, kv := within(t, time.Minute), g.kv(claimBy(t, g.store, 1).Token)
	client := &watchedLease{Lease: g.client.Lease}
	lease := kv.Lease(client, nil)
	granted, err := lease.Grant(ctx, 2)
	require.NoError(t, err)
	answers, err := lease.KeepAlive(ctx, granted.ID)
	require.NoError(t, err)
	require.NotNil(t, <-answers)
	claimBy(t, g.store, 2)
	_, err = kv.Put(ctx, g.rows+"b", "stale")
	require.ErrorIs(t, err, fence.ErrFenced)
	for range answers { // those that came before
	}
	<-client.keeping.Done()
	require.NoError(t, ctx.Err())
}

// A watchedLease shows for how long a lease is kept alive.
type watchedLease struct {
	clientv3.Lease
	keeping context.Context
}

func (l *watchedLease) KeepAlive(ctx context.Context, id clientv3.LeaseID) (<-chan *clientv3.LeaseKeepAliveResponse, error) {
	l.keeping = ctx
	return l.Lease.KeepAlive(ctx, id)
}
