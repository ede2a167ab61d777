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
func (g *gate) unraisable(ctx context.Context) (missing string) {
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

// raisable says the same, and asks once a heartbeat.
func (g *gate) raisable(ctx context.Context) (missing string) {
	if now := g.l.lease.now(); g.provedAt == 0 || now-g.provedAt >= g.l.cfg.heartbeat() {
		g.proved, g.provedAt = g.unraisable(ctx), now
	}
	return g.proved
}

var errNotServing = errors.New("leader: this process leads, and does not serve")

// raise has every register refuse older tokens before the work begins. It tries for
// as long as this process leads: the token is not given up for a store that is away.
func (t *tenure) raise(ctx context.Context) (stage, error) {
	pending, token, by := t.cfg.Registers, t.c.Claim().Token, t.c.Claim().Holder
	pace := backoff.NewExponentialBackOff()
	pace.InitialInterval, pace.MaxInterval = t.cfg.Poll, raiseAgain
	for {
		var err error
		pending, err = t.each(ctx, pending, func(ctx context.Context, r fence.Register) error { return r.Raise(ctx, token, by) })
		if len(pending) == 0 {
			return t.serve, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if why := t.c.Explain(ctx, err); t.c.Err() != nil {
			return nil, why
		}
		t.log.WarnContext(ctx, "leads, and does not serve", "err", err)
		t.because("leads, not serving: " + exitcodes.OneLine(err.Error()))
		wait := time.NewTimer(pace.NextBackOff())
		select {
		case <-wait.C:
		case a := <-t.asks:
			a.refuse(errNotServing)
		case <-ctx.Done():
		}
		wait.Stop()
	}
}
