package election_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader/internal/election"
)

const (
	lease   = 6 * time.Second
	silence = lease + lease/20
	poll    = 100 * time.Millisecond
	timeout = 2 * time.Second
	drain   = 3 * time.Second
)

// claimID is the identifier of a claim.
func claimID(n byte) driver.ID { return driver.ID{15: n} }

func settings() election.Settings {
	return election.Settings{Generation: 2, Lease: lease, HandoverTimeout: timeout, DrainTimeout: drain, Reluctance: 10 * poll}
}

// A process is a Candidate and what it sees. Its clock stands still but for look.
type process struct {
	t    *testing.T
	c    *election.Candidate
	view election.View
}

// newProcess sees a holder of generation holds, whose claim is 1.
func newProcess(t *testing.T, cfg election.Settings, holds generation.Generation) *process {
	p := &process{t: t, c: election.NewCandidate(cfg)}
	p.view.Now = time.Hour
	p.view.Head = election.Head{Claim: claimID(1), Token: fence.Token{Generation: holds, Epoch: 1}, Revision: 10}
	p.view.Board.Heartbeat = election.Heartbeat{Claim: claimID(1), Seq: 1}
	return p
}

// standby is of the holder's own generation, successor of a higher one, promoted.
func standby(t *testing.T) *process { return newProcess(t, settings(), 2) }

func successor(t *testing.T) *process {
	p := newProcess(t, settings(), 1)
	p.promote(2)
	p.view.Reachable = true
	return p
}

func (p *process) promote(g generation.Generation) {
	p.view.Board.Consulted = true
	p.view.Board.Intent = election.Intent{Generation: g, By: "ops"}
}

// look has the process read the board once, d after the look before.
func (p *process) look(d time.Duration) election.Action {
	p.t.Helper()
	p.view.Now += d
	p.view.Board.Readable, p.view.Board.Sent, p.view.Board.Answered = true, p.view.Now, p.view.Now
	return p.c.Next(p.view)
}

// blind has it fail to read the board.
func (p *process) blind(d time.Duration) election.Action {
	p.view.Now += d
	v := p.view
	v.Board = election.Board{}
	return p.c.Next(v)
}

// looks has it look every poll for d, and returns the last action.
func (p *process) looks(d time.Duration) (a election.Action) {
	for range d / poll {
		a = p.look(poll)
	}
	return a
}

// beats has the holder send a heartbeat.
func (p *process) beats() { p.view.Board.Heartbeat.Seq++ }

// over has the claim fail.
func (p *process) over() { p.c.Over(p.view.Now) }

func (p *process) consulted() *process {
	p.view.Board.Consulted = true
	return p
}

func TestAStandbyWaitsForAsLongAsTheHolderSendsHeartbeats(t *testing.T) {
	p := standby(t).consulted()
	for range 100 {
		p.beats()
		a := p.looks(lease)
		require.Equal(t, election.Wait, a.Step)
		require.True(t, a.Ready)
		require.Empty(t, a.Alarm)
	}
}

func TestAStandbyClaimsOnceTheHolderWasSilentForALeaseAndATwentieth(t *testing.T) {
	p := standby(t).consulted()
	p.look(poll)
	for begun := p.view.Now; p.view.Now-begun < silence-poll; {
		require.Equal(t, election.Wait, p.look(poll).Step)
	}
	a := p.look(poll)
	require.Equal(t, election.Claim, a.Step)
	require.Equal(t, election.Conditions{Over: claimID(1), Notes: []election.Note{election.NoteHeartbeat}, Reason: a.Reason}, a.Claim)
	require.Equal(t, "no heartbeat of g2.e1 for 6.3s", a.Reason)
}

func TestSilenceCountsOnlyBetweenTwoLooksThatCouldRead(t *testing.T) {
	p := standby(t).consulted()
	p.look(poll)
	require.Equal(t, election.Wait, p.looks(silence-2*poll).Step)
	for range 10 {
		p.blind(time.Minute)
	}
	require.Equal(t, election.Wait, p.look(time.Minute).Step)
	require.Equal(t, election.Wait, p.look(poll).Step)
	require.Equal(t, election.Claim, p.look(poll).Step, "what was counted stays")
}

func TestALookFromBeforeAnOutageDoesNotEndIt(t *testing.T) {
	p := standby(t).consulted()
	p.look(poll)
	sent := p.view.Now
	p.blind(lease)
	p.view.Board.Sent, p.view.Board.Answered = sent, sent
	p.c.Next(p.view)
	require.Equal(t, election.Wait, p.look(lease).Step)
	require.Equal(t, election.Wait, p.looks(silence-poll).Step)
	require.Equal(t, election.Claim, p.look(poll).Step)
}

func TestAStoreThatFailsNowAndThenDoesNotKeepADeadHolder(t *testing.T) {
	p := standby(t).consulted()
	p.look(poll)
	for range 4 {
		p.blind(poll)
		p.look(poll)
		if p.looks(lease/2).Step == election.Claim {
			return
		}
	}
	t.Fatal("the holder is never taken for dead")
}

func TestAProcessThatWasStoppedCountsOneHeartbeatAtMost(t *testing.T) {
	p := standby(t).consulted()
	p.look(poll)
	require.Equal(t, election.Wait, p.look(time.Hour).Step)
	require.Equal(t, election.Wait, p.look(time.Hour).Step)
	require.Equal(t, election.Wait, p.look(time.Hour).Step)
	require.Equal(t, election.Claim, p.look(time.Hour).Step)
}

func TestTheSilenceOfAHolderIsNotItsSuccessors(t *testing.T) {
	p := standby(t).consulted()
	p.looks(silence)
	p.view.Head.Claim = claimID(2) // and its heartbeat is still to come
	require.Equal(t, election.Wait, p.looks(lease).Step)
	require.Equal(t, election.Claim, p.looks(4*poll).Step)
}

func TestATokenIsVacantIfItsHolderHasLeftOrOffersItOrHasEndedOrIsATool(t *testing.T) {
	for name, c := range map[string]struct {
		sees   func(*election.View)
		notes  []election.Note
		reason string
	}{
		"left":   {func(v *election.View) { v.Board.Heartbeat.Left = true }, []election.Note{election.NoteHeartbeat}, "the holder of g2.e1 has left"},
		"offer":  {func(v *election.View) { v.Board.Offer = election.Offer{Claim: claimID(1), Open: true} }, []election.Note{election.NoteOffer}, "the holder of g2.e1 offers it"},
		"raised": {func(v *election.View) { v.Raised = "ops" }, nil, "nobody holds g2.e1, which was raised by ops"},
		"death":  {func(v *election.View) { v.Death = "pid 7 is gone" }, nil, "the process of g2.e1 is gone: pid 7 is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			p := standby(t).consulted()
			c.sees(&p.view)
			a := p.look(poll)
			require.Equal(t, election.Claim, a.Step)
			require.Equal(t, election.Conditions{Over: claimID(1), Notes: c.notes, Reason: c.reason}, a.Claim)
		})
	}
}

func TestWhatAnotherClaimsHolderSaysIsNotThisOnes(t *testing.T) {
	for name, sees := range map[string]func(*election.Board){
		"left":                 func(b *election.Board) { b.Heartbeat = election.Heartbeat{Claim: claimID(9), Left: true} },
		"offer":                func(b *election.Board) { b.Offer = election.Offer{Claim: claimID(9), Open: true} },
		"an offer withdrawn":   func(b *election.Board) { b.Offer = election.Offer{Claim: claimID(1)} },
		"an offer to others":   func(b *election.Board) { b.Offer = election.Offer{Claim: claimID(1), To: 3, Open: true} },
		"nothing was seen yet": func(b *election.Board) { b.Heartbeat = election.Heartbeat{} },
	} {
		t.Run(name, func(t *testing.T) {
			p := standby(t).consulted()
			sees(&p.view.Board)
			require.Equal(t, election.Wait, p.look(poll).Step)
		})
	}
}

func TestAStandbyReadsWhichGenerationIsPromotedBeforeItClaims(t *testing.T) {
	p := standby(t)
	p.view.Death = "gone"
	require.Equal(t, election.Consult, p.look(poll).Step)
	require.Equal(t, election.Claim, p.consulted().look(0).Step)
}

func TestAStandbyReadsOfContendersOnceAHeartbeat(t *testing.T) {
	p := standby(t)
	require.Equal(t, election.Consult, p.look(lease).Step)
	p.consulted().look(0)
	p.view.Board.Consulted = false
	require.Equal(t, election.Wait, p.look(lease/3-1).Step)
	require.Equal(t, election.Consult, p.look(1).Step)
}

func TestTheFirstClaimIsConditionalOnThatNobodyEverClaimed(t *testing.T) {
	p := standby(t).consulted()
	p.view.Head = election.Head{}
	a := p.look(poll)
	require.Equal(t, election.Claim, a.Step)
	require.Equal(t, election.Conditions{Never: true, Notes: []election.Note{election.NoteIntent}, Reason: "nobody ever claimed"}, a.Claim)
	require.False(t, a.Contend)
	p.promote(2)
	require.True(t, p.look(poll).Contend)
}

func TestAStandbyLeavesTheClaimToALivingContenderOfAPromotedGeneration(t *testing.T) {
	p := standby(t)
	p.promote(3)
	p.view.Board.Contender = election.Contender{Generation: 3, Seq: 1}
	p.view.Death = "gone"
	for range 20 {
		p.view.Board.Contender.Seq++
		a := p.looks(lease)
		require.Equal(t, election.Wait, a.Step)
		require.Equal(t, "the process of g2.e1 is gone: gone; generation 3 is promoted, and is about to claim", a.Reason)
	}
	require.Equal(t, election.Wait, p.looks(silence-lease-poll).Step)
	require.Equal(t, election.Claim, p.looks(2*poll).Step, "none was heard for a lease and a twentieth")
}

func TestALowerGenerationWaitsForTheFirstWordOfAPromotionThatIsNew(t *testing.T) {
	p := standby(t).consulted()
	p.look(poll)
	p.promote(3)
	p.view.Death = "gone"
	p.look(poll)
	require.Equal(t, election.Wait, p.looks(silence-poll).Step)
	require.Equal(t, election.Claim, p.look(poll).Step)
}

func TestAPromotionThatStoodBeforeWithoutAProcessKeepsNobody(t *testing.T) {
	p := standby(t)
	p.promote(3)
	p.view.Death = "gone"
	require.Equal(t, election.Claim, p.look(poll).Step)
}

func TestAContenderIsNotSilentWhileTheStoreCannotBeRead(t *testing.T) {
	p := standby(t)
	p.promote(3)
	p.view.Board.Contender = election.Contender{Generation: 3, Seq: 1}
	p.view.Death = "gone"
	p.looks(silence)
	p.blind(time.Minute)
	require.Equal(t, election.Wait, p.look(time.Minute).Step)
	require.Equal(t, election.Claim, p.look(poll).Step)
}

func TestAContenderThatDoesNotCountKeepsNobody(t *testing.T) {
	for name, sees := range map[string]func(*election.Board){
		"it is not promoted": func(b *election.Board) { b.Intent.Generation = 0 },
		"another one is":     func(b *election.Board) { b.Intent.Generation = 4 },
		"it is of this one":  func(b *election.Board) { b.Intent.Generation, b.Contender.Generation = 2, 2 },
	} {
		t.Run(name, func(t *testing.T) {
			p := standby(t)
			p.promote(3)
			p.view.Board.Contender = election.Contender{Generation: 3, Seq: 1}
			sees(&p.view.Board)
			p.view.Death = "gone"
			require.Equal(t, election.Claim, p.look(poll).Step)
		})
	}
}

func TestAnUnreadyProcessSaysWhyAndRaisesAnAlarmIfNobodyLeads(t *testing.T) {
	for name, c := range map[string]struct {
		process func(*testing.T) *process
		sees    func(*election.View)
		ready   bool
		reason  string
	}{
		"aborted":          {successor, func(v *election.View) { v.Board.Intent = election.Intent{Aborted: true} }, false, "generation 2 was aborted"},
		"missing":          {standby, func(v *election.View) { v.Ready.Missing = "the rehearsal failed" }, false, "the rehearsal failed"},
		"another promoted": {successor, func(v *election.View) { v.Board.Intent.Generation = 3 }, false, "generation 3 was promoted by ops"},
		"not promoted":     {successor, func(v *election.View) { v.Board.Intent.Generation = 1 }, true, "generation 2 is not promoted"},
	} {
		t.Run(name, func(t *testing.T) {
			p := c.process(t).consulted()
			c.sees(&p.view)
			require.Equal(t, election.Action{Ready: c.ready, Reason: c.reason}, p.look(poll))
			p.view.Death = "gone"
			a := p.look(poll)
			require.Equal(t, election.Wait, a.Step)
			require.Contains(t, a.Alarm, "and this process may not: "+c.reason)
		})
	}
}

func TestAHolderOfAnAbortedGenerationHasStandbys(t *testing.T) {
	p := standby(t).consulted()
	p.view.Board.Intent.Aborted = true
	p.view.Death = "gone"
	require.Equal(t, election.Claim, p.look(poll).Step)
}

func TestAProcessIsReadyForALeaseAfterTheStoreAnsweredLast(t *testing.T) {
	p := standby(t)
	require.False(t, p.blind(0).Ready, "it has never read")
	p.look(poll)
	require.True(t, p.blind(lease-1).Ready)
	a := p.blind(1)
	require.False(t, a.Ready)
	require.Equal(t, "the store has not answered for 6s", a.Reason)
	require.True(t, p.look(poll).Ready)
}

func TestAnAlarmIsNotOverBecauseTheStoreCannotBeRead(t *testing.T) {
	p := successor(t)
	p.promote(generation.None)
	p.view.Death = "it ended"
	a := p.look(0)
	require.NotEmpty(t, a.Alarm)
	require.Equal(t, a.Alarm, p.blind(poll).Alarm)
	require.Equal(t, a.Alarm, p.blind(lease).Alarm)
	require.Equal(t, a.Alarm, p.look(poll).Alarm)
	p.view.Death = ""
	require.Empty(t, p.look(poll).Alarm)
}

func TestAHolderThatOffersTheTokenToAStandbyRaisesNoAlarm(t *testing.T) {
	p := successor(t)
	p.promote(generation.None)
	p.view.Board.Offer = election.Offer{Claim: claimID(1), Open: true}
	require.Empty(t, p.look(0).Alarm)
	p.view.Death = "it ended"
	p.view.Board.Offer.Open = false
	require.NotEmpty(t, p.look(poll).Alarm)
}
