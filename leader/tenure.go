package leader

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// A tenure is the time for which this process holds one token. The work runs in
// it once, and again after each pause.
type tenure struct {
	*Leader
	c    *catalog.Catalog
	work Work

	posting chan struct{} // holds one while a sign of life is posted: seq is its poster's
	seq     uint64
	offered atomic.Bool   // signs of life say that any process of this generation may claim
	stepped atomic.Bool   // the board may still say so
	renewed chan struct{} // holds one after a renewal of the lease

	// Of the goroutine that runs the tenure:
	ask *ask   // the handover under way
	why string // this process leads, or goes on leading
}

// A stage is what a tenure does until something happens; it returns what it does
// then, or nil where the tenure is over.
type stage func(ctx context.Context) (stage, error)

// hold goes through the stages of a tenure, and returns when it is over and
// everything is joined. Sent is when the claim was begun.
func (l *Leader) hold(ctx context.Context, c *catalog.Catalog, work Work, sent time.Duration) error {
	t := &tenure{Leader: l, c: c, work: work, posting: make(chan struct{}, 1), renewed: make(chan struct{}, 1), why: c.Claim().Reason}
	l.holds(c)
	l.lease.renew(sent)
	held, cancel := c.Context(ctx)
	var wg sync.WaitGroup
	if l.lease.left() < l.cfg.Lease/2 { // a claim with long migrations
		_ = t.renew(held) // where it fails, the lease lapses
	}
	wg.Go(func() { t.keepRenewing(held) })
	wg.Go(func() { t.present(held) })
	var err error
	for next := t.raise; next != nil; {
		next, err = next(held)
	}
	cancel(errWorkEnded)
	wg.Wait()
	l.lease.forget()
	return t.conclude(ctx, err)
}

var errWorkEnded = errors.New("leader: the work has ended")

// serve runs the work, until that ends or has to pause.
func (t *tenure) serve(ctx context.Context) (stage, error) {
	t.move(Leading, t.why)
	working, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() { t.interrupt(working, cancel) })
	err := t.work(working, t.c)
	cancel(errWorkEnded)
	wg.Wait()
	switch cause := context.Cause(working); {
	case !paused(cause, err):
		t.ask.refuse(errWorkEnded)
		return nil, err
	case errors.Is(cause, ErrHandingOver):
		return t.handOver, nil
	default:
		return t.reconfirm, nil
	}
}

// interrupt ends the work's context where the lease lapses, or where another
// process is to take over.
func (t *tenure) interrupt(ctx context.Context, cancel context.CancelCauseFunc) {
	lapsed, stop := t.lapsed(ctx)
	defer stop()
	select {
	case <-lapsed:
		cancel(ErrUnconfirmed) // first: telling of it may take a while
		t.move(Unconfirmed, fmt.Sprintf("the store has not confirmed the token for %v", t.cfg.Lease))
	case t.ask = <-t.asks:
		cancel(ErrHandingOver)
		close(t.ask.taken)
		t.move(HandingOver, t.ask.reason)
	case <-ctx.Done():
	}
}

// lapsed returns a channel that is closed when the lease lapses. Stop joins
// what watches it.
func (t *tenure) lapsed(ctx context.Context) (lapsed <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	c := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if t.lease.lapse(ctx) {
			close(c)
		}
	})
	return c, func() { cancel(); wg.Wait() }
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

// reconfirm waits until the store says that the token is still held.
func (t *tenure) reconfirm(ctx context.Context) (stage, error) {
	for t.lease.left() <= 0 {
		select {
		case <-t.renewed:
		case a := <-t.asks:
			a.refuse(ErrUnconfirmed)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	t.why = "the store answers again, and the token is still held"
	return t.serve, nil
}

// settling is for how long presence leaves the store to the first commits of the
// work. It is short, since until then no end of it tells anybody of a death. An
// old holder waits as long before it asks whether it is fenced.
const settling = 20 * time.Millisecond

// keepRenewing renews the lease until ctx ends. A failure is no reason to stop
// the work: the lease lapses by itself.
func (t *tenure) keepRenewing(ctx context.Context) {
	failing := false
	for {
		sent := t.lease.now()
		err := t.renew(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failing {
			t.log.WarnContext(ctx, "the lease was not renewed", "left", t.lease.left().Round(time.Millisecond), "err", err)
		}
		failing = err != nil
		wait := t.cfg.heartbeat() - (t.lease.now() - sent)
		if failing {
			wait = t.cfg.heartbeat() / 10
		}
		if !elapse(ctx, wait) {
			return
		}
	}
}

// renew gives a sign of life and then asks whether the claim is still mine; the
// lease begins anew from before both.
func (t *tenure) renew(ctx context.Context) error {
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
	t.stepped.Store(t.offered.Load()) // as the board says now
	select {
	case t.renewed <- struct{}{}:
	default: // one is there already
	}
	return nil
}

// confirm asks whether the claim is still mine.
func (t *tenure) confirm(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, t.cfg.heartbeat())
	defer cancel()
	return t.c.Confirm(bounded)
}

// present shows in the store that this process is there, until ctx ends.
func (t *tenure) present(ctx context.Context) {
	p, ok := driver.As[driver.Presenter](t.store)
	elapse(ctx, settling)
	for ok && ctx.Err() == nil {
		err := p.Present(ctx, t.c.Claim().ID, func() {})
		if ctx.Err() == nil {
			t.log.DebugContext(ctx, "the store can't show that this process is there", "err", err)
		}
		elapse(ctx, t.cfg.heartbeat())
	}
}

// conclude closes the handle and returns why the tenure is over.
func (t *tenure) conclude(ctx context.Context, err error) error {
	why := t.lastWord(ctx, err)
	t.holds(nil)
	switch {
	case why == nil:
		t.sayGoodbye(ctx)
		return err
	case t.steppedDown(why):
		t.log.InfoContext(ctx, "another process took over, as was offered", "err", why)
		return errAgain
	case explained(err):
		return why
	default:
		return errors.Join(why, err) // package exitcodes ranks them
	}
}

// steppedDown reports whether the handle ended because a process of this
// generation took over while that was offered.
func (t *tenure) steppedDown(why error) bool {
	return t.stepped.Load() && errors.Is(why, fence.ErrFenced) && exitcodes.Of(why) == exitcodes.Halt
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
func (t *tenure) lastWord(ctx context.Context, err error) error {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = t.c.Explain(bounded, err)                                      // what it finds, Close returns
	_ = catalog.NoteRefusal(bounded, t.board, t.c.Claim().Holder, err) // nothing rests on it
	if t.c.Err() != nil {
		_ = t.c.Confirm(bounded) // so is this
	}
	return t.c.Close()
}
