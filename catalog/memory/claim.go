package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/step"
)

// claiming implements driver.Claiming. It is under way as long as shared says
// so: whoever clears shared.claiming has ended it.
type claiming struct {
	store  *Store
	head   driver.Head
	losses driver.Losses
	next   []byte      // what Install replaces the losses by; nil: nothing
	timer  *time.Timer // ends the claim of a process that has stopped
}

// Claim begins a claim. Claims are taken one at a time, over all handles on
// the catalog. A claim that neither installs nor abandons is released after
// its context's deadline and Config.ClaimBound more; if the context has no
// deadline, after Config.ClaimBound. Each Renew begins another ClaimBound. The
// claim does not end when its context is cancelled.
func (s *Store) Claim(ctx context.Context) (driver.Claiming, error) {
	const op = "claim"
	if err := s.begin(ctx, op); err != nil {
		return nil, err
	}
	fault := s.faults.ask("Claim")
	if fault == Refuse || fault == LoseRequest || fault == Delay {
		return nil, s.fail(op, errInjected)
	}
	if err := s.lockIdle(ctx); err != nil {
		if !errors.Is(err, errClosed) {
			err = fmt.Errorf("%w: %w", driver.ErrBlocked, err)
		}
		return nil, s.fail(op, err)
	}
	c := s.startClaim(ctx)
	s.shared.mu.Unlock()
	if fault == LoseAnswer {
		return nil, s.fail(op, errInjected)
	}
	step.Reach(ctx, step.ClaimBegun)
	return c, nil
}

// startClaim puts a claim under way. The caller holds mu.
func (s *Store) startClaim(ctx context.Context) *claiming {
	bound := s.shared.config.ClaimBound
	if deadline, ok := ctx.Deadline(); ok {
		bound += time.Until(deadline)
	}
	c := &claiming{store: s, head: s.shared.head, losses: s.shared.lossesNow()}
	c.timer = time.AfterFunc(bound, c.Abandon)
	s.shared.claiming = c
	return c
}

// Head returns the head as it was when the claim began, and is until it ends.
func (c *claiming) Head() driver.Head { return c.head }

// Losses returns the record of losses as it was when the claim began.
func (c *claiming) Losses() driver.Losses { return c.losses }

// ReplaceLosses has Install replace the record of losses.
func (c *claiming) ReplaceLosses(text []byte) { c.next = bytes.Clone(text) }

// Log reads the log up to Head.
func (c *claiming) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	return c.store.readLog(ctx, after, c.head.Revision, fn)
}

// Renew puts off the release of the claim by Config.ClaimBound from now.
func (c *claiming) Renew(ctx context.Context) error {
	const op = "renew"
	if err := c.store.begin(ctx, op); err != nil {
		return err
	}
	d := c.store.shared
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.claiming != c {
		return c.store.fail(op, errEnded)
	}
	c.timer.Reset(d.config.ClaimBound)
	return nil
}

// Install makes cl the head's claim and ends the claim under way.
func (c *claiming) Install(ctx context.Context, cl driver.Claim, rec driver.Record, when ...driver.Note) error {
	const op = "install"
	defer c.Abandon()
	if err := c.store.begin(ctx, op); err != nil {
		return err
	}
	frozen, err := freeze(cl)
	if err != nil {
		return c.store.fail(op, err)
	}
	rec.Payload = bytes.Clone(rec.Payload)
	d := c.store.shared
	err = c.store.write("Install", op,
		func() error { return d.install(c, frozen, rec, when) },
		func() error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.claiming != c {
				return errEnded
			}
			return d.install(c, frozen, rec, when)
		})
	if err == nil {
		step.Reach(ctx, step.ClaimCommitted)
	}
	return err
}

// freeze returns c as its frozen encoding keeps it.
func freeze(c driver.Claim) (driver.Claim, error) {
	text, err := driver.MarshalClaim(c)
	if err == nil {
		c, err = driver.UnmarshalClaim(text)
	}
	if err != nil {
		return driver.Claim{}, fmt.Errorf("%w: %w", errMisuse, err)
	}
	return c, nil
}

// install does what Install says. The caller holds mu, and no claim other than
// its own is under way.
func (d *shared) install(over *claiming, c driver.Claim, rec driver.Record, when []driver.Note) error {
	prior := over.head
	if !at(d.head, prior) {
		return conflict(d.head, prior)
	}
	if err := d.lossesAt(over.losses); err != nil {
		return err
	}
	for _, n := range when {
		if err := d.noteAt(n); err != nil {
			return err
		}
	}
	if rec.Revision != prior.Revision+1 || c.Revision != rec.Revision || c.ID != rec.ID {
		return fmt.Errorf("%w: claim %v at revision %d with record %v at revision %d, after revision %d",
			errMisuse, c.ID, c.Revision, rec.ID, rec.Revision, prior.Revision)
	}
	if err := d.admit(rec); err != nil {
		return err
	}
	d.log = append(d.log, rec)
	d.claims = append(d.claims, c)
	d.head = c.Head()
	if over.next != nil {
		d.setLosses(over.next)
	}
	d.announce()
	return nil
}

// Abandon ends the claim where it is still under way.
func (c *claiming) Abandon() {
	d := c.store.shared
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.claiming == c {
		d.endClaim()
	}
}

// endClaim ends the claim under way, if any. The caller holds mu.
func (d *shared) endClaim() {
	if d.claiming == nil {
		return
	}
	d.claiming.timer.Stop()
	d.claiming = nil
	d.announce()
}

// endClaimOf ends the claim under way where it is that of process.
func (d *shared) endClaimOf(process int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.claiming != nil && d.claiming.store.process == process {
		d.endClaim()
	}
}
