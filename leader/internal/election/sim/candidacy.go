package sim

import (
	"slices"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/leader/internal/election"
)

// A candidacy is a process that waits for the token. It observes, lets its
// Candidate decide, and does what that says.
type candidacy struct {
	p *process
	c Candidate

	board   board // as of the newest look
	found   election.Readiness
	consult bool // the next look reads the promotion too
	nudged  bool
	ask     *ask // the handover under way

	busy       bool // a call or an examination is under way
	woken      bool // something happened meanwhile
	over       bool // the token is held, or the life is
	exams      int  // numbers the examinations
	contending bool
	decided    time.Duration // when the last action was decided
	steps      int           // in this second
	second     time.Duration
}

// settings are those of the machines of p.
func (p *process) settings() election.Settings {
	return election.Settings{
		Generation: p.generation, Lease: lease, HandoverTimeout: handover, DrainTimeout: drain,
		Delay: p.delay, Reluctance: 10 * step, AutoPromote: p.auto,
	}
}

func newCandidacy(p *process) *candidacy {
	c := &candidacy{p: p}
	if plant := p.w.machines.Candidate; plant != nil {
		c.c = plant(p.settings())
	} else {
		c.c = election.NewCandidate(p.settings())
	}
	return c
}

// tick wakes the process every poll, for as long as it waits.
func (c *candidacy) tick() {
	if c.over {
		return
	}
	c.wake()
	c.p.after(poll, c.tick)
}

// wake has the process look now, or as soon as it is no longer busy.
func (c *candidacy) wake() {
	switch {
	case c.over:
	case c.busy:
		c.woken = true
	default:
		c.decide()
	}
}

// free ends what the process was busy with, and looks again if it was woken.
func (c *candidacy) free() {
	c.busy = false
	if c.woken {
		c.woken = false
		c.wake()
	}
}

// decide looks, unless a holder was asked, and acts.
func (c *candidacy) decide() {
	if c.spins() {
		return
	}
	v := election.View{Now: c.p.clock(), Head: c.head(), Nudged: c.nudged}
	c.nudged = false
	if c.c.Asked() {
		c.judge(v)
		return
	}
	c.look(v)
}

// spins reports a process that acts without end.
func (c *candidacy) spins() bool {
	if second := c.p.w.now / time.Second; second != c.second {
		c.second, c.steps = second, 0
	}
	c.steps++
	if c.steps > 400 {
		c.p.w.violated("%s acts %d times within a second", c.p.name, c.steps)
		return true
	}
	return false
}

func (c *candidacy) head() election.Head {
	h := c.p.head
	return election.Head{Claim: h.Claim.ID, Token: h.Claim.Token, Revision: h.Revision}
}

// look reads the board.
func (c *candidacy) look(v election.View) {
	p, w := c.p, c.p.w
	v.Board.Consulted = c.consult || p.head.IsZero() || p.head.Claim.Token.Generation != p.generation
	c.consult, c.busy = false, true
	v.Board.Sent = v.Now
	var seen board
	var head driver.Head
	p.call(heartbeat, false, func() error { seen, head = w.read(), w.head; return nil }, func(err error) {
		if c.over {
			return
		}
		v.Board.Answered, v.Now = p.clock(), p.clock()
		if err == nil {
			v.Board.Readable = true
			c.board = seen
			p.sees(head)
		}
		if c.over || p.dead {
			return
		}
		c.basic(func() { c.judge(v) })
	})
}

// basic examines the process as every look does: its migrations run once.
func (c *candidacy) basic(then func()) {
	p := c.p
	if c.found.Level > election.Basic {
		then()
		return
	}
	c.found = election.Readiness{Revision: p.head.Revision}
	if p.ready {
		then()
		return
	}
	p.ready, p.rehearse = true, p.head.Revision
	p.after(p.migration, then)
}

// judge has the Candidate decide about v, and acts.
func (c *candidacy) judge(v election.View) {
	if c.over {
		return
	}
	p := c.p
	c.translate(&v)
	v.Now = p.clock()
	a := c.c.Next(v)
	c.decided = p.clock()
	if a.Contend && !c.contending {
		c.contending = true
		c.contend()
	}
	c.contending = a.Contend
	c.act(a)
}

// translate fills in what the newest look has found.
func (c *candidacy) translate(v *election.View) {
	p, b := c.p, c.board
	if from := b.beat.from; from != nil && from.dead && from.host == p.host && from.boot == p.boot {
		p.deaths[b.beat.Claim] = from.name // at the first look already
	}
	v.Board.Heartbeat, v.Board.Offer = b.beat.Heartbeat, b.offer
	if v.Board.Consulted || c.c.Asked() {
		v.Board.Intent = election.Intent{
			Generation: b.intent.generation, By: "an operator",
			Aborted: slices.Contains(b.intent.aborted, p.generation),
		}
		v.Board.Contender = b.contender.Contender
	}
	v.Death = p.deaths[v.Head.Claim]
	if p.w.raised[v.Head.Claim] {
		v.Raised = "an operator"
	}
	v.Reachable = b.beat.Claim == v.Head.Claim && b.beat.from != nil && (b.beat.from.host == p.host || b.beat.from.address)
	v.Ready, c.found.Level = c.found, election.Basic
	v.Alone, v.Reluctant = p.alone(), p.stepped
	if c.ask != nil {
		v.Handover = c.ask.handover
	}
}

// alone reports whether no other process waits for the same claim.
func (p *process) alone() bool {
	for _, o := range p.w.living {
		if o != p && o.generation == p.generation && o.runs != nil && !o.runs.over {
			return false
		}
	}
	return true
}

func (c *candidacy) act(a election.Action) {
	p := c.p
	switch a.Step {
	case election.Wait:
		c.free()
		return
	case election.Consult:
		c.consult = true
	case election.Examine:
		c.examine(a.Level)
		return
	case election.Promote:
		c.promote()
		return
	case election.Ask:
		c.ask = newAsk(c)
	case election.Claim:
		c.claim(a.Claim)
		return
	case election.Resume:
		p.w.say("%s lets the holder go on: %s", p.name, a.Reason)
		c.giveUp()
		c.free()
		return
	}
	c.busy = false
	c.decide()
}

// examine asks anew whether the process could lead. Migrations run again if
// commits have changed what they read.
func (c *candidacy) examine(level election.Level) {
	p, w := c.p, c.p.w
	c.busy = true
	took := time.Millisecond
	if w.touched > p.rehearse && p.head.Claim.Token.Generation != p.generation {
		took += p.migration
	}
	if took > time.Millisecond && level == election.Final {
		w.finals++
	}
	c.exams++
	revision, this := p.head.Revision, c.exams
	done := func() {
		if c.over || c.exams != this {
			return
		}
		p.rehearse = revision
		c.found = election.Readiness{Level: level, Revision: revision}
		if p.unready && level == election.Final {
			c.found.Missing = "the examination failed"
		}
		c.busy = false
		c.decide()
	}
	p.after(took, done)
	if level == election.Final {
		c.progress(c.ask, this, took)
	}
}

// progress sends the holder a sign that this process works on the claim, and ends
// the examination if the holder works again.
func (c *candidacy) progress(a *ask, exam int, left time.Duration) {
	if c.over || c.exams != exam || c.ask != a {
		return
	}
	if a.handover.Stage != election.Paused {
		c.exams++ // the examination ends
		c.busy = false
		c.decide()
		return
	}
	c.p.send(a.holder, func() { a.deliver(func(l *leadership) { l.request.Progress = l.p.clock() }) })
	if pace := handover / 10; left > pace {
		c.p.after(pace, func() { c.progress(a, exam, left-pace) })
	}
}

// promote promotes the generation of the process itself.
func (c *candidacy) promote() {
	p := c.p
	c.busy = true
	seen := c.board
	p.call(storeTimeout, true, func() error {
		next := seen.intent
		next.generation = p.generation
		_, err := p.w.post(intentKey, seen.versions[slot(intentKey)], next)
		return err
	}, func(error) { c.free() })
}

// contend posts a sign of life for lower generations, once a heartbeat.
func (c *candidacy) contend() {
	p := c.p
	if c.over || !c.contending {
		return
	}
	p.after(heartbeat, c.contend)
	if p.clock()-c.decided > lease { // busy for longer
		return
	}
	p.call(heartbeat, true, func() error {
		p.w.update(contenderKey, func(b board) any {
			seq := b.contender.Seq + 1
			return contender{election.Contender{Generation: max(b.contender.Generation, p.generation), Seq: seq}}
		})
		return nil
	}, func(error) {})
}

// claim claims on the conditions that were decided.
func (c *candidacy) claim(cond election.Conditions) {
	p := c.p
	c.busy = true
	a := &attempt{id: p.w.id(), generation: p.generation, by: p, base: p.head.Claim.ID, cond: cond, ask: c.ask}
	for _, n := range cond.Notes {
		a.notes = append(a.notes, c.note(n))
	}
	if cond.Never && cond.Lower || (cond.Never || cond.Lower) && !cond.Over.IsZero() {
		p.w.violated("%s claims on conditions that exclude each other: %+v", p.name, cond)
	}
	sent := p.clock()
	p.w.say("%s claims: %s", p.name, cond.Reason)
	p.tried[a.id] = true
	p.call(storeTimeout, true, func() error { return p.w.land(a) }, func(err error) {
		switch {
		case c.over:
		case err == nil:
			c.wins(a.id, sent)
		case err == errTimeout || err == errStore:
			c.settle(a, sent, err)
		default:
			c.fails(err)
		}
	})
}

// note returns a note at the version that was judged.
func (c *candidacy) note(n election.Note) driver.Note {
	key := map[election.Note]string{election.NoteIntent: intentKey, election.NoteHeartbeat: beatKey, election.NoteOffer: offerKey}[n]
	version := c.board.versions[slot(key)]
	if n == election.NoteOffer && c.ask != nil {
		version = c.ask.offer
	}
	return driver.Note{Key: key, Version: version}
}

// settle reads whether a claim has landed whose answer was lost.
func (c *candidacy) settle(a *attempt, sent time.Duration, err error) {
	p := c.p
	var head driver.Head
	p.call(storeTimeout, false, func() error { head = p.w.head; return nil }, func(unread error) {
		switch {
		case c.over:
		case unread == nil && head.Claim.ID == a.id:
			c.wins(a.id, sent)
		default:
			c.fails(err)
		}
	})
}

// wins begins a term, and drops the candidate.
func (c *candidacy) wins(id driver.ID, sent time.Duration) {
	p := c.p
	c.over, c.contending = true, false
	if c.ask != nil {
		c.ask.close()
	}
	p.runs = nil
	p.begins(id, sent)
}

// fails waits again after a claim that failed.
func (c *candidacy) fails(err error) {
	p := c.p
	paused := c.ask != nil
	p.w.say("%s: the claim failed: %v", p.name, err)
	c.giveUp()
	if err == errSuperseded {
		p.exit("superseded")
		return
	}
	c.busy = false
	if err == errRefused || !paused {
		c.readAgain()
		return
	}
	c.free()
}

// readAgain reads the head once, as a follower does that follows on, and looks.
func (c *candidacy) readAgain() {
	p := c.p
	c.busy = true
	var head driver.Head
	p.call(storeTimeout, false, func() error { head = p.w.head; return nil }, func(err error) {
		if c.over {
			return
		}
		c.busy = false
		if err == nil {
			p.sees(head)
		}
		if c.over || p.dead || c.busy {
			return
		}
		c.decide()
	})
}

// giveUp ends the handover without a claim.
func (c *candidacy) giveUp() {
	if a := c.ask; a != nil {
		a.close()
		c.p.w.wasSpared(a)
		c.ask = nil
	}
	c.c.Over(c.p.clock())
}

// disconnect ends the candidacy with its process.
func (c *candidacy) disconnect(proven bool) {
	c.over, c.contending = true, false
	if c.ask != nil && proven {
		c.ask.broken()
	}
}
