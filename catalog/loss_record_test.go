package catalog_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// keepsLosses writes the record of losses, as later versions or hands may.
func keepsLosses(t *testing.T, store driver.Store, text []byte) {
	t.Helper()
	record, err := store.Losses(t.Context())
	require.NoError(t, err)
	record.Text = text
	_, err = store.PutLosses(t.Context(), record, nil)
	require.NoError(t, err)
}

func ledgerOf(t *testing.T, losses ...catalog.Loss) []byte {
	t.Helper()
	text, err := json.Marshal(map[string]any{"losses": losses})
	require.NoError(t, err)
	return text
}

func TestARecordOfLossesThatCantBeReadForbidsEveryClaim(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"losses":`, `{"losses":7}`, `[]`} {
		store := memory.New()
		c, err := catalog.Open(t.Context(), store.Open(), process(1, "first"))
		require.NoError(t, err)
		require.NoError(t, c.Close())
		keepsLosses(t, store, []byte(text))
		before, err := store.Head(t.Context())
		require.NoError(t, err)
		accepting := process(1, "second")
		accepting.AcceptLoss = true
		for what, call := range map[string]func() error{
			"Open":            func() error { _, err := catalog.Open(t.Context(), store.Open(), process(1, "second")); return err },
			"Open, accepting": func() error { _, err := catalog.Open(t.Context(), store.Open(), accepting); return err },
			"Raise": func() error {
				_, err := catalog.Raise(t.Context(), store.Open(), process(0, "operator"), catalog.RaiseOptions{Reason: "r"})
				return err
			},
			"Raise, above": func() error {
				above := catalog.RaiseOptions{Reason: "r", Above: fence.Token{Generation: 1, Epoch: 9}}
				_, err := catalog.Raise(t.Context(), store.Open(), process(0, "operator"), above)
				return err
			},
			"Losses":      func() error { _, err := catalog.Losses(t.Context(), store); return err },
			"DismissLoss": func() error { return catalog.DismissLoss(t.Context(), store, process(0, "o"), catalog.Loss{}, "o") },
		} {
			err := call()
			require.ErrorIs(t, err, driver.ErrCorrupt, what)
			require.Equal(t, exitcodes.Panic, exitcodes.Of(err), what)
		}
		after, err := store.Head(t.Context())
		require.NoError(t, err)
		require.Equal(t, before, after)
	}
}

func TestALossThatForbidsNoClaimIsEndedByARaiseAboveIt(t *testing.T) {
	t.Parallel()
	store := memory.New()
	c, err := catalog.Open(t.Context(), store.Open(), process(1, "holder"))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	keepsLosses(t, store, ledgerOf(t, catalog.Loss{ID: driver.NewID(), From: 1, To: 2, Token: c.Token(), Overtaken: true}))
	claim, err := catalog.Raise(t.Context(), store.Open(), process(0, "operator"), catalog.RaiseOptions{Reason: "r", Above: c.Token()})
	require.NoError(t, err, "it says that the catalog is not whole")
	losses, err := catalog.Losses(t.Context(), store)
	require.NoError(t, err)
	require.Len(t, losses, 1)
	require.Equal(t, catalog.LossRestored, losses[0].Ended.How)
	require.Equal(t, claim.Token, losses[0].Ended.Token)
}

// onPutLosses is a store whose records of losses go through a function.
type onPutLosses struct {
	driver.Store
	put  func(ctx context.Context, l driver.Losses) (int64, error)
	read func() // behind the first reading
}

func (s *onPutLosses) Losses(ctx context.Context) (driver.Losses, error) {
	l, err := s.Store.Losses(ctx)
	if once := s.read; once != nil {
		s.read = nil
		once()
	}
	return l, err
}

func (s *onPutLosses) PutLosses(ctx context.Context, l driver.Losses, _ *driver.Head) (int64, error) {
	return s.put(ctx, l)
}

func TestOfSeveralLossesTheOneThatIsNamedIsDismissed(t *testing.T) {
	t.Parallel()
	store := memory.New()
	losses := []catalog.Loss{{ID: driver.NewID(), From: 1, To: 2}, {ID: driver.NewID(), From: 3, To: 4, Head: driver.NewID()}}
	keepsLosses(t, store, ledgerOf(t, losses...))
	tries := 0
	s := &onPutLosses{Store: store}
	s.put = func(ctx context.Context, l driver.Losses) (int64, error) {
		if tries++; tries > 1 {
			return store.PutLosses(ctx, l, nil)
		}
		_, err := store.PutLosses(ctx, l, nil)
		require.NoError(t, err)
		return 0, &driver.Error{Class: driver.Class{Disposition: exitcodes.Retry, Outcome: driver.Unknown}, Op: "put losses", Err: context.DeadlineExceeded}
	}
	require.NoError(t, catalog.DismissLoss(t.Context(), s, process(0, "operator"), losses[1], "operator"), "an answer that was lost")
	now, err := catalog.Losses(t.Context(), store)
	require.NoError(t, err)
	require.True(t, now[0].Stands())
	require.False(t, now[1].Open())
}

func TestALossToWhichMoreIsAddedWhileItIsDismissedStands(t *testing.T) {
	t.Parallel()
	store := memory.New()
	loss := catalog.Loss{ID: driver.NewID(), From: 3, To: 4}
	keepsLosses(t, store, ledgerOf(t, loss))
	more := loss
	more.To = 9
	put := func(ctx context.Context, l driver.Losses) (int64, error) { return store.PutLosses(ctx, l, nil) }
	s := &onPutLosses{Store: store, put: put, read: func() { keepsLosses(t, store, ledgerOf(t, more)) }}
	require.ErrorIs(t, catalog.DismissLoss(t.Context(), s, process(0, "operator"), loss, "operator"), catalog.ErrRefused)
	now, err := catalog.Losses(t.Context(), store)
	require.NoError(t, err)
	require.Equal(t, []catalog.Loss{more}, now)
}

func TestAFollowerSaysThatALossForbidsItsClaim(t *testing.T) {
	t.Parallel()
	store := memory.New()
	cfg := process(1, "follower")
	f, err := catalog.Follow(t.Context(), store.Open(), cfg)
	require.NoError(t, err)
	require.NoError(t, f.CheckClaim(t.Context()))
	keepsLosses(t, store, ledgerOf(t, catalog.Loss{ID: driver.NewID(), From: 3, To: 4}))
	require.ErrorIs(t, f.CheckClaim(t.Context()), catalog.ErrLossStands)
	require.NoError(t, f.Close())
	cfg.AcceptLoss = true
	f, err = catalog.Follow(t.Context(), store.Open(), cfg)
	require.NoError(t, err)
	require.NoError(t, f.CheckClaim(t.Context()))
	require.NoError(t, f.Close())
}
