package etcd

import (
	"context"
	"errors"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// A lease is one that the server has granted or renewed for ttl, when it was
// asked at sent or later.
type lease struct {
	id   clientv3.LeaseID
	ttl  time.Duration
	sent time.Time
}

func (s *Store) grant(ctx context.Context, client *cluster) (lease, error) {
	sent := time.Now()
	resp, err := client.Grant(ctx, int64(s.cfg.ClaimTTL/time.Second))
	if err != nil {
		return lease{}, err
	}
	return lease{resp.ID, time.Duration(resp.TTL) * time.Second, sent}, nil
}

// A spare is a lease that the next claim can do with, so that it need not wait
// for one to be granted.
type spare struct {
	mu    sync.Mutex
	lease lease // zero: none
}

// Warm implements [driver.Warmer]: it connects, and sees to a lease for the next
// claim. Where no further call renews that, it ends by itself.
func (s *Store) Warm(ctx context.Context) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	return s.fail("warm", s.warm(ctx), read) // a lease alone is nothing that a reader sees
}

func (s *Store) warm(ctx context.Context) error {
	client, err := s.dial(ctx)
	if err != nil {
		return err
	}
	s.spare.mu.Lock() // a claim that comes just now asks for its own
	defer s.spare.mu.Unlock()
	l := &s.spare.lease
	if l.id == clientv3.NoLease {
		*l, err = s.grant(ctx, client)
		return err
	}
	sent := time.Now()
	err = client.KeepAliveOnce(ctx, l.id)
	switch {
	case err == nil:
		l.sent = sent
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		*l, err = s.grant(ctx, client)
	}
	return err
}

// takeSpare returns the spare lease, if there is one that has more than half of
// its time left.
func (s *Store) takeSpare() (lease, bool) {
	if !s.spare.mu.TryLock() {
		return lease{}, false
	}
	defer s.spare.mu.Unlock()
	l := s.spare.lease
	s.spare.lease = lease{}
	return l, l.id != clientv3.NoLease && time.Since(l.sent) < l.ttl/2
}
