package leader

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/leader/internal/election"
	"github.com/fencepost/fencepost/leader/internal/peer"
)

// An asking is a handover that this process has asked the holder for.
type asking struct {
	ctx    context.Context // ends when the holder waits no longer
	cancel context.CancelFunc
	wg     sync.WaitGroup
	holder *peer.Handover // nil: it did not acknowledge
	moved  chan struct{}  // holds one when there is something to see

	mu    sync.Mutex
	state election.Handover
	offer int64 // the version of the holder's offer
}

// ask asks the holder to hand over, and returns once it has acknowledged that, or
// has not.
func (w *campaign) ask(ctx context.Context) *asking {
	a := &asking{moved: make(chan struct{}, 1)}
	a.ctx, a.cancel = context.WithCancel(ctx)
	holder, err := peer.AskHandover(ctx, w.question())
	now := w.lease.now()
	switch {
	case err == nil:
		a.holder = holder
		a.state = election.Handover{Stage: election.Acknowledged, At: now}
		a.wg.Go(func() { w.attend(a, w.f) })
		return a
	case errors.Is(err, peer.ErrBusy), errors.Is(err, peer.ErrNotPromoted):
		a.state = election.Handover{Stage: election.Denied}
	case errors.Is(err, peer.ErrRefused):
		a.state = election.Handover{Stage: election.Declined}
	default:
		a.state = election.Handover{Stage: election.Unanswered}
	}
	a.state.At, a.state.Detail = now, exitcodes.OneLine(err.Error())
	w.log.WarnContext(ctx, "the holder does not hand over", "holder", w.Status().holding(), "err", err)
	return a
}

// question is what the holder of the newest claim is asked.
func (w *campaign) question() peer.Ask {
	beat := w.holder.beat.Value
	q := peer.Ask{
		Claim: beat.Claim, Address: beat.reach(w.host), Generation: w.cfg.Catalog.Generation,
		Acknowledge: w.cfg.AcknowledgeTimeout, Migrations: w.ready.migrationTime(w.f),
		Reads: func(ctx context.Context) error { _, err := w.readNotes(ctx, intentKey); return err },
	}
	if said, _ := beat.State(); !said.Acknowledges { // an older build answers once its work has ended
		q.Acknowledge = w.cfg.HandoverTimeout
	}
	return q
}

// migrationTime is how much longer a holder of an older build, which knows no
// progress, may have to wait: twice what the migrations took last, and at most
// MigrationTimeout.
func (g *readiness) migrationTime(f *catalog.Follower) time.Duration {
	last, _ := f.Rehearsed()
	if len(last.Migrations) == 0 {
		return 0
	}
	return min(2*last.Took, g.l.cfg.Catalog.MigrationTimeout)
}

// attend follows the handover until the holder waits no longer. A holder has
// paused, for this process, once everything is read that it has committed.
func (w *campaign) attend(a *asking, f *catalog.Follower) {
	defer a.cancel()
	at, err := a.holder.Paused(a.ctx)
	if err == nil {
		w.log.InfoContext(a.ctx, "the holder hands over", "holder", w.Status().holding(), "revision", at.Revision)
		bounded, stop := context.WithTimeout(a.ctx, w.cfg.HandoverTimeout)
		paused := w.lease.now()
		_ = f.Wait(bounded, func(h driver.Head) bool { return h.Revision >= at.Revision }) // the candidate looks
		stop()
		a.set(election.Handover{Stage: election.Paused, At: paused, Revision: at.Revision, Offered: at.Version != 0}, at.Version)
		select {
		case <-a.holder.Resumed():
		case <-a.ctx.Done():
		}
		err = errors.New("the holder waits no longer")
	}
	if a.ctx.Err() == nil {
		a.set(election.Handover{Stage: election.Resumed, At: w.lease.now(), Detail: exitcodes.OneLine(fmt.Sprint(err))}, 0)
	}
}

func (a *asking) set(to election.Handover, offer int64) {
	a.mu.Lock()
	a.state, a.offer = to, offer
	a.mu.Unlock()
	select {
	case a.moved <- struct{}{}:
	default: // it is going to be looked at
	}
}

// stage returns how far the handover has come. A may be nil: nobody was asked.
func (a *asking) stage() (election.Handover, int64) {
	if a == nil {
		return election.Handover{}, 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state, a.offer
}

// news receives when there is something to see. A may be nil.
func (a *asking) news() <-chan struct{} {
	if a == nil {
		return nil
	}
	return a.moved
}

// progress tells the holder that this process works on its claim.
func (a *asking) progress() {
	if a.holder != nil {
		a.holder.Progress()
	}
}

// close tells a holder that is not fenced by then to resume its work. A may be
// nil.
func (a *asking) close() {
	if a == nil {
		return
	}
	a.cancel()
	if a.holder != nil {
		a.holder.Close()
	}
	a.wg.Wait()
}
