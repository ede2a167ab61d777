package etcd

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/internal/testetcd"
)

// warmed opens a store that was warmed, and returns its spare lease.
func warmed(t *testing.T) (*Store, lease) {
	t.Helper()
	s, err := Open(t.Context(), testetcd.URL(t), Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	drivertest.Install(t, s, 1)
	require.NoError(t, s.Warm(drivertest.Context(t)))
	require.NotEqual(t, clientv3.NoLease, s.spare.lease.id)
	return s, s.spare.lease
}

// leaseOf claims, and returns the lease that the claim is under.
func leaseOf(t *testing.T, s *Store) clientv3.LeaseID {
	t.Helper()
	c, err := s.Claim(drivertest.Context(t))
	require.NoError(t, err)
	defer c.Abandon()
	return c.(*claiming).lease
}

func TestAClaimTakesTheSpareLeaseOnce(t *testing.T) {
	t.Parallel()
	s, spare := warmed(t)
	require.Equal(t, spare.id, leaseOf(t, s))
	require.Zero(t, s.spare.lease)
	require.NotEqual(t, spare.id, leaseOf(t, s))
}

func TestWarmRenewsTheSpareLease(t *testing.T) {
	t.Parallel()
	s, spare := warmed(t)
	require.NoError(t, s.Warm(drivertest.Context(t)))
	require.Equal(t, spare.id, s.spare.lease.id)
	require.True(t, s.spare.lease.sent.After(spare.sent))
}

func TestAClaimLeavesASpareLeaseThatMayEndSoon(t *testing.T) {
	t.Parallel()
	s, spare := warmed(t)
	s.spare.lease.sent = time.Now().Add(-spare.ttl / 2)
	require.NotEqual(t, spare.id, leaseOf(t, s))
}

func TestASpareLeaseThatEndedIsReplaced(t *testing.T) {
	t.Parallel()
	s, spare := warmed(t)
	client, err := s.dial(drivertest.Context(t))
	require.NoError(t, err)
	err = client.Revoke(drivertest.Context(t), spare.id)
	require.NoError(t, err)
	require.NotEqual(t, spare.id, leaseOf(t, s), "by the claim that finds out")

	require.NoError(t, s.Warm(drivertest.Context(t)))
	second := s.spare.lease
	err = client.Revoke(drivertest.Context(t), second.id)
	require.NoError(t, err)
	require.NoError(t, s.Warm(drivertest.Context(t)))
	third := s.spare.lease
	require.NotEqual(t, second.id, third.id, "by Warm")
	require.Equal(t, third.id, leaseOf(t, s))
}
