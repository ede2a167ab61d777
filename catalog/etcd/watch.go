package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Watch implements [driver.Watcher]. It wakes after every write to head and
// board, and after nothing else: the range from board/ to head leaves out log/
// and payload/, so that no payload comes along.
//
// While the connection is broken the client connects anew by itself and then
// tells what it missed; a member without a leader ends the watch.
func (s *Store) Watch(ctx context.Context, wake func()) error {
	return s.watch(ctx, s.keys.board(""), s.keys.head()+"\x00", wake)
}

// WatchClaims implements [driver.ClaimWatcher]: claims alone write the token.
func (s *Store) WatchClaims(ctx context.Context, wake func()) error {
	return s.watch(ctx, s.keys.token(), s.keys.token()+"\x00", wake)
}

func (s *Store) watch(ctx context.Context, from, to string, wake func()) error {
	client, err := s.dial(ctx)
	if err != nil {
		return s.fail("watch", err, read)
	}
	watch, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	for resp := range client.Watch(watch, from, clientv3.WithRange(to), clientv3.WithCreatedNotify()) {
		if err := resp.Err(); err != nil {
			return s.fail("watch", err, read)
		}
		wake()
	}
	if err := ctx.Err(); err != nil {
		return s.fail("watch", err, read)
	}
	return s.fail("watch", errWatchEnded, read)
}
