package leader

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/generation"
)

// maxAborted bounds the generations that an Intent remembers as given up while
// none of a higher number leads.
const maxAborted = 1000

// AbortOptions say who gives a generation up, and why.
type AbortOptions struct {
	By     string // who asks, for people: at most [MaxBy] bytes of UTF-8
	Reason string // why, for the history: at most [catalog.MaxReason] bytes of UTF-8
}

// Abort gives generation g up, for good: nobody can promote it any more, no
// process of it claims, and its number is never handed out. It may name a
// generation that was never promoted. It is idempotent.
//
// Of an abort and a claim exactly one succeeds: Abort returns a *[TooLateError] if
// the claim did, and then changes nothing: it takes back only what it has written
// itself. It returns an error that wraps generation.ErrNoRoom if g is so high that
// hardly a release could follow.
func Abort(ctx context.Context, store driver.Store, cfg catalog.Config, g generation.Generation, opts AbortOptions) (Intent, error) {
	change, err := newChange(Aborted, g, opts.By, opts.Reason)
	if err != nil {
		return Intent{}, err
	}
	board := catalog.NewBoard(store, cfg)
	for {
		posted, err := abortOnce(ctx, board, change)
		if !errors.Is(err, errMoved) {
			return posted.Value, err
		}
	}
}

func abortOnce(ctx context.Context, board *catalog.Board, change Change) (posted catalog.Posted[Intent], err error) {
	g := change.Generation
	s, err := readStanding(ctx, board)
	if err != nil {
		return posted, err
	}
	if err := tooLate(g, s.claim); err != nil {
		return posted, err
	}
	before, rest := s.intent.Value, above(s.intent.Value.Aborted, s.leads())
	if !before.aborts(g) && len(rest) >= maxAborted {
		return posted, fmt.Errorf("leader: %d generations above %v were given up, and no more can be: promote a higher one first", len(rest), s.leads())
	}
	if !s.handedOut(g) { // before the abort, so that it is never acknowledged while its number is free
		if err := board.Reserve(ctx, g); err != nil {
			return posted, err
		}
	}
	if before.aborts(g) {
		return s.intent, recheck(ctx, board, g)
	}
	posted, err = s.replace(ctx, board, change, func(i *Intent) {
		i.Aborted = append(slices.Clone(rest), g)
		if i.Generation == g {
			i.Generation, i.At, i.By = generation.None, change.At, change.By
		}
	})
	if err != nil {
		return posted, err
	}
	// A claim is conditional on the intent: behind the write above none of g lands.
	// One before it did.
	err = recheck(ctx, board, g)
	var late *TooLateError
	if errors.As(err, &late) {
		err = errors.Join(err, putBack(ctx, board, change, before))
	}
	return posted, err
}

// putBack takes an abort back that came too late, and nothing else: what somebody
// has written behind it stays.
func putBack(ctx context.Context, board *catalog.Board, abort Change, before Intent) error {
	_, err := catalog.UpdateNote(ctx, board, intentKey, func(i *Intent) error {
		if !i.aborts(abort.Generation) {
			return catalog.ErrUnchanged
		}
		if i.Generation == generation.None && i.At.Equal(abort.At) && i.By == abort.By {
			i.Generation, i.At, i.By = before.Generation, before.At, before.By
		}
		if i.Abort.same(abort) {
			i.Abort = before.Abort
		}
		i.Aborted = slices.DeleteFunc(i.Aborted, func(a generation.Generation) bool { return a == abort.Generation })
		return nil
	})
	if err != nil {
		return err
	}
	return forget(ctx, board, abort)
}

// recheck reads the head, and returns an error if g can't be given up any more.
func recheck(ctx context.Context, board *catalog.Board, g generation.Generation) error {
	head, err := board.Head(ctx)
	if err != nil {
		return err
	}
	return tooLate(g, head.Claim)
}

// tooLate returns an error if g or a higher generation has the newest token.
func tooLate(g generation.Generation, newest driver.Claim) error {
	if newest.Token.Generation < g {
		return nil
	}
	return &TooLateError{Generation: g, Holding: Holding{Token: newest.Token, Holder: newest.Holder}}
}

// An AbortedError says that a generation was given up, and may never lead.
type AbortedError struct {
	Generation generation.Generation
	Abort      Change // by whom, when and why; zero times and texts if that is not known any more
}

func (e *AbortedError) Error() string {
	return fmt.Sprintf("leader: generation %v was aborted%s, and can't be promoted any more: give the release a new number", e.Generation, e.Abort.details())
}

// A TooLateError says that a generation can't be given up because it led before
// the abort was written, or a higher one did.
type TooLateError struct {
	Generation generation.Generation
	Holding    Holding
}

func (e *TooLateError) Error() string {
	return fmt.Sprintf("leader: too late to abort generation %v: the newest token is %v", e.Generation, e.Holding.Token)
}
