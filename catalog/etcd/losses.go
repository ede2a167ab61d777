package etcd

import (
	"bytes"
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/fencepost/fencepost/catalog/driver"
)

// Losses implements [driver.Store]. The place is the cluster.
func (s *Store) Losses(ctx context.Context) (driver.Losses, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	l, err := s.readLosses(ctx)
	return l, s.fail("losses", err, read)
}

func (s *Store) readLosses(ctx context.Context) (driver.Losses, error) {
	client, err := s.dial(ctx)
	if err != nil {
		return driver.Losses{}, err
	}
	resp, err := client.Get(ctx, s.keys.losses())
	if err != nil {
		return driver.Losses{}, err
	}
	l := lossesIn(resp.Kvs)
	l.Place = place(resp.Header.ClusterId)
	return l, nil
}

func place(cluster uint64) string { return fmt.Sprintf("cluster %x", cluster) }

// lossesIn returns the record that the answer to a Get of it holds.
func lossesIn(kvs []*mvccpb.KeyValue) driver.Losses {
	if len(kvs) == 0 {
		return driver.Losses{}
	}
	return driver.Losses{Text: append([]byte{}, kvs[0].Value...), Version: kvs[0].ModRevision}
}

// PutLosses implements [driver.Store]. It does not wait for a claim under way,
// which is refused then.
func (s *Store) PutLosses(ctx context.Context, l driver.Losses, at *driver.Head) (int64, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	version, sent, err := s.putLosses(ctx, l, at)
	return version, s.fail("put losses", err, sent)
}

func (s *Store) putLosses(ctx context.Context, l driver.Losses, at *driver.Head) (int64, phase, error) {
	if err := tooLarge("the record of losses", len(l.Text), maxNote); err != nil {
		return 0, read, err
	}
	client, err := s.dial(ctx)
	if err != nil {
		return 0, read, err
	}
	now, err := client.Get(ctx, s.keys.head())
	if err != nil {
		return 0, read, err
	}
	if p := place(now.Header.ClusterId); p != l.Place {
		return 0, read, fmt.Errorf("%w: this is %s, and not %s", driver.ErrConflict, p, l.Place)
	}
	conditions, err := s.lossConditions(now.Kvs, l, at)
	if err != nil {
		return 0, read, err
	}
	resp, p, err := client.Txn(ctx).If(conditions...).Then(clientv3.OpPut(s.keys.losses(), string(l.Text))).
		Else(clientv3.OpGet(s.keys.losses())).Land()
	if err != nil {
		return 0, p, err
	}
	if resp.Succeeded {
		return resp.Header.Revision, sent, nil
	}
	if p != doubt {
		p = read
	} else if now := got(resp, 0); now != nil && now.ModRevision != l.Version && bytes.Equal(now.Value, l.Text) {
		return now.ModRevision, sent, nil // by a copy that arrived before
	}
	return 0, p, fmt.Errorf("%w: the head or the record of losses has changed", driver.ErrConflict)
}

// lossConditions are those of the Txn: claim are the bytes of the newest claim's
// head, which no later claim has.
func (s *Store) lossConditions(claim []*mvccpb.KeyValue, l driver.Losses, at *driver.Head) ([]clientv3.Cmp, error) {
	all := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(s.keys.losses()), "=", l.Version)}
	switch {
	case at == nil:
		return all, nil
	case at.IsZero():
		return append(all, absent(s.keys.head()), absent(s.keys.end())), nil
	case len(claim) == 0:
		return nil, fmt.Errorf("%w: there is no head", driver.ErrConflict)
	}
	now, err := s.claimed(claim[0].Value)
	if err != nil {
		return nil, corrupt("%q: %w", s.keys.head(), err)
	}
	if now.Claim.ID != at.Claim.ID {
		return nil, fmt.Errorf("%w: the newest claim is %v, and not %v", driver.ErrConflict, now.Claim.Token, at.Claim.Token)
	}
	return append(all,
		clientv3.Compare(clientv3.Value(s.keys.head()), "=", string(claim[0].Value)),
		clientv3.Compare(clientv3.Value(s.keys.end()), "=", endText(at.Revision, at.Commit))), nil
}
