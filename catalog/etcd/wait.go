package etcd

import (
	"context"
	"fmt"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	quickTurns = 5 // 1, 2, 4, 8, 16 ms: most claims are over by then
	longTurn   = 250 * time.Millisecond
)

// await returns when the claim-wanted key, seen at revision, has gone or hangs on the
// lease mine, or with an error. A claimer's own key may come late: a copy of its Txn
// that was on its way while another one was refused lands as soon as the key is free.
//
// It only reads: a commit that waits for a claim is known not to be applied. The
// first turns poll, as a watch that begins just after the change hears of it up to
// 100 ms late; the later ones watch.
func (s *Store) await(ctx context.Context, client *cluster, revision int64, mine clientv3.LeaseID) error {
	for turn := 0; ; turn++ {
		if err := s.pause(ctx, client, turn, revision); err != nil {
			return err
		}
		resp, err := client.Get(ctx, s.keys.wanted()) // of a key alone, etcd does not say the lease
		if err != nil {
			return err
		}
		if len(resp.Kvs) == 0 || mine != clientv3.NoLease && resp.Kvs[0].Lease == int64(mine) {
			return nil
		}
		revision = resp.Header.Revision
	}
}

// pause returns after a while, or as soon as a watch has seen the claim-wanted
// key change after revision. A watch that broke makes no busy loop.
func (s *Store) pause(ctx context.Context, client *cluster, turn int, revision int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wait, events := longTurn, clientv3.WatchChan(nil)
	if turn < quickTurns {
		wait = time.Millisecond << turn
	} else {
		home, stream, end := client.stream(ctx)
		defer end()
		if session, err := home.dial(stream); err == nil {
			events = session.Watch(clientv3.WithRequireLeader(stream), s.keys.wanted(), clientv3.WithRev(revision+1))
		}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case _, ok := <-events:
			if ok {
				return nil
			}
			events = nil
		}
	}
}

// whoami names this process to those whom its claim keeps waiting.
func whoami(now time.Time) string {
	host, err := os.Hostname()
	if err != nil {
		host = "an unnamed host"
	}
	return fmt.Sprintf("pid %d on %s since %s", os.Getpid(), host, now.UTC().Format(time.RFC3339))
}
