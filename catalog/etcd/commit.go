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
	p, err := s.commit(ctx, client, c)
	if c.batch != nil && errors.Is(err, driver.ErrConflict) {
		s.discard(ctx, client, c.batch)
	} else if err == nil {
		step.Reach(ctx, step.CommitLanded)
	}
	return p, err
}

// commit sends c once no claim is under way. What it stages before is seen by
// nobody, so that an error of that leaves nothing unknown; the same commit sent
// again goes on where this one stopped.
func (s *Store) commit(ctx context.Context, client *cluster, c commit) (phase, error) {
	if c.batch != nil {
		if err := c.batch.stage(ctx, client, c.moved, c.onPrior()); err != nil {
			return read, err
		}
	}
	for known := read; ; {
		resp, p, err := c.txn(client.Txn(ctx)).Land()
		p = max(p, known) // a copy of an earlier turn may land still
		if err != nil || resp.Succeeded || p == doubt && c.landed(resp) {
			return p, err
		}
		if p == doubt {
			known = doubt
		}
		claimer, err := c.refusal(resp)
		if err != nil {
			return known, err
		}
		if err := s.await(ctx, client, resp.Header.Revision, clientv3.NoLease); err != nil {
			return known, waited(claimer, err)
		}
	}
}

// landed reports whether a refusal shows the commit itself at the end of the log,
// by a copy that arrived before.
func (c commit) landed(resp *clientv3.TxnResponse) bool {
	_, end := c.keys.pieces(all(resp, 0))
	return string(end) == c.next
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
	prior    string // the end of the log that it rests on
	next     string // the end that it makes
	record   []byte
	batch    *batch // nil where the record has all of its payload
}

func (s *Store) newCommit(prior driver.Head, rec driver.Record) (commit, error) {
	if rec.Revision != prior.Revision+1 || rec.ID.IsZero() {
		return commit{}, fmt.Errorf("%w: revision %d, commit %v after %d", errMisuse, rec.Revision, rec.ID, prior.Revision)
	}
	record, err := marshalRecord(rec)
	if err != nil {
		return commit{}, fmt.Errorf("%w: %w", errMisuse, err)
	}
	return commit{
		keys: s.keys, revision: rec.Revision, record: record, batch: s.newBatch(prior.Claim, rec),
		prior: endText(prior.Revision, prior.Commit), next: endText(rec.Revision, rec.ID),
	}, nil
}

// txn compares the end of the log, which names its newest commit: where the
// same commit is sent twice, at most one lands, and a refusal of one is final
// for both, as no end comes back.
func (c commit) txn(txn *txn) *txn {
	record := c.keys.record(c.revision)
	when := []clientv3.Cmp{c.onPrior(), absent(c.keys.wanted()), absent(record)}
	then := []clientv3.Op{clientv3.OpPut(c.keys.end(), c.next), clientv3.OpPut(record, string(c.record))}
	if c.batch != nil {
		when, then = append(when, c.batch.stands()), append(then, c.batch.seal())
	}
	return txn.If(when...).Then(then...).Else(c.keys.look()...)
}

// look reads what says why a Txn was refused.
func (k keys) look() []clientv3.Op {
	return []clientv3.Op{k.readHead(), clientv3.OpGet(k.wanted())}
}

func (c commit) onPrior() clientv3.Cmp {
	return clientv3.Compare(clientv3.Value(c.keys.end()), "=", c.prior)
}

func absent(key string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
}

func present(key string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(key), ">", 0)
}

// refusal says why a commit was refused: by the claimer that it returns, or
// for good.
func (c commit) refusal(resp *clientv3.TxnResponse) (claimer string, err error) {
	if err := c.moved(resp); err != nil {
		return "", err
	}
	if wanted := got(resp, 1); wanted != nil {
		return printable(wanted.Value), nil
	}
	return "", corrupt("there is a record %d beyond the head, or the manifest of one was removed", c.revision)
}

// moved returns an error where the head that resp tells of is not the one that
// the commit rests on.
func (c commit) moved(resp *clientv3.TxnResponse) error {
	claim, end := c.keys.pieces(all(resp, 0))
	if end == nil {
		return fmt.Errorf("%w: the end of the log is gone", driver.ErrConflict)
	}
	if string(end) == c.prior {
		return nil
	}
	revision, id, err := parseEnd(end)
	if err != nil {
		return corrupt("%q: %w", c.keys.end(), err)
	}
	now, err := driver.UnmarshalHead(claim)
	if err != nil {
		return corrupt("%q: %w", c.keys.head(), err)
	}
	return fmt.Errorf("%w: want revision %d, the head is at %d of %v, commit %v",
		driver.ErrConflict, c.revision-1, revision, now.Claim.Token, id)
}
