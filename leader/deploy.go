package leader

import (
	"context"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
)

// A gate says whether a process of a higher generation could lead: whether its
// migrations work on the real data, and whether the application says that it
// has caught up, and has said so for long enough.
type gate struct {
	l         *Leader
	began     time.Duration
	ran       bool              // the migrations were run
	rehearsed catalog.Rehearsed // their newest run
	held      bool              // CaughtUp says yes
	warned    bool              // that this process proceeds nevertheless
	since     time.Duration
	proved    string        // what was missing when the registers were asked last
	provedAt  time.Duration // zero: they were not
}

func (l *Leader) newGate() *gate { return &gate{l: l, began: l.lease.now()} }

// check looks once. Missing is empty where the process could lead. An error is
// final: the migrations fail on these data, or the time is over.
func (g *gate) check(ctx context.Context, f *catalog.Follower) (missing string, err error) {
	if head, _ := f.Head(); !g.ran || !sameData(head.Claim, g.rehearsed.Head.Claim) {
		if len(g.l.cfg.Catalog.Migrations) > 0 {
			g.l.because(fmt.Sprintf("the migrations run on the data as of revision %d, which may take as long as it takes", head.Revision))
		}
		if err := g.renew(ctx, f); err != nil {
			return "", err
		}
	}
	if missing = g.caughtUp(ctx, f); missing == "" {
		missing = g.raisable(ctx)
	}
	if missing == "" {
		return "", nil
	}
	limit := g.l.cfg.CatchUpTimeout
	switch waited := g.l.lease.now() - g.began; {
	case limit == 0 || waited < limit:
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

// caughtUp asks the application, and whether it has said yes for long enough.
func (g *gate) caughtUp(ctx context.Context, f *catalog.Follower) (missing string) {
	if g.l.cfg.CaughtUp == nil {
		return ""
	}
	if err := g.l.cfg.CaughtUp(ctx, f); err != nil {
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

// renew runs the migrations once more if commits have changed what they read.
func (g *gate) renew(ctx context.Context, f *catalog.Follower) error {
	return g.rehearse(ctx, f.Rehearse)
}

// renewPaused does the same while the holder has stopped its work, within
// MigrationTimeout.
func (g *gate) renewPaused(ctx context.Context, f *catalog.Follower) error {
	return g.rehearse(ctx, f.RehearsePaused)
}

func (g *gate) rehearse(ctx context.Context, run func(context.Context) (catalog.Rehearsed, error)) error {
	last, err := run(ctx)
	if err != nil {
		return fmt.Errorf("leader: the rehearsal on the data as of revision %d: %w", last.Head.Revision, err)
	}
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

// sameData reports whether the data are at the same versions under both claims.
func sameData(a, b driver.Claim) bool {
	return a.DataVersion == b.DataVersion && a.ReadableBy == b.ReadableBy
}

// tooSlow says why the migrations could not run while the holder is paused,
// though they have to: empty if they can, or need not.
func (g *gate) tooSlow(f *catalog.Follower) (missing string) {
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
