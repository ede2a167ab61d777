package reap_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/reapsim"
	"github.com/fencepost/fencepost/reap"
)

// play plays some machines with 200 superseded items, on the clock of a bubble.
func play(t *testing.T, machines int, p reap.Policy) (cost reapsim.Cost) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var err error
		f := reapsim.Fleet{Machines: machines, Items: 200, List: 500 * time.Millisecond, Delete: 200 * time.Millisecond, Policy: p}
		began := time.Now()
		cost, err = f.Play(t.Context())
		require.NoError(t, err)
		for _, r := range cost.Reports {
			require.NoError(t, r.Check())
		}
		t.Logf("%d lists, %d deletes, %d wasted, %d left, %v", cost.Lists, cost.Deletes, cost.Wasted, cost.Left, time.Since(began))
	})
	return cost
}

func TestTheTokenHolderListsOnceAndWastesNoDeletion(t *testing.T) {
	t.Parallel()
	cost := play(t, 1, reap.Policy{})
	require.Equal(t, []int{1, 200, 0, 0}, []int{cost.Lists, cost.Deletes, cost.Wasted, cost.Left})
}

func TestTwelveMachinesThatYieldWasteTwelveDeletionsAtMost(t *testing.T) {
	t.Parallel()
	cost := play(t, 12, reap.Policy{})
	require.LessOrEqual(t, cost.Wasted, 12)
	require.Equal(t, []int{12, 200, 0}, []int{cost.Lists, cost.Deletes, cost.Left})
}

func TestMachinesThatIgnoreEachOtherWasteMostDeletions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cost, err := reapsim.Fleet{Machines: 12, Items: 200, List: 500 * time.Millisecond, Delete: 200 * time.Millisecond, Ignore: true}.Play(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2200, cost.Wasted, "the server counts what is wasted")
	})
}

func TestMachinesThatRefreshLeaveNothingAndWasteLittle(t *testing.T) {
	t.Parallel()
	cost := play(t, 12, reap.Policy{OnConflict: reap.Refresh})
	require.Equal(t, []int{200, 0}, []int{cost.Deletes, cost.Left})
	require.LessOrEqual(t, cost.Wasted, 12*9, "MaxConflicts of each at most")
}
