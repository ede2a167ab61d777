package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/gather"
)

const (
	lanes       = 2   // questions for heads that are under way at once
	headsAtOnce = 128 // etcd's --max-txn-ops, by default
)

func lookAlone(ctx context.Context, s *Store) (found, error) { return s.readHead(ctx) }

// lookTogether reads the heads of several catalogs by one Txn. A catalog that
// has none, or spoils the Txn for all, such as by rights that its user lacks, is
// asked for alone.
func (c *cluster) lookTogether(ctx context.Context, stores []*Store) []gather.Answer[found] {
	answers := make([]gather.Answer[found], len(stores))
	resp, err := c.readHeads(ctx, stores)
	for i, s := range stores {
		a := &answers[i]
		switch {
		case err == nil:
			if kvs := all(resp, i); len(kvs) > 0 {
				a.Value, a.Err = s.decode(kvs)
				continue
			}
		case !halts(err):
			a.Err = err
			continue
		}
		a.Value, a.Err = lookAlone(ctx, s)
	}
	return answers
}

func (c *cluster) readHeads(ctx context.Context, stores []*Store) (*clientv3.TxnResponse, error) {
	ops := make([]clientv3.Op, len(stores))
	for i, s := range stores {
		ops[i] = s.keys.readHead()
	}
	return c.Txn(ctx).Then(ops...).Commit()
}

// halts reports whether err is one that only another user, or other rights,
// help against.
func halts(err error) bool {
	class, _ := classify(err, read)
	return class.Disposition == exitcodes.Halt
}
