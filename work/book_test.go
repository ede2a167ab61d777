package work

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
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

// While a holder reads the jobs that were there when it began, others are enqueued.
func TestAJobOvertakesNoneOfItsKeyThatIsNotReadYet(t *testing.T) {
	t.Parallel()
	now := time.Now()
	none := func(*item) bool { return false }
	for _, order := range []Order{Any, Each, Latest} {
		for read := range 4 {
			c, err := catalog.Open(t.Context(), memory.New().Open(), catalog.Config{Generation: 1})
			require.NoError(t, err)
			enqueue := func(key string) {
				require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error { _, err := Enqueue(tx, "sync", key, nil); return err }))
			}
			enqueue("tokio")
			enqueue("serde") // 2
			enqueue("rand")
			enqueue("serde") // 4
			changes, err := c.Changes(jobs.Name(), runs.Name())
			require.NoError(t, err)
			b := newBook(c.Token(), "", []Kind{Kind{Name: "sync", Order: order}.withDefaults(10)})
			load := func(most int) {
				require.NoError(t, c.View(func(r *catalog.Reader) error { return b.loadSome(r, now, func(n int) bool { return n < most }) }))
			}
			claimed := func() map[ID]int {
				b.apply(changes.Take(), now)
				b.tick(now)
				claims := map[ID]int{}
				for _, claim := range b.plan(now, none, 10, map[string]int{}).claims {
					claims[claim.id] = len(claim.covers)
				}
				return claims
			}
			load(read)
			enqueue("serde") // 5
			early := claimed()
			load(10)
			require.Empty(t, b.unread)
			switch order {
			case Any:
				require.Contains(t, early, ID(5), "without an order a new job waits for nothing")
				require.Equal(t, map[ID]int{1: 0, 2: 0, 3: 0, 4: 0, 5: 0}, claimed())
			case Each:
				require.NotContains(t, early, ID(5), "%d jobs were read", read)
				require.NotContains(t, early, ID(4), "%d jobs were read", read)
				require.Equal(t, map[ID]int{1: 0, 2: 0, 3: 0}, claimed())
			case Latest:
				require.NotContains(t, early, ID(5), "%d jobs were read", read)
				require.Equal(t, map[ID]int{1: 0, 3: 0, 5: 2}, claimed())
			}
		}
	}
}
