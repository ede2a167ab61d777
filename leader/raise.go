package leader

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// The longest wait between two tries to raise a register.
const raiseAgain = time.Second

// each calls fn with every register at the same time, each for StoreTimeout at most,
// and returns what has failed, by name.
func (l *Leader) each(ctx context.Context, registers []fence.Register, fn func(context.Context, fence.Register) error) (failed []fence.Register, err error) {
	errs := make([]error, len(registers))
	var wg sync.WaitGroup
	for i, r := range registers {
		wg.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, l.cfg.Catalog.StoreTimeout)
			defer cancel()
			errs[i] = fn(bounded, r)
		})
	}
	wg.Wait()
	var all []error
	for i, err := range errs {
		if err != nil {
			failed, all = append(failed, registers[i]), append(all, fmt.Errorf("%s: %w", registers[i], err))
		}
	}
	return failed, errors.Join(all...)
}

// unraisable says which registers this process could not raise, as far as they can
// tell before the claim: then the holder is not asked for the handover, and serves on.
func (g *readiness) unraisable(ctx context.Context) (missing string) {
	if len(g.l.cfg.Registers) == 0 {
		return ""
	}
	next := fence.Token{Generation: g.l.cfg.Catalog.Generation, Epoch: 1}
	if leads := g.l.Status().Leader; leads != nil {
		next.Epoch = leads.Token.Epoch + 1
	}
	_, err := g.l.each(ctx, g.l.cfg.Registers, func(ctx context.Context, r fence.Register) error { return r.Prove(ctx, next) })
	if err != nil {
		return "a store could not be raised: " + exitcodes.OneLine(err.Error())
	}
	return ""
}

// A raising has every register refuse older tokens before the work begins. It is
// tried for as long as this process leads: the token is not given up for a store
// that is away.
type raising struct {
	pending []fence.Register
	pace    *backoff.ExponentialBackOff
	next    time.Duration // when to try again, by the lease's clock
}

func (l *Leader) newRaising() raising {
	r := raising{pending: l.cfg.Registers, pace: backoff.NewExponentialBackOff()}
	r.pace.InitialInterval, r.pace.MaxInterval = l.cfg.Poll, raiseAgain
	return r
}

func (r *raising) done() bool { return len(r.pending) == 0 }

// raise tries once, if it is time, and reports whether that is done.
func (t *leadership) raise(ctx context.Context) bool {
	r := &t.raising
	if t.lease.now() < r.next {
		return false
	}
	token, by := t.c.Claim().Token, t.c.Claim().Holder
	var err error
	r.pending, err = t.each(ctx, r.pending, func(ctx context.Context, r fence.Register) error { return r.Raise(ctx, token, by) })
	if err == nil || ctx.Err() != nil {
		return true
	}
	if t.c.Explain(ctx, err); t.c.Err() != nil {
		return true // the handle has ended, and ctx with it
	}
	t.log.WarnContext(ctx, "leads, and does not serve", "err", err)
	t.because("leads, not serving: " + exitcodes.OneLine(err.Error()))
	r.next = t.lease.now() + r.pace.NextBackOff()
	return false
}
