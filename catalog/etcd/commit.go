package etcd

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/step"
)

var (
	errMisuse  = errors.New("the call makes no sense")
	errWaiting = errors.New("a claim is under way")
)

// Append implements [driver.Store].
func (s *Store) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	sent, err := s.append(ctx, prior, rec)
	return s.fail("append", err, sent)
}

func (s *Store) append(ctx context.Context, prior driver.Head, rec driver.Record) (phase, error) {
	if err := tooLarge("a payload", len(rec.Payload), maxPayload); err != nil {
		return read, err
	}
	if prior.IsZero() {
		return read, fmt.Errorf("%w: nothing was ever claimed, so there is no head to append to", driver.ErrConflict)
	}
	c, err := s.newCommit(prior, rec)
	if err != nil {
		return read, err
	}
	client, err := s.dial(ctx)
	if err != nil {
		return read, err
	}
	step.Reach(ctx, step.CommitBegun)
	for {
		resp, err := c.txn(client.Txn(ctx)).Commit()
		if err != nil {
			return sent, err
		}
		if resp.Succeeded {
			s.newest.Store(&encoded{prior.After(rec), c.next})
			step.Reach(ctx, step.CommitLanded)
			return sent, nil
		}
		claimer, err := c.refusal(resp)
		if err != nil {
			return read, err
		}
		if err := s.await(ctx, client, resp.Header.Revision); err != nil {
			return read, waited(claimer, err)
		}
	}
}

// waited says whose claim a commit waited for until its time was over.
func waited(claimer string, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", errWaiting, claimer, err)
}

// A commit is an Append in etcd's words.
type commit struct {
	keys     keys
	revision uint64
	prior    []byte // the head that it rests on
	next     []byte // the head that it makes
	record   []byte
}

// encoded is the head after this store's last commit, as it was stored.
type encoded struct {
	head driver.Head
	raw  []byte
}

func (s *Store) newCommit(prior driver.Head, rec driver.Record) (commit, error) {
	if rec.Revision != prior.Revision+1 {
		return commit{}, fmt.Errorf("%w: revision %d after %d", errMisuse, rec.Revision, prior.Revision)
	}
	c := commit{keys: s.keys, revision: rec.Revision}
	var errs [3]error
	if last := s.newest.Load(); last != nil && last.head == prior && !rec.ID.IsZero() {
		// What can make a head unreadable is its claim, and that is the same.
		c.prior = last.raw
		c.next, errs[1] = encodeHead(prior.After(rec))
	} else {
		c.prior, errs[0] = encodeHead(prior)
		c.next, errs[1] = nextHead(prior.After(rec))
	}
	c.record, errs[2] = marshalRecord(rec)
	if err := errors.Join(errs[:]...); err != nil {
		return commit{}, fmt.Errorf("%w: %w", errMisuse, err)
	}
	return c, nil
}

// txn compares the whole head: where the same commit is sent twice, at most
// one lands, and a refusal of one is final for both, as no head comes back.
func (c commit) txn(txn clientv3.Txn) clientv3.Txn {
	record := c.keys.record(c.revision)
	return txn.If(
		clientv3.Compare(clientv3.Value(c.keys.head()), "=", string(c.prior)),
		absent(c.keys.wanted()),
		absent(record),
	).Then(
		clientv3.OpPut(c.keys.head(), string(c.next)),
		clientv3.OpPut(record, string(c.record)),
	).Else(
		clientv3.OpGet(c.keys.head()),
		clientv3.OpGet(c.keys.wanted()),
	)
}

func absent(key string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
}

// refusal says why a commit was refused: by the claimer that it returns, or
// for good.
func (c commit) refusal(resp *clientv3.TxnResponse) (claimer string, err error) {
	head := got(resp, 0)
	if head == nil {
		return "", fmt.Errorf("%w: the head is gone", driver.ErrConflict)
	}
	if string(head.Value) != string(c.prior) {
		now, err := decodeHead(head)
		if err != nil {
			return "", err
		}
		return "", fmt.Errorf("%w: want revision %d, the head is at %d of %v, commit %v",
			driver.ErrConflict, c.revision-1, now.Revision, now.Claim.Token, now.Commit)
	}
	if wanted := got(resp, 1); wanted != nil {
		return printable(wanted.Value), nil
	}
	return "", corrupt("there is a record %d beyond the head", c.revision)
}
