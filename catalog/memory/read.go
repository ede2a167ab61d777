package memory

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/fencepost/fencepost/catalog/driver"
)

// Head returns the newest head, or the zero Head.
func (s *Store) Head(ctx context.Context) (driver.Head, error) {
	if err := s.read(ctx, "Head", "head"); err != nil {
		return driver.Head{}, err
	}
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	return s.shared.head, nil
}

// Log calls fn with the records above after, up to the newest one at the time
// of the call. Fn may call the store.
func (s *Store) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	s.shared.mu.Lock()
	upTo := s.shared.head.Revision
	s.shared.mu.Unlock()
	return s.readLog(ctx, after, upTo, fn)
}

func (s *Store) readLog(ctx context.Context, after, upTo uint64, fn func(driver.Record) error) error {
	if err := s.read(ctx, "Log", "log"); err != nil {
		return err
	}
	records, err := s.shared.records(after, upTo)
	if err != nil {
		return s.fail("log", err)
	}
	for _, rec := range records {
		if err := s.begin(ctx, "log"); err != nil {
			return err
		}
		rec.Payload = bytes.Clone(rec.Payload)
		if err := fn(rec); err != nil {
			return err
		}
	}
	return nil
}

// records returns the records above after, up to upTo.
func (d *shared) records(after, upTo uint64) ([]driver.Record, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	upTo = min(upTo, uint64(len(d.log)))
	if after >= upTo {
		return nil, nil
	}
	if after < d.trimmed {
		return nil, fmt.Errorf("%w: up to revision %d, and %d is asked for", driver.ErrCompacted, d.trimmed, after+1)
	}
	return slices.Clone(d.log[after:upTo]), nil
}

// Claims calls fn with every claim whose revision is above after. Fn may call
// the store.
func (s *Store) Claims(ctx context.Context, after uint64, fn func(driver.Claim) error) error {
	if err := s.read(ctx, "Claims", "claims"); err != nil {
		return err
	}
	s.shared.mu.Lock()
	claims := slices.Clone(s.shared.claims)
	s.shared.mu.Unlock()
	for _, c := range claims {
		if c.Revision <= after {
			continue
		}
		if err := s.begin(ctx, "claims"); err != nil {
			return err
		}
		if err := fn(c); err != nil {
			return err
		}
	}
	return nil
}

// Watch calls wake once when it begins and after every change, and returns
// when ctx ends.
func (s *Store) Watch(ctx context.Context, wake func()) error {
	const op = "watch"
	if err := s.read(ctx, "Watch", op); err != nil {
		return err
	}
	for {
		s.shared.mu.Lock()
		changed := s.shared.changed
		s.shared.mu.Unlock()
		wake()
		select {
		case <-changed:
		case <-s.closed:
			return s.fail(op, errClosed)
		case <-ctx.Done():
			return s.fail(op, ctx.Err())
		}
	}
}
