package leader_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

func TestAGenerationThatFoundNoClaimDoesNotFollowUponAnothersFirstClaim(t *testing.T) {
	t.Parallel()
	for _, late := range []generation.Generation{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			store := memory.New()
			slow := config(1)
			slow.Catalog.Migrations = []catalog.Migration{{Version: 1, Up: func(*catalog.Tx) error {
				elapse(time.Second) // the first claim is under way
				return nil
			}}}
			first := start(t, store.Open(), slow)
			elapse(300 * time.Millisecond)
			cfg := slow
			cfg.Catalog.Generation = late
			cfg.CaughtUp = func(context.Context, *catalog.Follower) error { return errors.New("never caught up") }
			second := start(t, store.Open(), cfg)
			elapse(time.Minute)
			require.Equal(t, leader.Leading, first.Status().Phase, "%s", first.Status().Reason)
			require.NotEqual(t, leader.Leading, second.Status().Phase)
			require.Len(t, claims(t, store), 1)
			require.NoError(t, second.end(t))
			require.NoError(t, first.end(t))
		})
	}
}
