package leader

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
)

// ErrNobodyReady means that no standby could take over, so that the holder was
// not asked to stop its work.
var ErrNobodyReady = errors.New("leader: no standby could take over")

// StepDownOptions say why a holder steps down, and on which conditions.
type StepDownOptions struct {
	Reason string // for people

	// Force pauses the work for up to HandoverTimeout even if no standby is known
	// that could take over.
	Force bool
}

// StepDown offers the token to any standby of this generation, and returns nil
// once one has claimed; this process is a standby then. The work is paused for as
// long. If nobody claims within HandoverTimeout, this process goes on leading, and
// StepDown says so.
//
// Before the work is paused StepDown looks for a standby that is ready, on the
// board and among the connected processes, for two seconds at most: a member's
// note is as old as that. Its error matches [ErrNobodyReady] if there is none.
func (l *Leader) StepDown(ctx context.Context, opts StepDownOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // if nobody waits for it any more, the offer ends
	if l.holding() == nil {
		return l.notTaken(ctx)
	}
	if !opts.Force {
		if err := l.awaitStandby(ctx); err != nil {
			return err
		}
	}
	l.leaving.Add(1)
	defer l.leaving.Add(-1)
	a := l.newAsk(ctx, "stepping down: "+opts.Reason, generation.None)
	if err := l.submit(ctx, a, l.cfg.HandoverTimeout); err != nil {
		return err
	}
	bounded, stop := context.WithTimeout(ctx, l.patience())
	defer stop()
	select {
	case err := <-a.result:
		return err
	case <-bounded.Done():
		return errors.New("leader: what became of the offer is not known")
	}
}

// awaitStandby returns nil once a standby is known that could take over.
func (l *Leader) awaitStandby(ctx context.Context) error {
	bounded, stop := context.WithTimeout(ctx, 2*memberPace)
	defer stop()
	for {
		missing, err := l.noStandby(ctx)
		switch {
		case err == nil && missing == "":
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && elapse(bounded, l.cfg.Poll):
			continue
		case err == nil:
			return fmt.Errorf("%w: %s; this process goes on leading, and no work was paused", ErrNobodyReady, missing)
		default:
			return fmt.Errorf("%w, as far as is known: %w", ErrNobodyReady, err)
		}
	}
}

// noStandby says why no standby could take over: empty if one could.
func (l *Leader) noStandby(ctx context.Context) (missing string, err error) {
	bounded, stop := context.WithTimeout(ctx, l.cfg.heartbeat())
	defer stop()
	list, err := ReadMembers(bounded, l.store, l.cfg.boardConfig())
	if err != nil {
		return "", err
	}
	var unready []string
	others, mine := int64(len(list.Unheard)+list.Broken), l.Status().Member
	for _, m := range list.Members {
		switch {
		case m.ID == mine:
			continue
		case m.Generation != l.cfg.Catalog.Generation:
		case m.Ready:
			return "", nil
		default:
			unready = append(unready, fmt.Sprintf("%s is not ready: %s", m.Name, exitcodes.OneLine(m.Reason)))
		}
		others++
	}
	switch {
	case list.More, l.peers.Standbys() > others: // one of a build that writes no note
		return "", nil
	case len(unready) == 0:
		return fmt.Sprintf("no other process of generation %v runs", l.cfg.Catalog.Generation), nil
	default:
		return strings.Join(unready[:min(3, len(unready))], "; "), nil
	}
}
