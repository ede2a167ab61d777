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
	rehearsed driver.Head // on which the migrations were run
	pending   bool        // there were some
	held      bool        // CaughtUp says yes
	warned    bool        // that this process proceeds nevertheless
	since     time.Duration
}

func (l *Leader) newGate() *gate { return &gate{l: l, began: l.lease.now()} }

// check looks once. Missing is empty where the process could lead. An error is
// final: the migrations fail on these data, or the time is over.
func (g *gate) check(ctx context.Context, f *catalog.Follower) (missing string, err error) {
	if head, _ := f.Head(); head.Claim.ID != g.rehearsed.Claim.ID {
		if err := g.rehearse(ctx, f); err != nil {
			return "", err
		}
	}
	if missing = g.caughtUp(ctx, f); missing == "" {
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

// renew runs the migrations once more where the data have changed since.
func (g *gate) renew(ctx context.Context, f *catalog.Follower) error {
	if head, _ := f.Head(); head.Claim.ID == g.rehearsed.Claim.ID && (!g.pending || head.Commit == g.rehearsed.Commit) {
		return nil
	}
	return g.rehearse(ctx, f)
}

func (g *gate) rehearse(ctx context.Context, f *catalog.Follower) error {
	steps, head, err := f.Rehearse()
	if err != nil {
		return fmt.Errorf("leader: the rehearsal on the data as of revision %d: %w", head.Revision, err)
	}
	g.rehearsed, g.pending = head, len(steps) > 0
	for _, s := range steps {
		g.l.log.InfoContext(ctx, "migration rehearsed", "version", s.Version, "name", s.Name, "took", s.Took,
			"sets", s.Sets, "deletes", s.Deletes, "bytes", s.Bytes, "revision", head.Revision)
	}
	return nil
}

// A LateError says that a process has not caught up within CatchUpTimeout.
type LateError struct {
	Waited  time.Duration
	Missing string
}

func (e *LateError) Error() string {
	return fmt.Sprintf("leader: not caught up after %v: %s", e.Waited.Round(time.Millisecond), e.Missing)
}
