package leader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// awaitTurn waits until this process may claim, and returns on which conditions
// it may and why.
func (l *Leader) awaitTurn(ctx context.Context, f *catalog.Follower) (catalog.ClaimOptions, string, error) {
	var quiet silence
	poll := time.NewTicker(l.cfg.Poll)
	defer poll.Stop()
	for {
		opts, why, err := l.turn(ctx, f, &quiet)
		switch {
		case err == nil && why != "":
			return opts, why, nil
		case err != nil && exitcodes.Of(err) == exitcodes.Retry && ctx.Err() == nil:
			quiet.blind()
			l.log.DebugContext(ctx, "the board can't be read", "err", err)
		case err != nil:
			return opts, "", err
		}
		select {
		case <-poll.C:
		case <-l.promoted:
		case <-f.Done():
			return opts, "", f.Err()
		case <-ctx.Done():
			return opts, "", context.Cause(ctx)
		}
	}
}

// turn looks once. Why is empty while it is not this process's turn.
func (l *Leader) turn(ctx context.Context, f *catalog.Follower, quiet *silence) (opts catalog.ClaimOptions, why string, err error) {
	head, _ := f.Head()
	l.sees(head)
	mine := l.cfg.Catalog.Generation
	opts.Silent = head.Claim.ID // what was judged here is judged of this claim, and of no other
	switch {
	case head.IsZero():
		return opts, "nobody ever claimed", nil
	case head.Claim.Token.Generation == mine:
		return l.standby(ctx, head, quiet)
	case l.cfg.AutoPromote:
		return opts, fmt.Sprintf("promoted itself over %v", head.Claim.Token), nil
	}
	intent, err := catalog.ReadNote[Intent](ctx, l.board, intentKey)
	if err != nil || intent.Value.Generation != mine {
		return opts, "", err
	}
	opts.When = []driver.Note{intent.Note()}
	return opts, fmt.Sprintf("promoted by %s", intent.Value.By), nil
}

// standby judges the holder by its silence.
func (l *Leader) standby(ctx context.Context, head driver.Head, quiet *silence) (opts catalog.ClaimOptions, why string, err error) {
	sent := time.Now()
	bounded, cancel := context.WithTimeout(ctx, l.cfg.Heartbeat)
	defer cancel()
	b, err := catalog.ReadNote[Beat](bounded, l.board, beatKey)
	if err != nil {
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			err = exitcodes.With(err, exitcodes.Retry)
		}
		return opts, "", err
	}
	if b.Value.Left && b.Value.Claim == head.Claim.ID {
		opts.Silent = head.Claim.ID
		return opts, fmt.Sprintf("the holder of %v has left", head.Claim.Token), nil
	}
	length := quiet.observe(sent, head.Claim.ID, b.Value, l.cfg.Heartbeat)
	if length < l.cfg.Silence {
		return opts, "", nil
	}
	opts.Silent = head.Claim.ID
	return opts, fmt.Sprintf("no sign of life of %v for %v", head.Claim.Token, length.Round(time.Millisecond)), nil
}
