package catalog_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

func claimsOnce(t *testing.T, store *memory.Store, cfg catalog.Config) fence.Token {
	t.Helper()
	c, err := catalog.Open(t.Context(), store.Open(), cfg)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	return c.Token()
}

func TestARaiseIsRefusedIfSomebodyClaimsBetweenItsLookAndItsClaim(t *testing.T) {
	t.Parallel()
	for above, want := range map[string]error{"": catalog.ErrRefused, "g1.e2": catalog.ErrNotBelow} {
		store := memory.New()
		claimsOnce(t, store, process(1, "first"))
		opts := catalog.RaiseOptions{Reason: "r"}
		if above != "" {
			var err error
			opts.Above, err = fence.Parse(above)
			require.NoError(t, err)
		}
		var between sync.Once
		s := onClaim{store.Open(), func() { between.Do(func() { claimsOnce(t, store, process(1, "second")) }) }}
		_, err := catalog.Raise(t.Context(), s, process(0, "operator"), opts)
		require.ErrorIs(t, err, want)
		head, err := store.Head(t.Context())
		require.NoError(t, err)
		require.Equal(t, "g1.e2", head.Claim.Token.String(), "the second one was fenced though nobody asked for that")
	}
}

func TestACatalogThatWasMovedBearsTheTokenThatIsNamedAndNoHigherOne(t *testing.T) {
	t.Parallel()
	store := memory.New()
	first := claimsOnce(t, store, process(1, "first"))
	second := claimsOnce(t, store, process(1, "second"))
	refuses := func() driver.Store {
		times := new(atomic.Int64)
		times.Store(1000)
		return elsewhere{store.Open(), exitcodes.Halt, times}
	}
	_, err := catalog.Raise(t.Context(), refuses(), catalog.Config{}, catalog.RaiseOptions{Reason: "r", Above: first})
	require.ErrorIs(t, err, catalog.ErrNotBelow)
	claim, err := catalog.Raise(t.Context(), refuses(), catalog.Config{}, catalog.RaiseOptions{Reason: "r", Above: second})
	require.NoError(t, err)
	require.Equal(t, "g1.e3", claim.Token.String())
}

func TestABuildThatIsNotNamedIsRefusedByNoneAndRefusesNone(t *testing.T) {
	t.Parallel()
	store := memory.New()
	for _, build := range []string{"", "b1", "", "b2"} {
		cfg := process(1, "holder")
		cfg.Holder.Build = build
		claimsOnce(t, store, cfg)
	}
}

// keptClaims counts the claims under way that were let go.
type keptClaims struct {
	driver.Store
	abandoned atomic.Int64
}

func (s *keptClaims) Claim(ctx context.Context) (driver.Claiming, error) {
	c, err := s.Store.Claim(ctx)
	if err != nil {
		return nil, err
	}
	return keptClaim{c, s}, nil
}

type keptClaim struct {
	driver.Claiming
	of *keptClaims
}

func (c keptClaim) Abandon() {
	c.of.abandoned.Add(1)
	c.Claiming.Abandon()
}

func TestAClaimOverAStoreThatHasLostWhatItSawIsLetGoAtOnce(t *testing.T) {
	t.Parallel()
	store, rollBack := rolledBack(t)
	s := &keptClaims{Store: store.Open()}
	process := catalog.Witnessed(s)
	_, err := process.Head(t.Context())
	require.NoError(t, err)
	rollBack()
	_, err = process.Claim(t.Context())
	requireLost(t, err)
	require.EqualValues(t, 1, s.abandoned.Load(), "it keeps everybody out")
}

func TestAClaimThatAProcessMadeIsSeenByIt(t *testing.T) {
	t.Parallel()
	store, rollBack := rolledBack(t)
	rollBack()
	process := catalog.Witnessed(store.Open())
	claiming, err := process.Claim(t.Context())
	require.NoError(t, err)
	head := claiming.Head()
	claim := head.Claim
	claim.Token.Epoch++
	claim.ID, claim.Revision, claim.PriorClaim, claim.PriorCommit = driver.NewID(), head.Revision+1, head.Claim.ID, head.Commit
	require.NoError(t, claiming.Install(t.Context(), claim, driver.Record{Revision: claim.Revision, ID: claim.ID, Token: claim.Token}))
	store.Rollback(head.Revision)
	_, err = process.Head(t.Context())
	requireLost(t, err)
}

func TestAFloorThatLeavesNoRoomAboveItIsRefused(t *testing.T) {
	t.Parallel()
	store := memory.New()
	c, err := catalog.Open(t.Context(), store, process(1, "blue"))
	require.NoError(t, err)
	for above, want := range map[fence.Token]error{
		{Generation: generation.Max, Epoch: 1}: generation.ErrNoRoom, {Generation: generation.Max - 1, Epoch: 1}: generation.ErrNoRoom,
		{Generation: 1, Epoch: epoch.Max - 1}: epoch.ErrNoRoom, {Generation: 1, Epoch: epoch.Max - epoch.Room + 1}: epoch.ErrNoRoom,
		{Generation: 1, Epoch: epoch.Max}: epoch.ErrOverflow,
	} {
		_, err := catalog.Raise(t.Context(), store, process(0, "operator"), catalog.RaiseOptions{Reason: "r", Above: above})
		require.ErrorIs(t, err, want, above)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	}
	require.NoError(t, c.Confirm(t.Context()))
	require.NoError(t, c.Close())
}

func TestATokenThatAToolHasRaisedIsSaidToHaveNoHolder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		board := catalog.NewBoard(store, catalog.Config{})
		c, err := catalog.Open(t.Context(), store, process(1, "blue"))
		require.NoError(t, err)
		said := func(claim driver.ID) bool {
			yes, err := catalog.HasNoHolder(t.Context(), board, claim)
			require.NoError(t, err)
			return yes
		}
		require.False(t, said(c.Claim().ID))
		for range 20 { // the newest 16 are remembered
			claim, err := catalog.Raise(t.Context(), store, process(0, "operator"), catalog.RaiseOptions{Reason: "r"})
			require.NoError(t, err)
			require.True(t, said(claim.ID))
		}
		<-c.Done() // at its next look at the latest
		require.Error(t, c.Close())

		// The board can't be written before the claim, such as while another one is
		// under way: it is written behind it.
		handle := store.Open()
		installed := false
		handle.Inject(func(c memory.Call) memory.Fault {
			installed = installed || c.Method == "Install"
			if c.Method == "Post" && !installed {
				return memory.Refuse
			}
			return memory.Pass
		})
		claim, err := catalog.Raise(t.Context(), handle, process(0, "operator"), catalog.RaiseOptions{Reason: "r"})
		require.NoError(t, err)
		require.True(t, said(claim.ID))

		// Nor behind it: the token is raised nevertheless.
		handle.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Post" {
				return memory.Refuse
			}
			return memory.Pass
		})
		claim, err = catalog.Raise(t.Context(), handle, process(0, "operator"), catalog.RaiseOptions{Reason: "r"})
		require.NoError(t, err)
		require.False(t, said(claim.ID))
	})
}
