package leader_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/leader"
)

func TestAStandbyTakesOverFromAHolderThatStepsDownAndThatIsAStandbyThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		one := start(t, store.Open(), config(1))
		one.await(t, leader.Leading)
		two := start(t, store.Open(), config(1))
		two.await(t, leader.ReadyToPromote)
		began := time.Now()
		require.NoError(t, one.StepDown(t.Context(), "maintenance"))
		require.Less(t, time.Since(began), time.Second)
		two.await(t, leader.Leading)
		one.await(t, leader.ReadyToPromote)
		require.False(t, one.Status().Reluctant, "another process has led")
		require.ErrorIs(t, *one.cause.Load(), leader.ErrHandingOver)
		history := claims(t, store)
		require.Len(t, history, 2)
		require.Contains(t, history[1].Reason, "offers it")
		elapse(10 * time.Minute)
		require.Len(t, claims(t, store), 2)

		require.NoError(t, two.StepDown(t.Context(), "and back"))
		one.await(t, leader.Leading)
		require.EqualValues(t, 2, one.works.Load())
		require.NoError(t, one.end(t))
		require.NoError(t, two.end(t))
	})
}

func TestAHolderThatStepsDownWhereNobodyIsThereGoesOnLeading(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		p := start(t, store.Open(), config(1))
		p.await(t, leader.Leading)
		token := *p.Status().Token
		err := p.StepDown(t.Context(), "maintenance")
		require.ErrorContains(t, err, "no other process claimed within 5s")
		p.await(t, leader.Leading)
		require.Equal(t, &token, p.Status().Token)
		require.False(t, p.Status().Reluctant)
		synctest.Wait()
		require.NoError(t, p.holds.Load().Update(t.Context(), set("a", 1)))
		late := start(t, store.Open(), config(1))
		elapse(10 * time.Minute)
		require.Equal(t, leader.ReadyToPromote, late.Status().Phase, "the offer still stands")
		require.NoError(t, late.end(t))
		require.NoError(t, p.end(t))
	})
}

func TestStepDownsThatFailSideBySideLeaveThePreferenceAsItWas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		p := start(t, store.Open(), config(1))
		p.await(t, leader.Leading)
		failed := make(chan error, 2)
		first, giveUp := context.WithCancel(t.Context())
		go func() { failed <- p.StepDown(first, "one") }()
		p.await(t, leader.HandingOver)
		go func() { failed <- p.StepDown(t.Context(), "two") }()
		synctest.Wait()
		require.True(t, p.Status().Reluctant, "it is about to leave")
		giveUp()
		require.Error(t, <-failed)
		p.await(t, leader.HandingOver)
		p.PreferNotToLead(true)
		p.PreferNotToLead(false) // what a person says meanwhile stands
		require.Error(t, <-failed)
		require.False(t, p.Status().Reluctant)
		require.NoError(t, p.end(t))
	})
}

func TestOnlyAHolderStepsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		one := start(t, store.Open(), config(1))
		one.await(t, leader.Leading)
		two := start(t, store.Open(), config(1))
		two.await(t, leader.ReadyToPromote)
		require.ErrorContains(t, two.StepDown(t.Context(), ""), "does not lead")
		require.NoError(t, two.end(t))
		require.NoError(t, one.end(t))
	})
}

func TestAnOutageDuringAHandoverEndsIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		cfg := config(1)
		cfg.HandoverTimeout = time.Hour
		p := start(t, store, cfg)
		p.await(t, leader.Leading)
		stepped := make(chan error, 1)
		go func() { stepped <- p.StepDown(t.Context(), "") }()
		p.await(t, leader.HandingOver)
		store.Inject(refuse)
		p.await(t, leader.Unconfirmed)
		require.Error(t, <-stepped)
		store.Inject(nil)
		p.await(t, leader.Leading)
		require.Len(t, claims(t, store), 1)
		require.NoError(t, p.end(t))
	})
}

func TestAHolderThatOfferedItsTokenWorksOnlyOnceTheStoreHasConfirmedIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		p := start(t, store, config(1))
		p.await(t, leader.Leading)
		stepped := make(chan error, 1)
		go func() { stepped <- p.StepDown(t.Context(), "") }()
		p.await(t, leader.HandingOver)
		elapse(4 * time.Second)
		store.Inject(refuse)                           // for less than its lease
		require.ErrorContains(t, <-stepped, "goes on") // once the store lets it
		require.False(t, p.Held())
		p.await(t, leader.Unconfirmed)
		require.EqualValues(t, 1, p.works.Load(), "the work went on under a token that was offered")
		require.True(t, offers(t, store.Open()))
		store.Inject(nil)
		p.await(t, leader.Leading)
		require.False(t, offers(t, store.Open()), "the work goes on, and the offer stands")
		require.NoError(t, p.end(t))
	})
}

// offers reports whether a claim by an offer of the holder could land.
func offers(t *testing.T, store driver.Store) bool {
	t.Helper()
	type offer struct {
		Open bool `json:"open"`
	}
	note, err := catalog.ReadNote[offer](t.Context(), catalog.NewBoard(store, catalog.Config{}), "holder/offer")
	require.NoError(t, err)
	return note.Value.Open
}

func TestAnOfferThatWasWithdrawnIsNotClaimedAnyMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		holder := start(t, store.Open(), config(1))
		holder.await(t, leader.Leading)
		handle := store.Open()
		var once sync.Once
		handle.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Claim" {
				once.Do(func() { elapse(7 * time.Second) }) // longer than the offer stands
			}
			return memory.Pass
		})
		standby := start(t, handle, config(1))
		standby.await(t, leader.ReadyToPromote)
		require.ErrorContains(t, holder.StepDown(t.Context(), ""), "goes on leading")
		elapse(time.Minute)
		require.Contains(t, phases(standby), leader.Promoting, "it was not about to claim")
		require.Equal(t, leader.Leading, holder.Status().Phase)
		require.Len(t, claims(t, store), 1)
		require.NoError(t, standby.end(t))
		require.NoError(t, holder.end(t))
	})
}
