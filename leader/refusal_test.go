package leader_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader"
)

// TestWorkThatAGuardRefusedEndsAsTheHeadSays has the store wake nobody: only the
// refusal can tell the process of the claim.
func TestWorkThatAGuardRefusedEndsAsTheHeadSays(t *testing.T) {
	t.Parallel()
	for name, claimed := range map[string]bool{"a newer generation has claimed": true, "nobody has claimed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := memory.New()
			cfg := called(1)
			cfg.Poll, cfg.Lease = time.Minute, 10*time.Minute
			l, err := leader.New(struct{ driver.Store }{store.Open()}, cfg)
			require.NoError(t, err)
			err = l.Run(t.Context(), func(ctx context.Context, c *catalog.Catalog) error {
				held := c.Claim().Token
				if claimed {
					green, err := catalog.Open(ctx, store.Open(), catalog.Config{Generation: 2})
					require.NoError(t, err)
					require.NoError(t, green.Close())
				}
				return &fence.Error{Held: held, Current: fence.Token{Generation: 2, Epoch: 2}, Guard: "postgres catalog main"}
			})
			noted, noteErr := catalog.Refusals(t.Context(), catalog.NewBoard(store, catalog.Config{}))
			require.NoError(t, noteErr)
			require.Len(t, noted, 1)
			require.Equal(t, "postgres catalog main", noted[0].Guard)
			if claimed {
				require.ErrorIs(t, err, fence.ErrSuperseded)
				require.Equal(t, exitcodes.Success, exitcodes.CodeOf(err))
				return
			}
			require.ErrorContains(t, err, "refused by postgres catalog main")
			require.Equal(t, exitcodes.Halt, exitcodes.Of(err))
		})
	}
}
