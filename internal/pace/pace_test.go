package pace

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAnOutageIsLoggedAtOnceAndThenWithGrowingDistance(t *testing.T) {
	t.Parallel()
	var p Pace
	start := time.Unix(0, 0)
	var at []time.Duration
	counted := 0
	for after := time.Duration(0); after < time.Hour; after += time.Second {
		if left, due := p.Fail(start.Add(after)); due {
			at = append(at, after)
			counted += left + 1
		}
	}
	require.Equal(t, []time.Duration{0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 811}, seconds(at[:11]))
	require.Len(t, at, 20, "an hour of failures")
	for i := 11; i < len(at); i++ {
		require.Equal(t, 5*time.Minute, at[i]-at[i-1])
	}
	require.Equal(t, int(at[len(at)-1]/time.Second)+1, counted, "none is lost in between")
}

func seconds(all []time.Duration) (short []time.Duration) {
	for _, d := range all {
		short = append(short, d/time.Second)
	}
	return short
}

func TestTheNextOutageIsLoggedAtOnceAgain(t *testing.T) {
	t.Parallel()
	var p Pace
	now := time.Unix(0, 0)
	_, failed := p.Succeed(now)
	require.False(t, failed)
	p.Fail(now)
	p.Fail(now.Add(100 * time.Millisecond))
	lasted, failed := p.Succeed(now.Add(time.Minute))
	require.True(t, failed)
	require.Equal(t, time.Minute, lasted)
	left, due := p.Fail(now.Add(time.Minute))
	require.True(t, due)
	require.Zero(t, left)
}
