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
)

// A pause is what came of the wish that the holder stop its work for this
// process.
type pause struct {
	l       *Leader
	asked   time.Duration
	more    time.Duration // beyond HandoverTimeout, that was asked for
	holder  *peer         // nil: it wasn't asked, or didn't answer
	paused  bool          // it has stopped, and everything is read that it has committed
	resumed chan struct{} // closed when it waits no longer
}

// askHolder asks the holder to stop its work, and reads what it has committed. A
// holder that doesn't answer is simply fenced.
func (l *Leader) askHolder(ctx context.Context, f *catalog.Follower, now turn) *pause {
	p := &pause{l: l, asked: l.lease.now(), more: l.migrationTime(f), resumed: make(chan struct{})}
	address := now.holder.reach(l.host)
	if address == "" {
		return p
	}
	bounded, cancel := context.WithTimeout(ctx, l.cfg.HandoverTimeout)
	defer cancel()
	holder, err := callHandover(ctx, l.cfg.HandoverTimeout, now.head.Claim.ID, address, l.cfg.Catalog.Generation, p.more)
	if err != nil {
		l.log.WarnContext(ctx, "the holder does not hand over, and is fenced", "holder", now.head.Claim.Holder.String(), "err", err)
		return p
	}
	p.holder = holder
	go func() {
		defer close(p.resumed)
		_ = holder.word() // a line or the end of the connection: both say so
	}()
	l.log.InfoContext(ctx, "the holder hands over", "holder", now.head.Claim.Holder.String(), "revision", holder.first.Revision)
	// The claim would read the rest too; until then the holder could resume.
	err = f.Wait(bounded, func(h driver.Head) bool { return h.Revision >= holder.first.Revision })
	p.paused = err == nil
	return p
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
		<-p.resumed
	}
}
