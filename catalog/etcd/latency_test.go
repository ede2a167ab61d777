package etcd

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheTimeBeforeACopyFollowsFromTheAnswersWithinBounds(t *testing.T) {
	c := &cluster{cfg: Config{}.withDefaults()}
	answers := func(n int, d time.Duration) {
		for range n {
			c.observe(d)
		}
	}
	require.Equal(t, firstPatience, c.patience(0), "before the first answer")
	answers(100, 2*time.Millisecond)
	require.Equal(t, leastPatience, c.patience(0))
	require.Equal(t, leastPatience+perMiB, c.patience(1<<20), "a large request")
	answers(100, 200*time.Millisecond)
	require.InDelta(t, 200*time.Millisecond, c.patience(0), float64(20*time.Millisecond))
	answers(100, time.Minute)
	require.Equal(t, defaultLease/8, c.patience(0))
	answers(40, 2*time.Millisecond)
	require.Less(t, c.patience(0), 300*time.Millisecond, "one election is forgotten in 40 answers")

	c.cfg.HedgeAfter = 10 * time.Millisecond
	require.Equal(t, 10*time.Millisecond, c.patience(0))
	var intervals []time.Duration
	for n := range 8 {
		intervals = append(intervals, c.interval(0, n)/time.Millisecond)
	}
	require.Equal(t, []time.Duration{10, 20, 40, 80, 100, 100, 100, 100}, intervals)
	intervals = nil
	for n := range 5 {
		intervals = append(intervals, c.interval(4<<20, n)/time.Millisecond)
	}
	require.Equal(t, []time.Duration{410, 820, 1640, 3280, 6500}, intervals, "of a large request few copies share the link")
	c.cfg.HedgeAfter = time.Second
	require.Equal(t, time.Second, c.interval(0, 5))
}
