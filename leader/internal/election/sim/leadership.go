package sim

import (
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader/internal/election"
)

// A leadership is a process that holds the token, as far as it knows. It observes,
// lets its Term decide, and does what that says.
type leadership struct {
	p     *process
	t     Term
	claim driver.ID
	token fence.Token

	until   time.Duration // of the lease
	over    bool
	newest  driver.Head // by which the token was lost; zero: it was not
	raised  bool
	work    election.Work
	joining bool // the work was asked to end
	commits int  // under way
	request election.Request
	ask     *ask // whose request that is; nil: of an operator
	before  *ask // whose request was over before the work starts
	offer   election.Offering
	seq     uint64

	busy  bool // an order is being carried out
	woken bool // something happened meanwhile
	ended bool
}

// begins makes the process a holder, whose claim was sent at a time.
func (p *process) begins(id driver.ID, sent time.Duration) {
	w := p.w
	l := &leadership{p: p, claim: id, until: sent + lease}
	p.leads = l
	p.head = w.head
	if w.head.Claim.ID != id { // lost already; the push says so
		p.head.Claim.ID = id
		w.in(w.latency(), func() { p.run(func() { l.loses(w.head) }) })
	}
	l.token = p.head.Claim.Token
	if plant := w.machines.Term; plant != nil {
		l.t = plant(p.settings(), "claimed")
	} else {
		l.t = election.NewTerm(p.settings(), "claimed")
	}
	l.renew()
	l.tick()
}

// tick looks at the clock, thirty times a lease.
func (l *leadership) tick() {
	if l.ended {
		return
	}
	l.step()
	if l.p.works() && !l.busy && l.p.clock() >= l.until {
		l.p.w.violated("the work of %s runs on though its lease has lapsed", l.p.name)
	}
	l.p.after(lease/30, l.tick)
}

// loses notes the head by which the token was lost.
func (l *leadership) loses(h driver.Head) {
	if !l.ended {
		l.p.w.say("%s has lost the token to %v", l.p.name, h.Claim.Token)
		l.over, l.newest = true, h
		l.step()
	}
}

// step carries out orders until there is nothing to do.
func (l *leadership) step() {
	if l.busy {
		l.woken = true
		return
	}
	for range 20 {
		if l.ended || l.p.dead {
			return
		}
		v := election.TermView{
			Now: l.p.clock(), Over: l.over, Lost: !l.newest.IsZero(), Leased: l.p.clock() < l.until, Confirmed: l.until - lease, Raised: l.raised,
			Work: l.work, Ask: l.request, Offer: l.offer,
		}
		o := l.t.Next(v)
		if o.Duty == election.Stay {
			return
		}
		l.p.w.say("%s: order %d %s", l.p.name, o.Duty, o.Reason)
		l.obey(o)
		if l.busy {
			return
		}
	}
	l.p.w.violated("the term of %s gives orders without end", l.p.name)
}

// done ends an order that took time.
func (l *leadership) done() {
	l.busy, l.woken = false, false
	l.step()
}

func (l *leadership) obey(o election.Order) {
	switch o.Duty {
	case election.RaiseRegisters:
		l.busy = true
		l.p.after(time.Millisecond, func() { l.raised = true; l.done() })
	case election.StartWork:
		l.startWork()
	case election.PauseWork:
		l.pauseWork()
	case election.SuspendWork, election.StopWork:
		l.joinWork()
	case election.WriteOffer:
		l.writeOffer()
	case election.WithdrawOffer:
		l.withdrawOffer()
	case election.RefuseRequest:
		if l.ask != nil {
			l.ask.reply(election.Handover{Stage: election.Declined, Detail: o.Reason})
			l.before = l.ask
		}
		l.ask, l.request = nil, election.Request{}
	case election.AbandonWork:
		l.abandon()
	case election.EndTerm:
		l.end()
	}
}

func (l *leadership) startWork() {
	l.work, l.joining = election.Running, false
	if l.before != nil {
		l.before.resumed = true
	}
	l.p.w.checkStart(l)
	l.p.after(l.p.w.between(0, 50*time.Millisecond), l.commit)
}

// commit writes once, and again after a while, for as long as the work runs.
func (l *leadership) commit() {
	p, w := l.p, l.p.w
	if l.work != election.Running || l.joining || l.ended {
		return
	}
	prior := p.head
	rec := driver.Record{Revision: prior.Revision + 1, ID: w.id(), Token: prior.Claim.Token}
	l.commits++
	p.call(storeTimeout, true, func() error { return w.commit(prior, rec) }, func(err error) {
		l.commits--
		switch {
		case err == nil && p.head.Revision == prior.Revision:
			p.head = p.head.After(rec)
		case err != nil && err != errStore:
			l.reread()
		}
		if !l.joining {
			p.after(w.between(20*time.Millisecond, 200*time.Millisecond), l.commit)
		}
	})
}

// reread reads what became of a write that failed.
func (l *leadership) reread() {
	p := l.p
	l.commits++
	var head driver.Head
	p.call(storeTimeout, false, func() error { head = p.w.head; return nil }, func(err error) {
		l.commits--
		if err == nil && !l.ended {
			p.sees(head)
		}
	})
}

func (l *leadership) pauseWork() {
	l.request.Acknowledged = true
	l.p.w.pauses++
	l.p.w.checkPause(l)
	if l.ask != nil {
		l.ask.reply(election.Handover{Stage: election.Acknowledged})
	}
	l.joinWork()
}

// joinWork asks the work to end, which takes its time and waits for its commits.
func (l *leadership) joinWork() {
	if l.joining || l.work != election.Running {
		return
	}
	l.joining = true
	l.p.after(l.p.join, l.joined)
}

func (l *leadership) joined() {
	if l.commits > 0 {
		l.p.after(5*time.Millisecond, l.joined)
		return
	}
	l.work, l.joining = election.Joined, false
	l.step()
}

// finish ends the work by itself. L may be nil.
func (l *leadership) finish() {
	if l != nil && l.work == election.Running && !l.joining {
		l.work = election.Finished
		l.step()
	}
}

// posts writes a note in two steps, as a compare-and-set does: it reads which
// version there is, and replaces that.
func (l *leadership) posts(key string, value any, done func(version int64, err error)) {
	p := l.p
	var seen board
	p.call(heartbeat, false, func() error { seen = p.w.read(); return nil }, func(err error) {
		if err != nil {
			done(0, err)
			return
		}
		if o, withdraws := value.(election.Offer); withdraws && !o.Open && p.w.machines.KeepUnseenOffers && !seen.offer.Open {
			done(0, nil)
			return
		}
		var version int64
		p.call(heartbeat, true, func() (err error) {
			version, err = p.w.post(key, seen.versions[slot(key)], value)
			return err
		}, func(err error) { done(version, err) })
	})
}

func (l *leadership) writeOffer() {
	l.busy, l.offer = true, election.NotOffered
	revision := l.p.head.Revision
	l.posts(offerKey, election.Offer{Claim: l.claim, To: l.request.To, Open: true}, func(version int64, err error) {
		if err != nil {
			l.offer = election.Failed
		} else {
			l.offer = election.Offered
			if l.ask != nil {
				l.ask.offers(election.Handover{Stage: election.Paused, Revision: revision, Offered: true}, version)
			}
		}
		l.done()
	})
}

func (l *leadership) withdrawOffer() {
	l.busy = true
	if l.ask != nil {
		l.before = l.ask
		l.ask.reply(election.Handover{Stage: election.Resumed, Detail: "the holder goes on"})
	}
	l.ask, l.request = nil, election.Request{}
	l.posts(offerKey, election.Offer{Claim: l.claim, To: generation.None}, func(_ int64, err error) {
		if err != nil {
			l.retryLater()
			return
		}
		l.confirm(l.p.clock(), func(err error) {
			if err != nil {
				l.retryLater()
				return
			}
			l.offer = election.Withdrawn
			l.done()
		})
	})
}

// retryLater ends an order that failed: it is given again, at the pace of renewals.
func (l *leadership) retryLater() {
	l.offer = election.Failed
	if l.over {
		l.done()
		return
	}
	l.p.after(heartbeat/10, l.done)
}

// confirm asks the store whether the token is still held.
func (l *leadership) confirm(sent time.Duration, done func(error)) {
	p := l.p
	var head driver.Head
	p.call(heartbeat, false, func() error { head = p.w.head; return nil }, func(err error) {
		if err == nil && head.Claim.ID != l.claim {
			l.loses(head)
			err = errRefused
		}
		if err == nil {
			l.until = max(l.until, sent+lease)
		}
		done(err)
	})
}

// renew sends a heartbeat, and then confirms the token, for as long as the term
// lasts.
func (l *leadership) renew() {
	p := l.p
	if l.ended {
		return
	}
	sent := p.clock()
	again := func(err error) {
		if err != nil {
			p.after(heartbeat/10, l.renew)
			return
		}
		l.step()
		p.after(heartbeat-(p.clock()-sent), l.renew)
	}
	l.beat(false, func(err error) {
		if err != nil || l.ended {
			again(err)
			return
		}
		l.confirm(sent, again)
	})
}

// beat posts one heartbeat, unless a later claim has posted its own.
func (l *leadership) beat(left bool, done func(error)) {
	p := l.p
	l.seq++
	mine := beat{Heartbeat: election.Heartbeat{Claim: l.claim, Seq: l.seq, Left: left}, token: l.token, from: p}
	p.call(heartbeat, true, func() error {
		p.w.update(beatKey, func(b board) any {
			if b.beat.token.Compare(mine.token) > 0 || b.beat.Claim == mine.Claim && b.beat.Seq >= mine.Seq {
				return nil
			}
			return mine
		})
		return nil
	}, done)
}

// end ends the term. A process that has lost the token to its own generation
// because it had stepped down waits again; any other ends.
func (l *leadership) end() {
	p := l.p
	p.w.checkEnd(l)
	l.ended = true
	if l.ask != nil {
		l.ask.lost()
	}
	if l.newest.IsZero() {
		l.beat(true, func(error) { p.exit("left") })
		return
	}
	if l.newest.Claim.Token.Generation > p.generation {
		p.exit("superseded")
		return
	}
	if l.request.Made && l.request.Acknowledged && l.request.To == generation.None {
		p.stepped, p.leads, p.head = true, nil, l.newest
		p.follow()
		return
	}
	p.exit("fenced")
}

// abandon ends the process of a work that does not end.
func (l *leadership) abandon() {
	l.p.w.checkAbandoned(l)
	l.ended = true
	if l.ask != nil {
		l.ask.lost()
	}
	l.p.exit("its work was left behind")
}

// disconnect ends the term with its process.
func (l *leadership) disconnect(proven bool) {
	if l.ask != nil && proven && !l.ended {
		l.ask.lost()
	}
}
