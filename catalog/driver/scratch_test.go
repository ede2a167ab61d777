package driver

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAScratchPlaceExpiresAfterADayAndNothingElseDoes(t *testing.T) {
	t.Parallel()
	made := time.Now()
	name := scratchName(made)
	require.NotEqual(t, name, scratchName(made))
	place, ok := ScratchLeft(name)
	require.True(t, ok)
	require.Equal(t, Leftover{Kind: ScratchPlace, Name: name, Made: made.Truncate(time.Second)}, place)
	require.False(t, place.Expired())
	require.False(t, place.expired(made.Add(LeftLife-2*time.Second)))
	require.True(t, place.expired(made.Add(LeftLife+2*time.Second)))
	require.False(t, place.expired(made.Add(-time.Hour)), "made in the future, by another clock")
	require.False(t, place.expired(made.Add(14*time.Hour)), "made by a clock that is set to the time of another zone")
	require.False(t, Leftover{Name: name}.expired(made), "whose time is unknown")
	for _, other := range []string{"", "-", "main", "1-2", "0-0000000000000000x", "00-0000000000000000", "abc-00000000000000zz", name + "-wal", "x" + name} {
		_, ok := ScratchLeft(other)
		require.False(t, ok, "%q", other)
	}
}
