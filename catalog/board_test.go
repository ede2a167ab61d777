package catalog_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/generation"
)

func TestToReserveALowerNumberGivesNoNumberOutAgain(t *testing.T) {
	t.Parallel()
	board := catalog.NewBoard(memory.New(), catalog.Config{})
	for _, g := range []generation.Generation{9, 3} {
		require.NoError(t, board.Reserve(t.Context(), g))
	}
	next, err := board.NextGeneration(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 10, next)
}

func TestANumberThatLeavesNoRoomIsNotReservedAndTheLastOneIsNotHandedOut(t *testing.T) {
	t.Parallel()
	store := memory.New()
	board := catalog.NewBoard(store, catalog.Config{})
	for _, g := range []generation.Generation{generation.Max, generation.Max - 1, generation.Max - generation.Room + 1} {
		require.ErrorIs(t, board.Reserve(t.Context(), g), generation.ErrNoRoom)
	}
	last, err := board.LastGeneration(t.Context())
	require.NoError(t, err)
	require.Zero(t, last)
	require.NoError(t, board.Reserve(t.Context(), generation.Max-generation.Room))

	// An older build has reserved more.
	notes, err := store.Notes(t.Context(), "generations")
	require.NoError(t, err)
	_, err = store.Post(t.Context(), driver.Note{Key: "generations", Version: notes[0].Version, Value: []byte(`{"last":9223372036854775805}`)})
	require.NoError(t, err)
	next, err := board.NextGeneration(t.Context())
	require.NoError(t, err)
	require.Equal(t, generation.Max-1, next)
	_, err = board.NextGeneration(t.Context())
	require.ErrorIs(t, err, generation.ErrOverflow)
	last, err = board.LastGeneration(t.Context())
	require.NoError(t, err)
	require.Equal(t, generation.Max-1, last)
}

// beaten is a store before each of whose first posts somebody else posts.
type beaten struct {
	driver.Store
	times int
	by    func()
}

func (b *beaten) Post(ctx context.Context, n driver.Note) (int64, error) {
	if b.times > 0 {
		b.times--
		b.by()
	}
	return b.Store.Post(ctx, n)
}

// Both write the same text: the number is known by its mark, or it would be taken
// for the one's own.
func TestANumberThatSomebodyElseWasGivenIsNotTakenForOnesOwn(t *testing.T) {
	t.Parallel()
	store := memory.New()
	given := map[generation.Generation]bool{}
	next := func(board *catalog.Board) {
		g, err := board.NextGeneration(t.Context())
		require.NoError(t, err)
		require.False(t, given[g], "generation %v was given out twice", g)
		given[g] = true
	}
	other := catalog.NewBoard(store.Open(), catalog.Config{})
	next(catalog.NewBoard(&beaten{Store: store.Open(), times: 4, by: func() { next(other) }}, catalog.Config{}))
	require.Len(t, given, 5)
}
