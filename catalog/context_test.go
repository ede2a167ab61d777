package catalog_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
)

func TestTheContextOfAHandleEndsBeforeAnyOfItsCallsSaysWhy(t *testing.T) {
	calls := map[string]func(*catalog.Catalog) error{
		"Update": func(c *catalog.Catalog) error {
			return c.Update(context.Background(), func(tx *catalog.Tx) error { return catalog.Bytes("c").Set(tx, "k", nil) })
		},
		"Confirm": func(c *catalog.Catalog) error { return c.Confirm(context.Background()) },
	}
	for name, call := range calls {
		for range 100 {
			store := memory.New()
			c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1})
			require.NoError(t, err)
			ctx, cancel := c.Context(t.Context())
			inner, stop := context.WithCancel(ctx)
			require.NoError(t, inner.Err())
			next, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 2})
			require.NoError(t, err)
			err = call(c)
			require.ErrorIs(t, err, fence.ErrSuperseded, name)
			require.Error(t, inner.Err(), name)
			require.ErrorIs(t, context.Cause(inner), fence.ErrSuperseded, name)
			late, cancelLate := c.Context(t.Context())
			require.ErrorIs(t, context.Cause(late), fence.ErrSuperseded, "one that is asked for later")
			cancelLate(nil)
			stop()
			cancel(nil)
			require.ErrorIs(t, c.Close(), fence.ErrSuperseded)
			require.NoError(t, next.Close())
		}
	}
}

func TestTheContextOfAHandleEndsWithItsParentAndWithTheHandle(t *testing.T) {
	c, err := catalog.Open(t.Context(), memory.New(), catalog.Config{Generation: 1})
	require.NoError(t, err)
	parent, stop := context.WithCancel(t.Context())
	ctx, cancel := c.Context(parent)
	defer cancel(nil)
	stop()
	require.ErrorIs(t, context.Cause(ctx), context.Canceled)
	other, cancelOther := c.Context(t.Context())
	defer cancelOther(nil)
	require.NoError(t, other.Err())
	require.NoError(t, c.Close())
	require.ErrorIs(t, context.Cause(other), catalog.ErrClosed)
}
