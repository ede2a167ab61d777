package leader_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

func TestAPromotionOverALossIsNotReadyAndTheHolderNeverStopsItsWork(t *testing.T) {
	t.Parallel()
	store := memory.New()
	var blue, green gated
	one := run(t, store.Open(), called(1), blue.work)
	one.reached(t, leader.Leading)
	two := run(t, store.Open(), called(2), green.work)
	two.reached(t, leader.ReadyToPromote)

	lose(t, store)
	_, err := leader.Promote(t.Context(), store, catalog.Config{}, 2, leader.PromoteOptions{By: "test"})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		s := two.Status()
		return s.Phase == leader.CatchingUp && strings.Contains(s.Reason, "fencepost restored")
	}, time.Minute, time.Millisecond)
	require.NotNil(t, blue.catalog(), "the holder's work was stopped")
	admitted, err := blue.increment()
	require.True(t, admitted)
	require.NoError(t, err)
	require.Equal(t, leader.Leading, one.Status().Phase)
	two.stop(nil)
	<-two.ended
	one.stop(nil)
	<-one.ended
}

// lose records that commits were lost.
func lose(t *testing.T, store *memory.Store) catalog.Loss {
	t.Helper()
	head, err := store.Head(t.Context())
	require.NoError(t, err)
	record, err := store.Losses(t.Context())
	require.NoError(t, err)
	loss := catalog.Loss{ID: driver.NewID(), From: 1, To: 2, Token: head.Claim.Token, Head: head.Claim.ID, Left: head.Claim.Token, By: "a follower", At: time.Now().UTC()}
	record.Text, err = json.Marshal(map[string]any{"losses": []catalog.Loss{loss}})
	require.NoError(t, err)
	_, err = store.PutLosses(t.Context(), record, &head)
	require.NoError(t, err)
	return loss
}

func TestAStandbyThatStartsOverALossIsNotReadyUntilThatHasEnded(t *testing.T) {
	t.Parallel()
	store := memory.New()
	one := start(t, store.Open(), called(1))
	one.reached(t, leader.Leading)
	loss := lose(t, store)
	for _, g := range []generation.Generation{1, 2} {
		two := start(t, store.Open(), called(g))
		require.Eventually(t, func() bool { return strings.Contains(two.Status().Reason, "fencepost restored") }, time.Minute, time.Millisecond)
		require.Equal(t, leader.CatchingUp, two.Status().Phase)
		require.Equal(t, leader.Leading, one.Status().Phase)
		if g == 2 {
			require.NoError(t, catalog.DismissLoss(t.Context(), store, catalog.Config{}, loss, "an operator"))
			two.reached(t, leader.ReadyToPromote)
		}
		two.stop(nil)
		<-two.ended
	}
	one.stop(nil)
	<-one.ended
}
