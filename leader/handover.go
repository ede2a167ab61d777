package leader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader/internal/election"
)

// An ask is the wish of another process to take over, or of a person that one
// does. The term's goroutine answers each at most once.
type ask struct {
	reason string                // for people
	to     generation.Generation // generation.None: any process of this generation may claim
	more   time.Duration         // how much longer than HandoverTimeout the handover may take
	gone   <-chan struct{}       // closed when whoever asked waits no longer
	works  <-chan struct{}       // receives when the successor says that it works on its claim

	taken  chan struct{} // closed once the term has taken the request, and ends the work
	answer chan answer   // receives one, once the work is joined
	result chan error    // receives one: nil if another process claimed

	// Of the term's goroutine:
	acknowledged, answered, settled bool

	left       bool          // gone was closed
	progressed time.Duration // when the successor last said that it works
}

// An answer says up to which revision the holder has committed, and at which
// version its offer stands on the board.
type answer struct {
	revision uint64
	offer    int64
	err      error
}

func (l *Leader) newAsk(ctx context.Context, reason string, to generation.Generation) *ask {
	return &ask{
		reason: reason, to: to, gone: ctx.Done(),
		taken: make(chan struct{}), answer: make(chan answer, 1), result: make(chan error, 1),
	}
}

// request says how a stands.
func (a *ask) request() election.Request {
	return election.Request{Made: true, Acknowledged: a.acknowledged, To: a.to, Progress: a.progressed, More: a.more, Gone: a.left}
}

// acknowledge says that the work is about to end.
func (a *ask) acknowledge() {
	a.acknowledged = true
	close(a.taken)
}

// reply says where the work has ended.
func (a *ask) reply(with answer) {
	if !a.answered {
		a.answered = true
		a.answer <- with
	}
}

// errClaimed is the answer to a request whose work had not ended when another
// process claimed.
var errClaimed = errors.New("leader: another process has claimed")

// settle says what came of the handover. Nil: another process has claimed. A may be
// nil: nobody asked.
func (a *ask) settle(err error) {
	if a == nil || a.settled {
		return
	}
	a.settled = true
	a.reply(answer{err: cmp.Or(err, errClaimed)})
	a.result <- err
}

// whenGone receives once when whoever asked waits no longer. A may be nil.
func (a *ask) whenGone() <-chan struct{} {
	if a == nil || a.left {
		return nil
	}
	return a.gone
}

// progress receives when the successor says that it works. A may be nil.
func (a *ask) progress() <-chan struct{} {
	if a == nil {
		return nil
	}
	return a.works
}

// submit hands a to the term, and returns once that has taken it and ends the
// work. A term whose work does not run refuses it; one whose work is ending already
// answers once it has ended. Submit waits for limit at most.
func (l *Leader) submit(ctx context.Context, a *ask, limit time.Duration) error {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case l.asks <- a:
	case <-bounded.Done():
		return l.notTaken(ctx)
	}
	select {
	case <-a.taken:
		return nil
	case found := <-a.answer:
		return found.err
	case <-bounded.Done():
		return l.notTaken(ctx)
	}
}

func (l *Leader) notTaken(ctx context.Context) error {
	err := fmt.Errorf("leader: this process does not lead, or hands over already: its phase is %v", l.Status().Phase)
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", err, context.Cause(ctx))
	}
	return err
}

// joined returns once the work is joined: where it has ended.
func (l *Leader) joined(ctx context.Context, a *ask) (answer, error) {
	bounded, cancel := context.WithTimeout(ctx, l.patience())
	defer cancel()
	select {
	case found := <-a.answer:
		return found, found.err
	case <-bounded.Done():
		return answer{}, fmt.Errorf("leader: the work has not ended within %v", l.patience())
	}
}

// patience is how long a handover may stand still before the holder says so. It is
// longer than a successor waits, which claims over a holder that has not answered, or
// whose work has not ended, within HandoverTimeout: an answer at that moment would read
// as if the work went on.
func (l *Leader) patience() time.Duration { return 2 * l.cfg.HandoverTimeout }

// writeOffer says where the work has ended, once a successor may claim by the
// offer on the board.
func (t *leadership) writeOffer(ctx context.Context) {
	t.run, t.gave = nil, t.ask.to == generation.None
	t.flush(ctx)
	posted, err := t.postOffer(ctx, t.ask.to, true)
	if err != nil {
		t.offered = election.Failed
		t.log.WarnContext(ctx, "the offer to take over was not written", "err", err)
		return
	}
	t.offered = election.Offered
	t.ask.reply(answer{revision: t.c.Head().Revision, offer: posted.Version})
	t.announce()
}

func (t *leadership) postOffer(ctx context.Context, to generation.Generation, open bool) (catalog.Posted[offer], error) {
	bounded, cancel := context.WithTimeout(ctx, t.cfg.heartbeat())
	defer cancel()
	claim := t.c.Claim()
	return catalog.UpdateNote(bounded, t.board, offerKey, func(o *offer) error {
		*o = offer{Claim: claim.ID, Token: claim.Token, To: to, Open: open, At: now()}
		return nil
	})
}

// flush waits for the commits that the work has left under way: an Update whose
// context ends does not wait for its own. The revision that is named would else
// not be the last one, and the successor's migrations would have to run again.
func (t *leadership) flush(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, t.cfg.HandoverTimeout)
	defer cancel()
	_ = t.c.Update(bounded, func(*catalog.Tx) error { return nil }) // behind all others; the asker waits no longer if it fails
}

// withdrawOffer ends a handover of which nothing came, unless it did at the last
// moment. The token was as good as given: only what the store says from now on,
// with the offer withdrawn, lets the work go on. It reports whether that is done;
// if not, it is tried again.
func (t *leadership) withdrawOffer(ctx context.Context, why string) bool {
	t.lease.forget()
	err := t.confirm(ctx) // first: nothing is written beside the commits of a successor
	if err == nil {
		_, err = t.postOffer(ctx, generation.None, false)
	}
	if err == nil {
		err = t.renew(ctx)
	}
	t.announce()
	if ctx.Err() != nil {
		return true
	}
	t.drop(why + ": this process goes on leading")
	if err != nil {
		t.offered = election.Failed
		t.unconfirmed(fmt.Sprintf("the store has not confirmed the token since it was offered: %v", err))
		return false
	}
	t.offered, t.gave = election.Withdrawn, false
	return true
}

// claimed returns nil if a handover ended because another process claimed.
func claimed(ctx context.Context) error {
	if err := context.Cause(ctx); !errors.Is(err, fence.ErrFenced) {
		return err
	}
	return nil
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
