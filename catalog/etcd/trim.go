package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/step"
)

// What one Trim deletes at most.
const (
	trimRecords = 1000
	trimOrphans = 16 // batches, and snapshots
)

// Trim implements [driver.Store]. It gives no space back: etcd does, when it
// compacts its history and is defragmented.
func (s *Store) Trim(ctx context.Context, by driver.Claim) (more bool, err error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	more, sent, err := s.trim(ctx, by)
	return more, s.fail("trim", err, sent)
}

// trim looks, and deletes on condition that what it has seen still holds.
// Where that is refused, it looks again.
func (s *Store) trim(ctx context.Context, by driver.Claim) (more bool, p phase, err error) {
	c, err := s.compaction(ctx, by)
	if err != nil {
		return false, read, err
	}
	for {
		t, err := c.survey(ctx)
		if err != nil || len(t.then) == 0 {
			return false, read, err
		}
		resp, err := c.client.Txn(ctx).If(t.when...).Then(t.then...).Commit()
		if err != nil {
			return false, sent, err
		}
		if resp.Succeeded {
			step.Reach(ctx, step.SnapshotTrimmed)
			return t.more, sent, nil
		}
	}
}

// A trimming is one Txn of a Trim.
type trimming struct {
	keys     keys
	head     driver.Head
	snapshot driver.Snapshot
	when     []clientv3.Cmp
	then     []clientv3.Op
	more     bool
}

// survey looks for what can be deleted. The Txn names it all, so that one that
// comes late deletes nothing that has been written since, and it compares the
// snapshot: one that was published since may need the parts.
func (c compaction) survey(ctx context.Context) (*trimming, error) {
	k := c.store.keys
	first := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(1)}
	resp, err := c.do(ctx, k.readHead(), clientv3.OpGet(k.snapshot()), clientv3.OpGet(k.log(), first...),
		clientv3.OpGet(k.staged(), clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(trimOrphans+1)))
	if err != nil {
		return nil, err
	}
	t := &trimming{keys: k, when: []clientv3.Cmp{c.holds, absent(k.snapshot())}}
	found, err := c.store.decode(all(resp, 0))
	if err != nil {
		return nil, err
	}
	if t.head = found.head; t.head.IsZero() {
		return nil, corrupt("no head beside the token")
	}
	if kv := got(resp, 1); kv != nil {
		t.when[1] = clientv3.Compare(clientv3.ModRevision(k.snapshot()), "=", kv.ModRevision)
		if t.snapshot, err = decodeSnapshot(kv); err != nil {
			return nil, err
		}
	}
	if err := t.batches(all(resp, 3)); err != nil {
		return nil, err
	}
	if err := t.parts(ctx, c.client); err != nil {
		return nil, err
	}
	return t, t.records(got(resp, 2))
}

// batches adds the batches that can't be published any more.
func (t *trimming) batches(manifests []*mvccpb.KeyValue) error {
	for n, kv := range manifests {
		revision, id, err := t.keys.batchOf(kv.Key)
		if err != nil {
			return err
		}
		if revision > t.head.Revision {
			break // and all that follow
		}
		if n == trimOrphans {
			t.more = true
			break
		}
		t.when = append(t.when, present(string(kv.Key)))
		t.then = append(t.then, t.keys.removeBatch(revision, id)...)
	}
	return nil
}

// parts adds the parts of every snapshot but the published one. Those of one
// snapshot are deleted together: Publish compares the first alone.
func (t *trimming) parts(ctx context.Context, client *cluster) error {
	from, end := t.keys.parts(), clientv3.GetPrefixRangeEnd(t.keys.parts())
	for orphans := 0; ; {
		resp, err := client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithKeysOnly(), clientv3.WithLimit(1))
		if err != nil || len(resp.Kvs) == 0 {
			return err
		}
		id, err := t.keys.snapshotOf(resp.Kvs[0].Key)
		if err != nil {
			return err
		}
		from = clientv3.GetPrefixRangeEnd(t.keys.partsOf(id))
		if id == t.snapshot.ID {
			continue
		}
		if orphans == trimOrphans {
			t.more = true
			return nil
		}
		orphans++
		t.then = append(t.then, clientv3.OpDelete(t.keys.partsOf(id), clientv3.WithPrefix()))
	}
}

// records adds the records below the snapshot, the oldest first, each with its
// chunks: those of batches that were never published are gone by then.
func (t *trimming) records(oldest *mvccpb.KeyValue) error {
	if oldest == nil || t.more {
		return nil
	}
	from, err := number(t.keys.log(), oldest.Key)
	if err != nil || from >= t.snapshot.Revision {
		return err
	}
	to := min(from+trimRecords, t.snapshot.Revision)
	t.more = to < t.snapshot.Revision
	t.then = append(t.then,
		clientv3.OpDelete(t.keys.record(from), clientv3.WithRange(t.keys.record(to))),
		clientv3.OpDelete(numbered(t.keys.payloads(), from), clientv3.WithRange(numbered(t.keys.payloads(), to))))
	return nil
}
