package election_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/leader/internal/election"
)

var ( // the notes of claims
	byIntent = []election.Note{election.NoteIntent}
	byOffer  = []election.Note{election.NoteIntent, election.NoteOffer}
	byBeat   = []election.Note{election.NoteIntent, election.NoteHeartbeat}
)

func TestASuccessorReadsFirstWhichGenerationIsPromoted(t *testing.T) {
	p := successor(t)
	p.view.Board.Consulted = false
	require.Equal(t, election.Consult, p.look(poll).Step)
}

func TestAProcessPromotesItselfOnlyIfItIsToldTo(t *testing.T) {
	cfg := settings()
	cfg.AutoPromote = true
	p := newProcess(t, cfg, 1).consulted()
	require.Equal(t, election.Promote, p.look(poll).Step)
	p.promote(2)
	require.Equal(t, election.Examine, p.look(poll).Step)
	p.promote(3)
	require.Equal(t, election.Wait, p.look(poll).Step)
}

func TestASuccessorExaminesItselfAnewBeforeItAsks(t *testing.T) {
	p := successor(t)
	a := p.look(poll)
	require.Equal(t, election.Action{Step: election.Examine, Level: election.Fresh, Ready: true, Contend: true, Reason: "promoted by ops"}, a)
	p.view.Ready.Level = election.Fresh
	require.Equal(t, election.Ask, p.look(poll).Step)
	require.True(t, p.c.Asked())
}

func TestAHolderThatCannotBeAskedIsClaimedOver(t *testing.T) {
	for name, c := range map[string]struct {
		sees  func(*election.View)
		notes []election.Note
	}{
		"no address": {func(v *election.View) { v.Reachable = false }, byIntent},
		"dead":       {func(v *election.View) { v.Death = "gone" }, byIntent},
		"left":       {func(v *election.View) { v.Board.Heartbeat.Left = true }, []election.Note{election.NoteHeartbeat, election.NoteIntent}},
		"offers it":  {func(v *election.View) { v.Board.Offer = election.Offer{Claim: claimID(1), Open: true} }, []election.Note{election.NoteOffer, election.NoteIntent}},
	} {
		t.Run(name, func(t *testing.T) {
			p := successor(t)
			c.sees(&p.view)
			p.view.Ready.Level = election.Fresh
			a := p.look(poll)
			require.Equal(t, election.Claim, a.Step)
			require.Equal(t, election.Conditions{Lower: true, Notes: c.notes, Reason: "promoted by ops"}, a.Claim)
		})
	}
}

// asks returns a successor that has just asked the holder.
func asks(t *testing.T) *process {
	p := successor(t)
	p.view.Ready.Level = election.Fresh
	require.Equal(t, election.Ask, p.look(poll).Step)
	p.view.Ready.Level = election.Basic
	return p
}

// hears has the holder answer, and returns what the process does d later.
func (p *process) hears(h election.Handover, d time.Duration) election.Action {
	h.At = p.view.Now
	p.view.Handover = h
	p.view.Now += d
	return p.c.Next(p.view)
}

func TestAnAskerGoesByWhatTheHolderSays(t *testing.T) {
	paused := func(rev uint64, offered bool) election.Handover {
		return election.Handover{Stage: election.Paused, Revision: rev, Offered: offered, Detail: "paused"}
	}
	final := func(v *election.View) { v.Ready = election.Readiness{Level: election.Final, Revision: 10} }
	lower := func(notes []election.Note, reason string) election.Conditions {
		return election.Conditions{Lower: true, Notes: notes, Reason: reason}
	}
	for name, c := range map[string]struct {
		says  election.Handover
		after time.Duration
		sees  func(*election.View)
		step  election.Step
		claim election.Conditions
	}{
		"nothing yet":                        {election.Handover{}, time.Hour, nil, election.Wait, election.Conditions{}},
		"no answer":                          {election.Handover{Stage: election.Unanswered, Detail: "no answer"}, 0, nil, election.Claim, lower(byOffer, "promoted by ops; no answer")},
		"it does no work":                    {election.Handover{Stage: election.Declined, Detail: "idle"}, 0, nil, election.Claim, lower(byBeat, "promoted by ops; idle")},
		"it is not so":                       {election.Handover{Stage: election.Denied, Detail: "not promoted"}, 0, nil, election.Resume, election.Conditions{}},
		"it works again":                     {election.Handover{Stage: election.Resumed}, 0, nil, election.Resume, election.Conditions{}},
		"yes":                                {election.Handover{Stage: election.Acknowledged}, timeout - 1, nil, election.Wait, election.Conditions{}},
		"yes, and too late":                  {election.Handover{Stage: election.Acknowledged}, timeout, nil, election.Claim, lower(byOffer, "promoted by ops; the holder has not ended its work within 2s")},
		"paused, and more is to be read":     {paused(11, true), timeout - 1, nil, election.Wait, election.Conditions{}},
		"paused, and more could not be read": {paused(11, true), timeout, nil, election.Resume, election.Conditions{}},
		"paused":                             {paused(10, true), 0, nil, election.Examine, election.Conditions{}},
		"paused behind the examination":      {paused(10, true), 0, func(v *election.View) { v.Ready = election.Readiness{Level: election.Final, Revision: 9} }, election.Examine, election.Conditions{}},
		"paused, and this process could not lead": {paused(10, true), 0, func(v *election.View) { final(v); v.Ready.Missing = "no" }, election.Resume, election.Conditions{}},
		"paused and examined":                     {paused(10, true), time.Hour, final, election.Claim, election.Conditions{Over: claimID(1), Notes: byOffer, Reason: "promoted by ops"}},
		"paused, of an older build":               {paused(10, false), 0, final, election.Claim, lower(byIntent, "promoted by ops")},
		"another has claimed":                     {paused(10, true), 0, func(v *election.View) { final(v); v.Head.Claim = claimID(2) }, election.Resume, election.Conditions{}},
		"yes, and it has ended":                   {election.Handover{Stage: election.Acknowledged}, 0, func(v *election.View) { v.Death = "gone" }, election.Claim, lower(byIntent, "promoted by ops; the holder has ended: gone")},
	} {
		t.Run(name, func(t *testing.T) {
			p := asks(t)
			if c.sees != nil {
				c.sees(&p.view)
			}
			a := p.hears(c.says, c.after)
			require.Equal(t, c.step, a.Step)
			require.Equal(t, c.claim, a.Claim)
			if c.step == election.Examine {
				require.Equal(t, election.Final, a.Level)
			}
			require.Equal(t, p.view.Ready.Missing == "", a.Ready)
			require.Equal(t, a.Ready, a.Contend)
		})
	}
}

func TestAHolderThatWasDisturbedInVainIsLeftAloneLongerEachTime(t *testing.T) {
	p := asks(t)
	for _, want := range []time.Duration{timeout, 2 * timeout, 4 * timeout, 8 * timeout, 16 * timeout, 16 * timeout} {
		require.Equal(t, want, p.fails(election.Handover{Stage: election.Resumed}))
	}
}

// fails has a handover end without a claim, and returns for how long the process
// then leaves the holder alone, which goes on sending heartbeats.
func (p *process) fails(h election.Handover) time.Duration {
	p.t.Helper()
	p.hears(h, 0)
	p.over()
	p.view.Handover, p.view.Ready = election.Handover{}, election.Readiness{Level: election.Fresh}
	for begun := p.view.Now; ; {
		p.beats()
		a := p.look(0)
		if a.Step == election.Ask {
			p.view.Ready.Level = election.Basic
			return p.view.Now - begun
		}
		require.True(p.t, a.Contend, "lower generations wait for as long as this one will claim")
		require.Less(p.t, p.view.Now-begun, time.Hour)
		p.view.Now += poll
	}
}

func TestOnlyAHolderThatHasEndedItsWorkWasDisturbed(t *testing.T) {
	for name, c := range map[string]struct {
		stage election.Stage
		pause time.Duration
	}{
		"not answered": {election.NotAsked, 0},
		"unanswered":   {election.Unanswered, 0},
		"declined":     {election.Declined, 0},
		"denied":       {election.Denied, lease / 30},
		"acknowledged": {election.Acknowledged, timeout},
		"paused":       {election.Paused, timeout},
		"resumed":      {election.Resumed, timeout},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.pause, asks(t).fails(election.Handover{Stage: c.stage}))
		})
	}
}

func TestTheHolderThatFollowsOneThatWasDisturbedIsAskedAtOnce(t *testing.T) {
	p := asks(t)
	p.hears(election.Handover{Stage: election.Resumed}, 0)
	p.over()
	p.view.Handover, p.view.Ready.Level = election.Handover{}, election.Fresh
	require.Equal(t, election.Wait, p.look(poll).Step)
	p.view.Head.Claim = claimID(2)
	p.view.Board.Heartbeat.Claim = claimID(2)
	require.Equal(t, election.Ask, p.look(poll).Step)
}

func TestADeadHolderIsNotLeftAlone(t *testing.T) {
	p := asks(t)
	p.hears(election.Handover{Stage: election.Resumed}, 0)
	p.over()
	p.view.Handover, p.view.Ready.Level = election.Handover{}, election.Fresh
	p.view.Death = "gone"
	require.Equal(t, election.Claim, p.look(poll).Step)
}

func TestAnOperatorWhoAsksThisProcessEndsThePause(t *testing.T) {
	p := asks(t)
	p.hears(election.Handover{Stage: election.Resumed}, 0)
	p.over()
	p.view.Handover, p.view.Ready.Level = election.Handover{}, election.Fresh
	a := p.look(poll)
	require.Equal(t, election.Wait, a.Step)
	require.Equal(t, "promoted by ops; the holder was asked in vain, and is asked again in 1.9s", a.Reason)
	p.view.Nudged = true
	p.blind(0)
	p.view.Nudged = false
	require.Equal(t, election.Ask, p.look(poll).Step, "though the store could not be read then")
}
