package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/step"
)

// revokeTimeout bounds how long the end of a claim waits for the server. The lease
// ends by itself otherwise.
const revokeTimeout = 2 * time.Second

// Claim implements [driver.Store]. The claim is kept alive until it ends, but
// not beyond ctx's deadline (10 s if it has none), unless Renew is called: then
// other processes continue within Config.ClaimTTL, and Install is refused.
func (s *Store) Claim(ctx context.Context) (driver.Claiming, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	c, err := s.claim(ctx)
	if err != nil {
		return nil, s.fail("claim", err, read) // what was written, no reader sees
	}
	return c, nil
}

func (s *Store) claim(ctx context.Context) (*claiming, error) {
	client, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	if spare, ok := s.takeSpare(); ok {
		c, err := s.claimUnder(ctx, client, spare)
		if !errors.Is(err, rpctypes.ErrLeaseNotFound) { // it may have ended nevertheless
			return c, err
		}
	}
	lease, err := s.grant(ctx, client)
	if err != nil {
		return nil, err
	}
	return s.claimUnder(ctx, client, lease)
}

func (s *Store) claimUnder(ctx context.Context, client *cluster, lease lease) (*claiming, error) {
	c := &claiming{store: s, client: client, lease: lease.id}
	if err := c.begin(ctx, lease); err != nil {
		c.Abandon()
		return nil, err
	}
	return c, nil
}

// A claiming is a claim under way: a lease, kept alive, and the claim-wanted
// key that hangs on it.
type claiming struct {
	store  *Store
	client *cluster
	lease  clientv3.LeaseID
	wanted int64 // mod revision of the claim-wanted key
	found  found
	losses driver.Losses
	next   []byte             // what Install replaces the losses by; nil: nothing
	quiet  context.CancelFunc // ends the keep-alive; nil before it began
	ended  bool
}

// begin keeps the lease alive, takes the claim-wanted key and reads the head
// under it.
func (c *claiming) begin(ctx context.Context, lease lease) error {
	if err := c.keepAlive(ctx, lease); err != nil {
		return err
	}
	if err := c.want(ctx); err != nil {
		return err
	}
	step.Reach(ctx, step.ClaimBegun)
	return nil
}

// keepAlive renews the lease three times in its life, until the claim ends or
// ctx's deadline is over. It does not end with ctx itself, which may be that
// of one call.
func (c *claiming) keepAlive(ctx context.Context, lease lease) error {
	deadline, _ := ctx.Deadline()
	alive, cancel := context.WithDeadline(c.store.alive, deadline)
	c.quiet = cancel
	renew := func() {
		defer cancel()
		tick := time.NewTimer(lease.ttl/3 - time.Since(lease.sent))
		defer tick.Stop()
		for {
			select {
			case <-alive.Done():
				if c.store.alive.Err() != nil { // Close, with the claim under way
					c.revoke()
				}
				return
			case <-tick.C:
				tick.Reset(lease.ttl / 3)
			}
			if err := c.client.KeepAliveOnce(alive, c.lease); err != nil && alive.Err() == nil {
				c.store.log.Warn("a claim's lease was not renewed", "store", c.store.name, "error", err)
			}
		}
	}
	if !c.store.spawn(renew) {
		cancel()
		return errClosed
	}
	return nil
}

// want puts the claim-wanted key as soon as nobody else's is there. One without a
// lease is nobody's: no process that claims has put it, and nothing would ever
// remove it, so that it is replaced.
func (c *claiming) want(ctx context.Context) error {
	began, me := time.Now(), whoami(time.Now())
	key, free := c.store.keys.wanted(), int64(0) // the mod revision at which the key is nobody's
	for {
		resp, err := c.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", free)).
			Then(clientv3.OpPut(key, me, clientv3.WithLease(c.lease)), c.store.keys.readHead(), clientv3.OpGet(c.store.keys.losses())).
			Else(clientv3.OpGet(key), c.store.keys.readHead(), clientv3.OpGet(c.store.keys.losses())).Commit()
		if err != nil {
			return err
		}
		if holds := got(resp, 0); resp.Succeeded || holds.Lease == int64(c.lease) { // ours, by another copy
			c.wanted = resp.Header.Revision
			if !resp.Succeeded {
				c.wanted = holds.ModRevision
			}
			c.losses = lossesIn(all(resp, 2))
			c.losses.Place = place(resp.Header.ClusterId)
			c.found, err = c.store.foundIn(ctx, c.client, all(resp, 1))
			return err
		}
		free = 0
		switch other := got(resp, 0); {
		case other == nil: // gone since
		case other.Lease == 0:
			free = other.ModRevision
			c.store.log.Warn("a claim-wanted key without a lease is replaced: somebody put it by hand",
				"store", c.store.name, "key", key, "value", printable(other.Value))
		default:
			if err := c.store.await(ctx, c.client, resp.Header.Revision, c.lease); err != nil {
				return blocked(printable(other.Value), began, err)
			}
		}
	}
}

// blocked says who stood in the way. A caller that gave up was not blocked.
func blocked(other string, began time.Time, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w for %v by %s: %w", driver.ErrBlocked, time.Since(began).Round(time.Millisecond), other, err)
}

// Head implements [driver.Claiming].
func (c *claiming) Head() driver.Head { return c.found.head }

// Losses implements [driver.Claiming].
func (c *claiming) Losses() driver.Losses { return c.losses }

// ReplaceLosses implements [driver.Claiming].
func (c *claiming) ReplaceLosses(text []byte) { c.next = text }

// Log implements [driver.Claiming].
func (c *claiming) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	return c.store.readLog(ctx, after, c.found.head.Revision, fn)
}

// Renew implements [driver.Claiming]: the lease begins anew.
func (c *claiming) Renew(ctx context.Context) error {
	if c.ended {
		return c.store.fail("renew", fmt.Errorf("%w: the claim has ended", errMisuse), read)
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	err := c.client.KeepAliveOnce(ctx, c.lease)
	return c.store.fail("renew", err, read)
}

// Install implements [driver.Claiming].
func (c *claiming) Install(ctx context.Context, claim driver.Claim, rec driver.Record, when ...driver.Note) error {
	if c.ended {
		return c.store.fail("install", fmt.Errorf("%w: the claim has ended", errMisuse), read)
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	batch := c.store.newBatch(claim, rec)
	sent, err := c.install(ctx, claim, rec, batch, when)
	c.end()
	// Nobody waits for the lease any more where the claim landed, as the
	// claim-wanted key went in the same Txn.
	c.store.spawn(c.revoke)
	if err != nil && batch != nil {
		// No claim is sent again, so that nobody needs its batch; and one that
		// is on its way still won't land without.
		c.store.spawn(func() { c.store.discard(c.store.root, c.client, batch) })
	}
	return c.store.fail("install", err, sent)
}

func (c *claiming) install(ctx context.Context, claim driver.Claim, rec driver.Record, batch *batch, when []driver.Note) (phase, error) {
	if err := tooLarge("a payload", len(rec.Payload), maxPayload); err != nil {
		return read, err
	}
	writes, err := c.writes(claim, rec)
	if err != nil {
		return read, err
	}
	if err := ctx.Err(); err != nil {
		return read, err
	}
	conditions := c.conditions(rec.Revision, when)
	if batch != nil {
		if err := batch.stage(ctx, c.client, c.refusal, conditions...); err != nil {
			return read, err
		}
		conditions, writes = append(conditions, batch.stands()), append(writes, batch.seal())
	}
	resp, p, err := c.client.Txn(ctx).If(conditions...).Then(writes...).Else(c.store.keys.look()...).Land()
	switch {
	case err != nil:
		return p, err
	case resp.Succeeded, p == doubt && c.landed(resp, claim):
	case p == doubt:
		return doubt, c.refusal(resp)
	default:
		return read, c.refusal(resp)
	}
	step.Reach(ctx, step.ClaimCommitted)
	return sent, nil
}

// landed reports whether a refusal shows the claim itself at the end of the log, by
// a copy that arrived before.
func (c *claiming) landed(resp *clientv3.TxnResponse, claim driver.Claim) bool {
	_, end := c.store.keys.pieces(all(resp, 0))
	return string(end) == endText(claim.Revision, claim.ID)
}

// conditions are all that the claim rests on.
func (c *claiming) conditions(revision uint64, when []driver.Note) []clientv3.Cmp {
	keys := c.store.keys
	all := []clientv3.Cmp{
		absent(keys.head()),
		absent(keys.end()),
		clientv3.Compare(clientv3.ModRevision(keys.wanted()), "=", c.wanted),
		absent(keys.record(revision)),
		clientv3.Compare(clientv3.ModRevision(keys.losses()), "=", c.losses.Version),
	}
	if c.found.end != nil {
		all[0] = clientv3.Compare(clientv3.Value(keys.head()), "=", string(c.found.claim))
		all[1] = clientv3.Compare(clientv3.Value(keys.end()), "=", string(c.found.end))
	}
	for _, note := range when {
		all = append(all, clientv3.Compare(clientv3.ModRevision(keys.board(note.Key)), "=", note.Version))
	}
	return all
}

func (c *claiming) writes(claim driver.Claim, rec driver.Record) ([]clientv3.Op, error) {
	next := c.found.head.Revision + 1
	if claim.Revision != next || rec.Revision != next || rec.ID != claim.ID {
		return nil, fmt.Errorf("%w: a claim %v at revision %d with a record %v at %d, want both at %d",
			errMisuse, claim.ID, claim.Revision, rec.ID, rec.Revision, next)
	}
	head, err1 := claimedHead(claim)
	text, err2 := encodeClaim(claim)
	record, err3 := marshalRecord(rec)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("%w: %w", errMisuse, err)
	}
	keys := c.store.keys
	ops := []clientv3.Op{
		clientv3.OpPut(keys.head(), string(head)),
		clientv3.OpPut(keys.end(), endText(claim.Revision, claim.ID)),
		clientv3.OpPut(keys.token(), string(text)),
		clientv3.OpPut(keys.record(next), string(record)),
		clientv3.OpPut(keys.claim(next), string(text)),
		clientv3.OpDelete(keys.wanted()),
	}
	if c.next != nil {
		ops = append(ops, clientv3.OpPut(keys.losses(), string(c.next)))
	}
	return ops, nil
}

// refusal says which condition did not hold. A Txn that stages some of the
// claim may have succeeded though the claim itself no longer can.
func (c *claiming) refusal(resp *clientv3.TxnResponse) error {
	if wanted := got(resp, 1); wanted == nil || wanted.ModRevision != c.wanted {
		return fmt.Errorf("%w: the claim's lease ended before its commit", driver.ErrConflict)
	}
	if claim, end := c.store.keys.pieces(all(resp, 0)); !bytes.Equal(claim, c.found.claim) || !bytes.Equal(end, c.found.end) {
		return fmt.Errorf("%w: the head has moved from revision %d", driver.ErrConflict, c.found.head.Revision)
	}
	if resp.Succeeded {
		return nil
	}
	return fmt.Errorf("%w: a note that the claim rests on, or the record of losses, has changed", driver.ErrConflict)
}

// Abandon implements [driver.Claiming]. It waits for the server, for at most
// two seconds, so that others can go on when it returns.
func (c *claiming) Abandon() {
	if c.ended {
		return
	}
	c.end()
	c.revoke()
}

func (c *claiming) end() {
	c.ended = true
	if c.quiet != nil {
		c.quiet()
	}
}

// revoke ends the lease, and with it the claim-wanted key, if that is ours.
func (c *claiming) revoke() {
	ctx, cancel := context.WithTimeout(c.store.root, revokeTimeout)
	defer cancel()
	if err := c.client.Revoke(ctx, c.lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		c.store.log.Info("a claim's lease ends by itself", "store", c.store.name, "error", err)
	}
}
