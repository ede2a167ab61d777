package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/fencepost/fencepost/fence"
)

// Explain says what a guard's refusal means for this process. A refusal is a hint
// about the token, so Explain reads the newest head once and returns
//
//   - why this handle has ended, if the head says that it has, with err: a proven
//     *[fence.Error], or an error that wraps [ErrLostCommit]. Package exitcodes ranks
//     the two;
//   - err as it is, if the handle still holds the token, or the head could not be
//     read before ctx ended. A *fence.Error that names a guard then has disposition
//     halt;
//   - err as it is, without a look, if it holds no refusal of a guard.
//
// Package leader calls it with what the work returns.
func (c *Catalog) Explain(ctx context.Context, err error) error {
	if !hint(err) {
		return err
	}
	_ = c.Confirm(ctx)
	why := c.Err()
	if why == nil || errors.Is(why, ErrClosed) {
		return err
	}
	return fmt.Errorf("%w; before, %w", why, err)
}

// hint reports whether err holds a refusal that the head has to confirm.
func hint(err error) bool {
	var fenced *fence.Error
	if errors.As(err, &fenced) && fenced.Guard != "" {
		return true
	}
	return errors.Is(err, fence.ErrNeverIssued)
}
