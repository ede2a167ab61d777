package leader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// PromoteOptions say who promotes a generation, and why.
type PromoteOptions struct {
	By     string // who asks, for people: at most [MaxBy] bytes of UTF-8
	Reason string // why, for the history: at most [catalog.MaxReason] bytes of UTF-8

	// Force promotes a number that was never handed out, and hands it out. Without
	// it such a number is refused, because most of them are typing errors.
	Force bool
}

// Promote writes down that generation g shall lead. It is idempotent, and it
// is durable: a process of g that starts later claims at once. It does not wait
// for the claim.
//
// It returns an error that matches fence.ErrSuperseded if a higher generation
// leads, an *[OvertakenError] if one was promoted already, an *[AbortedError] if
// g was given up, a *[NotHandedOutError], and one that wraps generation.ErrNoRoom
// if g is so high that hardly a release could follow. A promotion that is refused
// changes nothing: in particular it hands no number out. Promote succeeds, and
// promotes nothing, if g leads and no higher one was promoted.
//
// A number is handed out by [catalog.Board.NextGeneration], by
// [catalog.Board.Reserve], or by a process that runs under it: see [Leader.Run].
func Promote(ctx context.Context, store driver.Store, cfg catalog.Config, g generation.Generation, opts PromoteOptions) (Intent, error) {
	posted, err := promote(ctx, store, cfg, g, opts)
	return posted.Value, err
}

// promote is [Promote], and returns the intent as it stands on the board.
func promote(ctx context.Context, store driver.Store, cfg catalog.Config, g generation.Generation, opts PromoteOptions) (none catalog.Posted[Intent], err error) {
	change, err := newChange(Promoted, g, opts.By, opts.Reason)
	if err != nil {
		return none, err
	}
	board := catalog.NewBoard(store, cfg)
	for {
		posted, err := promoteOnce(ctx, board, change, opts.Force)
		if !errors.Is(err, errMoved) {
			return posted, err
		}
	}
}

func promoteOnce(ctx context.Context, board *catalog.Board, change Change, force bool) (none catalog.Posted[Intent], err error) {
	g := change.Generation
	s, err := readStanding(ctx, board)
	if err != nil {
		return none, err
	}
	if err := s.refuses(g, force); err != nil || s.stands(g) {
		return s.intent, err
	}
	if !s.handedOut(g) {
		// Should the promotion be refused from here on, then because of a higher
		// generation or of an abort, which have handed out as much.
		if err := board.Reserve(ctx, g); err != nil {
			return none, err
		}
	}
	return s.replace(ctx, board, change, func(i *Intent) {
		i.Generation, i.At, i.By = g, change.At, change.By
		i.Aborted = above(i.Aborted, s.leads())
	})
}

// stands reports whether g leads, or is promoted.
func (s standing) stands(g generation.Generation) bool {
	return s.leads() == g || s.intent.Value.Generation == g
}

// refuses says why g is not promoted; nil: nothing forbids it.
func (s standing) refuses(g generation.Generation, force bool) error {
	i := s.intent.Value
	switch {
	case s.leads() > g:
		return fence.Check(fence.Token{Generation: g}, s.claim.Token, s.claim.Holder)
	case s.leads() == g && i.Generation > g:
		return &OvertakenError{Wanted: g, Promoted: i}
	case s.leads() == g: // an abort comes too late
		return nil
	}
	if err := i.Refuses(g); err != nil {
		return err
	}
	if !force && !s.stands(g) && !s.handedOut(g) {
		return &NotHandedOutError{Generation: g, Last: max(s.last, s.leads())}
	}
	return nil
}

// MayPromote returns the error of a [Promote] that would be refused now, and reports
// whether there would be nothing to promote, since g leads or was promoted already. It
// writes nothing.
func MayPromote(ctx context.Context, store driver.Store, cfg catalog.Config, g generation.Generation, opts PromoteOptions) (stands bool, err error) {
	if _, err := newChange(Promoted, g, opts.By, opts.Reason); err != nil {
		return false, err
	}
	s, err := readStanding(ctx, catalog.NewBoard(store, cfg))
	if err == nil {
		err = s.refuses(g, opts.Force)
	}
	return s.stands(g), err
}

// Reserve hands out g, and every number below it, as [catalog.Board.Reserve] does,
// for a pipeline that has numbers of its own. It changes nothing and returns the
// error of [Promote] if g could not be promoted any more.
func Reserve(ctx context.Context, store driver.Store, cfg catalog.Config, g generation.Generation) error {
	if err := checkNumber("reserve", g); err != nil {
		return err
	}
	board := catalog.NewBoard(store, cfg)
	s, err := readStanding(ctx, board)
	if err != nil {
		return err
	}
	if s.leads() > g {
		return fence.Check(fence.Token{Generation: g}, s.claim.Token, s.claim.Holder)
	}
	if err := s.intent.Value.Refuses(g); err != nil {
		return err
	}
	if s.handedOut(g) {
		return nil
	}
	return board.Reserve(ctx, g)
}

// An OvertakenError says that a generation can't be promoted because a higher
// one was.
type OvertakenError struct {
	Wanted   generation.Generation
	Promoted Intent
}

func (e *OvertakenError) Error() string {
	return fmt.Sprintf("leader: generation %v can't be promoted: generation %v was, at %s by %s%s",
		e.Wanted, e.Promoted.Generation, e.Promoted.At.Format(time.RFC3339), e.Promoted.By, because(e.Promoted.Reason()))
}

// A NotHandedOutError says that a number was never handed out, so that hardly a
// release bears it.
type NotHandedOutError struct {
	Generation generation.Generation
	Last       generation.Generation // the highest that was handed out, or that leads
}

func (e *NotHandedOutError) Error() string {
	return fmt.Sprintf("leader: generation %v was never handed out, the highest number that was is %v, and no process of %[1]v has been seen: "+
		"a typing error? else start a process of it first, reserve the number, or force the promotion", e.Generation, e.Last)
}
