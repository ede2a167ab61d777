package election_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/leader/internal/election"
)

// second is a standby that leaves the first right to others.
func second(t *testing.T) *process {
	cfg := settings()
	cfg.Delay = 5 * poll
	p := newProcess(t, cfg, 2)
	p.view.Death = "gone"
	return p
}

// claims returns after how long the process claims. It reads the intent only when it
// is told to, and each look but those begins without.
func (p *process) claims() (after time.Duration) {
	p.t.Helper()
	for begun := p.view.Now; ; {
		p.view.Board.Consulted = false
		a := p.look(0)
		if a.Step == election.Consult {
			p.view.Board.Consulted = true
			a = p.look(0)
		}
		if a.Step == election.Claim || a.Step == election.Ask {
			return p.view.Now - begun
		}
		require.Less(p.t, p.view.Now-begun, time.Minute)
		p.view.Now += poll
	}
}

func TestAStandbyOfLowerPriorityClaimsItsDelayLater(t *testing.T) {
	require.Equal(t, 5*poll, second(t).claims())
}

func TestAReluctantProcessWaitsLonger(t *testing.T) {
	p := second(t)
	p.view.Reluctant = true
	require.Equal(t, 15*poll, p.claims())
}

func TestTheOnlyStandbyWaitsForNobody(t *testing.T) {
	p := second(t)
	p.view.Alone, p.view.Reluctant = true, true
	require.Zero(t, p.claims())
}

func TestAStandbySaysThatOthersMayClaimFirst(t *testing.T) {
	require.Equal(t, "the process of g2.e1 is gone: gone; others may claim first, for 500ms", second(t).look(poll).Reason)
}

func TestADelayIsNotWaitedForAgainBehindAClaimThatFailed(t *testing.T) {
	p := second(t)
	require.Equal(t, 5*poll, p.claims())
	p.over()
	require.Zero(t, p.claims())
}

func TestADelayBeginsAnewWithAnotherReason(t *testing.T) {
	for name, between := range map[string]func(*process){
		"the holder was there":  func(p *process) { p.view.Death = ""; p.look(0); p.view.Death = "gone" },
		"another one has ended": func(p *process) { p.view.Head.Claim[15]++ },
		"it could not lead": func(p *process) {
			p.view.Ready.Missing = "no"
			p.look(0)
			p.view.Ready.Missing = ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := second(t)
			p.looks(4 * poll)
			between(p)
			require.Equal(t, 5*poll, p.claims())
		})
	}
}

func TestADelayCountsOnlyBetweenTwoLooksThatCouldRead(t *testing.T) {
	p := second(t)
	p.looks(4 * poll) // from the first on: three
	p.blind(time.Minute)
	require.Equal(t, 2*poll, p.claims())
}

func TestASuccessorOfLowerPriorityAsksItsDelayLater(t *testing.T) {
	cfg := settings()
	cfg.Delay = 5 * poll
	p := newProcess(t, cfg, 1)
	p.promote(2)
	p.view.Reachable = true
	a := p.look(poll)
	require.Equal(t, election.Wait, a.Step)
	require.True(t, a.Contend)
	require.Equal(t, election.Examine, p.looks(5*poll).Step)
	p.view.Ready.Level = election.Fresh
	require.Equal(t, election.Ask, p.look(0).Step)
}

func TestASuccessorsDelayDoesNotBeginAnewWithAnotherHolder(t *testing.T) {
	cfg := settings()
	cfg.Delay = 5 * poll
	p := newProcess(t, cfg, 1)
	p.promote(2)
	for range 5 {
		require.Equal(t, election.Wait, p.look(poll).Step)
		p.view.Head.Claim[15]++ // lower generations claim again and again
	}
	require.Equal(t, election.Examine, p.look(poll).Step)
}

func TestAStandbyForgetsNothingOverAClaimThatFailed(t *testing.T) {
	for name, ends := range map[string]func(*process){
		"death":   func(p *process) { p.view.Death = "gone" },
		"silence": func(p *process) { p.looks(silence + poll) },
		"offer":   func(p *process) { p.view.Board.Offer = election.Offer{Claim: claimID(1), Open: true} },
	} {
		t.Run(name, func(t *testing.T) {
			p := standby(t).consulted()
			ends(p)
			for range 5 {
				require.Equal(t, election.Claim, p.look(1).Step)
				p.over()
			}
		})
	}
}
