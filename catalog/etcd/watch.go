package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Watch implements [driver.Watcher]. It wakes after every write to head and
// board, and after nothing else: the range from board/ to head leaves out the
// records, so that no payload comes along.
//
// While the connection is broken the client connects anew by itself and then
// tells what it missed; a member without a leader ends the watch.
func (s *Store) Watch(ctx context.Context, wake func()) error {
	client, err := s.dial(ctx)
	if err != nil {
		return s.fail("watch", err, read)
	}
	watch, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	end := clientv3.WithRange(s.keys.head() + "\x00")
	for resp := range client.Watch(watch, s.keys.board(""), end, clientv3.WithCreatedNotify()) {
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
