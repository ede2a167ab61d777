package cli

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader"
)

const (
	pollInterval  = 200 * time.Millisecond // where the store does not wake us
	watchInterval = time.Second            // where it does; a wake-up may be lost
)

// A waitFor is the wait of one promotion for its generation.
type waitFor struct {
	*promoting
	store driver.Store
	board *catalog.Board

	newest  driver.Claim
	nobodys bool // the newest claim is a tool's
}

// await waits until a process of the generation has claimed, and returns its claim.
// It ends at once if that can't come any more: a higher generation leads or was
// promoted, or this one was aborted.
func (w *waitFor) await(ctx context.Context) (driver.Claim, error) {
	short, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	wake, interval, join := watch(short, w.store)
	defer join()
	defer cancel() // before join: the watcher ends with it
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var trouble error
	for {
		leads, err := w.look(short)
		switch {
		case leads:
			return w.newest, nil
		case exitcodes.Of(err) == exitcodes.Retry || err != nil && short.Err() != nil:
			trouble = err
		case err != nil:
			return driver.Claim{}, err
		default:
			trouble = nil
		}
		select {
		case <-wake:
		case <-tick.C:
		case <-short.Done():
			return driver.Claim{}, w.overdue(ctx, trouble)
		}
	}
}

// look reports whether a process of the generation has the newest token. An error
// that is not one in passing says that none ever will.
func (w *waitFor) look(ctx context.Context) (leads bool, err error) {
	intent, err := w.read(ctx)
	if err != nil {
		return false, err
	}
	current := w.newest.Token.Generation
	if current > w.generation {
		return false, fmt.Errorf("generation %v will not lead: %w", w.generation,
			advised(fence.Check(fence.Token{Generation: w.generation}, w.newest.Token, w.newest.Holder)))
	}
	if current == w.generation && !w.nobodys {
		return true, nil
	}
	if current == w.generation {
		intent.Aborted = nil // an abort that came too late, and was not taken back yet
	}
	if err := intent.Refuses(w.generation); err != nil {
		return false, fmt.Errorf("generation %v will not lead: %w", w.generation, advised(err))
	}
	return false, nil
}

// read reads the intent, and then the newest claim, so that a claim that has come
// before the intent was changed is seen.
func (w *waitFor) read(ctx context.Context) (intent leader.Intent, err error) {
	err = bounded(ctx, longestCall, func(ctx context.Context) (err error) {
		if intent, err = leader.ReadIntent(ctx, w.store, w.app.config(longestCall)); err != nil {
			return err
		}
		head, err := w.board.Head(ctx)
		if err != nil {
			return err
		}
		w.newest = head.Claim
		w.nobodys, err = catalog.HasNoHolder(ctx, w.board, head.Claim.ID)
		return err
	})
	return intent, err
}

// overdue says who leads instead, and what has become of the intent.
func (w *waitFor) overdue(ctx context.Context, trouble error) error {
	leads := "nobody leads"
	switch name := holder(w.newest.Holder); {
	case w.nobodys:
		leads = fmt.Sprintf("nobody leads: token %v was raised by %s", w.newest.Token, name)
	case !w.newest.Token.IsZero():
		leads = fmt.Sprintf("token %v leads, of %s", w.newest.Token, name)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("no longer waiting: %w: %s; the promotion stays", context.Cause(ctx), leads)
	}
	err := fmt.Errorf("generation %[1]v does not lead after %[2]v: %[3]s; the promotion stays, and generation %[1]v leads as soon as it claims",
		w.generation, w.timeout, leads)
	if trouble != nil && !errors.Is(trouble, context.DeadlineExceeded) {
		err = fmt.Errorf("%w; the store was last heard to say: %w", err, trouble)
	}
	return exitcodes.With(err, exitcodes.Retry)
}

// watch has the store wake the caller where it can, until ctx ends; join waits
// for that end. The interval is how often to look nevertheless.
func watch(ctx context.Context, store driver.Store) (wake <-chan struct{}, interval time.Duration, join func()) {
	w, ok := driver.As[driver.Watcher](store)
	if !ok {
		return nil, pollInterval, func() {}
	}
	woken := make(chan struct{}, 1)
	var watching sync.WaitGroup
	watching.Go(func() {
		// Its end is no news: the interval goes on.
		_ = w.Watch(ctx, func() {
			select {
			case woken <- struct{}{}:
			default:
			}
		})
	})
	return woken, watchInterval, watching.Wait
}
