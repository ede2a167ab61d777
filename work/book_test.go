package work

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/fence"
)

func testBook(t *testing.T, k Kind, until, wait time.Duration, now time.Time) *book {
	t.Helper()
	b := newBook(fence.Token{Generation: 1, Epoch: epoch.Epoch(1)}, "", []Kind{k.withDefaults(1)})
	job, err := json.Marshal(jobRecord{Kind: k.Name, MadeAt: now, RunAt: now})
	require.NoError(t, err)
	run, err := json.Marshal(runRecord{Serial: 1, At: now, NotBefore: now.Add(until), Wait: wait})
	require.NoError(t, err)
	b.add(ID(1).entry(), job)
	b.setRun(ID(1).entry(), run, now)
	return b
}

func TestARetryIsNotPutOffByAClockThatWasSetBack(t *testing.T) {
	t.Parallel()
	for _, order := range []Order{Any, Each, Latest} {
		now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
		b := testBook(t, Kind{Name: "sync", Order: order}, time.Minute, time.Minute, now)
		require.Equal(t, now.Add(time.Minute).UnixNano(), b.tick(now))
		b.shift(time.Hour) // it is 11:00 now
		require.Equal(t, now.Add(time.Minute-time.Hour).UnixNano(), b.tick(now.Add(-time.Hour)), "%v", order)
		b.tick(now.Add(time.Minute - time.Hour))
		require.Equal(t, 1, b.readyCount(), "%v", order)
	}
}

func TestARetryWaitsNoLongerThanItsWaitWhateverTheClockOfTheHolderBeforeSaid(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	b := testBook(t, Kind{Name: "sync"}, 24*time.Hour, time.Minute, now)
	require.Equal(t, now.Add(time.Minute).UnixNano(), b.tick(now))
}

func TestThePlanOfAPassIsAFunctionOfWhatItSees(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	b := testBook(t, Kind{Name: "sync", Order: Latest}, 0, 0, now)
	b.tick(now)
	none := func(*item) bool { return false }
	first := b.plan(now, none, 1, map[string]int{})
	require.Len(t, first.claims, 1)
	require.Equal(t, first, b.plan(now, none, 1, map[string]int{}), "it changes nothing")
	require.Empty(t, b.plan(now, none, 0, map[string]int{}).claims)
	require.Empty(t, b.plan(now, none, 1, map[string]int{"sync": 1}).claims)
	require.Empty(t, b.plan(now, func(*item) bool { return true }, 1, map[string]int{}).claims)
}
