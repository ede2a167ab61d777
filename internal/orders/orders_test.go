package orders_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/orders"
)

// distinct requires that no order comes twice.
func distinct[T any](t *testing.T, all [][]T) {
	t.Helper()
	seen := map[string]bool{}
	for _, order := range all {
		seen[fmt.Sprint(order)] = true
	}
	require.Len(t, seen, len(all))
}

func TestEveryOrderComesOnce(t *testing.T) {
	t.Parallel()
	things := []int{1, 2, 3, 4}
	all := orders.Permutations(things)
	require.Len(t, all, 24)
	distinct(t, all)
	for _, order := range all {
		require.ElementsMatch(t, things, order)
	}
	require.Equal(t, []int{1, 2, 3, 4}, things, "what was given is as it was")
	require.Equal(t, [][]int{nil}, orders.Permutations[int](nil))
}

func TestEveryMergeComesOnceAndKeepsTheOrderOfEachSide(t *testing.T) {
	t.Parallel()
	a, b := []int{1, 2, 3, 4, 5}, []int{-1, -2, -3}
	all := orders.Merges(a, b)
	require.Len(t, all, 56)
	distinct(t, all)
	for _, m := range all {
		require.Equal(t, a, slices.DeleteFunc(slices.Clone(m), func(n int) bool { return n < 0 }))
		require.Equal(t, b, slices.DeleteFunc(slices.Clone(m), func(n int) bool { return n > 0 }))
	}
	require.Equal(t, [][]int{{1}}, orders.Merges([]int{1}, nil))
}
