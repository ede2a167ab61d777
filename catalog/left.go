package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// A LeftNote is a note on the board as a reaper sees it. It means nothing any more once
// a higher generation than Made's leads.
type LeftNote struct {
	Key     string
	Version int64       // that was read: a later one is another note
	Made    fence.Token // under which, or for which generation, it was posted
	At      time.Time   // by the clock of whoever posted it; zero if the note does not say
}

// LeftRequest returns the newest request to a claim under way to give way, which stays
// on the board behind that claim; none if there is none there.
func LeftRequest(ctx context.Context, b *Board) ([]LeftNote, error) {
	p, err := ReadNote[preemption](ctx, b, preemptKey)
	if err != nil || p.Version == 0 {
		return nil, err
	}
	return []LeftNote{{Key: p.Key, Version: p.Version, Made: fence.Token{Generation: p.Value.Generation}, At: p.Value.At}}, nil
}

// RemoveLeft removes a note that is still at the version that was read, and reports
// whether it was there. A note that has changed since stays; the error then wraps
// [driver.ErrConflict].
func (b *Board) RemoveLeft(ctx context.Context, l LeftNote) (removed bool, err error) {
	return b.remove(ctx, driver.Note{Key: l.Key, Version: l.Version})
}

// remove removes a note at its version. If it is gone already, it was removed by an
// earlier try, whose answer was lost, or else by somebody else.
func (b *Board) remove(ctx context.Context, n driver.Note) (removed bool, err error) {
	tries := 0
	err = b.persist(ctx, func(ctx context.Context) error {
		tries++
		_, err := b.store.Post(ctx, driver.Note{Key: n.Key, Version: n.Version})
		if removed = err == nil; removed || !errors.Is(err, driver.ErrConflict) {
			return err
		}
		now, rerr := ReadNote[json.RawMessage](ctx, b, n.Key)
		switch {
		case rerr != nil:
			return rerr
		case now.Version == 0:
			removed = tries > 1
			return nil
		}
		return &final{err}
	})
	return removed, err
}
