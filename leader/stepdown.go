package leader

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/loopback"
)

// ErrNobodyReady means that no standby could take over, so that the holder was
// not asked to stop its work.
var ErrNobodyReady = errors.New("leader: no standby could take over")

// stepAside is how often a process that stepped down looks whether it is a standby.
const stepAside = 5 * time.Millisecond

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
// Before the work is paused StepDown looks on the board for a standby that is ready,
// for two seconds at most: a member's note is as old as that. One that it can ask, or
// that can reach this process, must be there. Builds that keep no note can't take an
// offer. Its error matches [ErrNobodyReady] if there is none.
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
		// The successor has claimed; this process is about to see that.
		for again := err == nil; again && l.Status().Phase == HandingOver; {
			again = elapse(bounded, stepAside)
		}
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
	mine := l.Status().Member
	for _, m := range list.Members {
		if m.ID == mine || m.Generation != l.cfg.Catalog.Generation {
			continue
		}
		why := l.couldNotTakeOver(bounded, m)
		if why == "" {
			return "", nil
		}
		unready = append(unready, m.Name+" "+why)
	}
	switch {
	case list.More:
		return "", nil
	case len(unready) == 0 && l.peers.Standbys() > 0:
		return fmt.Sprintf("no other process of generation %v is on the board; those that are connected are of other generations, or of builds that can't take an offer",
			l.cfg.Catalog.Generation), nil
	case len(unready) == 0:
		return fmt.Sprintf("no other process of generation %v runs", l.cfg.Catalog.Generation), nil
	default:
		return strings.Join(unready[:min(3, len(unready))], "; "), nil
	}
}

// couldNotTakeOver says why a member of this generation could not take over: empty if
// it could, as far as is known. The note of one that was killed stands for a while, so
// that it must answer if it can be asked, and be connected if it can reach this process.
func (l *Leader) couldNotTakeOver(ctx context.Context, m Member) (why string) {
	asking, stop := context.WithTimeout(ctx, l.cfg.heartbeat()/5) // others are asked too
	defer stop()
	m, answers := m.Ask(asking)
	mine := Beat{Admin: l.admin.address(), Peer: l.peer.address(), Host: l.host}
	switch {
	case !m.Ready:
		return "is not ready: " + exitcodes.OneLine(m.Reason)
	case answers:
		return ""
	case m.Admin != "" && m.Host == l.host && loopback.Is(m.Admin):
		return "does not answer by its admin API"
	case mine.reach(m.Host) != "" && l.peers.Standbys() == 0:
		return "is not connected to this process"
	default:
		return ""
	}
}
