package election

import (
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/generation"
)

// A Candidate decides when its process may claim, and what it does before. It
// lives as long as the process waits, over claims that failed. Its methods must
// not be called concurrently.
type Candidate struct {
	cfg Settings

	holder    silence // of the holder of the newest claim
	contender silence // of a higher generation that is promoted
	turn      delay

	readable bool          // some look has succeeded
	last     time.Duration // when the last look that succeeded was answered
	ready    bool          // as the last action said

	asked     driver.ID     // the claim whose holder was asked to hand over; zero: nobody was
	disturbs  bool          // that holder has begun to end its work
	notBefore time.Duration // when a living holder may be disturbed again
	disturbed int           // how often one was, in vain
}

// NewCandidate returns a Candidate that has observed nothing yet.
func NewCandidate(cfg Settings) *Candidate { return &Candidate{cfg: cfg} }

// Asked reports whether a holder was asked to hand over. Until the candidate
// claims or resumes, a View may then bear the board as it was seen before: the
// conditions of the claim cover what could have changed.
func (c *Candidate) Asked() bool { return !c.asked.IsZero() }

// Next returns what to do about v.
func (c *Candidate) Next(v View) Action {
	a := c.next(v)
	c.ready = a.Ready
	return a
}

func (c *Candidate) next(v View) Action {
	if c.Asked() {
		return c.handover(v)
	}
	if !v.Board.Readable {
		return c.unreadable(v)
	}
	c.readable, c.last = true, v.Board.Answered
	if v.Nudged {
		c.notBefore, c.disturbed = 0, 0
	}
	a := c.waiting(v)
	if a.Step != Claim {
		c.turn.reset()
		return a
	}
	if long := c.wait(v); !c.turn.over(v.Now, v.Head.Claim, long) {
		return Action{Ready: true, Contend: a.Contend, Reason: fmt.Sprintf("%s: this process waits %v for others to claim first", a.Claim.reason, long)}
	}
	return a
}

// unreadable waits for the store. A process that has not read it for a lease
// could not lead.
func (c *Candidate) unreadable(v View) Action {
	c.holder.blind()
	c.contender.blind()
	c.turn.reset()
	lasts := v.Now - c.last
	return Action{
		Ready:  c.ready && c.readable && lasts < c.cfg.Lease,
		Reason: fmt.Sprintf("the store has not answered for %v", lasts.Round(time.Second)),
	}
}

// wait is for how long others have the first right to the claim.
func (c *Candidate) wait(v View) time.Duration {
	switch {
	case v.Alone:
		return 0
	case v.Reluctant:
		return c.cfg.Delay + c.cfg.Reluctance
	default:
		return c.cfg.Delay
	}
}

// waiting decides for a process that has asked nobody.
func (c *Candidate) waiting(v View) Action {
	vacancy, notes := c.vacant(v)
	switch {
	case v.Board.Intent.Aborted && v.Head.Token.Generation != c.cfg.Generation:
		return c.unready(fmt.Sprintf("generation %v was given up", c.cfg.Generation), vacancy)
	case v.Ready.Missing != "":
		return c.unready(v.Ready.Missing, vacancy)
	case v.Head.Claim.IsZero() || v.Head.Token.Generation == c.cfg.Generation:
		return c.standby(v, vacancy, notes)
	default:
		return c.deploy(v, vacancy)
	}
}

// unready waits as a process that could not lead.
func (c *Candidate) unready(missing, vacancy string) Action {
	a := Action{Reason: missing}
	if vacancy != "" {
		a.Alarm = fmt.Sprintf("nobody leads (%s), and this process may not: %s", vacancy, missing)
	}
	return a
}

// vacant says why nobody holds the token any more, and on which notes that
// rests; empty: somebody does, as far as is known.
func (c *Candidate) vacant(v View) (why string, notes []Note) {
	if v.Head.Claim.IsZero() {
		return "nobody ever claimed", []Note{NoteIntent}
	}
	claim, token := v.Head.Claim, v.Head.Token
	seq := uint64(0) // a claim that has sent no heartbeat yet
	beat := v.Board.Heartbeat
	if beat.Claim == claim {
		seq = beat.Seq
	}
	silent := c.holder.observe(v.Board, source{claim: claim}, seq, c.cfg.heartbeat())
	offer := v.Board.Offer
	switch {
	case beat.Left && beat.Claim == claim:
		return fmt.Sprintf("the holder of %v has left", token), []Note{NoteHeartbeat}
	case offer.Open && offer.Claim == claim && offer.To == generation.None:
		return fmt.Sprintf("the holder of %v offers it", token), []Note{NoteOffer}
	case v.Death != "":
		return fmt.Sprintf("the process of %v has ended: %s", token, v.Death), nil
	case silent >= c.cfg.silence():
		return fmt.Sprintf("no heartbeat of %v for %v", token, silent.Round(time.Millisecond)), nil
	default:
		return "", nil
	}
}

// standby decides for a process of the holder's own generation, and for one that
// finds a catalog which nobody ever claimed.
func (c *Candidate) standby(v View, vacancy string, notes []Note) Action {
	if vacancy == "" {
		return Action{Ready: true, Reason: "everything is read; standby of the holder"}
	}
	if !v.Board.Consulted {
		return Action{Step: Consult, Ready: true, Reason: vacancy}
	}
	promoted, alive := c.outranked(v)
	switch {
	case alive:
		return Action{Ready: true, Reason: fmt.Sprintf("%s, and generation %v, which is promoted, is about to claim", vacancy, promoted)}
	}
	cond := Conditions{Over: v.Head.Claim, Notes: notes, reason: vacancy}
	cond.Never = v.Head.Claim.IsZero()
	return Action{Step: Claim, Claim: cond, Ready: true, Reason: vacancy}
}

// outranked returns the higher generation that is promoted, and whether a ready
// process of it is alive. Its claim comes first. If none was heard for as long
// as a holder may be silent, lower generations may claim; the promotion stays.
func (c *Candidate) outranked(v View) (promoted generation.Generation, alive bool) {
	promoted = v.Board.Intent.Generation
	if promoted <= c.cfg.Generation || v.Board.Contender.Generation != promoted {
		return promoted, false
	}
	silent := c.contender.observe(v.Board, source{generation: promoted}, v.Board.Contender.Seq, c.cfg.heartbeat())
	return promoted, silent < c.cfg.silence()
}

// deploy decides for a process of a higher generation than the holder's.
func (c *Candidate) deploy(v View, vacancy string) Action {
	intent, mine := v.Board.Intent, c.cfg.Generation
	switch {
	case intent.Generation > mine:
		return c.unready(fmt.Sprintf("generation %v was promoted by %s", intent.Generation, intent.By), vacancy)
	case intent.Generation < mine && c.cfg.AutoPromote:
		return Action{Step: Promote, Ready: true, Reason: "ready, and promotes itself"}
	case intent.Generation < mine:
		a := c.unready(fmt.Sprintf("generation %v is not promoted", mine), vacancy)
		a.Ready = true
		return a
	}
	alive := vacancy == ""
	if alive && v.Now < c.notBefore {
		return Action{Ready: true, Reason: fmt.Sprintf("promoted; the holder was asked in vain, and is asked again in %v", (c.notBefore - v.Now).Round(time.Millisecond))}
	}
	reason := "promoted by " + intent.By
	switch {
	case v.Ready.Level < Fresh:
		return Action{Step: Examine, Level: Fresh, Ready: true, Contend: true, Reason: reason}
	case alive && v.Reachable:
		c.asked = v.Head.Claim
		return Action{Step: Ask, Ready: true, Contend: true, Reason: reason}
	default:
		return c.succeed(reason, NoteIntent)
	}
}

// succeed claims over every lower generation, however many have claimed
// meanwhile.
func (c *Candidate) succeed(reason string, notes ...Note) Action {
	return Action{Step: Claim, Claim: Conditions{Lower: true, Notes: notes, reason: reason}, Ready: true, Contend: true, Reason: reason}
}

// handover decides for a process that has asked the holder.
func (c *Candidate) handover(v View) Action {
	h, limit := v.Handover, c.cfg.HandoverTimeout
	c.disturbs = c.disturbs || h.Stage == Acknowledged || h.Stage == Paused || h.Stage == Resumed
	reason := "promoted by " + v.Board.Intent.By
	late := v.Now-h.At >= limit
	switch {
	case v.Head.Claim != c.asked:
		return c.resume("another process has claimed")
	case h.Stage == Unanswered, h.Stage == Declined:
		return c.succeed(reason+"; "+h.Detail, NoteIntent)
	case h.Stage == Acknowledged && late:
		return c.succeed(fmt.Sprintf("%s; the holder has not ended its work within %v", reason, limit), NoteIntent)
	case h.Stage == Acknowledged:
		return Action{Ready: true, Contend: true, Reason: "the holder ends its work"}
	case h.Stage != Paused:
		return c.resume(h.Detail)
	case v.Head.Revision < h.Revision && late:
		return c.resume(fmt.Sprintf("revision %d of the holder could not be read within %v", h.Revision, limit))
	case v.Head.Revision < h.Revision:
		return Action{Ready: true, Contend: true, Reason: fmt.Sprintf("reads up to revision %d, at which the holder has paused", h.Revision)}
	case v.Ready.Level < Final || v.Ready.Revision < h.Revision:
		return Action{Step: Examine, Level: Final, Ready: true, Contend: true, Reason: reason}
	case v.Ready.Missing != "":
		a := c.resume(v.Ready.Missing)
		a.Ready = false
		return a
	case h.Offered:
		return c.succeed(reason, NoteIntent, NoteOffer)
	default:
		return c.succeed(reason, NoteIntent)
	}
}

// resume lets a holder that was asked in vain go on, and leaves it alone for a
// while.
func (c *Candidate) resume(why string) Action {
	return Action{Step: Resume, Ready: true, Reason: why}
}

// maxBackoff is how many times the pause between two questions to a living
// holder is doubled at most.
const maxBackoff = 4

// Over notes that the handover, or the claim, is over without a token. It backs
// off only if a living holder was disturbed for it.
func (c *Candidate) Over(now time.Duration) {
	if c.disturbs {
		c.notBefore = now + c.cfg.HandoverTimeout<<min(c.disturbed, maxBackoff)
		c.disturbed++
	}
	c.asked, c.disturbs = driver.ID{}, false
}
