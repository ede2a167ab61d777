package leader_test

import (
	"context"
	"os/exec"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/internal/clock"
	"github.com/fencepost/fencepost/internal/identity"
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
		elapse(2 * time.Second) // its note on the board is as old
		began := time.Now()
		require.NoError(t, one.StepDown(t.Context(), leader.StepDownOptions{Reason: "maintenance"}))
		require.NotEqual(t, leader.HandingOver, one.Status().Phase, "it says that it stepped down, and not that it is about to")
		require.Nil(t, one.Status().Token)
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

		require.NoError(t, two.StepDown(t.Context(), leader.StepDownOptions{Reason: "and back"}))
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
		err := p.StepDown(t.Context(), leader.StepDownOptions{Reason: "maintenance", Force: true})
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

func TestAHolderWithoutAReadyStandbyRefusesToStepDownAndWorksOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		p := start(t, store.Open(), config(1))
		p.await(t, leader.Leading)
		refused := func(why string) {
			t.Helper()
			err := p.StepDown(t.Context(), leader.StepDownOptions{Reason: "maintenance"})
			require.ErrorIs(t, err, leader.ErrNobodyReady)
			require.ErrorContains(t, err, why)
		}
		refused("no other process of generation 1 runs")
		next := start(t, store.Open(), config(2))
		next.await(t, leader.ReadyToPromote)
		elapse(2 * time.Second)
		refused("no other process of generation 1 runs") // one of another generation could not
		left := start(t, store.Open(), config(1))
		left.await(t, leader.ReadyToPromote)
		elapse(2 * time.Second)
		require.NoError(t, left.end(t))
		refused("no other process of generation 1 runs")
		require.EqualValues(t, 1, p.works.Load())
		require.NotContains(t, phases(p), leader.HandingOver, "its work was paused")

		stepped := make(chan error, 1)
		go func() { stepped <- p.StepDown(t.Context(), leader.StepDownOptions{Reason: "maintenance"}) }()
		standby := start(t, store.Open(), config(1)) // its note comes while the holder looks
		require.NoError(t, <-stepped)
		standby.await(t, leader.Leading)
		require.NoError(t, standby.end(t))
		require.NoError(t, next.end(t))
		require.NoError(t, p.end(t))
	})
}

// gone returns the identity of a process that has ended.
func gone(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("sleep", "3600")
	require.NoError(t, cmd.Start())
	p, err := identity.Child(cmd.Process.Pid)
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	return p.String()
}

func TestAHolderThatCannotReadTheBoardRefusesToStepDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		p := start(t, store, config(1))
		p.await(t, leader.Leading)
		store.Inject(refuse)
		require.ErrorIs(t, p.StepDown(t.Context(), leader.StepDownOptions{}), leader.ErrNobodyReady)
		store.Inject(nil)
		require.EqualValues(t, 1, p.works.Load())
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
		go func() { failed <- p.StepDown(first, leader.StepDownOptions{Reason: "one", Force: true}) }()
		p.await(t, leader.HandingOver)
		go func() { failed <- p.StepDown(t.Context(), leader.StepDownOptions{Reason: "two", Force: true}) }()
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
		began := time.Now()
		require.ErrorContains(t, two.StepDown(t.Context(), leader.StepDownOptions{}), "does not lead")
		require.Zero(t, time.Since(began))
		require.NoError(t, two.end(t))
		require.NoError(t, one.end(t))
	})
}

// A standby that was killed leaves its note, which stands for three leases.
func TestAHolderDoesNotStepDownForStandbysThatAreGone(t *testing.T) {
	t.Parallel()
	store := memory.New()
	cfg := called(1)
	cfg.HandoverTimeout = time.Minute
	holder := start(t, store.Open(), cfg)
	holder.reached(t, leader.Leading)
	for id, admin := range map[string]string{"one": "127.0.0.1:1", "two": ""} {
		_, err := catalog.UpdateNote(t.Context(), catalog.NewBoard(store, catalog.Config{}), "member/"+id, func(m *leader.Member) error {
			*m = leader.Member{Name: id, Generation: 1, Phase: "ReadyToPromote", Ready: true, At: time.Now(), Lease: 7.5, Admin: admin, Host: clock.Host()}
			return nil
		})
		require.NoError(t, err)
	}
	err := holder.StepDown(t.Context(), leader.StepDownOptions{})
	require.ErrorIs(t, err, leader.ErrNobodyReady)
	require.ErrorContains(t, err, "one does not answer")
	require.ErrorContains(t, err, "two is not connected")
	require.NotContains(t, phases(holder), leader.HandingOver, "its work was paused")

	cfg = config(1) // without an admin API
	cfg.Poll = 5 * time.Millisecond
	standby := start(t, store.Open(), cfg)
	require.Eventually(t, func() bool { return holder.Status().Standbys == 1 }, time.Minute, time.Millisecond)
	require.NoError(t, holder.StepDown(t.Context(), leader.StepDownOptions{}))
	standby.reached(t, leader.Leading)
	require.NoError(t, standby.end(t))
	require.NoError(t, holder.end(t))
}

func TestARefusedStepDownDoesNotSayThatNobodyRunsWhileOthersAreConnected(t *testing.T) {
	t.Parallel()
	store := memory.New()
	holder := start(t, store.Open(), called(1))
	holder.reached(t, leader.Leading)
	next := start(t, store.Open(), called(2))
	require.Eventually(t, func() bool { return holder.Status().Standbys == 1 }, time.Minute, time.Millisecond)
	err := holder.StepDown(t.Context(), leader.StepDownOptions{})
	require.ErrorIs(t, err, leader.ErrNobodyReady)
	require.ErrorContains(t, err, "those that are connected are of other generations")
	require.NoError(t, next.end(t))
	require.NoError(t, holder.end(t))
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
		go func() { stepped <- p.StepDown(t.Context(), leader.StepDownOptions{Force: true}) }()
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
		go func() { stepped <- p.StepDown(t.Context(), leader.StepDownOptions{Force: true}) }()
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
		elapse(2 * time.Second)
		require.ErrorContains(t, holder.StepDown(t.Context(), leader.StepDownOptions{}), "goes on leading")
		elapse(time.Minute)
		require.Contains(t, phases(standby), leader.Promoting, "it was not about to claim")
		require.Equal(t, leader.Leading, holder.Status().Phase)
		require.Len(t, claims(t, store), 1)
		require.NoError(t, standby.end(t))
		require.NoError(t, holder.end(t))
	})
}
