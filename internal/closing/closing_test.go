package closing

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAContextSaysHowLongThereIsOnceItHasEnded(t *testing.T) {
	t.Parallel()
	parent, cancel := context.WithCancel(t.Context())
	calls, by := 0, time.Now().Add(time.Hour)
	c := New(parent, func() time.Time { calls++; return by })
	child, stop := context.WithCancel(c)
	defer stop()
	_, ok := child.Deadline()
	require.False(t, ok)
	require.Zero(t, calls)
	cancel()
	require.ErrorIs(t, child.Err(), context.Canceled, "it ended with its parent, at once")
	for range 2 {
		at, ok := child.Deadline()
		require.True(t, ok)
		require.Equal(t, by, at)
	}
	require.Equal(t, 1, calls, "the deadline moves")
}

func TestAContextWithoutADeadlineOfItsOwnSaysNone(t *testing.T) {
	t.Parallel()
	parent, cancel := context.WithTimeout(t.Context(), time.Hour)
	c := New(parent, func() time.Time { return time.Time{} })
	_, ok := c.Deadline()
	require.True(t, ok, "its parent has one")
	cancel()
	_, ok = c.Deadline()
	require.False(t, ok)
}

func TestHowMuchTimeIsLeftIsKnownBelowAContextThatHasEnded(t *testing.T) {
	t.Parallel()
	parent, cancel := context.WithCancel(t.Context())
	c := New(parent, func() time.Time { return time.Now().Add(time.Hour) })
	child, stop := context.WithTimeout(c, time.Minute)
	stop()
	require.Zero(t, Left(child), "it ended by itself")
	require.Zero(t, Left(t.Context()))
	cancel()
	require.InDelta(t, time.Hour, Left(child), float64(time.Minute))
	done, end := context.WithCancel(t.Context())
	end()
	require.Zero(t, Left(New(done, func() time.Time { return time.Time{} })))
	require.Zero(t, Left(New(done, func() time.Time { return time.Now().Add(-time.Hour) })))
}
