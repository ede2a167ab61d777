package etcd_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/internal/testetcd"
)

// TestAClaimWantedKeyThatNobodyHoldsKeepsNoClaimOut is about one that was put by
// hand: nothing removes it, neither a lease nor the process that it names.
func TestAClaimWantedKeyThatNobodyHoldsKeepsNoClaimOut(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, client := open(t, url, etcd.Config{}), testetcd.Client(t, url)
	wanted := testetcd.Prefix(t, url) + "/wanted"
	head := claim(t, s)
	for range 2 {
		_, err := client.Put(within(t, time.Minute), wanted, "by hand")
		require.NoError(t, err)
		err = s.Append(within(t, 300*time.Millisecond), head, record(head, "waits"))
		require.Error(t, err, "only a claim knows what to do about it")
		next := claim(t, open(t, url, etcd.Config{}))
		require.Equal(t, head.Claim.ID, next.Claim.PriorClaim)
		head = commit(t, s, next, 1, "goes on")
	}
	kv, err := client.Get(within(t, time.Minute), wanted)
	require.NoError(t, err)
	require.Empty(t, kv.Kvs)
}

// TestAClaimWantedKeyUnderSomebodysLeaseIsNamedAndGoesWithIt is about a lease
// that ends in an hour.
func TestAClaimWantedKeyUnderSomebodysLeaseIsNamedAndGoesWithIt(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, client := open(t, url, etcd.Config{}), testetcd.Client(t, url)
	claim(t, s)
	lease, err := client.Grant(within(t, time.Minute), 3600)
	require.NoError(t, err)
	_, err = client.Put(within(t, time.Minute), testetcd.Prefix(t, url)+"/wanted", "somebody", clientv3.WithLease(lease.ID))
	require.NoError(t, err)
	err = longer(t, 300*time.Millisecond, func(ctx context.Context) error { _, err := s.Claim(ctx); return err },
		func(err error) bool { return errors.Is(err, driver.ErrBlocked) })
	require.ErrorIs(t, err, driver.ErrBlocked)
	require.ErrorContains(t, err, "by somebody")
	_, err = client.Revoke(within(t, time.Minute), lease.ID)
	require.NoError(t, err)
	claim(t, s)
}
