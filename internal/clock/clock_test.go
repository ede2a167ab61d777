package clock_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/clock"
)

func TestTheClocksGoForwardAlikeWhileTheHostIsAwake(t *testing.T) {
	for name, read := range map[string]clock.Clock{"monotonic": clock.Monotonic, "boot": clock.Boot} {
		began, wall := read(), time.Now()
		last := began
		for time.Since(wall) < 20*time.Millisecond {
			now := read()
			require.GreaterOrEqual(t, now, last, name)
			last = now
		}
		require.Greater(t, last-began, 10*time.Millisecond, name)
	}
}

func TestReadingAClockAllocatesNothing(t *testing.T) {
	require.Zero(t, testing.AllocsPerRun(100, func() { clock.Monotonic() }))
	require.Zero(t, testing.AllocsPerRun(100, func() { clock.Boot() }))
}

func TestAHostIsTheSameThroughoutAProcess(t *testing.T) {
	require.NotEmpty(t, clock.Host())
	require.Equal(t, clock.Host(), clock.Host())
}

func TestATimelineIsTheSameThroughoutAProcess(t *testing.T) {
	require.NotEmpty(t, clock.Timeline())
	require.Equal(t, clock.Timeline(), clock.Timeline())
}
