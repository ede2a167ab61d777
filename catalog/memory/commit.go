package memory

import (
	"bytes"
	"context"
	"fmt"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/step"
)

// Append adds rec to the log where the head is prior. It waits while a claim
// is under way.
func (s *Store) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	const op = "append"
	if err := s.begin(ctx, op); err != nil {
		return err
	}
	step.Reach(ctx, step.CommitBegun)
	rec.Payload = bytes.Clone(rec.Payload)
	apply := func() error { return s.shared.append(prior, rec) }
	err := s.write("Append", op, apply, func() error {
		if err := s.lockIdle(ctx); err != nil {
			return err
		}
		defer s.shared.mu.Unlock()
		return apply()
	})
	if err == nil {
		step.Reach(ctx, step.CommitLanded)
	}
	return err
}

// append does what Append says. The caller holds mu, with no claim under way.
func (d *shared) append(prior driver.Head, rec driver.Record) error {
	if prior.IsZero() || !at(d.head, prior) {
		return conflict(d.head, prior)
	}
	if rec.Revision != prior.Revision+1 {
		return fmt.Errorf("%w: revision %d after %d", errMisuse, rec.Revision, prior.Revision)
	}
	if err := d.admit(rec); err != nil {
		return err
	}
	d.log = append(d.log, rec)
	d.head = d.head.After(rec)
	d.announce()
	return nil
}

// admit refuses a record that the store has no room for.
func (d *shared) admit(rec driver.Record) error {
	if n, limit := len(rec.Payload), d.config.Payload; n > limit {
		return fmt.Errorf("%w: a payload of %d bytes, the largest is %d", driver.ErrTooLarge, n, limit)
	}
	if d.full {
		return driver.ErrFull
	}
	return nil
}

// at reports whether head is exactly prior.
func at(head, prior driver.Head) bool {
	return head.Revision == prior.Revision && head.Commit == prior.Commit && head.Claim.ID == prior.Claim.ID
}

func conflict(head, prior driver.Head) error {
	return fmt.Errorf("%w: the head is at revision %d, commit %v, and not at revision %d, commit %v",
		driver.ErrConflict, head.Revision, head.Commit, prior.Revision, prior.Commit)
}
