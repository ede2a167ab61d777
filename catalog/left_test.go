package catalog

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	store "github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
)

func TestARequestToGiveWayThatIsRemovedStopsNoClaim(t *testing.T) {
	t.Parallel()
	s := store.New()
	cfg := Config{}.withDefaults()
	b := NewBoard(s, cfg)
	left, err := LeftRequest(t.Context(), b)
	require.NoError(t, err)
	require.Empty(t, left)
	asker, claimer := &preempter{store: s, cfg: cfg}, &preempter{store: s, cfg: cfg}
	at := time.Now().UTC()
	require.NoError(t, asker.send(t.Context(), preemption{ID: driver.NewID(), Generation: 3, Operator: true, At: at}))
	require.NoError(t, claimer.begin(t.Context()))
	left, err = LeftRequest(t.Context(), b)
	require.NoError(t, err)
	require.Len(t, left, 1)
	require.Equal(t, fence.Token{Generation: 3}, left[0].Made)
	require.True(t, left[0].At.Equal(at))
	for _, want := range []bool{true, false} {
		removed, err := b.RemoveLeft(t.Context(), left[0])
		require.NoError(t, err)
		require.Equal(t, want, removed)
		require.NoError(t, claimer.check(t.Context(), 3))
	}
	require.NoError(t, asker.send(t.Context(), preemption{ID: driver.NewID(), Generation: 4}))
	require.ErrorIs(t, claimer.check(t.Context(), 3), errPreempted, "the next one does")
	_, err = b.RemoveLeft(t.Context(), left[0])
	require.ErrorIs(t, err, driver.ErrConflict)
}

func TestARemovalWhoseAnswerWasLostIsOnesOwn(t *testing.T) {
	t.Parallel()
	s := store.New()
	b := NewBoard(s, Config{})
	_, err := UpdateNote(t.Context(), b, preemptKey, func(p *preemption) error { p.Generation = 3; return nil })
	require.NoError(t, err)
	left, err := LeftRequest(t.Context(), b)
	require.NoError(t, err)
	first := true
	s.Inject(func(c store.Call) store.Fault {
		if c.Method != "Post" || !first {
			return store.Pass
		}
		first = false
		return store.LoseAnswer
	})
	removed, err := b.RemoveLeft(t.Context(), left[0])
	require.NoError(t, err)
	require.True(t, removed)
}
