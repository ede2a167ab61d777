package drivertest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

func raceCases() []protocolCase {
	return []protocolCase{
		{"a claimer succeeds, 100 of 100 times, while the holder commits from 64 writers without a pause", busyHolder},
		{"of two claimers of one generation at once one wins, and the other is fenced by epoch and does not claim over it", twoOfOneGeneration},
		{"of two generations at once the higher ends as holder and the lower superseded", twoGenerations},
		{"20 standbys make one claim", twentyStandbys},
		{"of two opens of one generation that overlap one is fenced, though it has not claimed yet", overlappingOpens},
		{"a follower opens once", followerOpensOnce},
		{"a standby's claim is refused under any other claim than the one it names", silentClaim},
		{"a claim is refused where a note of its condition has changed", conditionalClaim},
		{"a claim on condition that nobody ever claimed is the first one, or none", onlyFirstClaim},
		{"a claim over a lower generation only is refused over one of its own, though its follower has seen that", onlyOverLower},
	}
}

// busyHolder makes 100 claims, on ten catalogs, so that no log grows long: all of
// it is read at the end.
func busyHolder(s *scene) {
	for range 10 {
		one := s.anew()
		one.takeOver(10)
		one.end()
	}
}

// takeOver lets one claimer after the other, each a follower as a standby is,
// take over from a holder under load. The first reads the whole log under that
// load, the others follow before it begins: they would need ever longer for a
// log that grows meanwhile. What was acknowledged is there in the end, once.
func (s *scene) takeOver(claims int) {
	load := &load{scene: s, acked: map[string]bool{}}
	of := func(g int) catalog.Config {
		cfg := config(generation.Generation(g))
		cfg.CompactAfter = 1 << 40 // never
		return cfg
	}
	holder := s.claimsOver(s.store(), of(1))
	for i := range claims {
		if i == 0 {
			load.start(holder)
		}
		f, err := catalog.Follow(Context(s), s.store(), of(i+2))
		require.NoError(s, err)
		if i > 0 {
			load.start(holder)
		}
		seen, _ := f.Head()
		require.NoError(s, f.Wait(Context(s), func(h driver.Head) bool { return h.Revision > seen.Revision+3 }), "the holder is not busy")
		next, err := f.Open(Context(s), catalog.ClaimOptions{})
		require.NoError(s, err)
		require.ErrorIs(s, holder.Confirm(Context(s)), fence.ErrSuperseded)
		require.ErrorIs(s, holder.Close(), fence.ErrSuperseded)
		require.NoError(s, s.stores[i].Close()) // the former holder's
		holder = next
	}
	require.NoError(s, holder.Close())
	load.wg.Wait()
	s.lostNothing(load.acked)
	third := s.claims(generation.Generation(claims + 1))
	require.Len(s, s.contents(third), len(s.commits()), "a further open disagrees with the log")
	require.NoError(s, third.Close())
}

// A load is 64 writers on one holder after the other.
type load struct {
	*scene
	wg    sync.WaitGroup
	mu    sync.Mutex
	acked map[string]bool
}

// start lets the writers write until c is fenced.
func (l *load) start(c *catalog.Catalog) {
	for w := range 64 {
		l.wg.Go(func() {
			for n := 0; ; n++ {
				key := fmt.Sprintf("%v/%d/%d", c.Token(), w, n)
				if put(context.Background(), c, key, "v") != nil {
					return
				}
				l.mu.Lock()
				l.acked[key] = true
				l.mu.Unlock()
			}
		})
	}
}

// lostNothing asserts that each acknowledged key was committed once, and every
// other one at most once.
func (s *scene) lostNothing(acked map[string]bool) {
	s.Helper()
	require.NotEmpty(s, acked)
	count := s.commits()
	for key := range acked {
		require.Equal(s, 1, count[key], "commits of the acknowledged key %s", key)
	}
	for key, n := range count {
		require.LessOrEqual(s, n, 1, "commits of the key %s", key)
	}
}

// race opens the catalog n times at once and returns the winners and the
// losers' errors.
func (s *scene) race(n int, open func(i int) (*catalog.Catalog, error)) (winners []*catalog.Catalog, losers []error) {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		ready = make(chan struct{})
	)
	for i := range n {
		wg.Go(func() {
			<-ready
			c, err := open(i)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				losers = append(losers, err)
				return
			}
			winners = append(winners, c)
			s.Cleanup(func() { _ = c.Close() }) // whatever became of it
		})
	}
	close(ready)
	wg.Wait()
	return winners, losers
}

func twoOfOneGeneration(s *scene) {
	require.NoError(s, s.claims(1).Close())
	for round := range 10 {
		before := ReadHead(s, s.store()).Claim
		followers := []*catalog.Follower{s.follows(1), s.follows(1)}
		winners, losers := s.race(2, func(i int) (*catalog.Catalog, error) {
			// One that starts late has seen the other's claim already.
			return followers[i].Open(Context(s), catalog.ClaimOptions{IfClaim: before.ID})
		})
		require.Len(s, winners, 1, "round %d: %v", round, losers)
		s.fencedBy(winners[0].Token().String(), losers[0])
		require.EqualValues(s, before.Token.Epoch+1, ReadHead(s, s.store()).Claim.Token.Epoch, "the loser claimed")
		s.put(winners[0], fmt.Sprint(round), "v")
		require.NoError(s, winners[0].Close())
	}
}

func twoGenerations(s *scene) {
	require.NoError(s, s.claims(1).Close())
	for round := range 10 {
		low := generation.Generation(2*round + 2)
		winners, losers := s.race(2, func(i int) (*catalog.Catalog, error) {
			return catalog.Open(Context(s), s.open(), config(low+generation.Generation(i)))
		})
		head := ReadHead(s, s.store())
		require.Equal(s, low+1, head.Claim.Token.Generation, "the lower generation holds the token")
		for _, err := range losers {
			s.supersededBy(head.Claim.Token.String(), err)
		}
		for _, c := range winners {
			err := c.Confirm(Context(s))
			if c.Token().Generation == low {
				s.supersededBy(head.Claim.Token.String(), err)
				continue
			}
			require.NoError(s, err)
		}
	}
}

func twentyStandbys(s *scene) {
	const standbys = 20
	require.NoError(s, s.claims(1).Close())
	before := ReadHead(s, s.store()).Claim
	followers := make([]*catalog.Follower, standbys)
	for i := range followers {
		followers[i] = s.follows(1)
	}
	winners, losers := s.race(standbys, func(i int) (*catalog.Catalog, error) {
		return followers[i].Open(Context(s), catalog.ClaimOptions{IfClaim: before.ID})
	})
	require.Len(s, winners, 1)
	require.Len(s, losers, standbys-1)
	for _, err := range losers {
		s.fencedBy(winners[0].Token().String(), err)
	}
	require.Len(s, ReadClaims(s, s.store(), before.Revision), 1, "claims")
}

func silentClaim(s *scene) {
	first := s.claims(1)
	second := s.claims(1)
	_, err := s.follows(1).Open(Context(s), catalog.ClaimOptions{IfClaim: first.Claim().ID})
	s.fencedBy("g1.e2", err)
	require.NoError(s, second.Confirm(Context(s)))
	third, err := s.follows(1).Open(Context(s), catalog.ClaimOptions{IfClaim: second.Claim().ID, Reason: "silent"})
	require.NoError(s, err)
	defer func() { require.NoError(s, third.Close()) }()
	require.Equal(s, "g1.e3", third.Token().String())
	history := ReadClaims(s, s.store(), 0)
	require.Equal(s, "silent", history[2].Reason)
	require.Equal(s, second.Claim().ID, history[2].PriorClaim)
}

func conditionalClaim(s *scene) {
	first := s.claims(1)
	st := s.store()
	version, err := st.Post(Context(s), driver.Note{Key: "promote", Value: []byte("{}")})
	require.NoError(s, err)
	read := driver.Note{Key: "promote", Version: version}
	changed, err := st.Post(Context(s), driver.Note{Key: "promote", Value: []byte(`{"aborted":true}`), Version: version})
	require.NoError(s, err)

	_, err = s.follows(2).Open(Context(s), catalog.ClaimOptions{IfNotes: []driver.Note{read}})
	s.refusedForGood(err)
	require.NoError(s, first.Confirm(Context(s)))

	read.Version = changed
	second, err := s.follows(2).Open(Context(s), catalog.ClaimOptions{IfNotes: []driver.Note{read}})
	require.NoError(s, err)
	require.Equal(s, "g2.e2", second.Token().String())
	require.NoError(s, second.Close())
}

// refusedForGood asserts that a condition did not hold, and what follows.
func (s *scene) refusedForGood(err error) {
	s.Helper()
	require.ErrorIs(s, err, catalog.ErrRefused)
	require.Equal(s, exitcodes.Halt, exitcodes.Of(err))
	require.Equal(s, exitcodes.Restart, exitcodes.CodeOf(err))
	require.Equal(s, driver.NotApplied, catalog.OutcomeOf(err))
}

func onlyFirstClaim(s *scene) {
	never := catalog.ClaimOptions{IfNeverClaimed: true}
	higher, equal, named := s.follows(2), s.follows(1), s.follows(2)
	first, err := s.follows(1).Open(Context(s), never)
	require.NoError(s, err)
	defer func() { require.NoError(s, first.Close()) }()
	require.Equal(s, "g1.e1", first.Token().String())
	_, err = higher.Open(Context(s), never)
	s.refusedForGood(err)
	_, err = equal.Open(Context(s), never)
	s.fencedBy("g1.e1", err)
	_, err = named.Open(Context(s), catalog.ClaimOptions{IfClaim: driver.NewID()})
	s.refusedForGood(err)
	never.IfClaim = first.Claim().ID
	_, err = s.follows(2).Open(Context(s), never)
	require.Equal(s, exitcodes.Config, exitcodes.CodeOf(err))
	require.NoError(s, first.Confirm(Context(s)))
	require.Len(s, ReadClaims(s, s.store(), 0), 1)
}

func onlyOverLower(s *scene) {
	lower := catalog.ClaimOptions{IfLower: true}
	require.NoError(s, s.claims(1).Close())
	require.NoError(s, s.claims(1).Close())
	late := s.follows(2)
	first, err := s.follows(2).Open(Context(s), lower)
	require.NoError(s, err)
	require.NoError(s, late.Wait(Context(s), reached(first.Head().Revision)))
	_, err = late.Open(Context(s), lower)
	s.fencedBy("g2.e3", err)
	require.NoError(s, first.Confirm(Context(s)))
	require.NoError(s, first.Close())
	lower.IfNeverClaimed = true
	_, err = s.follows(3).Open(Context(s), lower)
	require.Equal(s, exitcodes.Config, exitcodes.CodeOf(err))
}

func overlappingOpens(s *scene) {
	require.NoError(s, s.claims(1).Close())
	st := s.store()
	var looks atomic.Int64
	looked := make(chan struct{})
	late, err := catalog.Follow(Context(s), &hooked{Store: st, onHead: func(ctx context.Context) (driver.Head, error) {
		head, err := st.Head(ctx)
		if looks.Add(1) == 2 { // Follow's own, and the one at the beginning of its watch
			close(looked)
		}
		return head, err
	}}, slowly(config(1)))
	require.NoError(s, err)
	s.awaitDone(looked)
	first := s.claims(1)
	_, err = late.Open(Context(s), catalog.ClaimOptions{})
	s.fencedBy("g1.e2", err)
	require.NoError(s, first.Confirm(Context(s)), "the one that claimed first was fenced")
}

func followerOpensOnce(s *scene) {
	f := s.follows(1)
	winners, losers := s.race(2, func(int) (*catalog.Catalog, error) { return f.Open(Context(s), catalog.ClaimOptions{}) })
	require.Len(s, winners, 1)
	require.Len(s, losers, 1)
	require.ErrorIs(s, losers[0], catalog.ErrClosed)
	require.NoError(s, winners[0].Confirm(Context(s)))
}
