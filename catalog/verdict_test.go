package catalog

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

func claimOf(g generation.Generation, e epoch.Epoch) driver.Claim {
	return driver.Claim{Token: fence.Token{Generation: g, Epoch: e}, ID: driver.NewID(), Revision: 5}
}

// TestTheNewestHeadDecides goes through every relation that a head can have to
// what a handle knows. No other case exists: a token is lower, equal or higher.
func TestTheNewestHeadDecides(t *testing.T) {
	mine := claimOf(3, 7)
	acked := mine.Head()
	acked.Revision, acked.Commit = 9, driver.NewID()
	doubt, refusedBefore := driver.NewID(), driver.NewID()
	m := memory{claim: mine, acked: acked, sent: []driver.ID{refusedBefore, doubt}}
	moved := func(id driver.ID, revision uint64) driver.Head {
		h := acked
		h.Commit, h.Revision = id, revision
		return h
	}
	foreign := mine
	foreign.ID = driver.NewID()
	for _, c := range []struct {
		name string
		head driver.Head
		want verdict
		err  error
		not  error
	}{
		{"my last acknowledged commit", acked, unmoved, nil, nil},
		{"my commit in doubt", moved(doubt, 10), landed, nil, nil},
		{"my claim, rolled back", mine.Head(), unmoved, ErrLostCommit, fence.ErrFenced},
		{"my claim, a commit nobody knows", moved(driver.NewID(), 10), unmoved, ErrLostCommit, fence.ErrFenced},
		{"my token, a foreign claim", foreign.Head(), unmoved, ErrLostCommit, fence.ErrFenced},
		{"a lower epoch", claimOf(3, 6).Head(), unmoved, ErrLostCommit, fence.ErrFenced},
		{"a lower generation with a higher epoch", claimOf(2, 99).Head(), unmoved, ErrLostCommit, fence.ErrFenced},
		{"a higher epoch", claimOf(3, 8).Head(), unmoved, fence.ErrFenced, fence.ErrSuperseded},
		{"a higher generation", claimOf(4, 8).Head(), unmoved, fence.ErrSuperseded, ErrLostCommit},
		{"no head at all", driver.Head{}, unmoved, ErrLostCommit, fence.ErrFenced},
	} {
		got, err := judge(m, c.head)
		require.Equal(t, c.want, got, c.name)
		require.ErrorIs(t, err, c.err, c.name)
		if c.not != nil {
			require.NotErrorIs(t, err, c.not, c.name)
		}
	}
	_, err := judge(memory{claim: mine, acked: acked}, moved(driver.ID{}, 10))
	require.ErrorIs(t, err, ErrLostCommit, "no commit was sent, so none can have landed")
	_, err = judge(m, moved(driver.NewID(), 9))
	require.ErrorIs(t, err, ErrLostCommit, "a commit that nobody knows, at the revision of mine")
	_, err = judge(m, moved(refusedBefore, 10))
	require.NotErrorIs(t, err, ErrLostCommit, "it was sent, and so it is mine")
	require.Equal(t, exitcodes.Halt, exitcodes.Of(err))
}

// TestWhatWasReadBackAndIsGoneAgainIsNoLoss is about commits of which nobody was
// told.
func TestWhatWasReadBackAndIsGoneAgainIsNoLoss(t *testing.T) {
	mine := claimOf(3, 7)
	at := func(id driver.ID, revision uint64) driver.Head {
		h := mine.Head()
		h.Commit, h.Revision = id, revision
		return h
	}
	first, second := driver.NewID(), driver.NewID()
	m := memory{claim: mine, acked: at(driver.NewID(), 9), tip: at(second, 11), sent: []driver.ID{first, second}}
	v, err := judge(m, m.tip)
	require.NoError(t, err)
	require.Equal(t, unmoved, v)
	for what, head := range map[string]driver.Head{"all of it": m.acked, "the last": at(first, 10)} {
		_, err := judge(m, head)
		require.Equal(t, exitcodes.Halt, exitcodes.Of(err), what)
		require.NotErrorIs(t, err, ErrLostCommit, what)
		err = judgeBeside(m, m, head)
		require.Equal(t, exitcodes.Halt, exitcodes.Of(err), what)
		require.NotErrorIs(t, err, ErrLostCommit, what)
	}
	for what, head := range map[string]driver.Head{
		"a commit that nobody knows": at(driver.NewID(), 10), "one in its place": at(driver.NewID(), 11), "less than was acknowledged": at(driver.NewID(), 8),
	} {
		_, err := judge(m, head)
		require.ErrorIs(t, err, ErrLostCommit, what)
	}
}

// TestAHeadThatIsReadBesideCommitsIsOneOfMine goes through where a head can lie
// between what was known when it was asked for and what is known afterwards.
func TestAHeadThatIsReadBesideCommitsIsOneOfMine(t *testing.T) {
	mine := claimOf(3, 7)
	at := func(id driver.ID, revision uint64) driver.Head {
		h := mine.Head()
		h.Commit, h.Revision = id, revision
		return h
	}
	older, acked, later, sent, foreign := driver.NewID(), driver.NewID(), driver.NewID(), driver.NewID(), driver.NewID()
	before := memory{claim: mine, acked: at(acked, 10)}
	now := memory{claim: mine, acked: at(later, 12), sent: []driver.ID{driver.NewID(), sent}}
	for _, c := range []struct {
		name string
		now  memory
		head driver.Head
		err  error
	}{
		{"nothing has moved", before, at(acked, 10), nil},
		{"what was acknowledged before the call", now, at(acked, 10), nil},
		{"what was acknowledged meanwhile", now, at(driver.NewID(), 11), nil},
		{"the last that was acknowledged meanwhile", now, at(later, 12), nil},
		{"what is under way", now, at(sent, 13), nil},
		{"what was sent before it, and refused", now, at(now.sent[0], 13), nil},
		{"what was acknowledged is gone", before, at(older, 9), ErrLostCommit},
		{"another commit in its place", before, at(foreign, 10), ErrLostCommit},
		{"another commit where mine was before the call", now, at(foreign, 10), ErrLostCommit},
		{"another commit in place of a later one", now, at(foreign, 12), ErrLostCommit},
		{"a commit that nobody has sent", before, at(foreign, 11), ErrLostCommit},
		{"a commit in place of the one under way", now, at(foreign, 13), ErrLostCommit},
		{"more commits than were sent", now, at(foreign, 14), ErrLostCommit},
		{"a higher token", now, claimOf(3, 8).Head(), fence.ErrFenced},
	} {
		require.ErrorIs(t, judgeBeside(before, c.now, c.head), c.err, c.name)
	}
}

func TestTheClaimThatFollowsMineTellsWhatBecameOfMyCommits(t *testing.T) {
	mine := claimOf(3, 7)
	m := memory{claim: mine, acked: mine.Head(), sent: []driver.ID{driver.NewID(), driver.NewID()}}
	next := claimOf(4, 8)
	next.PriorClaim, next.PriorCommit = mine.ID, m.newest()
	v, err := judgeSuccessor(m, next)
	require.NoError(t, err)
	require.Equal(t, landed, v)

	next.PriorCommit = m.acked.Commit
	v, err = judgeSuccessor(m, next)
	require.NoError(t, err)
	require.Equal(t, unmoved, v)

	next.PriorCommit = m.sent[0]
	v, err = judgeSuccessor(m, next)
	require.NoError(t, err, "the store had refused it, and nothing was lost")
	require.Equal(t, unmoved, v)

	readBack := m
	readBack.tip.Revision, readBack.tip.Commit = m.acked.Revision+1, m.sent[0]
	for prior, want := range map[driver.ID]verdict{m.sent[0]: unmoved, m.sent[1]: landed, m.acked.Commit: behind} {
		next.PriorCommit = prior
		v, err = judgeSuccessor(readBack, next)
		require.NoError(t, err, "the first was read back, and nobody was told of it")
		require.Equal(t, want, v)
	}
	readBack.tip.Revision, readBack.tip.Commit = m.acked.Revision+2, m.sent[1]
	next.PriorCommit = m.sent[0]
	v, err = judgeSuccessor(readBack, next)
	require.NoError(t, err)
	require.Equal(t, behind, v, "the claim was built on the one before it")

	next.PriorCommit = driver.NewID()
	_, err = judgeSuccessor(m, next)
	require.ErrorIs(t, err, ErrLostCommit)
	next.PriorCommit, next.PriorClaim = m.acked.Commit, driver.NewID()
	_, err = judgeSuccessor(m, next)
	require.ErrorIs(t, err, ErrLostCommit)
}

// TestOfTheCommitsThatWereSentTheNewestAreKeptUntilOneIsAcknowledged goes through
// a handle's memory of its commits by id.
func TestOfTheCommitsThatWereSentTheNewestAreKeptUntilOneIsAcknowledged(t *testing.T) {
	c := new(Catalog)
	c.compacts.init(version{state: newState()})
	c.state.Store(newState())
	claimed := claimOf(1, 1).Head()
	c.known.Store(&position{acked: claimed, tip: claimed})
	var ids []driver.ID
	for range maxSent + 10 {
		ids = append(ids, driver.NewID())
		c.sending(ids[len(ids)-1])
	}
	require.Equal(t, ids[10:], c.memory().sent)
	require.Equal(t, ids[len(ids)-1], c.memory().newest())
	before, head := c.memory(), c.Head()
	head.Revision, head.Commit = head.Revision+1, before.newest()
	c.landed(head, true, 70)
	c.landed(head, true, 7)
	require.Zero(t, c.compacts.logSize.Load(), "no snapshot is made of what is not acknowledged")
	require.Equal(t, before.sent, c.memory().sent, "read back, and not acknowledged yet")
	require.Equal(t, before.acked, c.memory().acked)
	require.Equal(t, head, c.memory().last())
	c.landed(head, false, 5)
	require.EqualValues(t, recordOverhead+82, c.compacts.logSize.Load())
	c.landed(head, false, 3)
	require.EqualValues(t, 2*recordOverhead+85, c.compacts.logSize.Load())
	require.Empty(t, c.memory().sent)
	require.Equal(t, head, c.memory().acked)
}

func TestOnlyANewerFenceReplacesTheReasonOfAnEnd(t *testing.T) {
	mine := fence.Token{Generation: 1, Epoch: 1}
	byEpoch := fence.Check(mine, fence.Token{Generation: 1, Epoch: 2}, fence.Holder{})
	superseded := fence.Check(mine, fence.Token{Generation: 2, Epoch: 3}, fence.Holder{})
	lost := lostCommit(driver.Head{}, driver.Head{}, "something")
	other := errors.New("other")
	for _, c := range []struct {
		name          string
		first, second error
		want          []error
	}{
		{"epoch, then generation", byEpoch, superseded, []error{fence.ErrSuperseded}},
		{"generation, then epoch", superseded, byEpoch, []error{fence.ErrSuperseded}},
		{"generation, then anything", superseded, other, []error{fence.ErrSuperseded}},
		{"closed, then generation", ErrClosed, superseded, []error{ErrClosed}},
		{"anything, then generation", other, superseded, []error{fence.ErrSuperseded}},
		{"lost, then epoch", lost, byEpoch, []error{ErrLostCommit}},
		{"epoch and lost, then generation", &alarmed{byEpoch, lost}, superseded, []error{fence.ErrSuperseded, ErrLostCommit}},
		{"generation, then generation and lost", superseded, &alarmed{superseded, lost}, []error{fence.ErrSuperseded, ErrLostCommit}},
	} {
		var e ending
		e.init()
		require.False(t, e.ended())
		e.with(c.first)
		e.with(c.second)
		<-e.done
		for _, want := range c.want {
			require.ErrorIs(t, e.reason(), want, c.name)
		}
	}
}

func TestTheContextsOfAHandleEndBeforeAnybodyIsToldWhy(t *testing.T) {
	var e ending
	e.init()
	var causes []error
	e.before(func(cause error) {
		causes = append(causes, cause)
		require.NoError(t, e.reason())
		select {
		case <-e.done:
			require.Fail(t, "Done is closed already")
		default:
		}
	})
	forget := e.before(func(error) { require.Fail(t, "it was forgotten") })
	forget()
	e.with(ErrClosed)
	require.Equal(t, []error{ErrClosed}, causes)
}

func TestAnAnswerThatHasArrivedIsToldThoughTheCallersContextHasEnded(t *testing.T) {
	c := new(Catalog)
	c.end.init()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 { // what is ready is chosen at random
		r := &request{done: make(chan error, 1)}
		require.True(t, r.take())
		r.done <- nil
		require.NoError(t, c.await(ctx, r))
	}
}

// An operator looks for the commits that the loss names.
func TestALossGoesFromTheFirstRevisionThatIsMissingToTheLast(t *testing.T) {
	t.Parallel()
	had := claimOf(3, 7).Head() // claimed at revision 5
	had.Revision, had.Commit = 9, driver.NewID()
	older := func(revision uint64) driver.Head { // a claim before had's, which is all that is left
		h := claimOf(3, 6).Head()
		h.Claim.Revision, h.Revision = 2, revision
		return h
	}
	mine := had
	mine.Revision = 6
	foreign := had
	foreign.Revision, foreign.Commit = 12, driver.NewID()
	token := driver.Head{Claim: had.Claim} // a claim that was seen, and no commit under it
	for name, c := range map[string]struct {
		had, head driver.Head
		from, to  uint64
	}{
		"commits under the claim":                       {had, mine, 7, 9},
		"the claim and its commits":                     {had, older(4), 5, 9},
		"the claim, and commits before it":              {had, older(2), 3, 9},
		"a head that has gone on under an older claim":  {had, older(8), 5, 9},
		"a claim without a commit":                      {token, older(4), 5, 5},
		"another commit in its place, and more of them": {had, foreign, 9, 9},
	} {
		t.Run(name, func(t *testing.T) {
			var lost *lostError
			require.ErrorAs(t, lostCommit(c.had, c.head, "test"), &lost)
			require.Equal(t, [2]uint64{c.from, c.to}, [2]uint64{lost.loss.From, lost.loss.To})
			require.False(t, lost.loss.Overtaken)
		})
	}
}
