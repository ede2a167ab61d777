package leader

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/internal/clock"
)

// lease is what the holder may believe without asking: that its token was
// confirmed less than length ago. It counts from when the confirmation was asked
// for, since the answer says nothing of what came after.
type lease struct {
	length time.Duration
	clock  clock.Clock
	born   time.Duration // by clock
	until  atomic.Int64  // by now; 0: nothing is confirmed; negative: when it was given up
}

// now is the time since the lease was made, and never 0.
func (l *lease) now() time.Duration { return l.clock() - l.born + 1 }

// renew notes a confirmation that was asked for at sent. An older one than is
// known, or than when the lease was given up, changes nothing.
func (l *lease) renew(sent time.Duration) {
	until := int64(sent + l.length)
	for {
		old := l.until.Load()
		if until <= old || int64(sent) < -old || l.until.CompareAndSwap(old, until) {
			return
		}
	}
}

// forget gives the lease up, until a confirmation that is asked for from now on.
func (l *lease) forget() {
	l.until.Store(-int64(l.now()))
}

// confirmed is when the newest confirmation was asked for; 0: there is none.
func (l *lease) confirmed() time.Duration {
	if until := time.Duration(l.until.Load()); until > 0 {
		return until - l.length
	}
	return 0
}

// left is for how long the lease can still be believed; 0 or less: it can't.
func (l *lease) left() time.Duration {
	until := l.until.Load()
	if until <= 0 {
		return 0
	}
	return time.Duration(until) - l.now()
}

// looks is how many times the clock is looked at in the time of a lease: timers
// of the runtime stand still while the host is suspended, and the lease does
// not.
const looks = 30

// look returns when to look at the lease again.
func (l *lease) look() time.Duration {
	long := l.length / looks
	if left := l.left(); left > 0 {
		return min(left, long)
	}
	return long
}

// elapse waits for d, and reports false where ctx ends before.
func elapse(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
