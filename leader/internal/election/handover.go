package election

import (
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
)

// handover decides for a process that has asked the holder.
func (c *Candidate) handover(v View) Action {
	h, limit := v.Handover, c.cfg.HandoverTimeout
	c.disturbed = c.disturbed || h.Stage == Acknowledged || h.Stage == Paused || h.Stage == Resumed
	reason := "promoted by " + v.Board.Intent.By
	late := v.Now-h.At >= limit
	switch {
	case v.Head.Claim != c.asked:
		return c.resume("another process has claimed")
	case v.Death != "":
		return c.succeed(fmt.Sprintf("%s; the holder has ended: %s", reason, v.Death), NoteIntent)
	case h.Stage == NotAsked:
		return Action{Ready: true, Contend: true, Reason: "the holder is asked to hand over"}
	case h.Stage == Unanswered:
		return c.succeed(reason+"; "+h.Detail, NoteIntent, NoteOffer)
	case h.Stage == Declined:
		return c.succeed(reason+"; "+h.Detail, NoteIntent, NoteHeartbeat) // one that works by then has sent another one
	case h.Stage == Denied:
		c.spared, c.notBefore = c.asked, v.Now+c.cfg.heartbeat()/10
		return c.resume(h.Detail)
	case h.Stage == Acknowledged && late:
		return c.succeed(fmt.Sprintf("%s; the holder has not ended its work within %v", reason, limit), NoteIntent, NoteOffer)
	case h.Stage == Acknowledged:
		return Action{Ready: true, Contend: true, Reason: "the holder ends its work"}
	case h.Stage == Paused:
		return c.paused(v, reason, late)
	default:
		return c.resume(h.Detail)
	}
}

// paused decides for a process whose holder has ended its work and waits.
func (c *Candidate) paused(v View, reason string, late bool) Action {
	h := v.Handover
	switch {
	case v.Head.Revision < h.Revision && late:
		return c.resume(fmt.Sprintf("revision %d of the holder could not be read within %v", h.Revision, c.cfg.HandoverTimeout))
	case v.Head.Revision < h.Revision:
		return Action{Ready: true, Contend: true, Reason: fmt.Sprintf("reads up to revision %d, at which the holder has paused", h.Revision)}
	case v.Ready.Level < Final || v.Ready.Revision < h.Revision:
		return Action{Step: Examine, Level: Final, Ready: true, Contend: true, Reason: reason}
	case v.Ready.Missing != "":
		a := c.resume(v.Ready.Missing)
		a.Ready, a.Contend = false, false
		return a
	case !h.Offered: // an older build, which works again without a word
		return c.succeed(reason, NoteIntent)
	}
	a := c.succeed(reason, NoteIntent, NoteOffer)
	a.Claim.Lower, a.Claim.Over = false, c.asked // a holder that came after has not paused
	return a
}

// resume lets a holder that was asked in vain go on, and leaves it alone for a
// while.
func (c *Candidate) resume(why string) Action {
	return Action{Step: Resume, Ready: true, Contend: true, Reason: why}
}

// maxBackoff is how many times the pause between two questions to a living
// holder is doubled at most.
const maxBackoff = 4

// Over notes that the handover, or the claim, has ended without a token. Only a
// holder that was disturbed for it is left alone for a while: every doubling of
// that time is for one more holder that has ended its work in vain.
func (c *Candidate) Over(now time.Duration) {
	if c.disturbed {
		c.spared = c.asked
		c.notBefore = now + c.cfg.HandoverTimeout<<min(c.failures, maxBackoff)
		c.failures++
	}
	c.asked, c.disturbed = driver.ID{}, false
}
