package leader

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func TestACensusCountsOnlyTheTimeInWhichItLooked(t *testing.T) {
	t.Parallel()
	const lease = 10 * time.Second
	at := time.Duration(1)
	var c census
	dead := func(after time.Duration, version int64) int {
		at += after
		return len(c.count(at, []driver.Note{{Key: "member/a", Version: version, Value: []byte(`{"lease_seconds":10}`)}}, lease))
	}
	require.Zero(t, dead(time.Hour, 1), "seen for the first time")
	require.Zero(t, dead(lease, 1))
	require.Zero(t, dead(time.Hour, 1), "a process that was frozen")
	require.Zero(t, dead(lease/2, 1))
	require.Equal(t, 1, dead(lease/2, 1))
	require.Zero(t, dead(lease, 1), "it is there again")
	require.Zero(t, dead(2*lease, 1))
	require.Zero(t, dead(lease, 2), "a sign of life")
	require.Zero(t, dead(lease, 2))
	require.Zero(t, dead(lease, 2))
	require.Equal(t, 1, dead(lease, 2))
}
