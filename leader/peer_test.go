package leader

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader/internal/peer"
)

// working runs l until the test ends, and returns a channel that receives once
// for each call of its work.
func working(t *testing.T, l *Leader) <-chan struct{} {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended, works := make(chan error, 1), make(chan struct{}, 9)
	go func() {
		ended <- l.Run(ctx, func(ctx context.Context, _ *Term) error {
			works <- struct{}{}
			<-ctx.Done()
			return context.Cause(ctx)
		})
	}()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	<-works
	return works
}

func TestAHandoverThatTheStoreSaysNothingOfIsRefusedWhoeverAsks(t *testing.T) {
	t.Parallel()
	store := memory.New()
	l, err := New(store, Config{Catalog: catalog.Config{Generation: 2}, Admin: "127.0.0.1:0"})
	require.NoError(t, err)
	works := working(t, l)
	ask := peer.Ask{Claim: l.holding().Claim().ID, Address: l.Status().Admin, Acknowledge: time.Minute}
	for _, g := range []generation.Generation{1, 2, 3} {
		ask.Generation = g
		_, err = peer.AskHandover(t.Context(), ask)
		require.ErrorIs(t, err, peer.ErrNotPromoted)
		require.ErrorContains(t, err, "is not promoted over 2", "%v", g)
	}
	require.Equal(t, Leading, l.Status().Phase)

	_, err = Promote(t.Context(), store, catalog.Config{}, 3, PromoteOptions{By: "test", Force: true})
	require.NoError(t, err)
	h, err := peer.AskHandover(t.Context(), ask)
	require.NoError(t, err)
	at, err := h.Paused(t.Context())
	require.NoError(t, err)
	require.Equal(t, l.holding().Head().Revision, at.Revision)
	require.Equal(t, HandingOver, l.Status().Phase)
	_, err = peer.AskHandover(t.Context(), ask)
	require.ErrorIs(t, err, peer.ErrBusy, "a second successor")
	h.Close() // and the holder goes on
	<-works
	require.Equal(t, Leading, l.Status().Phase)
}
