package etcd

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Lease returns a [clientv3.Lease] that stops with the token, as far as this
// process knows. Etcd takes no condition with the requests for a lease, so they are
// only checked locally: Grant, Revoke, KeepAlive and KeepAliveOnce fail once k has
// been refused (see [GuardedKV.Refused]), or once held returns an error. KeepAlive
// checks at each answer, and its channel then closes, so that the keys on the lease
// go when it expires.
//
// Held is what the process knows of its token otherwise, such as
// catalog.Catalog.Err; nil means nothing. A process that was stopped behind the
// check can still revoke a lease, which deletes the keys on it: only the Put of
// a key on a lease is guarded. TimeToLive, Leases and Close are not checked.
func (k *GuardedKV) Lease(lease clientv3.Lease, held func() error) clientv3.Lease {
	return &checkedLease{lease: lease, kv: k, held: held}
}

type checkedLease struct {
	lease clientv3.Lease
	kv    *GuardedKV
	held  func() error // nil: nothing
}

func (l *checkedLease) check(op string) error {
	err := l.kv.Refused()
	if err == nil && l.held != nil {
		err = l.held()
	}
	if err != nil {
		return fmt.Errorf("etcd: %s: %w", op, err)
	}
	return nil
}

// Grant implements [clientv3.Lease].
func (l *checkedLease) Grant(ctx context.Context, ttl int64) (*clientv3.LeaseGrantResponse, error) {
	if err := l.check("grant a lease"); err != nil {
		return nil, err
	}
	return l.lease.Grant(ctx, ttl)
}

// Revoke implements [clientv3.Lease].
func (l *checkedLease) Revoke(ctx context.Context, id clientv3.LeaseID) (*clientv3.LeaseRevokeResponse, error) {
	if err := l.check("revoke a lease"); err != nil {
		return nil, err
	}
	return l.lease.Revoke(ctx, id)
}

// KeepAliveOnce implements [clientv3.Lease].
func (l *checkedLease) KeepAliveOnce(ctx context.Context, id clientv3.LeaseID) (*clientv3.LeaseKeepAliveResponse, error) {
	if err := l.check("renew a lease"); err != nil {
		return nil, err
	}
	return l.lease.KeepAliveOnce(ctx, id)
}

// KeepAlive implements [clientv3.Lease]. Like the client's own, it drops answers
// that nobody takes.
func (l *checkedLease) KeepAlive(ctx context.Context, id clientv3.LeaseID) (<-chan *clientv3.LeaseKeepAliveResponse, error) {
	if err := l.check("renew a lease"); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	answers, err := l.lease.KeepAlive(ctx, id)
	if err != nil {
		cancel()
		return nil, err
	}
	checked := make(chan *clientv3.LeaseKeepAliveResponse, cap(answers))
	go func() { // ends with ctx, or with the lease's client
		defer cancel()
		defer close(checked)
		for answer := range answers {
			if l.check("renew a lease") != nil {
				return
			}
			select {
			case checked <- answer:
			default:
			}
		}
	}()
	return checked, nil
}

// TimeToLive implements [clientv3.Lease].
func (l *checkedLease) TimeToLive(ctx context.Context, id clientv3.LeaseID, opts ...clientv3.LeaseOption) (*clientv3.LeaseTimeToLiveResponse, error) {
	return l.lease.TimeToLive(ctx, id, opts...)
}

// Leases implements [clientv3.Lease].
func (l *checkedLease) Leases(ctx context.Context) (*clientv3.LeaseLeasesResponse, error) {
	return l.lease.Leases(ctx)
}

// Close implements [clientv3.Lease].
func (l *checkedLease) Close() error { return l.lease.Close() }
