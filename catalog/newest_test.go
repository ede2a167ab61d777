package catalog_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
)

func TestTheNewestTokenIsTheHeads(t *testing.T) {
	t.Parallel()
	store := memory.New()
	newest := catalog.NewestToken(store, catalog.Config{})
	got, _, err := newest(t.Context(), "orders")
	require.NoError(t, err)
	require.True(t, got.IsZero(), "nobody has claimed yet")
	for g := range 3 {
		c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 7, Holder: fence.Holder{Name: "db-2"}})
		require.NoError(t, err, g)
		got, by, err := newest(t.Context(), "orders")
		require.NoError(t, err)
		require.Equal(t, c.Token(), got)
		require.Equal(t, "db-2", by.Name)
		require.NoError(t, c.Close())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = newest(ended, "orders")
	require.ErrorIs(t, err, context.Canceled)
}
