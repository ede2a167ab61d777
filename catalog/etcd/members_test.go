package etcd_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/internal/testetcd"
)

// leaderOf returns the member of a cluster that leads, and one that follows.
func leaderOf(t *testing.T, members []*testetcd.Server) (leader, follower *testetcd.Server) {
	t.Helper()
	client := testetcd.Client(t, members[0].URL())
	require.Eventually(t, func() bool {
		for _, m := range members {
			resp, err := client.Status(within(t, 5*time.Second), strings.Split(m.URL(), "/")[2])
			switch {
			case err != nil || resp.Leader == 0:
				return false
			case resp.Leader == resp.Header.MemberId:
				leader = m
			default:
				follower = m
			}
		}
		return leader != nil && follower != nil
	}, time.Minute, 10*time.Millisecond)
	return leader, follower
}

// writeOn commits until the test ends it, and fails where a commit does.
type writeOn struct {
	landed atomic.Int64
	stop   context.CancelFunc
	tasks  sync.WaitGroup
}

func startWriting(t *testing.T, c *catalog.Catalog) *writeOn {
	ctx, stop := context.WithCancel(t.Context())
	w := &writeOn{stop: stop}
	w.tasks.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			if err := c.Update(context.WithoutCancel(ctx), func(tx *catalog.Tx) error {
				return catalog.Bytes("entries").Set(tx, fmt.Sprint(n), []byte("v"))
			}); err != nil {
				t.Errorf("commit %d: %v", n, err)
				return
			}
			w.landed.Add(1)
		}
	})
	return w
}

// goOn waits until ten further commits have landed.
func (w *writeOn) goOn(t *testing.T, what string) {
	t.Helper()
	before := w.landed.Load()
	require.Eventually(t, func() bool { return w.landed.Load() >= before+10 }, time.Minute, time.Millisecond, what)
}

func TestAnyOneOfThreeMembersMayFailAndCommitsGoOn(t *testing.T) {
	t.Parallel()
	members := testetcd.NewCluster(t, 3)
	s := open(t, testetcd.URLOf(members), etcd.Config{})
	c, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1, StoreTimeout: time.Minute, RetryBudget: 5 * time.Minute})
	require.NoError(t, err)
	w := startWriting(t, c)
	w.goOn(t, "before")
	for _, leads := range []bool{false, true} {
		victim, follower := leaderOf(t, members)
		if !leads {
			victim = follower
		}
		victim.Signal(syscall.SIGSTOP)
		w.goOn(t, fmt.Sprint("one is stopped, which leads: ", leads))
		victim.Signal(syscall.SIGCONT)
	}
	victim, _ := leaderOf(t, members)
	victim.Kill()
	w.goOn(t, "the leader was killed")
	w.stop()
	w.tasks.Wait()
	require.EqualValues(t, w.landed.Load(), c.Head().Revision-c.Claim().Revision, "each exactly once")
	require.NoError(t, c.Close())
}
