package fence_test

import (
	"context"
	"fmt"
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

// TestQuestionsThatNobodyWaitsForAnyMoreAreBounded has strangers name a resource each
// and hang up at once, while the catalog does not answer.
func TestQuestionsThatNobodyWaitsForAnyMoreAreBounded(t *testing.T) {
	t.Parallel()
	g, err := fence.NewGate(fence.GateConfig{ReadTimeout: time.Hour, Newest: func(ctx context.Context, _ string) (fence.Token, fence.Holder, error) {
		<-ctx.Done()
		return fence.Token{}, fence.Holder{}, context.Cause(ctx)
	}})
	require.NoError(t, err)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for n := range 4096 {
		_, err = g.Admit(gone, fmt.Sprint(n), token(7, 41))
		require.ErrorIs(t, err, fence.ErrUnverified)
		require.NotContains(t, err.Error(), "too many")
	}
	_, err = g.Admit(gone, "one more", token(7, 41))
	require.ErrorContains(t, err, "too many requests wait for the catalog already")
	require.NoError(t, g.Close())
}
