package catalog

import (
	"context"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
)

// gap is the least time between two looks: a holder is woken by its own commits
// too, and looking must not cost as much as committing.
const gap = 2 * time.Millisecond

// A listener calls wake after writes, until ctx ends; nil where the store has
// none.
type listener func(ctx context.Context, wake func()) error

// writesOf listens to what a follower must read.
func writesOf(store driver.Store) listener {
	if w, ok := store.(driver.Watcher); ok {
		return w.Watch
	}
	return nil
}

// claimsOf listens to what a holder must notice: to claims alone, where the
// store can tell them from the holder's own commits.
func claimsOf(store driver.Store) listener {
	if w, ok := store.(driver.ClaimWatcher); ok {
		return w.WatchClaims
	}
	return writesOf(store)
}

// watch calls look at once, after every wake-up of the store and at least
// every PollInterval, until ctx ends. An error of look is reported once for
// each run of errors; the next poll tries again. It joins what it starts.
func watch(ctx context.Context, store driver.Store, cfg Config, listen listener, look func(context.Context) error) {
	wake := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	if listen != nil {
		wg.Go(func() { keepWatching(ctx, listen, cfg, wake) })
	}
	poll := time.NewTimer(cfg.PollInterval)
	defer poll.Stop()
	failing := false
	for {
		looked := time.Now()
		err := look(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			cfg.Logger.WarnContext(ctx, "the head can't be read", "store", store.String(), "err", err)
		}
		failing = err != nil
		poll.Reset(cfg.PollInterval)
		select {
		case <-ctx.Done():
			return
		case <-wake:
			rest(ctx, gap-time.Since(looked))
		case <-poll.C:
		}
	}
}

// rest waits for d or for the end of ctx.
func rest(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// keepWatching listens to the store's wake-ups, and again when that breaks.
func keepWatching(ctx context.Context, listen listener, cfg Config, wake chan<- struct{}) {
	nudge := func() {
		select {
		case wake <- struct{}{}:
		default: // one is waiting already
		}
	}
	for {
		pace := newPace(cfg.RetryBudget)
		err := listen(ctx, nudge)
		if ctx.Err() != nil {
			return
		}
		cfg.Logger.WarnContext(ctx, "wake-ups broke off; polling meanwhile", "err", err)
		nudge()
		pace.next.InitialInterval = 100 * time.Millisecond
		pace.next.Reset()
		pace.wait(ctx)
	}
}
