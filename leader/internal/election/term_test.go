package election_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/leader/internal/election"
)

// A holder is a Term and what it sees.
type holder struct {
	t    *testing.T
	term *election.Term
	view election.TermView
}

// newHolder has claimed, and its registers are raised.
func newHolder(t *testing.T) *holder {
	h := &holder{t: t, term: election.NewTerm(settings(), "nobody ever claimed")}
	h.view = election.TermView{Now: time.Hour, Leased: true, Raised: true}
	return h
}

// does requires that the next orders are these, and then none.
func (h *holder) does(duties ...election.Duty) {
	h.t.Helper()
	for _, want := range append(duties, election.Stay) {
		o := h.term.Next(h.view)
		require.Equal(h.t, want, o.Duty, o.Reason)
		h.obey(o.Duty)
	}
}

// obey does what an order says, with success and at once, but for the end of the
// work.
func (h *holder) obey(d election.Duty) {
	switch d {
	case election.StartWork:
		h.view.Work = election.Running
	case election.PauseWork:
		h.view.Ask.Acknowledged = true
	case election.WriteOffer:
		h.view.Offer = election.Offered
	case election.WithdrawOffer:
		h.view.Offer, h.view.Ask = election.Withdrawn, election.Request{}
	case election.RefuseRequest:
		h.view.Ask = election.Request{}
	}
}

// joins has the work end as it was asked to.
func (h *holder) joins() { h.view.Work = election.Joined }

func (h *holder) in(p election.TermPhase) {
	h.t.Helper()
	require.Equal(h.t, p, h.term.Phase())
}

// serving returns a holder whose work runs.
func serving(t *testing.T) *holder {
	h := newHolder(t)
	h.does(election.StartWork)
	h.in(election.Serving)
	return h
}

// pausing returns one that was asked to hand over; yielding one whose work has ended
// for that; suspended one whose lease has lapsed.
func pausing(t *testing.T) *holder {
	h := serving(t)
	h.view.Ask = election.Request{Made: true, To: 3}
	h.does(election.PauseWork)
	h.in(election.Pausing)
	return h
}

func yielding(t *testing.T) *holder {
	h := pausing(t)
	h.joins()
	h.does(election.WriteOffer)
	h.in(election.Yielding)
	return h
}

func suspended(t *testing.T) *holder {
	h := serving(t)
	h.view.Leased = false
	h.does(election.SuspendWork)
	h.in(election.Suspending)
	return h
}

func stopping(t *testing.T) *holder {
	h := serving(t)
	h.view.Over = true
	h.does(election.StopWork)
	h.in(election.Stopping)
	return h
}

func TestWorkStartsOnceEveryRegisterRefusesOlderTokens(t *testing.T) {
	h := newHolder(t)
	h.view.Raised = false
	for range 3 {
		require.Equal(t, election.RaiseRegisters, h.term.Next(h.view).Duty)
	}
	h.view.Raised = true
	require.Equal(t, election.Order{Duty: election.StartWork, Reason: "nobody ever claimed"}, h.term.Next(h.view))
}

func TestWorkStartsOnlyWithALease(t *testing.T) {
	h := newHolder(t)
	h.view.Leased = false
	h.does()
	h.does()
	h.in(election.Unconfirmed)
	h.view.Leased = true
	require.Equal(t, election.Order{Duty: election.StartWork, Reason: "nobody ever claimed"}, h.term.Next(h.view))
}

func TestWorkIsAskedToEndAsTheLeaseLapsesAndStartsAgainUnderTheSameToken(t *testing.T) {
	h := suspended(t)
	h.view.Leased = true
	h.does() // the work has not ended yet
	h.joins()
	require.Equal(t, election.Stay, h.term.Next(h.view).Duty)
	h.in(election.Unconfirmed)
	require.Equal(t, election.Order{Duty: election.StartWork, Reason: "the store answers again, and the token is still held"}, h.term.Next(h.view))
}

func TestWorkEndsBeforeItsTerm(t *testing.T) {
	for name, of := range map[string]func(*testing.T) *holder{"serving": serving, "pausing": pausing, "suspended": suspended} {
		t.Run(name, func(t *testing.T) {
			h := of(t)
			h.view.Over = true
			h.does(election.StopWork)
			h.joins()
			h.does(election.EndTerm)
			h.in(election.Ended)
		})
	}
}

func TestATermThatRunsNoWorkEndsAtOnce(t *testing.T) {
	for name, of := range map[string]func(*testing.T) *holder{
		"raising":  func(t *testing.T) *holder { return newHolder(t) },
		"yielding": yielding,
		"unconfirmed": func(t *testing.T) *holder {
			h := suspended(t)
			h.joins()
			h.does()
			return h
		},
		"joined": func(t *testing.T) *holder { h := pausing(t); h.joins(); return h },
	} {
		t.Run(name, func(t *testing.T) {
			h := of(t)
			h.view.Over = true
			h.does(election.EndTerm)
		})
	}
}

func TestWorkThatEndsByItselfEndsTheTerm(t *testing.T) {
	for name, of := range map[string]func(*testing.T) *holder{"serving": serving, "pausing": pausing, "suspended": suspended, "stopping": stopping} {
		t.Run(name, func(t *testing.T) {
			h := of(t)
			h.view.Work = election.Finished
			h.does(election.EndTerm)
		})
	}
}

func TestAStopThatWasOrderedIsNotTakenBack(t *testing.T) {
	h := stopping(t)
	h.view.Over = false
	h.joins()
	h.does(election.EndTerm)
}

func TestAHolderThatDoesNotServeRefusesToHandOver(t *testing.T) {
	for name, of := range map[string]func(*testing.T) *holder{
		"raising": func(t *testing.T) *holder {
			h := newHolder(t)
			h.view.Raised = false
			return h
		},
		"unconfirmed": func(t *testing.T) *holder {
			h := suspended(t)
			h.joins()
			h.does()
			return h
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := of(t)
			h.view.Ask = election.Request{Made: true}
			require.Equal(t, election.RefuseRequest, h.term.Next(h.view).Duty)
		})
	}
}

// The successor that was refused claims on condition that no heartbeat was posted since.
func TestBehindARefusalTheWorkStartsOnceAHeartbeatThatCameLaterIsConfirmed(t *testing.T) {
	h := suspended(t)
	h.joins()
	h.does()
	h.view.Ask = election.Request{Made: true}
	h.view.Confirmed = h.view.Now - time.Second
	h.does(election.RefuseRequest)
	h.view.Leased = true
	h.does()
	h.in(election.Unconfirmed)
	h.view.Confirmed = h.view.Now
	h.does(election.StartWork)
}

func TestARequestThatComesWhenTheWorkCanStartIsTakenOnceItRuns(t *testing.T) {
	h := suspended(t)
	h.joins()
	h.does()
	h.view.Ask = election.Request{Made: true}
	h.view.Leased = true
	h.does(election.StartWork, election.PauseWork)

	h = newHolder(t)
	h.view.Ask = election.Request{Made: true}
	h.does(election.StartWork, election.PauseWork)
}

func TestARequestWhileTheWorkEndsIsAnsweredOnceItHasEnded(t *testing.T) {
	h := suspended(t)
	h.view.Ask = election.Request{Made: true}
	h.does()
	h.joins()
	require.Equal(t, election.Stay, h.term.Next(h.view).Duty)
	require.Equal(t, election.RefuseRequest, h.term.Next(h.view).Duty)

	h = stopping(t)
	h.view.Ask = election.Request{Made: true}
	h.does()
	h.joins()
	h.does(election.EndTerm)
}

func TestWorkThatDoesNotEndIsLeftBehindOnlyOnceTheTokenIsLostForLongEnough(t *testing.T) {
	h := newHolder(t)
	h.does(election.StartWork)
	h.view.Over = true
	h.does(election.StopWork)
	h.view.Now += time.Hour
	h.does() // the token is held
	h.view.Lost = true
	h.does(election.StopWork) // it is said, and the time counts from now
	h.view.Now += drain - 1
	h.does()
	h.view.Now++
	require.Equal(t, election.AbandonWork, h.term.Next(h.view).Duty)
	h.in(election.Ended)

	h = newHolder(t)
	h.does(election.StartWork)
	h.view.Over, h.view.Lost = true, true
	h.does(election.StopWork)
	h.view.Now += time.Hour
	h.joins()
	h.does(election.EndTerm)
}

func TestNobodyIsHandedOverToWhoHasGone(t *testing.T) {
	h := serving(t)
	h.view.Ask = election.Request{Made: true, Gone: true}
	h.does(election.RefuseRequest)
	h.in(election.Serving)
}

func TestARequestThatWasAcknowledgedIsNotRefused(t *testing.T) {
	h := pausing(t)
	h.does()
	h.view.Over = true
	h.does(election.StopWork) // and then nothing until the work has ended
}

func TestWorkStartsAgainOnlyBehindTheWithdrawalOfItsOffer(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(*election.TermView)
		reason  string
	}{
		"the successor has gone":        {func(v *election.TermView) { v.Ask.Gone = true }, "the successor gave up"},
		"the offer could not be posted": {func(v *election.TermView) { v.Offer = election.Failed }, "the offer could not be written"},
		"the time is over":              {func(v *election.TermView) { v.Now += timeout }, "no other process claimed within 2s"},
		"the lease has lapsed":          {func(v *election.TermView) { v.Leased = false }, "the store has not confirmed the token for 6s"},
	} {
		t.Run(name, func(t *testing.T) {
			h := yielding(t)
			c.happens(&h.view)
			o := h.term.Next(h.view)
			require.Equal(t, election.Order{Duty: election.WithdrawOffer, Reason: "not handed over: " + c.reason}, o)
			h.in(election.Unconfirmed)
			for _, unknown := range []election.Offering{election.Failed, election.Offered, election.NotOffered} {
				h.view.Offer, h.view.Leased = unknown, true
				require.Equal(t, election.WithdrawOffer, h.term.Next(h.view).Duty)
			}
			h.obey(election.WithdrawOffer)
			o = h.term.Next(h.view)
			require.Equal(t, election.Order{Duty: election.StartWork, Reason: "not handed over: " + c.reason}, o)
		})
	}
}

func TestAWithdrawalCountsForItsOwnOfferOnly(t *testing.T) {
	h := yielding(t)
	h.view.Ask.Gone = true
	h.does(election.WithdrawOffer, election.StartWork)
	h.view.Ask = election.Request{Made: true} // and Offer still says Withdrawn
	h.does(election.PauseWork)
	h.joins()
	require.Equal(t, election.WriteOffer, h.term.Next(h.view).Duty)
	require.Equal(t, election.Stay, h.term.Next(h.view).Duty)
	h.view.Offer, h.view.Ask.Gone = election.Offered, true
	h.does(election.WithdrawOffer, election.StartWork)
}

func TestWorkThatEndedForASuccessorWhichHasGoneStartsBehindAWithdrawal(t *testing.T) {
	h := pausing(t)
	h.view.Ask.Gone = true
	h.does()
	h.joins()
	for range 3 {
		require.Equal(t, election.WithdrawOffer, h.term.Next(h.view).Duty)
		h.view.Offer = election.Failed
	}
	h.does(election.WithdrawOffer, election.StartWork)
}

func TestAHolderWaitsForItsSuccessorFromThePauseAndFromItsLastProgress(t *testing.T) {
	h := pausing(t)
	h.view.Now += time.Hour
	h.joins()
	h.does(election.WriteOffer)
	for range 3 {
		h.view.Now += timeout - 1
		h.does()
		h.view.Ask.Progress = h.view.Now
		h.does()
	}
	h.view.Now += timeout
	h.does(election.WithdrawOffer, election.StartWork)
}

func TestAHolderWaitsForAnOlderBuildAsLongAsThatAsked(t *testing.T) {
	h := yielding(t)
	h.view.Ask.More = time.Minute
	h.view.Now += timeout + time.Minute - 1
	h.does()
	h.view.Now++
	h.does(election.WithdrawOffer, election.StartWork)
}

func TestATermThatHasEndedGivesNoOrders(t *testing.T) {
	h := stopping(t)
	h.joins()
	h.does(election.EndTerm)
	h.view.Over, h.view.Work, h.view.Ask = false, election.Idle, election.Request{Made: true}
	h.does()
}

func TestASuccessorsProgressKeepsAHolderWaitingForAnHourAtMost(t *testing.T) {
	t.Parallel()
	h := yielding(t)
	paused := h.view.Now
	for h.view.Now < paused+time.Hour {
		h.view.Ask.Progress = h.view.Now
		h.does()
		h.view.Now += time.Second
	}
	h.view.Now = paused + time.Hour + settings().HandoverTimeout
	h.view.Ask.Progress = h.view.Now
	h.does(election.WithdrawOffer, election.StartWork)
}
