package reap

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// A WaitReason says why a wait was needed.
type WaitReason string

const (
	WaitConflict   WaitReason = "conflict"    // another reaper had deleted an item
	WaitLocked     WaitReason = "locked"      // another process of this host has the lock
	WaitPace       WaitReason = "pace"        // the throttle keeps below the server's limit
	WaitLimited    WaitReason = "limited"     // the server refused a call because of too many
	WaitRetryAfter WaitReason = "retry-after" // the server refused a call and said for how long
	WaitRoom       WaitReason = "room"        // there is no room, and no item is old enough yet
)

// A Wait says for how long something waits, and why.
type Wait struct {
	Reason   WaitReason
	For      time.Duration // for WaitLocked the longest that it may take, or 0 if nothing bounds it
	Count    int           // items that are known to be there; 0 outside of a pass
	Limit    int           // Policy.Limit, or of a throttle's wait outside of a pass its Limit
	Strategy Conflict
	Detail   string // such as the item, or who has the lock
}

func (w Wait) String() string {
	return fmt.Sprintf("waiting %.3g s: %s (%s); %d items, limit %d, strategy %s", w.For.Seconds(), w.Reason, w.Detail, w.Count, w.Limit, w.Strategy)
}

// A Backoff grows from Base by Factor up to Cap. The zero Backoff has the defaults.
type Backoff struct {
	Base   time.Duration // default: 1 s
	Cap    time.Duration // default: 60 s
	Factor float64       // default: 2
}

func (b Backoff) withDefaults() Backoff {
	if b.Base == 0 {
		b.Base = time.Second
	}
	if b.Cap == 0 {
		b.Cap = max(time.Minute, b.Base)
	}
	if b.Factor == 0 {
		b.Factor = 2
	}
	return b
}

func (b Backoff) validate() error {
	d := b.withDefaults()
	if d.Base < 0 || d.Cap < d.Base || !(d.Factor >= 1) {
		return fmt.Errorf("Backoff is %v to %v by %g, want a Base above 0, a Cap of at least that, and a Factor of at least 1", d.Base, d.Cap, d.Factor)
	}
	return nil
}

// Delay returns the wait after the nth try, counted from 0: Base × Factorⁿ, Cap at
// most, less a random part of up to one half. So processes that collide once do not
// collide again at the same moment.
func (b Backoff) Delay(n int) time.Duration {
	b = b.withDefaults()
	d := saturate(float64(b.Base) * math.Pow(b.Factor, float64(n)))
	whole := max(min(d, b.Cap), 0)
	return whole - time.Duration(rand.Int64N(int64(whole)/2+1))
}

// sleep returns nil after d, or before that the cause of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
