package drivertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

func raiseCases() []protocolCase {
	return []protocolCase{
		{"a raise fences the holder by epoch and changes nothing but the token", raiseFences},
		{"a raise keeps the generation's build, so that another build is still refused", raiseKeepsBuild},
		{"a raise needs a token to raise, a reason and an epoch that is left", raiseRefused},
		{"the answer to a raise is lost: the token is raised once", raiseAnswerLost},
		{"the request of a raise is lost: the token is raised once", raiseRequestLost},
		{"the answer to a raise is lost, and somebody claims over it: the token is raised once", raiseAnswerLostAndFollowed},
		{"a raise without a floor is refused where somebody else claimed meanwhile", raiseOvertaken},
		{"a floor lifts the token of a restored catalog above every one ever issued, and no former holder hears success", raiseAfterRestore},
		{"a floor that the head's token has reached is refused, and nothing changes", raiseLowFloor},
		{"the answer to a raise with a floor is lost: the token is raised once, and a second raise is told so", raiseFloorAnswerLost},
	}
}

// operator is the configuration of a tool, which belongs to no generation.
func operator() catalog.Config {
	cfg := config(generation.None)
	cfg.Holder = fence.Holder{Name: "operator"}
	return cfg
}

// raises raises the token over st.
func (s *scene) raises(st driver.Store, above string) (driver.Claim, error) {
	s.Helper()
	opts := catalog.RaiseOptions{Reason: "on purpose"}
	if above != "" {
		opts.Above = s.token(above)
	}
	return catalog.Raise(Context(s), st, operator(), opts)
}

func raiseFences(s *scene) {
	first := s.claimsOver(deaf(s.store()), slowly(migrating(3, 2)))
	s.put(first, "k", "v")
	claim, err := s.raises(s.store(), "")
	require.NoError(s, err)
	require.Equal(s, "g3.e2", claim.Token.String())
	require.Equal(s, "operator", claim.Holder.Name)
	require.Equal(s, "on purpose", claim.Reason)
	require.EqualValues(s, 2, claim.DataVersion)
	require.EqualValues(s, 2, claim.ReadableBy)
	require.Equal(s, first.Claim().ID, claim.PriorClaim)
	SameHead(s, claim.Head(), ReadHead(s, s.store()))

	err = put(Context(s), first, "stale", "v")
	s.fencedBy("g3.e2", err)
	require.Equal(s, exitcodes.Restart, exitcodes.CodeOf(err))
	require.NotErrorIs(s, first.Close(), catalog.ErrLostCommit)

	next := s.claimsOver(s.store(), migrating(3, 2))
	require.Equal(s, "g3.e3", next.Token().String())
	require.Equal(s, map[string]string{"steps": "12", "k": "v"}, s.contents(next))
	require.Equal(s, map[string]int{"steps": 2, "k": 1}, s.commits())
}

func raiseKeepsBuild(s *scene) {
	cfg := config(1)
	cfg.Holder.Build = "b1"
	require.NoError(s, s.claimsOver(s.store(), cfg).Close())
	tool := operator()
	tool.Holder.Build = "of the tool"
	claim, err := catalog.Raise(Context(s), s.store(), tool, catalog.RaiseOptions{Reason: "test"})
	require.NoError(s, err)
	require.Equal(s, "b1", claim.Holder.Build)
	cfg.Holder.Build = "b2"
	_, err = catalog.Open(Context(s), s.store(), cfg)
	require.ErrorIs(s, err, catalog.ErrIncompatible)
	claim, err = catalog.Raise(Context(s), s.store(), tool, catalog.RaiseOptions{Reason: "test", Above: s.token("g2.e1")})
	require.NoError(s, err)
	require.Empty(s, claim.Holder.Build, "another generation is of another build, which nobody has named yet")
	cfg.Generation = 2
	require.NoError(s, s.claimsOver(s.store(), cfg).Close(), "it is not the tool's")
}

func raiseRefused(s *scene) {
	_, err := s.raises(s.store(), "")
	require.ErrorIs(s, err, catalog.ErrNeverClaimed)
	_, err = s.raises(s.store(), "g7.e41")
	require.ErrorIs(s, err, catalog.ErrNeverClaimed)
	require.True(s, ReadHead(s, s.store()).IsZero())

	c := s.claims(1)
	head := ReadHead(s, s.store())
	for _, reason := range []string{"", strings.Repeat("x", catalog.MaxReason+1), "\xff"} {
		_, err := catalog.Raise(Context(s), s.store(), operator(), catalog.RaiseOptions{Reason: reason})
		require.ErrorContains(s, err, fmt.Sprintf("a reason of %d bytes", len(reason)))
		require.Equal(s, exitcodes.Config, exitcodes.CodeOf(err))
	}
	_, err = s.raises(s.store(), fence.Token{Generation: 2, Epoch: epoch.Max}.String())
	require.ErrorIs(s, err, epoch.ErrOverflow)
	SameHead(s, head, ReadHead(s, s.store()))
	s.put(c, "k", "v")
}

func raiseAnswerLost(s *scene)  { s.raiseLost(true, nil) }
func raiseRequestLost(s *scene) { s.raiseLost(false, nil) }

func raiseAnswerLostAndFollowed(s *scene) {
	s.raiseLost(true, func() {
		next := s.claims(1)
		s.put(next, "behind", "v")
	})
}

// raiseLost loses the first try of a raise: its answer, where it lands, and
// else its request. Then follows what somebody else does before the tool asks.
func (s *scene) raiseLost(lands bool, then func()) {
	require.NoError(s, s.claims(1).Close())
	st := s.store()
	h := &hooked{Store: st}
	type install = func(context.Context, driver.Claiming, driver.Claim, driver.Record, []driver.Note) error
	next := once[install](func(ctx context.Context, cl driver.Claiming, c driver.Claim, rec driver.Record, when []driver.Note) error {
		if lands {
			s.check(cl.Install(ctx, c, rec, when...))
		} else {
			cl.Abandon()
		}
		if then != nil {
			then()
		}
		return lost(st, "install")
	}, func(ctx context.Context, cl driver.Claiming, c driver.Claim, rec driver.Record, when []driver.Note) error {
		return cl.Install(ctx, c, rec, when...)
	})
	h.onInstall = func(ctx context.Context, cl driver.Claiming, c driver.Claim, rec driver.Record, when []driver.Note) error {
		return next()(ctx, cl, c, rec, when)
	}
	claim, err := s.raises(h, "")
	require.NoError(s, err)
	require.Equal(s, "g1.e2", claim.Token.String())
	history := ReadClaims(s, st, 0)
	require.Equal(s, claim.ID, history[1].ID)
	head := ReadHead(s, st)
	switch {
	case then != nil:
		require.Len(s, history, 3)
		require.Equal(s, claim.ID, history[2].PriorClaim)
	case lands:
		require.Len(s, history, 2)
		require.Equal(s, claim.Revision+1, head.Revision, "no further commit came before the raise was acknowledged")
	default:
		require.Len(s, history, 2)
		SameHead(s, claim.Head(), head)
	}
}

func raiseOvertaken(s *scene) {
	require.NoError(s, s.claims(1).Close())
	st := s.store()
	h := &hooked{Store: st}
	h.onInstall = func(_ context.Context, cl driver.Claiming, _ driver.Claim, _ driver.Record, _ []driver.Note) error {
		cl.Abandon()
		require.NoError(s, s.claims(2).Close())
		return &driver.Error{Store: st.String(), Op: "install", Err: driver.ErrConflict}
	}
	_, err := s.raises(h, "")
	s.refusedForGood(err)
	require.Equal(s, "g2.e2", ReadHead(s, st).Claim.Token.String())
}

// A moved store is one whose clients are sent to another, as those of a
// catalog that is restored from a backup.
// In between it can be cut off, so that no handle learns of the claims that come
// before the move.
type moved struct {
	driver.Store
	to      atomic.Pointer[driver.Store]
	looking sync.RWMutex
	away    bool
}

// cutOff lets no further look through, once those under way have returned.
func (m *moved) cutOff() {
	m.looking.Lock()
	defer m.looking.Unlock()
	m.away = true
}

func (m *moved) now() driver.Store {
	if to := m.to.Load(); to != nil {
		return *to
	}
	return m.Store
}

func (m *moved) Head(ctx context.Context) (driver.Head, error) {
	m.looking.RLock()
	defer m.looking.RUnlock()
	if m.away && m.to.Load() == nil {
		return driver.Head{}, &driver.Error{
			Class: driver.Class{Disposition: exitcodes.Retry}, Store: m.String(), Op: "head", Err: errAnswerLost,
		}
	}
	return m.now().Head(ctx)
}

func (m *moved) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	return m.now().Append(ctx, prior, rec)
}

func (m *moved) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	return m.now().Log(ctx, after, fn)
}

func (m *moved) Claims(ctx context.Context, after uint64, fn func(driver.Claim) error) error {
	return m.now().Claims(ctx, after, fn)
}

func (m *moved) Claim(ctx context.Context) (driver.Claiming, error) { return m.now().Claim(ctx) }

// restores copies what s had up to a revision into an empty catalog.
func (s *scene) restores(upTo uint64) *scene {
	s.Helper()
	claims := map[driver.ID]driver.Claim{}
	for _, c := range ReadClaims(s, s.store(), 0) {
		claims[c.ID] = c
	}
	backup := s.anew()
	st := backup.store()
	head := driver.Head{}
	for _, rec := range ReadLog(s, s.store(), 0)[:upTo] {
		c, claimed := claims[rec.ID]
		if !claimed {
			require.NoError(s, st.Append(Context(s), head, rec))
			head = head.After(rec)
			continue
		}
		claiming, err := st.Claim(Context(s))
		require.NoError(s, err)
		require.NoError(s, claiming.Install(Context(s), c, rec))
		head = c.Head()
	}
	return backup
}

func raiseAfterRestore(s *scene) {
	var stores []*moved
	holds := func(g generation.Generation, key string) *catalog.Catalog {
		m := &moved{Store: s.store()}
		stores = append(stores, m)
		c := s.claimsOver(m, slowly(config(g)))
		s.put(c, key, "v")
		m.cutOff()
		return c
	}
	first := holds(5, "saved")
	saved := ReadHead(s, s.store()).Revision
	lost := []*catalog.Catalog{holds(7, "second"), holds(7, "third")}
	untold := holds(7, "fourth") // it meets the restored catalog before the token is lifted
	backup := s.restores(saved)
	to := backup.store()
	for _, m := range stores {
		m.to.Store(&to)
	}
	require.ErrorIs(s, put(Context(s), untold, "stale", "v"), catalog.ErrLostCommit)

	claim, err := backup.raises(backup.store(), "g7.e4")
	require.NoError(s, err)
	require.Equal(s, "g7.e5", claim.Token.String())
	for _, c := range append(lost, first, untold) {
		for range 2 {
			s.neverSucceeds(put(Context(s), c, "stale", "v"))
			s.neverSucceeds(c.Confirm(Context(s)))
		}
		if c != first {
			require.ErrorIs(s, c.Close(), catalog.ErrLostCommit, "%v lost commits with the restore and does not say so", c.Token())
		}
	}
	s.supersededBy("g7.e5", first.Close())
	_, err = catalog.Open(Context(s), backup.store(), config(5))
	s.supersededBy("g7.e5", err)
	next := backup.claims(7)
	require.Equal(s, "g7.e6", next.Token().String())
	require.Equal(s, map[string]string{"saved": "v"}, backup.contents(next))
	require.Equal(s, map[string]int{"saved": 1}, backup.commits())
}

// neverSucceeds asserts that a former holder hears of a fence or of lost
// commits.
func (s *scene) neverSucceeds(err error) {
	s.Helper()
	require.Error(s, err)
	require.True(s, errors.Is(err, fence.ErrFenced) || errors.Is(err, catalog.ErrLostCommit), "%v", err)
}

func raiseLowFloor(s *scene) {
	c := s.claims(3)
	head := ReadHead(s, s.store())
	for _, named := range []string{"g3.e1", "g2.e9", "g1.e1"} {
		_, err := s.raises(s.store(), named)
		require.ErrorIs(s, err, catalog.ErrNotBelow)
		require.ErrorContains(s, err, "g3.e1 is in "+s.store().String())
		require.ErrorContains(s, err, named+" was named")
		require.ErrorContains(s, err, "name a token above g3.e1")
		require.Equal(s, driver.NotApplied, catalog.OutcomeOf(err))
		require.Equal(s, exitcodes.Config, exitcodes.CodeOf(err))
	}
	SameHead(s, head, ReadHead(s, s.store()))
	s.put(c, "k", "v")
	claim, err := s.raises(s.store(), "g3.e2")
	require.NoError(s, err)
	require.Equal(s, "g3.e3", claim.Token.String())
	s.fencedBy("g3.e3", put(Context(s), c, "stale", "v"))
}

// raiseFloorAnswerLost also has a process claim in between, which must not be
// taken for what the backup had.
func raiseFloorAnswerLost(s *scene) {
	require.NoError(s, s.claims(1).Close())
	st := s.store()
	for _, follows := range []bool{false, true} {
		named := ReadHead(s, st).Claim.Token
		named.Epoch += 5
		h := &hooked{Store: st}
		asked := 0
		h.onInstall = func(ctx context.Context, cl driver.Claiming, c driver.Claim, rec driver.Record, when []driver.Note) error {
			asked++
			s.check(cl.Install(ctx, c, rec, when...))
			if follows {
				require.NoError(s, s.claims(1).Close())
			}
			return lost(st, "install")
		}
		claim, err := s.raises(h, named.String())
		require.NoError(s, err)
		require.Equal(s, 1, asked)
		require.Equal(s, named.Epoch+1, claim.Token.Epoch)
		_, err = s.raises(st, named.String())
		require.ErrorIs(s, err, catalog.ErrNotBelow)
		require.ErrorContains(s, err, "all is done")
	}
}
