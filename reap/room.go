package reap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/fence"
)

// creations is how often Create tries.
const creations = 3

// Create makes an item of which there may be only so many. It calls create, and only if
// that returns [ErrFull] it runs a pass, and waits if no item is old enough yet, at most
// until the oldest one is. It calls create three times at most.
//
// Create waits for the lock of the host whatever p.SkipIfLocked and p.Every say: without
// room there is nothing else to do. It returns the reports of its passes and the last
// error of create, of a pass, or the cause of ctx.
func Create(ctx context.Context, src Source, now fence.Token, p Policy, create func(ctx context.Context) error) ([]Report, error) {
	p.SkipIfLocked, p.Every = false, 0
	var reports []Report
	for {
		err := create(ctx)
		if !errors.Is(err, ErrFull) || len(reports) == creations-1 {
			return reports, err
		}
		r, perr := Pass(ctx, src, now, p)
		reports = append(reports, r)
		if perr != nil {
			return reports, fmt.Errorf("%w: %w", err, perr)
		}
		if cause := p.awaitRoom(ctx, r); cause != nil {
			return reports, fmt.Errorf("%w: %w", err, cause)
		}
	}
}

// awaitRoom waits until the oldest item is old enough, if a pass has found none that was.
func (p Policy) awaitRoom(ctx context.Context, r Report) error {
	d := time.Until(r.Ripe)
	if r.Stopped != StoppedYoung && r.Stopped != StoppedShared || r.Deleted > 0 || r.Gone > 0 || r.Vanished > 0 || d <= 0 {
		return nil
	}
	if most := whole(p.MaxWait, defaultMaxWait, 0); d > most {
		return fmt.Errorf("the oldest item may be deleted in %v, and MaxWait is %v", d, most)
	}
	if p.OnWait != nil {
		p.OnWait(Wait{Reason: WaitRoom, For: d, Count: r.Present(), Limit: p.Limit, Strategy: p.OnConflict, Detail: "no item is old enough"})
	}
	return sleep(ctx, d)
}
