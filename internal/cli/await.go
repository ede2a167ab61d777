package cli

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

const (
	pollInterval  = 200 * time.Millisecond // where the store does not wake us
	watchInterval = time.Second            // where it does; a wake-up may be lost
)

// await waits until the generation leads, and returns its claim. The time is
// over where nothing else is wrong.
func (p *promoting) await(ctx context.Context, store driver.Store) (driver.Claim, error) {
	short, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	wake, interval, join := watch(short, store)
	defer join()
	defer cancel() // before join: the watcher ends with it
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var last driver.Claim
	var trouble error
	for {
		claim, err := readClaim(short, store)
		if err == nil {
			last, trouble = claim, nil
		} else if trouble = err; exitcodes.Of(err) > exitcodes.Retry {
			return driver.Claim{}, err
		}
		if done, err := p.judge(last); done || err != nil {
			return last, err
		}
		select {
		case <-wake:
		case <-tick.C:
		case <-short.Done():
			return driver.Claim{}, p.overdue(ctx, last, trouble)
		}
	}
}

// judge says whether the generation leads. A higher one means that it never
// will.
func (p *promoting) judge(c driver.Claim) (leads bool, err error) {
	if c.Token.Generation > p.generation {
		return false, fmt.Errorf("generation %v will not lead: %w", p.generation,
			advised(fence.Check(fence.Token{Generation: p.generation}, c.Token, c.Holder)))
	}
	return c.Token.Generation == p.generation, nil
}

// overdue says who leads instead, and what has become of the intent.
func (p *promoting) overdue(ctx context.Context, last driver.Claim, trouble error) error {
	leads := "nobody leads"
	if !last.Token.IsZero() {
		leads = fmt.Sprintf("token %v leads, of %s", last.Token, holder(last.Holder))
	}
	if ctx.Err() != nil {
		return fmt.Errorf("no longer waiting: %w: %s; the promotion stays", context.Cause(ctx), leads)
	}
	err := fmt.Errorf("generation %[1]v does not lead after %[2]v: %[3]s; the promotion stays, and generation %[1]v leads as soon as it claims",
		p.generation, p.timeout, leads)
	if trouble != nil && !errors.Is(trouble, context.DeadlineExceeded) {
		err = fmt.Errorf("%w; the store was last heard to say: %w", err, trouble)
	}
	return exitcodes.With(err, exitcodes.Retry)
}

// readClaim reads the newest claim.
func readClaim(ctx context.Context, store driver.Store) (claim driver.Claim, err error) {
	err = bounded(ctx, longestCall, func(ctx context.Context) error {
		head, err := store.Head(ctx)
		claim = head.Claim
		return err
	})
	return claim, err
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
