package memory

import (
	"context"

	"github.com/fencepost/fencepost/catalog/driver"
)

// A showing is a claim that is shown, or was.
type showing struct {
	by     int // how many calls of Present there are
	losses int // how often the last of them ended
}

// Present shows that the process of claim is there, until ctx ends, the handle
// is closed or BreakOff is called.
func (s *Store) Present(ctx context.Context, claim driver.ID, shown func()) error {
	const op = "present"
	if err := s.read(ctx, "Present", op); err != nil {
		return err
	}
	broken := s.show(claim)
	defer s.shared.hide(claim)
	shown()
	select {
	case <-broken:
		return s.fail(op, errBrokenOff)
	case <-s.closed:
		return s.fail(op, errClosed)
	case <-ctx.Done():
		return s.fail(op, ctx.Err())
	}
}

// WatchPresence calls lost whenever claim is no longer shown, and returns when
// ctx ends or the handle is closed.
func (s *Store) WatchPresence(ctx context.Context, claim driver.ID, lost func()) error {
	const op = "watch presence"
	if err := s.read(ctx, "WatchPresence", op); err != nil {
		return err
	}
	told, _ := s.shared.losses(claim)
	for {
		losses, changed := s.shared.losses(claim)
		if losses > told {
			told = losses
			lost()
			continue
		}
		select {
		case <-changed:
		case <-s.closed:
			return s.fail(op, errClosed)
		case <-ctx.Done():
			return s.fail(op, ctx.Err())
		}
	}
}

// BreakOff ends what this handle shows, as the end of a session or of a lease
// does: its calls of Present under way return an error that may be retried.
func (s *Store) BreakOff() {
	d := s.shared
	d.mu.Lock()
	defer d.mu.Unlock()
	close(s.broken)
	s.broken = make(chan struct{})
}

// show counts a call of Present, and returns what BreakOff closes.
func (s *Store) show(claim driver.ID) (broken <-chan struct{}) {
	d := s.shared
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shown[claim] == nil {
		d.shown[claim] = new(showing)
	}
	d.shown[claim].by++
	return s.broken
}

func (d *shared) hide(claim driver.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	shown := d.shown[claim]
	if shown.by--; shown.by > 0 {
		return
	}
	shown.losses++
	close(d.lost)
	d.lost = make(chan struct{})
}

// losses returns how often claim was lost, and what is closed when any claim is.
func (d *shared) losses(claim driver.ID) (int, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shown[claim] == nil {
		return 0, d.lost
	}
	return d.shown[claim].losses, d.lost
}
