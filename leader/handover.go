package leader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/fence"
)

// An ask is the wish of another process to take over, or of a person that one
// does.
type ask struct {
	reason string // for people
	anyone bool   // any process of this generation may claim
	asked  time.Time
	more   time.Duration   // how much longer than HandoverTimeout the handover may take
	gone   <-chan struct{} // closed when who asked waits no longer
	taken  chan struct{}   // closed when the term has taken the request, and stops the work
	answer chan answer     // receives one, once the work is joined
	result chan error      // receives one: nil where another process claimed
}

// An answer says up to which revision the holder has committed.
type answer struct {
	revision uint64
	err      error
}

func newAsk(ctx context.Context, reason string, anyone bool) *ask {
	return &ask{
		reason: reason, anyone: anyone, asked: time.Now(), gone: ctx.Done(),
		taken: make(chan struct{}), answer: make(chan answer, 1), result: make(chan error, 1),
	}
}

// refuse answers an ask that nothing comes of. A holder whose work does not run
// refuses every ask: a successor then claims without waiting for it, and an offer
// could not be written.
func (a *ask) refuse(err error) {
	if a == nil {
		return
	}
	a.answer <- answer{err: err}
	a.result <- err
}

// submit hands a to the term, and returns once that has taken it and stops the
// work.
func (l *Leader) submit(ctx context.Context, a *ask) error {
	bounded, cancel := context.WithDeadline(ctx, a.asked.Add(l.cfg.HandoverTimeout))
	defer cancel()
	select {
	case l.asks <- a:
	case <-bounded.Done():
		return fmt.Errorf("leader: this process does not lead, or hands over already: its phase is %v", l.Status().Phase)
	}
	select {
	case <-a.taken:
		return nil
	case found := <-a.answer:
		return found.err
	}
}

// joined returns once the work is joined: the revision up to which it has
// committed.
func (l *Leader) joined(ctx context.Context, a *ask) (revision uint64, err error) {
	bounded, cancel := context.WithDeadline(ctx, a.asked.Add(l.cfg.HandoverTimeout))
	defer cancel()
	select {
	case found := <-a.answer:
		return found.revision, found.err
	case <-bounded.Done():
		return 0, fmt.Errorf("leader: the work has not ended within %v", l.cfg.HandoverTimeout)
	}
}

// handOver names the revision and waits until the other process has claimed.
// Where it doesn't, this one goes on.
func (t *tenure) handOver(ctx context.Context) (stage, error) {
	a := t.ask
	t.ask = nil
	limit := t.cfg.HandoverTimeout + a.more
	bounded, cancel := context.WithDeadline(ctx, a.asked.Add(limit))
	defer cancel()
	t.settle(ctx, a)
	if a.anyone {
		t.offer(bounded)
	}
	a.answer <- answer{revision: t.c.Head().Revision}
	lapsed, stop := t.lapsed(bounded)
	defer stop()
	failed := errors.New("the successor gave up")
	select {
	case <-a.gone:
		elapse(ctx, settling) // most often because it has claimed, of which the store tells by then
	case <-lapsed:
	case <-bounded.Done():
		failed = fmt.Errorf("no other process claimed within %v", limit)
	}
	if ctx.Err() != nil {
		a.result <- claimed(ctx)
		return nil, context.Cause(ctx)
	}
	return t.goOn(ctx, a, failed)
}

// settle waits for the commits that the work has left under way: an Update whose
// context ends does not wait for its own. The revision that is named would else
// not be the last one, and the successor's migrations would have to run again.
func (t *tenure) settle(ctx context.Context, a *ask) {
	bounded, cancel := context.WithDeadline(ctx, a.asked.Add(t.cfg.HandoverTimeout))
	defer cancel()
	_ = t.c.Update(bounded, func(*catalog.Tx) error { return nil }) // behind all others; whoever asked waits no longer where it fails
}

// claimed returns nil where a handover ended because another process claimed.
func claimed(ctx context.Context) error {
	if err := context.Cause(ctx); !errors.Is(err, fence.ErrFenced) {
		return err
	}
	return nil
}

// goOn ends a handover of which nothing came, unless it did at the last moment.
// The token was as good as given: only what the store says from now on, with the
// offer withdrawn, lets the work go on.
func (t *tenure) goOn(ctx context.Context, a *ask, failed error) (stage, error) {
	t.offered.Store(false)
	t.lease.forget()
	err := t.confirm(ctx) // first: nothing is written beside the commits of a successor
	if err == nil {
		err = t.renew(ctx)
	}
	t.announce()
	if ctx.Err() != nil {
		a.result <- claimed(ctx)
		return nil, context.Cause(ctx)
	}
	a.result <- fmt.Errorf("leader: %w: this process goes on leading", failed)
	t.why = "not handed over: " + failed.Error()
	if err != nil {
		t.move(Unconfirmed, fmt.Sprintf("the store has not confirmed the token since it was offered: %v", err))
		return t.reconfirm, nil
	}
	return t.serve, nil
}

// offer tells standbys that they may claim.
func (t *tenure) offer(ctx context.Context) {
	t.offered.Store(true)
	t.stepped.Store(true)
	bounded, cancel := context.WithTimeout(ctx, t.cfg.heartbeat())
	defer cancel()
	if err := t.beat(bounded, false); err != nil && ctx.Err() == nil {
		t.log.WarnContext(ctx, "the offer to take over was not written", "err", err)
	}
	t.announce()
}

// StepDown offers the token to any standby of this generation, and returns nil
// once one has claimed; this process is a standby then, and prefers not to lead,
// whatever was said meanwhile (see [Leader.PreferNotToLead]). The work is paused
// for as long. Where nobody claims within HandoverTimeout, this process goes on
// leading, and StepDown says so.
func (l *Leader) StepDown(ctx context.Context, reason string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // where nobody waits for it any more, the offer ends
	l.leaving.Add(1)
	defer l.leaving.Add(-1)
	a := newAsk(ctx, "stepping down: "+reason, true)
	err := l.submit(ctx, a)
	if err == nil {
		_, err = l.joined(ctx, a)
	}
	if err == nil {
		select {
		case err = <-a.result:
		case <-time.After(2 * l.cfg.HandoverTimeout):
			err = errors.New("leader: what became of the offer is not known")
		}
	}
	if err == nil {
		l.PreferNotToLead(true)
	}
	return err
}

// PreferNotToLead sets whether this process waits for ten steps more than its
// Priority says before it claims, and returns what was set before. The holder
// goes on leading: see [Leader.StepDown].
func (l *Leader) PreferNotToLead(on bool) (before bool) {
	return l.reluctant.Swap(on)
}

// prefersNot reports whether this process leaves the lead to others, as it also
// does while it steps down.
func (l *Leader) prefersNot() bool { return l.reluctant.Load() || l.leaving.Load() > 0 }
