package leader

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
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
func TestALeaseLapsesSoonAfterTheHostWasSuspendedForLongerThanItLasts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var suspended atomic.Int64
		began := time.Now()
		l := lease{length: time.Minute, clock: func() time.Duration { return time.Since(began) + time.Duration(suspended.Load()) }}
		l.renew(l.now())
		lapsed := make(chan time.Duration, 1)
		go func() {
			l.lapse(t.Context())
			lapsed <- time.Since(began)
		}()
		elapse(t.Context(), 10*time.Second)
		suspended.Store(int64(time.Hour))
		require.Negative(t, l.left(), "the check itself sees it at once")
		require.LessOrEqual(t, <-lapsed, 10*time.Second+time.Minute/looks)
	})
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
