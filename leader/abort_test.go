package leader_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

func TestAnAbortedGenerationIsNeverPromotedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store.Open(), config(1))
		blue.await(t, leader.Leading)
		promote(t, store, 300) // a slip of the finger
		_, err := leader.Promote(t.Context(), store, catalog.Config{}, 2, leader.PromoteOptions{By: "test"})
		var overtaken *leader.OvertakenError
		require.ErrorAs(t, err, &overtaken)
		for range 2 { // it is idempotent
			i, err := leader.Abort(t.Context(), store, catalog.Config{}, 300, leader.AbortOptions{By: "test"})
			require.NoError(t, err)
			require.Zero(t, i.Generation)
		}
		var aborted *leader.AbortedError
		_, err = leader.Promote(t.Context(), store, catalog.Config{}, 300, leader.PromoteOptions{By: "test"})
		require.ErrorAs(t, err, &aborted)
		cfg := config(300)
		cfg.AutoPromote = true
		given := start(t, store.Open(), cfg)
		given.await(t, leader.CatchingUp)
		elapse(time.Hour)
		require.Equal(t, "generation 300 was aborted", given.Status().Reason)
		require.Equal(t, leader.Leading, blue.Status().Phase)

		promote(t, store, 2)
		green := start(t, store.Open(), config(2))
		green.await(t, leader.Leading)
		require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
		_, err = leader.Promote(t.Context(), store, catalog.Config{}, 300, leader.PromoteOptions{By: "test"})
		require.ErrorAs(t, err, &aborted, "the next promotion has forgotten it")
		require.NoError(t, given.end(t))
		require.NoError(t, green.end(t))
	})
}

func TestAGenerationThatWasGivenUpDoesNotLeadAnEmptyCatalogEither(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		_, err := leader.Abort(t.Context(), store, catalog.Config{}, 1, leader.AbortOptions{By: "test"})
		require.NoError(t, err)
		given := start(t, store.Open(), config(1))
		elapse(time.Hour)
		require.Empty(t, claims(t, store))
		other := start(t, store.Open(), config(2))
		other.await(t, leader.Leading)
		require.ErrorIs(t, <-given.ended, fence.ErrSuperseded)
		require.NoError(t, other.end(t))
	})
}

func TestItIsTooLateToAbortWhatLeads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		p := start(t, store.Open(), config(5))
		p.await(t, leader.Leading)
		var late *leader.TooLateError
		for _, g := range []generation.Generation{4, 5} {
			_, err := leader.Abort(t.Context(), store, catalog.Config{}, g, leader.AbortOptions{By: "test"})
			require.ErrorAs(t, err, &late, "%v", g)
		}
		i, err := leader.ReadIntent(t.Context(), store, catalog.Config{})
		require.NoError(t, err)
		require.Empty(t, i.Aborted)
		require.NoError(t, p.end(t))
	})
}

// The abort is held up at each of its calls in turn, while the claim goes on.
func TestOfAnAbortAndAClaimExactlyOneWins(t *testing.T) {
	t.Parallel()
	var aborts, claimed int
	for held := range int64(12) {
		for late := range 3 {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				blue := start(t, store.Open(), config(1))
				blue.await(t, leader.Leading)
				green := start(t, store.Open(), config(2))
				green.await(t, leader.ReadyToPromote)
				promote(t, store, 2)
				handle := store.Open()
				var calls atomic.Int64
				handle.Inject(func(memory.Call) memory.Fault {
					if calls.Add(1) == held+1 {
						elapse(time.Duration(late) * 60 * time.Millisecond)
					}
					return memory.Pass
				})
				_, err := leader.Abort(t.Context(), handle, catalog.Config{}, 2, leader.AbortOptions{By: "test"})
				elapse(time.Minute)
				var tooLate *leader.TooLateError
				switch leads := green.Status().Phase == leader.Leading; {
				case err == nil:
					aborts++
					require.False(t, leads, "both have won")
					require.Equal(t, leader.Leading, blue.Status().Phase)
					require.EqualValues(t, 1, blue.works.Load())
					require.NoError(t, blue.end(t))
				default:
					claimed++
					require.True(t, errors.As(err, &tooLate), "%v", err)
					require.True(t, leads, "neither has won")
					require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
				}
				require.NoError(t, green.end(t))
			})
		}
	}
	require.Positive(t, aborts)
	require.Positive(t, claimed)
}

func TestAnAbortThatIsAcknowledgedBeforeTheClaimLandsWins(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"Claim", "Install"} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				blue := start(t, store.Open(), config(1))
				blue.await(t, leader.Leading)
				handle := store.Open()
				var once sync.Once
				handle.Inject(func(c memory.Call) memory.Fault {
					if c.Method == method { // green has read the intent
						once.Do(func() {
							_, err := leader.Abort(t.Context(), store.Open(), catalog.Config{}, 2, leader.AbortOptions{By: "test"})
							require.NoError(t, err)
						})
					}
					return memory.Pass
				})
				green := start(t, handle, config(2))
				green.await(t, leader.ReadyToPromote)
				promote(t, store, 2)
				elapse(time.Hour)
				require.Contains(t, phases(green), leader.Promoting, "it was not about to claim")
				require.Equal(t, "generation 2 was aborted", green.Status().Reason)
				require.Equal(t, leader.Leading, blue.Status().Phase)
				require.Len(t, claims(t, store), 1)
				require.NoError(t, green.end(t))
				require.NoError(t, blue.end(t))
			})
		})
	}
}

func TestAnAbortThatComesTooLateChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store.Open(), config(1))
		blue.await(t, leader.Leading)
		promote(t, store, 2)
		before, err := leader.ReadIntent(t.Context(), store, catalog.Config{})
		require.NoError(t, err)
		handle := store.Open()
		var once sync.Once
		var green *process
		handle.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Post" { // it has seen that nobody leads yet
				once.Do(func() {
					green = start(t, store.Open(), config(2))
					green.await(t, leader.Leading)
				})
			}
			return memory.Pass
		})
		var late *leader.TooLateError
		_, err = leader.Abort(t.Context(), handle, catalog.Config{}, 2, leader.AbortOptions{By: "test"})
		require.ErrorAs(t, err, &late)
		after, err := leader.ReadIntent(t.Context(), store, catalog.Config{})
		require.NoError(t, err)
		require.Equal(t, before, after)
		require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
		require.NoError(t, green.end(t))
	})
}
