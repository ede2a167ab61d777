package etcd

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/step"
)

// A compaction writes under one claim: each of its Txns compares the token
// key, which claims alone write.
type compaction struct {
	store  *Store
	client *cluster
	by     driver.Claim
	holds  clientv3.Cmp
}

func (s *Store) compaction(ctx context.Context, by driver.Claim) (compaction, error) {
	text, err := encodeClaim(by)
	if err != nil {
		return compaction{}, fmt.Errorf("%w: %w", errMisuse, err)
	}
	client, err := s.dial(ctx)
	holds := clientv3.Compare(clientv3.Value(s.keys.token()), "=", string(text))
	return compaction{store: s, client: client, by: by, holds: holds}, err
}

// do sends ops under the claim, or says that it is not the newest.
func (c compaction) do(ctx context.Context, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	resp, err := c.client.Txn(ctx).If(c.holds).Then(ops...).Else(clientv3.OpGet(c.store.keys.token())).Commit()
	if err == nil && !resp.Succeeded {
		err = c.over(got(resp, 0))
	}
	return resp, err
}

// over says which claim is the newest, by the token key as it is.
func (c compaction) over(token *mvccpb.KeyValue) error {
	if token == nil {
		return fmt.Errorf("%w: nothing was ever claimed", driver.ErrConflict)
	}
	now, err := driver.UnmarshalClaim(token.Value)
	if err != nil {
		return corrupt("%q: %w", token.Key, err)
	}
	return fmt.Errorf("%w: the newest claim is %v of %v, and not %v", driver.ErrConflict, now.ID, now.Token, c.by.ID)
}

// Stage implements [driver.Store].
func (s *Store) Stage(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	sent, err := s.stage(ctx, by, id, n, part)
	return s.fail("stage", err, sent)
}

func (s *Store) stage(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) (phase, error) {
	if err := tooLarge("a part", len(part), driver.MaxPart); err != nil {
		return read, err
	}
	c, err := s.compaction(ctx, by)
	if err != nil {
		return read, err
	}
	if _, err := c.do(ctx, clientv3.OpPut(s.keys.part(id, n), string(part))); err != nil {
		return sent, err
	}
	step.Reach(ctx, step.SnapshotStaged)
	return sent, nil
}

// Publish implements [driver.Store].
func (s *Store) Publish(ctx context.Context, by driver.Claim, snapshot driver.Snapshot) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	sent, err := s.publish(ctx, by, snapshot)
	return s.fail("publish", err, sent)
}

// publish looks, and writes on condition that what it has seen still holds.
// Where that is refused, the next look says why.
func (s *Store) publish(ctx context.Context, by driver.Claim, snapshot driver.Snapshot) (phase, error) {
	if err := snapshot.Check(); err != nil {
		return read, fmt.Errorf("%w: %w", errMisuse, err)
	}
	text, err := driver.MarshalSnapshot(snapshot)
	if err != nil {
		return read, fmt.Errorf("%w: %w", errMisuse, err)
	}
	c, err := s.compaction(ctx, by)
	if err != nil {
		return read, err
	}
	for {
		seen, done, err := c.publishable(ctx, snapshot)
		if done || err != nil {
			return read, err
		}
		resp, err := c.client.Txn(ctx).If(seen...).Then(clientv3.OpPut(s.keys.snapshot(), string(text))).Commit()
		if err != nil {
			return sent, err
		}
		if resp.Succeeded {
			step.Reach(ctx, step.SnapshotPublished)
			return sent, nil
		}
	}
}

// publishable returns what must not have changed when snapshot is published:
// the claim; the snapshot before, so that a Publish which comes late never
// brings an older one back; and the first part, with which all others are
// deleted. The record can't change while the snapshot before is the same. Done
// says that this very snapshot was published before.
func (c compaction) publishable(ctx context.Context, snapshot driver.Snapshot) (seen []clientv3.Cmp, done bool, err error) {
	k := c.store.keys
	first, end := k.part(snapshot.ID, 0), k.part(snapshot.ID, snapshot.Parts)
	resp, err := c.do(ctx, clientv3.OpGet(k.snapshot()), clientv3.OpGet(k.record(snapshot.Revision)),
		clientv3.OpGet(first, clientv3.WithKeysOnly()), clientv3.OpGet(first, clientv3.WithRange(end), clientv3.WithCountOnly()))
	if err != nil {
		return nil, false, err
	}
	seen = []clientv3.Cmp{c.holds, absent(k.snapshot())}
	if kv := got(resp, 0); kv != nil {
		seen[1] = clientv3.Compare(clientv3.ModRevision(k.snapshot()), "=", kv.ModRevision)
		before, err := decodeSnapshot(kv)
		if err != nil {
			return nil, false, err
		}
		if before == snapshot {
			return nil, true, nil
		}
		if before.Revision >= snapshot.Revision {
			return nil, false, fmt.Errorf("%w: there is a snapshot of revision %d already", driver.ErrConflict, before.Revision)
		}
	}
	if err := standsFor(snapshot, got(resp, 1)); err != nil {
		return nil, false, err
	}
	if parts := resp.Responses[3].GetResponseRange().GetCount(); parts != int64(snapshot.Parts) {
		return nil, false, corrupt("%d parts of snapshot %v are staged, want %d", parts, snapshot.ID, snapshot.Parts)
	}
	if kv := got(resp, 2); kv != nil {
		seen = append(seen, clientv3.Compare(clientv3.CreateRevision(first), "=", kv.CreateRevision))
	}
	return seen, false, nil
}

// standsFor refuses a snapshot of a commit that the log does not have.
func standsFor(snapshot driver.Snapshot, record *mvccpb.KeyValue) error {
	if record == nil {
		return corrupt("the log has no record %d", snapshot.Revision)
	}
	rec, _, err := unmarshalRecord(snapshot.Revision, record.Value)
	if err != nil {
		return corrupt("%q: %w", record.Key, err)
	}
	if rec.ID != snapshot.Commit {
		return corrupt("the log has commit %v at revision %d, and not %v", rec.ID, snapshot.Revision, snapshot.Commit)
	}
	return nil
}
