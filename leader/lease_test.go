package leader

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/clock"
)

func TestALeaseCountsFromWhenItsRenewalWasSent(t *testing.T) {
	t.Parallel()
	reading := time.Hour
	l := lease{length: time.Second, clock: func() time.Duration { return reading }, born: time.Hour}
	require.LessOrEqual(t, l.left(), time.Duration(0), "nothing was confirmed")
	sent := l.now()
	reading += 400 * time.Millisecond // until the answer
	l.renew(sent)
	require.Equal(t, 600*time.Millisecond, l.left())
	l.renew(sent - time.Second)
	require.Equal(t, 600*time.Millisecond, l.left(), "an older answer that came later")
	reading += 600 * time.Millisecond
	require.LessOrEqual(t, l.left(), time.Duration(0))
	l.renew(l.now())
	require.Equal(t, time.Second, l.left())
	l.forget()
	require.LessOrEqual(t, l.left(), time.Duration(0))
}

// The runtime's timers stand still while the host is suspended, and the
// boot-time clock goes on.
func TestALeaseIsLookedAtOftenEnoughToSeeThatTheHostWasSuspended(t *testing.T) {
	t.Parallel()
	reading := time.Hour
	l := lease{length: time.Minute, clock: func() time.Duration { return reading }, born: time.Hour}
	l.renew(l.now())
	require.Equal(t, time.Minute/looks, l.look())
	reading += time.Minute - time.Second
	require.Equal(t, time.Second, l.look(), "not later than when it expires")
	reading += time.Hour
	require.Negative(t, l.left())
	require.Equal(t, time.Minute/looks, l.look())
}

func TestCheckingALeaseAllocatesNothing(t *testing.T) {
	for _, read := range []clock.Clock{clock.Boot, clock.Monotonic} {
		l := lease{length: time.Hour, clock: read, born: read()}
		l.renew(l.now())
		require.Zero(t, testing.AllocsPerRun(1000, func() {
			if l.left() <= 0 {
				panic("lapsed")
			}
		}))
	}
}

func TestWhatWasAskedForBeforeALeaseWasGivenUpDoesNotBringItBack(t *testing.T) {
	t.Parallel()
	reading := time.Hour
	l := lease{length: time.Second, clock: func() time.Duration { return reading }, born: time.Hour}
	sent := l.now()
	reading += 100 * time.Millisecond
	l.forget()
	l.renew(sent)
	require.LessOrEqual(t, l.left(), time.Duration(0))
	l.renew(l.now())
	require.Equal(t, time.Second, l.left())
}
