package memory

import (
	"bytes"
	"context"
	"fmt"

	"github.com/fencepost/fencepost/catalog/driver"
)

// Losses returns the record of losses.
func (s *Store) Losses(ctx context.Context) (driver.Losses, error) {
	if err := s.read(ctx, "Losses", "losses"); err != nil {
		return driver.Losses{}, err
	}
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	return s.shared.lossesNow(), nil
}

// lossesNow returns a copy of the record. The caller holds mu.
func (d *shared) lossesNow() driver.Losses {
	l := d.record
	l.Text = bytes.Clone(l.Text)
	l.Place = d.place()
	return l
}

// place names the catalog: memory has one server.
func (d *shared) place() string { return "the memory of " + d.config.Name }

// PutLosses replaces the record of losses. It does not wait for a claim under
// way.
func (s *Store) PutLosses(ctx context.Context, l driver.Losses, at *driver.Head) (int64, error) {
	const op = "put losses"
	if err := s.begin(ctx, op); err != nil {
		return 0, err
	}
	l.Text = bytes.Clone(l.Text)
	var version int64
	err := s.write("PutLosses", op,
		func() error { _, err := s.shared.putLosses(l, at); return err },
		func() (err error) {
			s.shared.mu.Lock()
			defer s.shared.mu.Unlock()
			version, err = s.shared.putLosses(l, at)
			return err
		})
	if err != nil {
		return 0, err
	}
	return version, nil
}

// putLosses does what PutLosses says. The caller holds mu.
func (d *shared) putLosses(l driver.Losses, want *driver.Head) (int64, error) {
	if size, limit := len(l.Text), d.config.Note; size > limit {
		return 0, fmt.Errorf("%w: a record of losses of %d bytes, the largest is %d", driver.ErrTooLarge, size, limit)
	}
	if err := d.lossesAt(l); err != nil {
		return 0, err
	}
	if place := d.place(); l.Place != place {
		return 0, fmt.Errorf("%w: this is %q, and not %q", driver.ErrConflict, place, l.Place)
	}
	if want != nil && !at(d.head, *want) {
		return 0, conflict(d.head, *want)
	}
	if d.full {
		return 0, driver.ErrFull
	}
	d.setLosses(l.Text)
	d.announce()
	return d.record.Version, nil
}

// setLosses replaces the record. The caller holds mu.
func (d *shared) setLosses(text []byte) {
	d.version++
	d.record = driver.Losses{Text: text, Version: d.version}
}

// lossesAt refuses if the record is not at l's version. The caller holds mu.
func (d *shared) lossesAt(l driver.Losses) error {
	if have := d.record.Version; have != l.Version {
		return fmt.Errorf("%w: the record of losses is at version %d, and not at %d", driver.ErrConflict, have, l.Version)
	}
	return nil
}
