package leader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/stacks"
	"github.com/fencepost/fencepost/leader/internal/election"
)

// A leadership takes this process through one term, the time for which it holds one
// token. It observes, lets an [election.Term] decide, and does what that says. The
// work runs in it once, and again after each pause.
type leadership struct {
	*Leader
	c      *catalog.Catalog
	work   Work
	decide *election.Term

	posting chan struct{} // holds one while a heartbeat is posted: seq is its poster's
	seq     uint64
	renewed chan struct{} // holds one after a renewal of the lease
	surge   surge         // of the goroutine that renews

	// Of the goroutine that runs the term:
	run     *run  // of the work; nil: it does not run
	err     error // with which the work ended the term
	raising raising
	ask     *ask // the handover under way; nil: there is none
	offered election.Offering
	gave    bool  // the token was offered to this process's own generation
	overdue alarm // of work that does not end
}

// hold goes through a term, and returns when it is over and everything is
// joined. Sent is when the claim was begun.
func (l *Leader) hold(ctx context.Context, c *catalog.Catalog, work Work, sent time.Duration) error {
	t := &leadership{
		Leader: l, c: c, work: work, decide: election.NewTerm(l.cfg.election(), c.Claim().Reason),
		posting: make(chan struct{}, 1), renewed: make(chan struct{}, 1), raising: l.newRaising(),
	}
	l.holds(c)
	l.lease.renew(sent)
	held, cancel := c.Context(ctx)
	var wg sync.WaitGroup
	if l.lease.left() < l.cfg.Lease/2 { // a claim with long migrations
		_ = t.renew(held) // if it fails, the lease expires
	}
	t.introduce(held)
	renewing, stop := c.Context(context.WithoutCancel(ctx)) // a process that is to stop renews until its work has returned
	wg.Go(func() { t.keepRenewing(renewing) })
	for t.decide.Phase() != election.Ended {
		if order := t.decide.Next(t.observe(held)); !t.do(held, order) {
			t.wait(held)
		}
	}
	cancel(errWorkEnded)
	stop(errWorkEnded)
	wg.Wait()
	l.lease.forget()
	return t.conclude(ctx)
}

// introduction bounds for how long the work waits for the first heartbeat.
const introduction = 250 * time.Millisecond

// introduce posts the first heartbeat before the work begins: until then no other
// process can know whose end would be this holder's. If it fails, the next one is
// no later than without it.
func (t *leadership) introduce(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, min(introduction, t.cfg.heartbeat()))
	defer cancel()
	if err := t.beat(bounded, false); err != nil && ctx.Err() == nil {
		t.log.DebugContext(ctx, "the first heartbeat was not posted before the work", "err", err)
	}
}

// observe returns how the term stands.
func (t *leadership) observe(ctx context.Context) election.TermView {
	v := election.TermView{
		Now: t.lease.now(), Over: ctx.Err() != nil, Lost: t.c.Err() != nil, Leased: t.lease.left() > 0, Confirmed: t.lease.confirmed(),
		Raised: t.raising.done(), Work: t.run.stands(), Offer: t.offered,
	}
	if t.ask != nil {
		v.Ask = t.ask.request()
	}
	return v
}

// stands returns how the work stands. R may be nil.
func (r *run) stands() election.Work {
	if r == nil {
		return election.Idle
	}
	select {
	case <-r.done:
	default:
		return election.Running
	}
	if paused(r.cause(), r.err) {
		return election.Joined
	}
	return election.Finished
}

// do does what was decided, and reports whether to decide anew at once.
func (t *leadership) do(ctx context.Context, o election.Order) (again bool) {
	switch o.Duty {
	case election.Stay:
		t.show(o)
		t.overdue.set(ctx, t.log, t.lease.now(), t.cfg.Lease, t.hangs())
		return false
	case election.RaiseRegisters:
		return t.raise(ctx)
	case election.StartWork:
		t.drop(o.Reason)
		t.start(ctx, o.Reason)
	case election.PauseWork:
		t.run.end(ErrHandingOver) // first: telling of it may take a while
		t.ask.acknowledge()
		t.move(HandingOver, t.ask.reason)
	case election.SuspendWork:
		t.run.end(ErrUnconfirmed)
		t.move(Unconfirmed, o.Reason)
	case election.StopWork:
		t.run.end(context.Cause(ctx)) // first, as above
		t.drain(ctx)
	case election.WriteOffer:
		t.writeOffer(ctx)
	case election.WithdrawOffer:
		return t.withdrawOffer(ctx, o.Reason)
	case election.RefuseRequest:
		t.drop(o.Reason)
	case election.AbandonWork:
		t.abandon(ctx)
	case election.EndTerm:
		t.end(ctx)
	}
	return true
}

// drain shows that this process leads no more, however long the work takes to end.
func (t *leadership) drain(ctx context.Context) {
	why := "the process is to stop"
	if lost := t.c.Err(); lost != nil {
		t.holds(nil)
		t.fencedBy(lost)
		why = "the token is lost: " + exitcodes.OneLine(lost.Error())
		t.log.ErrorContext(ctx, "the token is lost, and the work is to end", "err", lost)
	}
	if t.Status().Phase == Draining { // it was to stop, and has lost the token since
		t.because(why)
		return
	}
	t.move(Draining, why)
}

// drop ends the request, if there is one: this process goes on leading.
func (t *leadership) drop(why string) {
	t.ask.settle(fmt.Errorf("leader: %s", why))
	t.ask = nil
}

// end notes with what the term ended.
func (t *leadership) end(ctx context.Context) {
	if t.run.stands() == election.Finished {
		t.err = t.run.err
		t.ask.settle(errWorkEnded)
		return
	}
	t.err = context.Cause(ctx)
	t.ask.settle(claimed(ctx))
}

// abandon ends the term of a work that does not return.
func (t *leadership) abandon(ctx context.Context) {
	stuck := &StuckError{After: t.cfg.DrainTimeout, Why: t.c.Err(), stacks: stacks.All("leader.(*leadership).start")}
	t.log.ErrorContext(ctx, "the work has not returned, and is left behind", "after", stuck.After)
	t.err = stuck
	t.ask.settle(claimed(ctx))
}

// hangs returns the text of the alarm that the work is still running a DrainTimeout after
// its deadline: nobody serves then, and no standby takes over. Empty: it is not, or it
// has no deadline.
func (t *leadership) hangs() string {
	if t.run.stands() != election.Running || t.run.ctx.Err() == nil {
		return ""
	}
	by, bounded := t.run.ctx.Deadline()
	if !bounded || time.Since(by) < t.cfg.DrainTimeout {
		return ""
	}
	return fmt.Sprintf("the work was to have ended at %s, and nobody serves until it does: %s", by.UTC().Format(time.RFC3339), exitcodes.OneLine(t.run.cause().Error()))
}

// show moves the process into the phase of a term that waits.
func (t *leadership) show(o election.Order) {
	if t.decide.Phase() == election.Unconfirmed && t.Status().Phase != Unconfirmed {
		t.unconfirmed(o.Reason)
	}
}

func (t *leadership) unconfirmed(why string) {
	if t.Status().Phase == Unconfirmed {
		t.because(why)
		return
	}
	t.move(Unconfirmed, why)
}

// wait returns when there may be something to decide.
func (t *leadership) wait(ctx context.Context) {
	timer := time.NewTimer(t.next())
	defer timer.Stop()
	var asks <-chan *ask
	if t.ask == nil {
		asks = t.asks
	}
	over, ended := ctx.Done(), (<-chan struct{})(nil)
	if t.run.stands() == election.Running {
		ended = t.run.done
	}
	if t.decide.Phase() == election.Stopping {
		over = t.losing()
	}
	select {
	case t.ask = <-asks:
		t.offered = election.NotOffered
	case <-t.ask.whenGone():
		elapse(ctx, settling) // most often because it has claimed, of which the store tells by then
		t.ask.left = true
	case <-t.ask.progress():
		t.ask.progressed = t.lease.now()
	case <-ended:
	case <-t.renewed:
	case <-over:
	case <-timer.C:
	}
}

// losing is closed when the token is lost. Nil: it is lost already.
func (t *leadership) losing() <-chan struct{} {
	if t.c.Err() != nil {
		return nil
	}
	return t.c.Done()
}

// next is when to look at the clock again.
func (t *leadership) next() time.Duration {
	long := t.lease.look()
	if t.decide.Phase() == election.Raising {
		long = min(long, max(0, t.raising.next-t.lease.now()))
	}
	if t.ask != nil {
		long = min(long, t.cfg.Poll)
	}
	return long
}

// paused reports whether the work ended because of a cause behind which it may
// go on, and of nothing worse: what it says then of the store is the outage.
func paused(cause, err error) bool {
	if !errors.Is(cause, ErrHandingOver) && !errors.Is(cause, ErrUnconfirmed) {
		return false
	}
	d := exitcodes.Of(err)
	return err == nil || errors.Is(err, cause) && d <= exitcodes.Retry || d == exitcodes.Retry || d == exitcodes.None && errors.Is(err, context.Canceled)
}

// settling is how long a successor that went away may take until the store tells
// of its claim.
const settling = 20 * time.Millisecond

// keepRenewing renews the lease until ctx ends. A failure is no reason to stop
// the work: the lease expires by itself.
func (t *leadership) keepRenewing(ctx context.Context) {
	var alarm alarm
	var since time.Duration // when the lease could not be renewed any more; 0: it can
	for {
		sent := t.lease.now()
		err := t.renew(ctx)
		if ctx.Err() != nil {
			return
		}
		now, wait, text := t.lease.now(), t.cfg.heartbeat()/10, ""
		if err != nil {
			since = cmp.Or(since, sent)
		}
		switch {
		case err == nil:
			since, wait = 0, t.cfg.heartbeat()-(now-sent)
		case now-since >= t.cfg.heartbeat(): // else it may be a moment's
			text = fmt.Sprintf("this process has claimed %v, and could not renew its lease for %v: %s",
				t.c.Token(), (now - since).Round(time.Millisecond), exitcodes.OneLine(err.Error()))
		case since == sent:
			t.log.WarnContext(ctx, "the lease was not renewed", "left", t.lease.left().Round(time.Millisecond), "err", err)
		}
		alarm.set(ctx, t.log, now, t.cfg.Lease, text)
		if !t.untilNextBeat(ctx, wait) {
			return
		}
	}
}

// renew posts a heartbeat and then asks whether the claim is still mine; the
// lease begins anew from before both.
func (t *leadership) renew(ctx context.Context) error {
	sent := t.lease.now()
	bounded, cancel := context.WithTimeout(ctx, t.cfg.heartbeat())
	defer cancel()
	if err := t.beat(bounded, false); err != nil {
		return err
	}
	if err := t.c.Confirm(bounded); err != nil {
		return err
	}
	t.lease.renew(sent)
	select {
	case t.renewed <- struct{}{}:
	default: // one is there already
	}
	return nil
}

// confirm asks whether the claim is still mine.
func (t *leadership) confirm(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, t.cfg.heartbeat())
	defer cancel()
	return t.c.Confirm(bounded)
}

// conclude closes the handle and returns why the term is over.
func (t *leadership) conclude(ctx context.Context) error {
	why := t.lastWord(ctx, t.err)
	t.holds(nil)
	var stuck *StuckError
	switch {
	case errors.As(t.err, &stuck):
		stuck.Why = why
		return stuck
	case why == nil:
		t.sayGoodbye(ctx)
		return t.err
	case t.steppedDown(why):
		t.log.InfoContext(ctx, "another process took over, as was offered", "err", why)
		return errAgain
	case explained(t.err):
		return why
	default:
		return errors.Join(why, t.err) // package exitcodes ranks them
	}
}

// steppedDown reports whether the handle ended because a process of this
// generation took over while that was offered.
func (t *leadership) steppedDown(why error) bool {
	return t.gave && errors.Is(why, fence.ErrFenced) && exitcodes.Of(why) == exitcodes.Halt
}

// explained reports whether what the work returned is only the echo of why the
// handle had ended.
func explained(err error) bool {
	d := exitcodes.Of(err)
	return err == nil || d == exitcodes.None && errors.Is(err, context.Canceled) || d != exitcodes.Panic && errors.Is(err, fence.ErrFenced)
}

// lastWord closes the handle and returns why it had ended, if it had. A guard's
// refusal, with which the work may have ended, is looked up in the head. A process
// that was fenced by epoch asks once more: it may have been superseded since, and
// then it must not come back.
func (t *leadership) lastWord(ctx context.Context, err error) error {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = t.c.Explain(bounded, err)                                      // what it finds, Close returns
	_ = catalog.NoteRefusal(bounded, t.board, t.c.Claim().Holder, err) // nothing rests on it
	if t.c.Err() != nil {
		_ = t.c.Confirm(bounded) // so is this
	}
	return t.c.Close()
}
