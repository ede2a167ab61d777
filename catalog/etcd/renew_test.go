package etcd

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/internal/testetcd"
)

// An endingLease closes the channel of its renewals while their context goes on.
type endingLease struct {
	clientv3.Lease
	begun    chan struct{}
	renewals chan *clientv3.LeaseKeepAliveResponse
}

func (e endingLease) KeepAlive(context.Context, clientv3.LeaseID) (<-chan *clientv3.LeaseKeepAliveResponse, error) {
	close(e.begun)
	return e.renewals, nil
}

// The end of a stream may come later than that of the channel which hangs on it.
func TestRenewalsHaveMovedIfTheirServerWasLeftAndHaveEndedIfNot(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), testetcd.URL(t), Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	_, err = s.Head(t.Context())
	require.NoError(t, err)
	home := s.cluster.residence()
	use := func(now *session) (before *session) {
		home.mu.Lock()
		defer home.mu.Unlock()
		before, home.session = home.session, now
		return before
	}
	for _, left := range []bool{true, false} {
		ends := endingLease{begun: make(chan struct{}), renewals: make(chan *clientv3.LeaseKeepAliveResponse)}
		real := use(nil)
		use(&session{Client: real.Client, lease: ends})
		moved := make(chan bool, 1)
		go func() {
			m, _ := s.cluster.renew(t.Context(), 1)
			moved <- m
		}()
		<-ends.begun
		if left {
			use(real)
		}
		close(ends.renewals)
		require.Equal(t, left, <-moved)
		use(real)
	}
}
