package fence_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/fence"
)

// TestARegisterNeverFalls has an older answer of the catalog's come behind a newer one:
// whoever waited for it was not scheduled before.
func TestARegisterNeverFalls(t *testing.T) {
	t.Parallel()
	g := newGate(t, fence.GateConfig{Newest: headAt(token(8, 42)).newest})
	inside := admit(t, g, "orders", token(8, 42))
	for _, late := range []fence.Token{token(7, 41), token(8, 41), token(8, 42)} {
		require.NoError(t, fence.Raise(t.Context(), g, fence.RegisterState{Resource: "orders", Token: late, By: fence.Holder{Name: "late"}}))
		require.Equal(t, []fence.RegisterState{{Resource: "orders", Token: token(8, 42), By: someone(), Inside: 1}}, g.Registers())
		require.NoError(t, inside.Stale())
		require.Error(t, refused(t, g, "orders", token(7, 41)))
	}
	inside.Release()
}

func TestWhenTooManyWaitForTheCatalogTheNextIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, answer := headAt(token(7, 41)), make(chan struct{})
		g, err := fence.NewGate(fence.GateConfig{Newest: func(ctx context.Context, r string) (fence.Token, fence.Holder, error) {
			<-answer
			return h.newest(ctx, r)
		}})
		require.NoError(t, err)
		var wg sync.WaitGroup
		for range 4096 {
			wg.Go(func() { admit(t, g, "orders", token(7, 41)).Release() })
		}
		synctest.Wait()
		begun := time.Now()
		require.ErrorIs(t, refused(t, g, "orders", token(7, 41)), fence.ErrUnverified)
		require.Zero(t, time.Since(begun))
		close(answer)
		wg.Wait()
		admit(t, g, "orders", token(7, 41)).Release()
		require.NoError(t, g.Close())
	})
}
