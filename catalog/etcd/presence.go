package etcd

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/driver"
)

// presenceTTL is after how many seconds a process that died is no longer shown.
const presenceTTL = 5

// Present implements [driver.Presenter], by a key under a lease that is kept
// alive. It ends when the lease does, be it revoked or not renewed in time.
func (s *Store) Present(ctx context.Context, claim driver.ID, shown func()) error {
	ended := make(chan error, 1)
	if !s.spawn(func() { ended <- s.present(ctx, claim, shown) }) {
		return s.fail("present", errClosed, read)
	}
	return s.fail("present", <-ended, read)
}

func (s *Store) present(ctx context.Context, claim driver.ID, shown func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.alive, cancel)()
	client, err := s.dial(ctx)
	if err != nil {
		return err
	}
	lease, err := s.show(ctx, client, claim)
	if lease != 0 {
		defer s.hide(client, lease)
	}
	if err != nil {
		return err
	}
	renewed, err := client.KeepAlive(clientv3.WithRequireLeader(ctx), lease)
	if err != nil {
		return err
	}
	shown()
	for range renewed { // until the lease is no more
	}
	switch {
	case s.alive.Err() != nil:
		return errClosed
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return errWatchEnded
	}
}

// show puts the key under a new lease, which it returns even where that failed.
func (s *Store) show(ctx context.Context, client *clientv3.Client, claim driver.ID) (clientv3.LeaseID, error) {
	bounded, cancel := bound(ctx)
	defer cancel()
	granted, err := client.Grant(bounded, presenceTTL)
	if err != nil {
		return 0, err
	}
	_, err = client.Put(bounded, s.keys.presence(claim), whoami(time.Now()), clientv3.WithLease(granted.ID))
	return granted.ID, err
}

// hide ends a lease, and so what hangs on it. Where that fails it ends by itself.
func (s *Store) hide(client *clientv3.Client, lease clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(s.root, time.Second)
	defer cancel()
	if _, err := client.Revoke(ctx, lease); err != nil {
		s.log.Debug("the lease of a presence was not revoked", "store", s.name, "error", err)
	}
}

// WatchPresence implements [driver.PresenceWatcher], by a watch on the key.
func (s *Store) WatchPresence(ctx context.Context, claim driver.ID, lost func()) error {
	return s.fail("watch presence", s.watchPresence(ctx, claim, lost), read)
}

func (s *Store) watchPresence(ctx context.Context, claim driver.ID, lost func()) error {
	client, err := s.dial(ctx)
	if err != nil {
		return err
	}
	key := s.keys.presence(claim)
	bounded, done := bound(ctx)
	defer done()
	found, err := client.Get(bounded, key)
	if err != nil {
		return err
	}
	seen := len(found.Kvs) > 0
	watch, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	defer context.AfterFunc(s.root, cancel)()
	for resp := range client.Watch(watch, key, clientv3.WithRev(found.Header.Revision+1)) {
		if err := resp.Err(); err != nil {
			return whyRefused(err)
		}
		for _, e := range resp.Events {
			if seen && e.Type == clientv3.EventTypeDelete {
				lost()
			}
			seen = e.Type == clientv3.EventTypePut
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case s.root.Err() != nil:
		return errClosed
	default:
		return errWatchEnded
	}
}
