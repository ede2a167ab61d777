package catalog_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
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
