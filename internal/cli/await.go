package cli

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader"
)

// pollInterval is how often to look if the store does not wake us.
const pollInterval = 200 * time.Millisecond

// What a promotion waits for.
const (
	waitServing = "serving" // a process of the generation leads and says that it serves
	waitClaim   = "claim"   // one leads
)

// A waitFor is the wait of one promotion for its generation.
type waitFor struct {
	*promoting
	store driver.Store
	cfg   catalog.Config

	looked  bool
	newest  look
	serving *bool // as the process says; nil: its build does not say
}

func (p *promoting) newWait(store driver.Store) *waitFor {
	return &waitFor{promoting: p, store: store, cfg: p.app.config(longestCall)}
}

// await waits until a process of the generation leads, and serves if that is waited
// for. It ends at once if that can't come any more: a higher generation leads or was
// promoted, or this one was aborted.
func (w *waitFor) await(ctx context.Context) error {
	late, trouble, err := w.until(ctx, w.timeout, w.look)
	if late {
		return w.overdue(ctx, trouble)
	}
	return err
}

// until calls look whenever the store may have changed, until it is done or fails for
// good. Late: the limit has passed; trouble is then the last look's error.
func (w *waitFor) until(ctx context.Context, limit time.Duration, look func(context.Context) (bool, error)) (late bool, trouble, err error) {
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	wake, join := w.watch(short)
	defer join()
	defer cancel() // before join: the watcher ends with it
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		done, err := look(short)
		switch {
		case done:
			return false, nil, nil
		case exitcodes.Of(err) == exitcodes.Retry || err != nil && short.Err() != nil:
			trouble = err
		case err != nil:
			return false, nil, err
		default:
			trouble = nil
		}
		select {
		case <-wake:
		case <-tick.C:
		case <-short.Done():
			return true, trouble, nil
		}
	}
}

// watch has the store wake the caller until ctx ends; join waits for that end.
func (w *waitFor) watch(ctx context.Context) (wake <-chan struct{}, join func()) {
	woken := make(chan struct{}, 1)
	var watching sync.WaitGroup
	watching.Go(func() {
		catalog.NewBoard(w.store, w.cfg).Watch(ctx, func() {
			select {
			case woken <- struct{}{}:
			default:
			}
		})
	})
	return woken, watching.Wait
}

// look reports whether the wait is over. An error that is not one in passing says
// that it is in vain.
func (w *waitFor) look(ctx context.Context) (done bool, err error) {
	if err := w.read(ctx); err != nil {
		return false, err
	}
	l := w.newest
	claim, intent := l.head.Claim, l.intent
	if claim.Token.Generation > w.generation {
		return false, w.inVain(advised(fence.Check(fence.Token{Generation: w.generation}, claim.Token, claim.Holder)))
	}
	if claim.Token.Generation == w.generation {
		if !l.raised && w.enough(l) {
			return true, nil
		}
		intent.Aborted = nil // an abort that came too late, and was not taken back yet
	}
	if err := intent.Refuses(w.generation); err != nil {
		return false, w.inVain(advised(err))
	}
	return false, nil
}

func (w *waitFor) inVain(why error) error {
	return fmt.Errorf("generation %v will not lead: %w", w.generation, why)
}

// enough reports whether the process that has claimed does what is waited for. Only
// what it says while this command looks is believed.
func (w *waitFor) enough(l look) bool {
	now := time.Now()
	s, _ := l.standing(now)
	if w.wait == waitClaim {
		return leads(s.State)
	}
	x, known := expectServing.judge(l, now)
	if x.Met {
		w.serving = &x.Met
	}
	return x.Met || known && s.State == leader.StandingClaimed // by a build that does not say
}

// awaitIdle waits until the holder reports no work under way, or nobody leads. A build that
// does not report it counts as idle. It ends early if the generation leads or was promoted
// already, or if the promotion would be refused.
func (w *waitFor) awaitIdle(ctx context.Context) error {
	var who, busy string
	late, trouble, err := w.until(ctx, w.within, func(ctx context.Context) (bool, error) {
		var next look
		var stands bool
		err := bounded(ctx, longestCall, func(ctx context.Context) (err error) {
			if stands, err = leader.MayPromote(ctx, w.store, w.cfg, w.generation, w.opts); err != nil || stands {
				return err
			}
			return errors.Join(next.readBoard(ctx, w.store, w.cfg), next.readHead(ctx, w.store, w.cfg))
		})
		if err != nil || stands {
			return stands && err == nil, err
		}
		s, _ := next.standing(time.Now())
		now := next.busyWith(s)
		if now != "" && now != busy {
			w.say("waits for a moment without work under way: %s is busy with %s", holder(s.Holder), cell(now))
		}
		who, busy = holder(s.Holder), now
		return busy == "", nil
	})
	switch {
	case !late && err == nil:
		return nil
	case !late:
		return w.refused(err)
	case ctx.Err() != nil:
		err = fmt.Errorf("generation %v is not promoted, and nothing was changed: no longer waiting: %w", w.generation, context.Cause(ctx))
	case busy == "":
		err = fmt.Errorf("generation %v is not promoted, and nothing was changed: the store could not be read within %v: %w", w.generation, w.within, trouble)
	default:
		err = fmt.Errorf("generation %v is not promoted, and nothing was changed: no moment without work under way came within %v: %s is busy with %s: wait longer by --within, or promote without --when-idle",
			w.generation, w.within, who, busy)
	}
	return exitcodes.With(err, exitcodes.Retry)
}

// read looks at the store; at the processes themselves only once, since one that is
// stopped keeps the answer waiting.
func (w *waitFor) read(ctx context.Context) error {
	return bounded(ctx, longestCall, func(ctx context.Context) (err error) {
		next := look{at: time.Now()}
		if w.looked || w.wait == waitClaim {
			if err = next.readBoard(ctx, w.store, w.cfg); err == nil {
				err = next.readHead(ctx, w.store, w.cfg)
			}
		} else {
			next, err = readLook(ctx, w.store, w.cfg)
		}
		if err == nil {
			next.heard = w.looked && w.newest.follows(next)
			w.looked, w.newest = true, next
		}
		return err
	})
}

// overdue says who leads instead, and what has become of the intent.
func (w *waitFor) overdue(ctx context.Context, trouble error) error {
	says := w.newest.verdict(time.Now()).Text
	if ctx.Err() != nil {
		return fmt.Errorf("no longer waiting: %w: %s; the promotion stays", context.Cause(ctx), says)
	}
	err := fmt.Errorf("generation %[1]v does not lead after %[2]v: %[3]s; the promotion stays, and generation %[1]v leads as soon as it claims",
		w.generation, w.timeout, says)
	if l := w.newest; w.wait == waitServing && l.head.Claim.Token.Generation == w.generation && !l.raised {
		err = fmt.Errorf("generation %v is not known to serve after %v: %s (--wait claim goes by the claim alone)", w.generation, w.timeout, says)
	}
	if trouble != nil && !errors.Is(trouble, context.DeadlineExceeded) {
		err = fmt.Errorf("%w; the store was last heard to say: %w", err, trouble)
	}
	return exitcodes.With(err, exitcodes.Retry)
}
