package peer

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A process that is stopped takes connections, and answers none.
func TestAHolderThatIsStoppedHasNotAcknowledged(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	a := ask(ln.Addr().String())
	a.Acknowledge = 10 * time.Millisecond
	reads := 0
	a.Reads = func(context.Context) error { reads++; return nil }
	_, err = AskHandover(t.Context(), a)
	require.ErrorIs(t, err, ErrNotAcknowledged)
	require.Greater(t, reads, looks/2)

	c, err := Dial(t.Context(), time.Millisecond, mine(), a.Address)
	require.Nil(t, c)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
}

func TestTheSilenceOfAHolderDoesNotCountWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	var away sync.WaitGroup
	away.Add(1)
	_, address := serve(t, newHolder(func(_ context.Context, s *Successor) error {
		away.Wait() // it asks the store as well
		return s.Acknowledge()
	}))
	a := ask(address)
	a.Acknowledge = time.Millisecond
	reads := 0
	a.Reads = func(context.Context) error {
		if reads++; reads == 30 { // several times what it may take
			away.Done()
		}
		return errors.New("the store is away")
	}
	h, err := AskHandover(t.Context(), a)
	require.NoError(t, err)
	h.Close()
}

func TestPatienceCountsOnlyBetweenTwoReadsThatSucceed(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	p := patience{limit: 100 * ms, most: 20 * ms}
	require.False(t, p.observe(0, 1*ms, true), "there is nothing to count from")
	require.False(t, p.observe(11*ms, 12*ms, true))
	require.Equal(t, 10*ms, p.length)
	require.False(t, p.observe(22*ms, 500*ms, false), "the store is away")
	require.False(t, p.observe(510*ms, 900*ms, true), "nor is what came before")
	require.Equal(t, 10*ms, p.length)
	require.False(t, p.observe(910*ms, 1400*ms, true), "a slow read does not count itself")
	require.Equal(t, 20*ms, p.length)
	require.False(t, p.observe(time.Hour, time.Hour, true), "this process was stopped")
	require.Equal(t, 40*ms, p.length)
	for i := range 3 {
		at := time.Hour + time.Duration(i+1)*20*ms
		require.Equal(t, i == 2, p.observe(at, at, true))
	}
}
