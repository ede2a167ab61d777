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
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader/internal/election"
)

// A readiness says whether this process could lead: whether a claim would be
// accepted, its migrations work on the real data, and, of a higher generation
// than the holder's, whether the application has caught up and every register
// could be raised.
type readiness struct {
	l         *Leader
	began     time.Duration
	ran       bool              // the migrations were run
	rehearsed catalog.Rehearsed // their newest run
	failed    string            // why they failed last; empty: they did not
	failedAt  time.Duration
	slow      bool // they were too slow when this process was about to ask the holder
	held      bool // CaughtUp says yes
	warned    bool // that this process proceeds nevertheless
	since     time.Duration

	claim, prepared, registers recent

	hooks  context.Context // of the calls of Prepare and CaughtUp
	cancel func()
}

// A recent is an answer that basic looks use again: for a heartbeat, and for at
// most a second if something is missing.
type recent struct {
	missing string
	at      time.Duration // zero: not asked
}

// within returns the answer, and asks anew if it is too old for the level. Newest says
// that no other answer is under way, for which the next look asks.
func (r *recent) within(l *Leader, level election.Level, ask func() (newest bool, missing string)) string {
	good := l.cfg.heartbeat()
	if r.missing != "" {
		good = min(good, time.Second)
	}
	if now := l.lease.now(); level > election.Basic || r.at == 0 || now-r.at >= good {
		var newest bool
		if newest, r.missing = ask(); newest {
			r.at = now
		} else {
			r.at = 0
		}
	}
	return r.missing
}

func (l *Leader) newReadiness(ctx context.Context) *readiness {
	g := &readiness{l: l, began: l.lease.now()}
	g.hooks, g.cancel = context.WithCancel(ctx)
	return g
}

// close ends the calls of hooks, and forgets their answers: they hold a follower's data.
func (g *readiness) close() {
	g.cancel()
	g.l.prepare.before, g.l.catchUp.before = nil, nil
}

// examine says at one level what is missing, of a process that would claim over
// the head which f has seen. An error is final: the time is over, or the
// follower has ended.
func (g *readiness) examine(ctx context.Context, f *catalog.Follower, level election.Level, progress func()) (election.Readiness, error) {
	head, _ := f.Head()
	found := election.Readiness{Level: level, Revision: head.Revision}
	deploys := !head.IsZero() && head.Claim.Token.Generation < g.l.cfg.Catalog.Generation
	missing, err := g.migrations(ctx, f, level, progress)
	if err != nil {
		return found, err
	}
	if missing == "" {
		missing = g.claim.within(g.l, level, func() (bool, string) { return true, refusedForGood(f.CheckClaim(ctx)) })
	}
	if missing == "" && g.l.cfg.Prepare != nil {
		missing = g.prepared.within(g.l, level, func() (bool, string) { return g.unprepared(ctx, level) })
	}
	certain := missing != "" // the claim would fail, or lead to nothing
	if !certain && deploys {
		missing = g.caughtUp(ctx, f, level)
	}
	if missing == "" && deploys {
		missing = g.registers.within(g.l, level, func() (bool, string) { return true, g.unraisable(ctx) })
	}
	if missing != "" && ctx.Err() != nil { // nobody waits for the answers any more
		return found, context.Cause(ctx)
	}
	if missing != "" && deploys {
		missing, err = g.late(ctx, missing, !certain)
	}
	found.Missing = missing
	return found, err
}

// refusedForGood says why a claim would be refused whenever it is made.
func refusedForGood(err error) string {
	if errors.Is(err, catalog.ErrLossStands) || errors.Is(err, catalog.ErrIncompatible) {
		return err.Error()
	}
	return "" // the claim asks again, and looks that can't read are another matter
}

// late says what becomes of a process that has not caught up in time.
func (g *readiness) late(ctx context.Context, missing string, mayProceed bool) (string, error) {
	limit := g.l.cfg.CatchUpTimeout
	switch waited := g.l.lease.now() - g.began; {
	case limit == 0 || waited < limit:
		return missing, nil
	case g.l.cfg.WhenLate == ProceedLate && !mayProceed:
		return missing, nil
	case g.l.cfg.WhenLate == ProceedLate:
		if !g.warned {
			g.warned = true
			g.l.log.WarnContext(ctx, "not caught up, and proceeding", "waited", waited, "missing", missing)
		}
		return "", nil
	default:
		return "", &LateError{Waited: waited, Missing: missing}
	}
}

// unprepared asks the application what it lacks to serve.
func (g *readiness) unprepared(ctx context.Context, level election.Level) (newest bool, missing string) {
	newest, err := g.l.prepare.ask(ctx, g.hooks, level, g, g.l.cfg.Prepare)
	if err != nil {
		missing = "it could not serve: " + exitcodes.OneLine(err.Error())
	}
	return newest, missing
}

// caughtUp asks the application, and whether it has said yes for long enough.
func (g *readiness) caughtUp(ctx context.Context, f *catalog.Follower, level election.Level) (missing string) {
	if g.l.cfg.CaughtUp == nil {
		return ""
	}
	_, err := g.l.catchUp.ask(ctx, g.hooks, level, f, func(ctx context.Context) error { return g.l.cfg.CaughtUp(ctx, f) })
	if err != nil {
		g.held = false
		return err.Error()
	}
	now := g.l.lease.now()
	if !g.held {
		g.held, g.since = true, now
	}
	if lasted := now - g.since; lasted < g.l.cfg.CaughtUpFor {
		return fmt.Sprintf("caught up, and not yet for %v", g.l.cfg.CaughtUpFor)
	}
	return ""
}

// migrations sees to it that the migrations were rehearsed. A basic look runs
// them once; a fresh one again if commits have changed what they read, and a
// final one likewise, within MigrationTimeout, since the holder is paused.
func (g *readiness) migrations(ctx context.Context, f *catalog.Follower, level election.Level, progress func()) (missing string, err error) {
	head, _ := f.Head()
	if level == election.Basic && !g.slow && g.ran && g.failed == "" && sameData(head.Claim, g.rehearsed.Head.Claim) {
		return "", nil
	}
	if level < election.Final && g.failed != "" && g.l.lease.now()-g.failedAt < g.l.cfg.heartbeat() {
		return g.failed, nil
	}
	if level < election.Final && !g.slow && g.failed == "" && len(g.l.cfg.Catalog.Migrations) > 0 {
		g.l.because(fmt.Sprintf("the migrations run on the data as of revision %d, which may take as long as it takes", head.Revision))
	}
	err = g.rehearse(ctx, f, level, progress)
	switch {
	case err == nil && (level == election.Fresh || g.slow):
		missing = g.tooSlow(f)
		g.slow = missing != ""
		return missing, nil
	case err == nil:
		return "", nil
	case f.Err() != nil:
		return "", f.Err()
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case errors.Is(err, fence.ErrSuperseded):
		return "", err
	}
	g.failed, g.failedAt = exitcodes.OneLine(err.Error()), g.l.lease.now()
	g.l.log.ErrorContext(ctx, "not ready: the rehearsal of the migrations failed", "revision", head.Revision, "err", err)
	return g.failed, nil
}

// rehearse runs the migrations if they have to, and calls progress meanwhile.
func (g *readiness) rehearse(ctx context.Context, f *catalog.Follower, level election.Level, progress func()) error {
	run := f.Rehearse
	if level == election.Final {
		run = f.RehearsePaused
		defer repeat(ctx, g.l.cfg.HandoverTimeout/10, progress)()
	}
	last, err := run(ctx)
	if err != nil {
		head, _ := f.Head()
		return fmt.Errorf("leader: the rehearsal on the data as of revision %d: %w", head.Revision, err)
	}
	g.failed = ""
	if g.ran && last.Head == g.rehearsed.Head {
		return nil
	}
	g.ran, g.rehearsed = true, last
	for _, s := range last.Migrations {
		g.l.log.InfoContext(ctx, "migration rehearsed", "version", s.Version, "name", s.Name, "took", s.Took,
			"sets", s.Sets, "deletes", s.Deletes, "bytes", s.Bytes, "revision", last.Head.Revision)
	}
	return nil
}

// repeat calls fn every d, until ctx ends or stop is called, which joins.
func repeat(ctx context.Context, d time.Duration, fn func()) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for elapse(ctx, d) {
			fn()
		}
	})
	return func() { cancel(); wg.Wait() }
}

// sameData reports whether the data are at the same versions under both claims.
func sameData(a, b driver.Claim) bool {
	return a.DataVersion == b.DataVersion && a.ReadableBy == b.ReadableBy
}

// tooSlow says why the migrations could not run while the holder is paused,
// though they have to: empty if they can, or need not.
func (g *readiness) tooSlow(f *catalog.Follower) (missing string) {
	last, current := f.Rehearsed()
	limit := g.l.cfg.Catalog.MigrationTimeout
	if current || last.Took <= limit {
		return ""
	}
	return fmt.Sprintf("the migrations took %v, which is longer than MigrationTimeout (%v), and commits keep changing what they read",
		last.Took.Round(time.Millisecond), limit)
}

// A LateError says that a process has not caught up within CatchUpTimeout.
type LateError struct {
	Waited  time.Duration
	Missing string
}

func (e *LateError) Error() string {
	return fmt.Sprintf("leader: not caught up after %v: %s", e.Waited.Round(time.Millisecond), e.Missing)
}
