package etcd

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/driver"
)

// presenceTTL is how long a process that died is shown still, at most. The
// renewals, all of a client's on one stream, write nothing.
const presenceTTL = 3 * time.Second

var errLapsed = errors.New("the lease of a presence ended")

// Present implements [driver.Presenter]: it keeps a key under a lease of three
// seconds, which is revoked at the end. Only Close waits for that, for two
// seconds at most.
func (s *Store) Present(ctx context.Context, claim driver.ID, shown func()) error {
	done := make(chan error, 1)
	if !s.spawn(func() { done <- s.present(ctx, claim, shown) }) {
		return s.fail("present", errClosed, read)
	}
	return s.fail("present", <-done, read) // what was written, no reader sees
}

func (s *Store) present(ctx context.Context, claim driver.ID, shown func()) error {
	alive, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.alive, cancel)()
	err := s.keepShown(alive, claim, shown)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case s.alive.Err() != nil:
		return errClosed
	default:
		return err
	}
}

// keepShown puts the key and renews its lease until ctx ends or that fails.
func (s *Store) keepShown(ctx context.Context, claim driver.ID, shown func()) error {
	client, lease, err := s.putPresence(ctx, claim)
	if lease != clientv3.NoLease {
		defer s.endLease(client, lease)
	}
	if err != nil {
		return err
	}
	shown()
	for {
		if moved, err := client.renew(ctx, lease); !moved {
			return err
		}
	}
}

// renew renews a lease until ctx ends or that fails. It reports whether it ended
// because the home has moved.
func (c *cluster) renew(ctx context.Context, lease clientv3.LeaseID) (moved bool, err error) {
	home, stream, end := c.stream(ctx)
	defer end()
	session, err := home.dial(stream)
	if err == nil {
		var renewals <-chan *clientv3.LeaseKeepAliveResponse
		if renewals, err = session.lease.KeepAlive(stream, lease); err == nil {
			for range renewals {
			}
			err = errLapsed
		}
	}
	moved = stream.Err() != nil || session != nil && home.left(session)
	return moved && ctx.Err() == nil && c.root.Err() == nil, err
}

// putPresence returns the lease under which the key is; one also where it could
// not be put.
func (s *Store) putPresence(ctx context.Context, claim driver.ID) (*cluster, clientv3.LeaseID, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	client, err := s.dial(ctx)
	if err != nil {
		return nil, clientv3.NoLease, err
	}
	lease, err := client.Grant(ctx, int64(presenceTTL/time.Second))
	if err != nil {
		return nil, clientv3.NoLease, err
	}
	_, err = client.Do(ctx, clientv3.OpPut(s.keys.presence(claim), whoami(time.Now()), clientv3.WithLease(lease.ID)))
	return client, lease.ID, err
}

// endLease revokes the lease of a presence, behind the back of a caller whose
// server may be out of reach.
func (s *Store) endLease(client *cluster, lease clientv3.LeaseID) {
	revoke := func() { s.revoke(client, lease, "a presence's") }
	if !s.spawn(revoke) {
		revoke() // in the midst of Close, which waits for this call
	}
}

// WatchPresence implements [driver.PresenceWatcher]: it watches the key, whose
// end is told also where it lay in a time without a connection. A key that is put
// anew in place of one of a broken lease was never gone.
func (s *Store) WatchPresence(ctx context.Context, claim driver.ID, lost func()) error {
	key := s.keys.presence(claim)
	return s.watch(ctx, "watch presence", key, key+"\x00", func(resp clientv3.WatchResponse) {
		for _, e := range resp.Events {
			if e.Type == clientv3.EventTypeDelete {
				lost()
			}
		}
	})
}
