package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

func refusedBy(guard string, held, current fence.Token) error {
	return fmt.Errorf("commit: %w", &fence.Error{Held: held, Current: current, Guard: guard})
}

func TestTheHeadAloneSaysWhetherARefusedProcessIsSuperseded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		c, g := gatedHolder(t, store, patient())
		defer func() { _ = c.Close() }()
		held := c.Claim().Token
		higher := fence.Token{Generation: held.Generation + 1, Epoch: held.Epoch + 1}

		asked := g.asked.Load()
		plain := fmt.Errorf("a table is missing")
		require.Equal(t, plain, c.Explain(t.Context(), plain))
		require.NoError(t, c.Explain(t.Context(), nil))
		require.Equal(t, asked, g.asked.Load(), "no guard has refused anything")

		forged := refusedBy("http orders", held, higher)
		err := c.Explain(t.Context(), forged)
		require.Equal(t, forged, err)
		require.Equal(t, exitcodes.Halt, exitcodes.Of(err), "the handle holds the token")
		require.NoError(t, c.Err())
		require.Greater(t, g.asked.Load(), asked)

		open := closed(&g.before)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.Equal(t, exitcodes.Halt, exitcodes.Of(c.Explain(ended, forged)), "the head could not be read in time")
		open()

		green, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: higher.Generation})
		require.NoError(t, err)
		for _, hint := range []error{refusedBy("postgres catalog main", held, higher), &fence.TokenError{Err: fence.ErrNeverIssued}} {
			err = c.Explain(t.Context(), hint)
			require.ErrorIs(t, err, fence.ErrSuperseded)
			require.Equal(t, exitcodes.Success, exitcodes.CodeOf(err))
			require.ErrorContains(t, err, hint.Error())
		}
		worse := errors.Join(refusedBy("http main", held, higher), exitcodes.With(errors.New("a broken invariant"), exitcodes.Panic))
		require.ErrorIs(t, c.Explain(t.Context(), worse), worse, "nothing of it is lost")
		require.NoError(t, green.Close())
		stale := refusedBy("postgres catalog main", higher, held)
		require.Equal(t, stale, green.Explain(t.Context(), stale), "a handle that was closed knows nothing more")
		synctest.Wait()
	})
}
