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
	require.False(t, scratchExpired(name, made.Add(scratchLife-2*time.Second)))
	require.True(t, scratchExpired(name, made.Add(scratchLife+2*time.Second)))
	require.False(t, scratchExpired(name, made.Add(-time.Hour)), "made in the future, by another clock")
	require.False(t, scratchExpired(name, made.Add(14*time.Hour)), "made by a clock that is set to the time of another zone")
	for _, other := range []string{"", "-", "main", "1-2", "0-0000000000000000x", "00-0000000000000000", "abc-00000000000000zz", name + "-wal", "x" + name} {
		require.False(t, scratchExpired(other, made.Add(1000*time.Hour)), "%q", other)
	}
}
