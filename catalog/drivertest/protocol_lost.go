package drivertest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

func lostAnswerCases() []protocolCase {
	return []protocolCase{
		{"the answer to a claim is lost: it is settled, and applied exactly once", claimAnswerLost},
		{"the request of a claim is lost: it is settled, and applied exactly once", claimRequestLost},
		{"the answer to a commit is lost: it is settled, and applied exactly once", commitAnswerLost},
		{"the request of a commit is lost: it is settled, and applied exactly once", commitRequestLost},
		{"a commit that is still on its way when its client asks again is applied exactly once", commitOnItsWay},
		{"a process fenced while one commit was in doubt still learns what became of it", fencedInDoubt},
		{"a caller whose context ends first is told that the outcome is unknown, and the commit is settled", callerLeaves},
		{"a commit that was found in the head is acknowledged only behind a further one", landedIsNotDurable},
		{"where commits land and no answer ever arrives, the budget ends it", answersNeverArrive},
		{"a fenced commit in doubt that could not be settled raises no false alarm", noFalseAlarm},
		{"a further commit that a fence left in doubt raises no false alarm either", noFalseAlarmWhileSettling},
		{"a fence that is known is told at once, though the store has gone", fenceToldAtOnce},
		{"what stays in doubt until the budget is spent ends the handle with the outcome unknown", neverSettled},
		{"no answer to a later copy takes a commit out of doubt, but that of the head", staysInDoubt},
		{"a commit that is in doubt when its handle ends for another reason has an unknown outcome", inDoubtAtTheEnd},
	}
}

// once makes a hook of a fault that strikes the first call only.
func once[F any](fault, pass F) func() F {
	var struck atomic.Bool
	return func() F {
		if struck.CompareAndSwap(false, true) {
			return fault
		}
		return pass
	}
}

func claimAnswerLost(s *scene)  { s.claimLost(true) }
func claimRequestLost(s *scene) { s.claimLost(false) }

// claimLost loses the first try of a claim: its answer, where it lands, and
// else its request.
func (s *scene) claimLost(lands bool) {
	st := s.store()
	h := &hooked{Store: st}
	type install = func(context.Context, driver.Claiming, driver.Claim, driver.Record, []driver.Note) error
	next := once[install](func(ctx context.Context, cl driver.Claiming, c driver.Claim, rec driver.Record, when []driver.Note) error {
		if lands {
			s.check(cl.Install(ctx, c, rec, when...))
		} else {
			cl.Abandon()
		}
		return lost(st, "install")
	}, func(ctx context.Context, cl driver.Claiming, c driver.Claim, rec driver.Record, when []driver.Note) error {
		return cl.Install(ctx, c, rec, when...)
	})
	h.onInstall = func(ctx context.Context, cl driver.Claiming, c driver.Claim, rec driver.Record, when []driver.Note) error {
		return next()(ctx, cl, c, rec, when)
	}
	cfg := config(1)
	cfg.Migrations = []catalog.Migration{{Version: 1, Name: "first", Up: func(tx *catalog.Tx) error {
		return entries().Set(tx, "migrated", nil)
	}}}
	c := s.claimsOver(h, cfg)
	require.Len(s, ReadClaims(s, st, 0), 1, "claims")
	require.Equal(s, "g1.e1", c.Token().String())
	if lands {
		require.EqualValues(s, 2, c.Head().Revision, "no further commit came before the claim was acknowledged")
	}
	s.put(c, "k", "v")
	require.Equal(s, map[string]int{"migrated": 1, "k": 1}, s.commits())
}

// check is for goroutines other than the test's own, which must not end it.
func (s *scene) check(err error) {
	if err != nil {
		s.Errorf("unexpected: %v", err)
	}
}

// loses makes a store whose first Append is struck by fault.
func (s *scene) loses(fault func(st driver.Store, ctx context.Context, prior driver.Head, rec driver.Record)) driver.Store {
	st := s.store()
	h := &hooked{Store: st}
	type appendFunc = func(context.Context, driver.Head, driver.Record) error
	next := once[appendFunc](func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		fault(st, ctx, prior, rec)
		return lost(st, "append")
	}, st.Append)
	h.onAppend = func(ctx context.Context, prior driver.Head, rec driver.Record) error { return next()(ctx, prior, rec) }
	return h
}

func commitAnswerLost(s *scene) {
	c := s.claimsOver(s.loses(func(st driver.Store, ctx context.Context, prior driver.Head, rec driver.Record) {
		s.check(st.Append(ctx, prior, rec))
	}), config(1))
	s.put(c, "k", "v")
	s.put(c, "l", "v")
	require.Equal(s, map[string]int{"k": 1, "l": 1}, s.commits())
}

func commitRequestLost(s *scene) {
	c := s.claimsOver(s.loses(func(driver.Store, context.Context, driver.Head, driver.Record) {}), config(1))
	s.put(c, "k", "v")
	s.put(c, "l", "v")
	require.Equal(s, map[string]int{"k": 1, "l": 1}, s.commits())
}

func commitOnItsWay(s *scene) {
	for round := range 20 {
		arrived := make(chan error, 1)
		c := s.claimsOver(s.loses(func(st driver.Store, ctx context.Context, prior driver.Head, rec driver.Record) {
			go func() { // it arrives while, or after, the client asks again
				arrived <- st.Append(context.WithoutCancel(ctx), prior, rec)
			}()
		}), config(1))
		key := fmt.Sprint(round)
		s.put(c, key, "v")
		s.put(c, key+"next", "v")
		if err := <-arrived; err != nil {
			require.ErrorIs(s, err, driver.ErrConflict)
		}
		require.NoError(s, c.Close())
		require.Equal(s, 1, s.commits()[key])
		require.Equal(s, 1, s.commits()[key+"next"])
	}
}

func fencedInDoubt(s *scene) {
	for round, landed := range []bool{true, false} {
		mine := generation.Generation(2*round + 1)
		var taken *catalog.Catalog
		first := s.claimsOver(s.loses(func(st driver.Store, ctx context.Context, prior driver.Head, rec driver.Record) {
			if landed {
				s.check(st.Append(ctx, prior, rec))
			}
			var err error
			taken, err = catalog.Open(ctx, s.open(), config(mine+1)) // before the first process can ask
			s.check(err)
			s.check(put(ctx, taken, "behind", "v"))
		}), slowly(config(mine)))
		key := fmt.Sprint("landed ", landed)
		err := put(Context(s), first, key, "v")
		if landed {
			require.NoError(s, err, "it had landed before the claim")
			require.Equal(s, 1, s.commits()[key])
		} else {
			s.supersededBy(taken.Token().String(), err)
			require.Equal(s, driver.NotApplied, catalog.OutcomeOf(err))
			require.Zero(s, s.commits()[key])
		}
		s.supersededBy(taken.Token().String(), put(Context(s), first, "late", "v"))
		require.NoError(s, taken.Close())
	}
}

func callerLeaves(s *scene) {
	st := s.store()
	h := &hooked{Store: st}
	sent, goOn := make(chan struct{}), make(chan struct{})
	h.onAppend = func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		h.onAppend = nil
		close(sent)
		<-goOn
		return st.Append(ctx, prior, rec)
	}
	c := s.claimsOver(h, config(1))
	ctx, cancel := context.WithCancelCause(Context(s))
	mine := errors.New("the caller has left")
	fate := async(func() error { return put(ctx, c, "left", "v") })
	<-sent
	queued, cancelQueued := context.WithCancel(Context(s))
	waiting := async(func() error { return put(queued, c, "never", "v") })
	cancelQueued()
	require.ErrorIs(s, <-waiting, context.Canceled)
	cancel(mine)
	err := <-fate
	require.ErrorIs(s, err, catalog.ErrUnknownOutcome)
	require.ErrorIs(s, err, mine)
	require.Equal(s, driver.Unknown, catalog.OutcomeOf(err))
	close(goOn)
	s.put(c, "k", "v")
	require.Equal(s, map[string]int{"left": 1, "k": 1}, s.commits())
	require.Equal(s, map[string]string{"left": "v", "k": "v"}, s.contents(c))
}

func landedIsNotDurable(s *scene) {
	var c *catalog.Catalog
	c = s.claimsOver(s.loses(func(st driver.Store, ctx context.Context, prior driver.Head, rec driver.Record) {
		s.check(st.Append(ctx, prior, rec))
	}), config(1))
	before := c.Head().Revision
	s.put(c, "k", "v")
	require.Equal(s, before+2, ReadHead(s, s.store()).Revision, "no further commit came before the acknowledgement")
	require.Equal(s, before+2, c.Head().Revision)
}

func neverSettled(s *scene) {
	st := s.store()
	h := &hooked{Store: st}
	cfg := config(1)
	cfg.RetryBudget = 50 * time.Millisecond
	c := s.claimsOver(h, cfg)
	h.onAppend = func(context.Context, driver.Head, driver.Record) error { return lost(st, "append") }
	err := put(Context(s), c, "k", "v")
	require.ErrorIs(s, err, catalog.ErrUnknownOutcome)
	require.Equal(s, exitcodes.Retry, exitcodes.Of(err))
	s.awaitDone(c.Done())
	require.Error(s, put(Context(s), c, "l", "v"))
	require.Zero(s, s.commits()["k"])
}

// staysInDoubt loses a commit on its way, and has every further copy refused.
func staysInDoubt(s *scene) {
	for name, d := range map[string]exitcodes.Disposition{"in passing": exitcodes.Retry, "for good": exitcodes.None, "by a conflict": exitcodes.None} {
		st := s.store()
		h := &hooked{Store: st}
		cfg := slowly(config(1))
		cfg.RetryBudget = 50 * time.Millisecond
		c := s.claimsOver(h, cfg)
		var late func() error
		h.onAppend = func(ctx context.Context, prior driver.Head, rec driver.Record) error {
			if late == nil {
				late = func() error { return st.Append(Context(s), prior, rec) }
				return lost(st, "append")
			}
			if name == "by a conflict" {
				return conflictOf(st, "append")
			}
			return &driver.Error{Class: driver.Class{Disposition: d}, Store: st.String(), Op: "append", Err: errors.New("refused")}
		}
		require.ErrorIs(s, put(Context(s), c, name, "v"), catalog.ErrUnknownOutcome, name)
		s.awaitDone(c.Done())
		require.NoError(s, late(), "it was on its way")
		require.Equal(s, 1, s.commits()[name])
	}
}

// inDoubtAtTheEnd has the holder find a loss while it waits for an answer.
func inDoubtAtTheEnd(s *scene) {
	h, forge := s.forges()
	c := s.claimsOver(h, slowly(config(1)))
	s.put(c, "k", "v")
	back := func(h driver.Head) driver.Head { return h.Claim.Head() }
	h.onAppend = func(ctx context.Context, _ driver.Head, _ driver.Record) error {
		forge.Store(&back)
		s.isLost(c.Confirm(ctx))
		return lost(h, "append")
	}
	err := put(Context(s), c, "l", "v")
	require.ErrorIs(s, err, catalog.ErrUnknownOutcome)
	s.isLost(err)
}

func (s *scene) isLost(err error) {
	if !errors.Is(err, catalog.ErrLostCommit) {
		s.Errorf("%v, want a lost commit", err)
	}
}

func answersNeverArrive(s *scene) {
	st := s.store()
	var silent atomic.Bool
	h := &hooked{Store: st, onAppend: func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		err := st.Append(ctx, prior, rec)
		if silent.Load() && err == nil {
			return lost(st, "append")
		}
		return err
	}}
	h.onStage = func(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
		s.check(st.Stage(ctx, by, id, n, part))
		return lost(st, "stage")
	}
	cfg := slowly(config(1))
	cfg.RetryBudget, cfg.ClaimTimeout = 500*time.Millisecond, 2*time.Second
	c := s.claimsOver(h, cfg)
	silent.Store(true)
	err := put(Context(s), c, "k", "v")
	require.ErrorIs(s, err, catalog.ErrUnknownOutcome)
	require.Equal(s, exitcodes.Retry, exitcodes.Of(err))
	require.Less(s, ReadHead(s, st).Revision, uint64(50), "the log grows while nobody answers")

	h.onInstall = func(ctx context.Context, cl driver.Claiming, c driver.Claim, rec driver.Record, when []driver.Note) error {
		s.check(cl.Install(ctx, c, rec, when...))
		return lost(st, "install")
	}
	_, err = catalog.Open(Context(s), h, cfg)
	require.Equal(s, exitcodes.Retry, exitcodes.Of(err))
}

// fencedOutOfReach makes a handle whose one commit landed, whose answer was
// lost, that was fenced meanwhile, and that can't read the history of claims
// until reachable is set.
func (s *scene) fencedOutOfReach() (first *catalog.Catalog, fate error, reachable *atomic.Bool) {
	st := s.store()
	reachable = new(atomic.Bool)
	h := &hooked{Store: &unreadable{Store: st, reachable: reachable}}
	h.onAppend = func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		h.onAppend = nil
		s.check(st.Append(ctx, prior, rec))
		next, err := catalog.Open(ctx, s.open(), config(2))
		s.check(err)
		s.check(next.Close())
		return lost(st, "append")
	}
	cfg := slowly(config(1))
	cfg.RetryBudget = time.Second
	first = s.claimsOver(h, cfg)
	return first, put(Context(s), first, "k", "v"), reachable
}

// unreadable is a store whose history of claims can't be read at times.
type unreadable struct {
	driver.Store
	reachable *atomic.Bool
}

func (u *unreadable) Claims(ctx context.Context, after uint64, fn func(driver.Claim) error) error {
	if !u.reachable.Load() {
		return &driver.Error{Class: driver.Class{Disposition: exitcodes.Retry}, Store: u.String(), Op: "claims", Err: errAnswerLost}
	}
	return u.Store.Claims(ctx, after, fn)
}

func noFalseAlarm(s *scene) {
	first, fate, reachable := s.fencedOutOfReach()
	require.ErrorIs(s, fate, catalog.ErrUnknownOutcome)
	require.ErrorIs(s, fate, fence.ErrSuperseded)
	reachable.Store(true)
	err := first.Close()
	s.supersededBy("g2.e2", err)
	require.NotErrorIs(s, err, catalog.ErrLostCommit, "nothing was lost")
}

// noFalseAlarmWhileSettling loses the answers to a commit and to the further
// one that is to make it durable. The claim that follows is built on the latter,
// and the history of claims can't be read at the first try.
func noFalseAlarmWhileSettling(s *scene) {
	st := s.store()
	h := &hooked{Store: &oncePuzzled{Store: st}}
	appends := 0
	h.onAppend = func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		if appends++; appends == 2 {
			return st.Append(ctx, prior, rec) // asks again: refused, and found in the head
		}
		s.check(st.Append(ctx, prior, rec))
		if appends == 3 {
			next, err := catalog.Open(ctx, s.open(), config(2))
			s.check(err)
			s.check(next.Close())
			h.onAppend = nil
		}
		return lost(st, "append")
	}
	first := s.claimsOver(h, slowly(config(1)))
	require.NoError(s, put(Context(s), first, "k", "v"), "the next claim was built on it")
	err := first.Close()
	s.supersededBy("g2.e2", err)
	require.NotErrorIs(s, err, catalog.ErrLostCommit, "nothing was lost")
	require.Equal(s, 1, s.commits()["k"])
}

// oncePuzzled is a store that fails the first reading of its claims for good.
type oncePuzzled struct {
	driver.Store
	done atomic.Bool
}

func (o *oncePuzzled) Claims(ctx context.Context, after uint64, fn func(driver.Claim) error) error {
	if o.done.CompareAndSwap(false, true) {
		return &driver.Error{Store: o.String(), Op: "claims", Err: errAnswerLost}
	}
	return o.Store.Claims(ctx, after, fn)
}

func fenceToldAtOnce(s *scene) {
	st := s.store()
	gone := &unreadable{Store: st, reachable: new(atomic.Bool)}
	h := &hooked{Store: gone}
	sent, goOn := make(chan struct{}), make(chan struct{})
	h.onAppend = func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		close(sent)
		<-goOn
		return st.Append(ctx, prior, rec)
	}
	cfg := config(1)
	cfg.RetryBudget = time.Hour
	first := s.claimsOver(h, cfg)
	fate := async(func() error { return put(Context(s), first, "stale", "v") })
	<-sent
	s.claims(2)
	s.awaitDone(first.Done())
	close(goOn)
	s.supersededBy("g2.e2", <-fate)
	gone.reachable.Store(true)
}
