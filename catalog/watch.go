package catalog

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	logpace "github.com/fencepost/fencepost/internal/pace"
)

// gap is the least time between two looks: a holder is woken by its own commits
// too, and looking must not cost as much as committing.
const gap = 2 * time.Millisecond

// A listener calls wake after writes, until ctx ends; nil where the store has
// none.
type listener func(ctx context.Context, wake func()) error

// writesOf listens to what a follower must read.
func writesOf(store *witness) listener {
	if w, ok := driver.As[driver.Watcher](store); ok {
		return w.Watch
	}
	return nil
}

// claimsOf listens to what a holder must notice: to claims alone, where the
// store can tell them from the holder's own commits.
func claimsOf(store *witness) listener {
	if w, ok := driver.As[driver.ClaimWatcher](store); ok {
		return w.WatchClaims
	}
	return writesOf(store)
}

// watch calls look after every wake-up of the store, the first of which comes
// when it has begun to listen, and at least every PollInterval, until ctx ends;
// at once where the store wakes nobody. Wake, which holds one, may be used to ask
// for a look as well. Errors of look are logged with growing distance; the
// next poll tries again. It joins what it starts.
func watch(ctx context.Context, cfg Config, listen listener, wake chan struct{}, look func(context.Context) error) {
	var wg sync.WaitGroup
	defer wg.Wait()
	if listen == nil {
		nudge(wake)
	} else {
		wg.Go(func() { keepWatching(ctx, listen, cfg, wake) })
	}
	poll := time.NewTimer(untilPoll(cfg.PollInterval))
	defer poll.Stop()
	var looked time.Time
	var failing logpace.Pace
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
			rest(ctx, gap-time.Since(looked))
		case <-poll.C:
		}
		looked = time.Now()
		err := look(ctx)
		if err == nil {
			failing.Succeed(looked)
		} else if left, due := failing.Fail(looked); due && ctx.Err() == nil {
			cfg.Logger.WarnContext(ctx, "the head can't be read", "err", err, "more", left)
		}
		poll.Reset(untilPoll(cfg.PollInterval))
	}
}

// nudge leaves one word in a channel that holds one, unless one waits there.
func nudge(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// born is where the polls of this process begin.
var born = time.Now()

// untilPoll returns how long it is to the next poll, interval at most. All
// catalogs of a process poll at the same instants, so that a store can answer
// them together; different processes poll at different ones.
func untilPoll(interval time.Duration) time.Duration {
	past := time.Since(born) % interval
	if past < 0 { // the clock of a test
		past += interval
	}
	return interval - past
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

// keepWatching listens to the store's wake-ups, and again when that breaks: soon
// where it had begun, and ever later where it does not begin.
func keepWatching(ctx context.Context, listen listener, cfg Config, wake chan<- struct{}) {
	var begun atomic.Bool
	next := newPace(0).next
	next.InitialInterval, next.MaxInterval = 100*time.Millisecond, 10*time.Second
	next.Reset()
	var failing logpace.Pace
	for {
		err := listen(ctx, func() { begun.Store(true); nudge(wake) })
		if ctx.Err() != nil {
			return
		}
		if begun.Swap(false) {
			next.Reset()
		}
		if left, due := failing.Fail(time.Now()); due {
			cfg.Logger.WarnContext(ctx, "wake-ups broke off; polling meanwhile", "err", err, "more", left)
		}
		nudge(wake)
		rest(ctx, next.NextBackOff())
	}
}
