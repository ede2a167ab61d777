package memory

import (
	"bytes"
	"context"
	"fmt"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/step"
)

// trimRecords is how many records one Trim deletes.
const trimRecords = 1000

// Snapshot calls fn with the newest snapshot and its parts. Fn may call the
// store.
func (s *Store) Snapshot(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
	const op = "snapshot"
	if err := s.read(ctx, "Snapshot", op); err != nil {
		return err
	}
	s.shared.mu.Lock()
	snapshot := s.shared.snapshot
	parts := s.shared.parts[snapshot.ID]
	s.shared.mu.Unlock()
	if snapshot.IsZero() {
		return nil
	}
	if snapshot.Parts == 0 {
		return fn(snapshot, nil)
	}
	for _, part := range parts[:snapshot.Parts] {
		if err := s.begin(ctx, op); err != nil {
			return err
		}
		if err := fn(snapshot, bytes.Clone(part)); err != nil {
			return err
		}
	}
	return nil
}

// Stage stores a part of a snapshot.
func (s *Store) Stage(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
	part = append([]byte{}, part...) // never nil, which means that there is none
	return s.compact(ctx, "Stage", "stage", step.SnapshotStaged, func() error { return s.shared.stage(by, id, n, part) })
}

// Publish puts a snapshot in the place of an older one.
func (s *Store) Publish(ctx context.Context, by driver.Claim, snapshot driver.Snapshot) error {
	return s.compact(ctx, "Publish", "publish", step.SnapshotPublished, func() error { return s.shared.publish(by, snapshot) })
}

// Trim deletes what the snapshot stands for.
func (s *Store) Trim(ctx context.Context, by driver.Claim) (more bool, err error) {
	err = s.compact(ctx, "Trim", "trim", step.SnapshotTrimmed, func() (err error) {
		more, err = s.shared.trim(by)
		return err
	})
	return more, err
}

// compact makes one write of a compaction. It does not wait for a claim under
// way, which rests on the head alone.
func (s *Store) compact(ctx context.Context, method, op string, done step.Point, apply func() error) error {
	if err := s.begin(ctx, op); err != nil {
		return err
	}
	err := s.write(method, op, apply, func() error {
		s.shared.mu.Lock()
		defer s.shared.mu.Unlock()
		return apply()
	})
	if err == nil {
		step.Reach(ctx, done)
	}
	return err
}

// claimedBy refuses where by is not the head's claim. The caller holds mu.
func (d *shared) claimedBy(by driver.Claim) error {
	if d.head.Claim.ID == by.ID && !by.ID.IsZero() {
		return nil
	}
	return fmt.Errorf("%w: the newest claim is %v of %v, and not %v", driver.ErrConflict, d.head.Claim.ID, d.head.Claim.Token, by.ID)
}

// stage does what Stage says. The caller holds mu.
func (d *shared) stage(by driver.Claim, id driver.ID, n int, part []byte) error {
	if err := d.claimedBy(by); err != nil {
		return err
	}
	if len(part) > driver.MaxPart {
		return fmt.Errorf("%w: a part of %d bytes, the largest is %d", driver.ErrTooLarge, len(part), driver.MaxPart)
	}
	if d.full {
		return driver.ErrFull
	}
	parts := d.parts[id]
	for len(parts) <= n {
		parts = append(parts, nil)
	}
	parts[n] = part
	d.parts[id] = parts
	return nil
}

// publish does what Publish says. The caller holds mu.
func (d *shared) publish(by driver.Claim, s driver.Snapshot) error {
	if err := d.claimedBy(by); err != nil {
		return err
	}
	if err := s.Check(); err != nil {
		return fmt.Errorf("%w: %w", errMisuse, err)
	}
	if d.snapshot.Revision > s.Revision || d.snapshot.Revision == s.Revision && d.snapshot != s {
		return fmt.Errorf("%w: there is a snapshot of revision %d already", driver.ErrConflict, d.snapshot.Revision)
	}
	if s.Revision > uint64(len(d.log)) || d.log[s.Revision-1].ID != s.Commit {
		return fmt.Errorf("%w: the log has no commit %v at revision %d", driver.ErrCorrupt, s.Commit, s.Revision)
	}
	for n := range s.Parts {
		if parts := d.parts[s.ID]; n >= len(parts) || parts[n] == nil {
			return fmt.Errorf("%w: part %d of snapshot %v was never staged", driver.ErrCorrupt, n, s.ID)
		}
	}
	if d.full {
		return driver.ErrFull
	}
	d.snapshot = s
	return nil
}

// trim does what Trim says. The caller holds mu.
func (d *shared) trim(by driver.Claim) (more bool, err error) {
	if err := d.claimedBy(by); err != nil {
		return false, err
	}
	for id := range d.parts {
		if id != d.snapshot.ID {
			delete(d.parts, id)
		}
	}
	if d.snapshot.IsZero() {
		return false, nil
	}
	d.trimmed = min(d.trimmed+trimRecords, d.snapshot.Revision-1)
	return d.trimmed < d.snapshot.Revision-1, nil
}
