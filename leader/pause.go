package leader

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/leader/internal/peer"
)

// A pause is what came of the wish that the holder stop its work for this
// process.
type pause struct {
	l       *Leader
	asked   time.Duration
	more    time.Duration   // beyond HandoverTimeout, that was asked for
	holder  *peer.Handover  // nil: it wasn't asked, or didn't answer
	paused  bool            // it has stopped, and everything is read that it has committed
	resumed <-chan struct{} // closed when it waits no longer
}

// askHolder asks the holder to stop its work, and reads what it has committed. A
// holder that doesn't answer is simply fenced.
func (l *Leader) askHolder(ctx context.Context, f *catalog.Follower, now turn) *pause {
	p := &pause{l: l, asked: l.lease.now(), more: l.migrationTime(f)}
	if now.holder.reach(l.host) == "" {
		return p
	}
	bounded, cancel := context.WithTimeout(ctx, l.cfg.HandoverTimeout)
	defer cancel()
	holder, err := l.acknowledged(ctx, bounded, now, p.more)
	if err == nil {
		p.holder, p.resumed = holder, holder.Resumed()
		err = p.await(bounded, f)
	}
	if err != nil {
		l.log.WarnContext(ctx, "the holder does not hand over, and is fenced", "holder", now.head.Claim.Holder.String(), "err", err)
	}
	return p
}

// acknowledged asks the holder to hand over, for ctx, and returns once it has
// said that it will. A holder that hands over to a sibling of this process is
// asked again, until bounded ends: the claim of that sibling is what ends it.
func (l *Leader) acknowledged(ctx, bounded context.Context, now turn, more time.Duration) (*peer.Handover, error) {
	a := peer.Ask{
		Claim: now.head.Claim.ID, Address: now.holder.reach(l.host), Generation: l.cfg.Catalog.Generation,
		Acknowledge: l.cfg.AcknowledgeTimeout, Migrations: more,
		Reads: func(ctx context.Context) error {
			_, err := readNote[Intent](ctx, l, intentKey)
			return err
		},
	}
	if !now.holder.Acknowledges { // an older build answers once its work has ended
		a.Acknowledge = l.cfg.HandoverTimeout
	}
	for {
		holder, err := peer.AskHandover(ctx, a)
		if !errors.Is(err, peer.ErrBusy) || !elapse(bounded, l.cfg.Poll) {
			return holder, err
		}
	}
}

// await waits until the holder's work has ended, and until everything is read
// that it has committed: the claim would read the rest too, but until then the
// holder could resume.
func (p *pause) await(ctx context.Context, f *catalog.Follower) error {
	at, err := p.holder.Paused(ctx)
	if err != nil {
		return err
	}
	p.l.log.InfoContext(ctx, "the holder hands over", "revision", at.Revision)
	p.paused = f.Wait(ctx, func(h driver.Head) bool { return h.Revision >= at.Revision }) == nil
	return nil
}

// migrationTime is how much longer than HandoverTimeout a handover may take,
// because the migrations may have to run while the holder is paused: twice what
// they took last, and at most MigrationTimeout.
func (l *Leader) migrationTime(f *catalog.Follower) time.Duration {
	last, _ := f.Rehearsed()
	if len(last.Migrations) == 0 {
		return 0
	}
	return min(2*max(last.Took, l.cutShort), l.cfg.Catalog.MigrationTimeout)
}

// errResumed ends a run of the migrations for which the holder had paused.
var errResumed = exitcodes.With(errors.New("leader: the holder has resumed its work before the migrations were done"), exitcodes.Retry)

// migrate runs the migrations on what the holder has committed last, if they
// have to, until it resumes its work. A holder that had given the time that was
// asked for is asked again later, for more. One that had not can't be asked for
// as much, and is fenced: the claim runs them.
func (p *pause) migrate(ctx context.Context, g *gate, f *catalog.Follower) error {
	running, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-p.resumed:
			cancel(errResumed)
		case <-running.Done():
		}
	})
	begun := p.l.lease.now()
	err := g.renewPaused(running, f)
	cancel(nil)
	wg.Wait()
	select {
	case <-p.resumed:
		err = cmp.Or(err, errResumed) // they were done at the very moment
	default:
	}
	if !errors.Is(err, errResumed) {
		return err
	}
	now := p.l.lease.now()
	p.l.cutShort = now - begun
	if now-p.asked >= p.more {
		return err
	}
	p.l.log.WarnContext(ctx, "the holder does not wait for as long as the migrations may need, and is fenced", "waited", now-p.asked, "asked", p.more)
	return nil
}

// end tells a holder that is not fenced by then to resume its work.
func (p *pause) end() {
	if p.holder != nil {
		p.holder.Close()
	}
}
