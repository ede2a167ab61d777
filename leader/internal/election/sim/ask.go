package sim

import (
	"time"

	"github.com/fencepost/fencepost/leader/internal/election"
)

// An ask is a request to hand over, as both sides see it.
type ask struct {
	by           *candidacy
	holder       *process
	handover     election.Handover // as the asker sees it
	offer        int64             // the version of the offer's note: before the question, then as the holder has named it
	counted      time.Duration     // for how long the asker has waited while it could read the store
	closed       bool              // by the asker
	disconnected bool              // and the holder knows
	resumed      bool              // the holder went back to work after it had acknowledged
}

// newAsk asks the holder.
func newAsk(c *candidacy) *ask {
	p := c.p
	a := &ask{by: c, holder: c.board.beat.from, offer: c.board.versions[slot(offerKey)]}
	p.w.say("%s asks %s to hand over", p.name, a.holder.name)
	p.send(a.holder, func() { a.arrives() })
	a.await()
	return a
}

// await counts for how long the holder does not acknowledge.
func (a *ask) await() {
	c := a.by
	if a.closed || a.handover.Stage != election.NotAsked || c.over {
		return
	}
	if a.counted >= answer {
		a.stage(election.Handover{Stage: election.Unanswered, Detail: "the holder has not answered"})
		return
	}
	pace := answer / 10
	c.p.call(pace*2, false, func() error { return nil }, func(err error) {
		if err == nil {
			a.counted += pace
		}
		c.p.after(pace, a.await)
	})
}

// arrives runs in the holder's process, which reads whether the asker's generation
// is promoted, and takes the request.
func (a *ask) arrives() {
	h, mine := a.holder, a.by.p.generation
	if h.leads == nil || h.leads.ended {
		a.reply(election.Handover{Stage: election.Denied, Detail: "this process does not hold the claim"})
		return
	}
	var seen board
	h.call(answer, false, func() error { seen = h.w.read(); return nil }, func(err error) {
		l := h.leads // which may have ended meanwhile
		switch {
		case err != nil:
			a.reply(election.Handover{Stage: election.Denied, Detail: "the holder can't read the store"})
		case seen.intent.generation != mine:
			a.reply(election.Handover{Stage: election.Denied, Detail: "not promoted"})
		case l == nil, l.ended, l.request.Made:
			a.reply(election.Handover{Stage: election.Denied, Detail: "the holder hands over to another process"})
		default:
			l.ask, l.request = a, election.Request{Made: true, To: mine, Gone: a.disconnected}
			l.step()
		}
	})
}

// reply brings a holder's answer to the asker.
func (a *ask) reply(h election.Handover) {
	a.holder.send(a.by.p, func() { a.stage(h) })
}

// offers brings the asker the answer of a holder that has paused.
func (a *ask) offers(h election.Handover, version int64) {
	a.holder.send(a.by.p, func() {
		if !a.closed {
			a.offer = version
		}
		a.stage(h)
	})
}

// stage notes how far the handover has come, unless the asker waits no longer, or
// the handover has ended.
func (a *ask) stage(h election.Handover) {
	c := a.by
	if a.closed || c.over || a.handover.Stage >= election.Declined {
		return
	}
	h.At = c.p.clock()
	a.handover = h
	c.p.w.say("%s is answered by %s: stage %d %s", c.p.name, a.holder.name, h.Stage, h.Detail)
	if h.Stage == election.Paused {
		a.catchUp()
	}
	c.wake()
}

// catchUp reads up to where the holder has paused.
func (a *ask) catchUp() {
	p := a.by.p
	if a.closed || a.by.over || p.head.Revision >= a.handover.Revision {
		return
	}
	head := p.head
	p.call(heartbeat, false, func() error { head = p.w.head; return nil }, func(err error) {
		if err == nil {
			p.sees(head)
			a.by.wakeIfRuns()
		}
		p.after(poll/20, a.catchUp)
	})
}

// wakeIfRuns wakes the process, if it still waits for the token.
func (c *candidacy) wakeIfRuns() {
	if !c.over && !c.p.dead {
		c.wake()
	}
}

// close ends the request on both sides.
func (a *ask) close() {
	if !a.closed {
		a.closed = true
		a.by.p.send(a.holder, a.gone)
	}
}

// broken ends the connection as the asker dies.
func (a *ask) broken() {
	a.closed = true
	w := a.by.p.w
	if !w.cutHosts[a.by.p.host][a.holder.host] {
		w.in(w.latency(), func() { a.holder.run(a.gone) })
	}
}

// lost ends the connection as the holder dies.
func (a *ask) lost() {
	w := a.by.p.w
	if !w.cutHosts[a.by.p.host][a.holder.host] {
		w.in(w.latency(), func() {
			a.by.p.run(func() {
				a.stage(election.Handover{Stage: election.Resumed, Detail: "the connection to the holder is lost"})
			})
		})
	}
}

// gone runs in the holder's process, and ends the request there.
func (a *ask) gone() {
	a.disconnected = true
	a.deliver(func(l *leadership) { l.request.Gone = true; l.step() })
}

// deliver calls fn if the holder still has the request.
func (a *ask) deliver(fn func(*leadership)) {
	if l := a.holder.leads; l != nil && !l.ended && l.ask == a {
		fn(l)
	}
}
