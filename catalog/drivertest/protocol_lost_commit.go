package drivertest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

func lostCommitCases() []protocolCase {
	return []protocolCase{
		{"a head with a lower token than one seen before is a lost commit", lowerToken},
		{"the same token with a foreign claim is a lost commit", foreignClaim},
		{"my own claim rolled back behind an acknowledged commit is a lost commit", rolledBack},
		{"a claim that was built on less than was acknowledged is alarmed, and the fence decides", builtOnLess},
		{"a server that lags behind, and says so, is none of these", laggingServer},
	}
}

// forges makes a store whose Head can be forged from a true one.
func (s *scene) forges() (*hooked, *atomic.Pointer[func(driver.Head) driver.Head]) {
	st := s.store()
	var forge atomic.Pointer[func(driver.Head) driver.Head]
	h := &hooked{Store: st, onHead: func(ctx context.Context) (driver.Head, error) {
		f := forge.Load() // a look that is under way already knows less
		head, err := st.Head(ctx)
		if f != nil && err == nil {
			head = (*f)(head)
		}
		return head, err
	}}
	return h, &forge
}

// isLostCommit asserts on an error of Confirm or Update.
func (s *scene) isLostCommit(c *catalog.Catalog, err error) {
	s.Helper()
	require.ErrorIs(s, err, catalog.ErrLostCommit)
	require.NotErrorIs(s, err, fence.ErrFenced)
	require.Equal(s, exitcodes.Panic, exitcodes.Of(err))
	require.Equal(s, exitcodes.PanicExit, exitcodes.CodeOf(err))
	require.ErrorIs(s, put(Context(s), c, "late", "v"), catalog.ErrLostCommit)
}

func (s *scene) forged(f func(driver.Head) driver.Head) {
	s.Helper()
	h, forge := s.forges()
	c := s.claimsOver(h, slowly(config(2)))
	s.put(c, "k", "v")
	forge.Store(&f)
	s.isLostCommit(c, c.Confirm(Context(s)))
}

func lowerToken(s *scene) {
	s.forged(func(h driver.Head) driver.Head {
		h.Claim.Token = fence.Token{Generation: 1, Epoch: h.Claim.Token.Epoch - 1}
		return h
	})
	// A follower that has seen a token does not accept a lower one either.
	h, forge := s.forges()
	f, err := catalog.Follow(Context(s), h, config(2))
	require.NoError(s, err)
	lower := func(h driver.Head) driver.Head {
		h.Claim.Token = fence.Token{Generation: 1, Epoch: 1}
		return h
	}
	forge.Store(&lower)
	s.awaitDone(f.Done())
	require.ErrorIs(s, f.Close(), catalog.ErrLostCommit)
}

func foreignClaim(s *scene) {
	s.forged(func(h driver.Head) driver.Head {
		h.Claim.ID = driver.NewID()
		return h
	})
}

func rolledBack(s *scene) {
	s.forged(func(h driver.Head) driver.Head { return h.Claim.Head() })
	// And on a commit, where the store refuses it.
	h, forge := s.forges()
	c := s.claimsOver(h, slowly(config(2)))
	s.put(c, "k", "v")
	back := func(h driver.Head) driver.Head { return h.Claim.Head() }
	h.onAppend = func(context.Context, driver.Head, driver.Record) error {
		return &driver.Error{Store: h.String(), Op: "append", Err: driver.ErrConflict}
	}
	forge.Store(&back)
	s.isLostCommit(c, put(Context(s), c, "l", "v"))
	s.rolledBackToMine()
}

// rolledBackToMine rolls the head back to a commit of the holder's own, which was
// acknowledged, and behind which others were.
func (s *scene) rolledBackToMine() {
	h, forge := s.forges()
	c := s.claimsOver(h, slowly(config(2)))
	s.put(c, "k", "v")
	kept := c.Head()
	s.put(c, "l", "v")
	s.put(c, "m", "v")
	h.onAppend = func(context.Context, driver.Head, driver.Record) error {
		return &driver.Error{Store: h.String(), Op: "append", Err: driver.ErrConflict}
	}
	back := func(driver.Head) driver.Head { return kept }
	forge.Store(&back)
	s.isLostCommit(c, put(Context(s), c, "n", "v"))
}

func builtOnLess(s *scene) {
	for round, notice := range []func(*catalog.Catalog) error{
		func(c *catalog.Catalog) error { return put(Context(s), c, "late", "v") },
		func(c *catalog.Catalog) error { return c.Confirm(Context(s)) },
	} {
		mine := generation.Generation(2*round + 1)
		h, hidden := s.lags()
		first := s.claimsOver(h, slowly(config(mine)))
		s.put(first, "k", "v")
		hidden.Store(true) // so that the holder does not find out by itself
		// The store acknowledges a commit that the next claim does not see, as
		// an asynchronous replica that is promoted does.
		h.onAppend = func(context.Context, driver.Head, driver.Record) error { return nil }
		s.put(first, "gone", "v")
		h.onAppend = nil
		second := s.claims(mine + 1)
		hidden.Store(false)
		token := second.Token().String()
		s.supersededBy(token, notice(first))
		err := first.Close()
		s.supersededBy(token, err)
		require.ErrorIs(s, err, catalog.ErrLostCommit)
		require.Equal(s, exitcodes.GracefulExit, exitcodes.Of(err))
		require.NoError(s, second.Close())
	}
}

// lags returns a store that refuses to read the head while lagging, as a standby
// does.
func (s *scene) lags() (h *hooked, lagging *atomic.Bool) {
	st := s.store()
	lagging = new(atomic.Bool)
	return &hooked{Store: st, onHead: func(ctx context.Context) (driver.Head, error) {
		if lagging.Load() {
			standby := errors.New("this server is a standby")
			return driver.Head{}, &driver.Error{Class: driver.Class{Disposition: exitcodes.Retry}, Store: st.String(), Op: "head", Err: standby}
		}
		return st.Head(ctx)
	}}, lagging
}

func laggingServer(s *scene) {
	h, lagging := s.lags()
	cfg := slowly(config(1))
	cfg.StoreTimeout = 500 * time.Millisecond
	c := s.claimsOver(h, cfg)
	s.put(c, "k", "v")
	lagging.Store(true)
	err := c.Confirm(Context(s))
	require.Equal(s, exitcodes.Retry, exitcodes.Of(err))
	require.NoError(s, c.Err(), "the handle has ended")
	lagging.Store(false)
	require.NoError(s, c.Confirm(Context(s)))
	s.put(c, "l", "v")
}
