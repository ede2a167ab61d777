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
	contender silence // of the promoted generation's process that is about to claim
	turn      delay

	readable  bool          // some look has succeeded
	last      time.Duration // when the last look that succeeded was answered
	consulted time.Duration // when the intent and the contender were read last; 0: never
	ready     bool          // as the last action said
	alarm     string        // likewise

	asked     driver.ID     // the claim whose holder was asked to hand over; zero: nobody was
	disturbed bool          // that holder has begun to end its work
	spared    driver.ID     // the claim whose holder was asked in vain
	notBefore time.Duration // when that holder may be asked again
	failures  int           // how often a holder has ended its work in vain
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
	c.ready, c.alarm = a.Ready, a.Alarm
	return a
}

func (c *Candidate) next(v View) Action {
	if v.Nudged { // whatever this look can read
		c.notBefore, c.failures = 0, 0
	}
	if c.Asked() {
		return c.handover(v)
	}
	if !v.Board.Readable {
		return c.unreadable(v)
	}
	c.readable, c.last = true, v.Board.Answered
	if v.Board.Consulted {
		c.consult(v)
	}
	c.turn.next()
	return c.waiting(v)
}

// consult notes for how long no ready process of the promoted generation was heard.
// A promotion that is new may have one that was not heard yet. One that stood
// before this process looked first has none, if there is no word of any.
func (c *Candidate) consult(v View) {
	promoted, rival, seq := v.Board.Intent.Generation, v.Board.Contender, uint64(0)
	if rival.Generation == promoted {
		seq = rival.Seq
	}
	first := c.consulted == 0
	c.contender.observe(v.Board, source{generation: promoted}, seq, c.cfg.heartbeat())
	if first && seq == 0 {
		c.contender.length = c.cfg.silence()
	}
	c.consulted = v.Now
}

// unreadable waits for the store. A process that has not read it for a lease
// could not lead.
func (c *Candidate) unreadable(v View) Action {
	c.holder.blind(v.Now)
	c.contender.blind(v.Now)
	c.turn.blind()
	lasts := v.Now - c.last
	return Action{
		Ready:  c.ready && c.readable && lasts < c.cfg.Lease,
		Reason: fmt.Sprintf("the store has not answered for %v", lasts.Round(time.Second)),
		Alarm:  c.alarm, // which is not over because nobody can look
	}
}

// waiting decides for a process that has asked nobody.
func (c *Candidate) waiting(v View) Action {
	vacancy, notes := c.vacant(v)
	switch {
	case v.Board.Intent.Aborted && v.Head.Token.Generation != c.cfg.Generation:
		return c.unready(fmt.Sprintf("generation %v was aborted", c.cfg.Generation), vacancy, notes)
	case v.Ready.Missing != "":
		return c.unready(v.Ready.Missing, vacancy, notes)
	case v.Head.Claim.IsZero() || v.Head.Token.Generation == c.cfg.Generation:
		return c.standby(v, vacancy, notes)
	default:
		return c.deploy(v, vacancy, notes)
	}
}

// unready waits as a process that could not lead. A holder that offers the token to
// a standby is alive, and goes on if there is none: that is no alarm.
func (c *Candidate) unready(missing, vacancy string, notes []Note) Action {
	a := Action{Reason: missing}
	offered := len(notes) == 1 && notes[0] == NoteOffer
	if vacancy != "" && !offered {
		a.Alarm = fmt.Sprintf("nobody leads (%s), and this process may not: %s", vacancy, missing)
	}
	return a
}

// vacant says why nobody holds the token any more, and on which notes that
// rests. Empty: somebody holds it, as far as is known.
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
	case v.Raised != "":
		return fmt.Sprintf("nobody holds %v, which was raised by %s", token, v.Raised), nil
	case v.Death != "":
		return fmt.Sprintf("the process of %v is gone: %s", token, v.Death), nil
	case silent >= c.cfg.silence():
		return fmt.Sprintf("no heartbeat of %v for %v", token, silent.Round(time.Millisecond)), []Note{NoteHeartbeat} // the claim may take long
	default:
		return "", nil
	}
}

// standby decides for a process of the holder's own generation, and for one that
// finds a catalog which nobody ever claimed.
func (c *Candidate) standby(v View, vacancy string, notes []Note) Action {
	if vacancy == "" {
		a := Action{Ready: true, Reason: "everything is read; standby of the holder"}
		if !v.Board.Consulted && v.Now-c.consulted >= c.cfg.heartbeat() {
			a.Step = Consult // to know for how long the contender is silent, should the holder be gone
		}
		return a
	}
	contend := v.Head.Claim.IsZero() && v.Board.Intent.Generation == c.cfg.Generation
	if early := c.early(v, v.Head.Claim, vacancy); early != "" {
		return Action{Ready: true, Contend: contend, Reason: early}
	}
	if !v.Board.Consulted {
		return Action{Step: Consult, Ready: true, Reason: vacancy}
	}
	if c.outranked(v.Board.Intent) {
		return Action{Ready: true, Reason: fmt.Sprintf("%s; generation %v is promoted, and is about to claim", vacancy, v.Board.Intent.Generation)}
	}
	cond := Conditions{Never: v.Head.Claim.IsZero(), Over: v.Head.Claim, Notes: notes, Reason: vacancy}
	return Action{Step: Claim, Claim: cond, Ready: true, Contend: contend, Reason: vacancy}
}

// outranked reports whether a higher generation is promoted and a ready process
// of it may be alive. Its claim comes first. If none was heard for as long as a
// holder may be silent, lower generations may claim; the promotion stays.
func (c *Candidate) outranked(i Intent) bool {
	return i.Generation > c.cfg.Generation && c.contender.length < c.cfg.silence()
}

// early says why it is too early to claim, or to ask the holder: others come
// first. Empty: it is time. The time counts for as long as every look finds the
// same reason to claim over the same claim; zero: over any.
func (c *Candidate) early(v View, over driver.ID, reason string) string {
	long := c.cfg.Delay
	if v.Reluctant {
		long += c.cfg.Reluctance
	}
	if v.Alone {
		long = 0
	}
	if c.turn.over(v.Now, over, long) {
		return ""
	}
	return fmt.Sprintf("%s; others may claim first, for %v", reason, long)
}

// deploy decides for a process of a higher generation than the holder's.
func (c *Candidate) deploy(v View, vacancy string, notes []Note) Action {
	intent, mine := v.Board.Intent, c.cfg.Generation
	switch {
	case !v.Board.Consulted:
		return Action{Step: Consult, Ready: c.ready, Reason: "reads which generation is promoted"}
	case intent.Generation > mine:
		return c.unready(fmt.Sprintf("generation %v was promoted by %s", intent.Generation, intent.By), vacancy, notes)
	case intent.Generation < mine && c.cfg.AutoPromote:
		return Action{Step: Promote, Ready: true, Reason: "ready, and promotes itself"}
	case intent.Generation < mine:
		a := c.unready(fmt.Sprintf("generation %v is not promoted", mine), vacancy, notes)
		a.Ready = true
		return a
	}
	return c.promoted(v, vacancy, notes)
}

// promoted decides for a process whose generation is promoted over the holder's.
func (c *Candidate) promoted(v View, vacancy string, notes []Note) Action {
	reason := "promoted by " + v.Board.Intent.By
	a := Action{Ready: true, Contend: true, Reason: reason}
	alive, pause := vacancy == "", c.notBefore-v.Now
	if alive && v.Head.Claim == c.spared && pause > 0 {
		a.Reason = fmt.Sprintf("%s; the holder was asked in vain, and is asked again in %v", reason, pause.Round(time.Millisecond))
		return a
	}
	if early := c.early(v, driver.ID{}, reason); early != "" {
		a.Reason = early
		return a
	}
	switch {
	case v.Ready.Level < Fresh:
		a.Step, a.Level = Examine, Fresh
		return a
	case alive && v.Reachable:
		c.asked = v.Head.Claim
		a.Step = Ask
		return a
	default:
		return c.succeed(reason, append(notes, NoteIntent)...)
	}
}

// succeed claims over every lower generation, however many have claimed
// meanwhile.
func (c *Candidate) succeed(reason string, notes ...Note) Action {
	return Action{Step: Claim, Claim: Conditions{Lower: true, Notes: notes, Reason: reason}, Ready: true, Contend: true, Reason: reason}
}
