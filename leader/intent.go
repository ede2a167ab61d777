package leader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// An Intent is the durable wish that a generation shall lead. Its zero value
// means that none was ever promoted.
type Intent struct {
	Generation generation.Generation `json:"generation"` // generation.None: the last one was aborted
	At         time.Time             `json:"at"`         // by the clock of who asked, for people
	By         string                `json:"by"`         // who asked, for people

	// Aborted are the generations that were given up and may never lead. Those
	// that can't, because a higher one led since, are left out.
	Aborted []generation.Generation `json:"aborted,omitempty"`
}

// maxAborted bounds the generations that an Intent remembers as given up while
// none of a higher number leads.
const maxAborted = 1000

// Promote writes down that generation g shall lead. It is idempotent, and it
// is durable: a process of g that starts later claims at once. It does not wait
// for the claim.
//
// It returns an error that matches fence.ErrSuperseded where a higher
// generation leads, an *OvertakenError where one was promoted already, and an
// *AbortedError where g was given up. It succeeds, and promotes nothing, where
// g leads and no higher one was promoted.
func Promote(ctx context.Context, store driver.Store, cfg catalog.Config, g generation.Generation, by string) (Intent, error) {
	posted, err := promote(ctx, store, cfg, g, by)
	return posted.Value, err
}

// promote is [Promote], and returns the intent as it stands on the board.
func promote(ctx context.Context, store driver.Store, cfg catalog.Config, g generation.Generation, by string) (none catalog.Posted[Intent], err error) {
	if err := checkNumber("promote", g); err != nil {
		return none, err
	}
	board := catalog.NewBoard(store, cfg)
	reserved := make(chan error, 1)
	go func() { reserved <- board.Reserve(ctx, g) }() // it takes as long as the head
	head, err := board.Head(ctx)
	notReserved := <-reserved
	if err != nil {
		return none, err
	}
	current := head.Claim
	if current.Token.Generation > g {
		return none, fence.Check(fence.Token{Generation: g}, current.Token, current.Holder)
	}
	if current.Token.Generation == g {
		return leadsAlready(ctx, board, g)
	}
	if notReserved != nil {
		return none, notReserved
	}
	return catalog.UpdateNote(ctx, board, intentKey, func(i *Intent) error {
		switch {
		case i.aborts(g):
			return &AbortedError{Generation: g}
		case i.Generation > g:
			return &OvertakenError{Wanted: g, Promoted: *i}
		case i.Generation == g:
			return catalog.ErrUnchanged
		}
		*i = Intent{Generation: g, At: now(), By: by, Aborted: above(i.Aborted, current.Token.Generation)}
		return nil
	})
}

// Abort gives generation g up, for good: nobody can promote it any more, and no
// process of it claims. It may name a generation that was never promoted. Of an
// abort and a claim exactly one succeeds: Abort returns a *TooLateError where
// the claim did, and then changes nothing. It is idempotent.
func Abort(ctx context.Context, store driver.Store, cfg catalog.Config, g generation.Generation, by string) (Intent, error) {
	if err := checkNumber("abort", g); err != nil {
		return Intent{}, err
	}
	board := catalog.NewBoard(store, cfg)
	leads, err := leadsOrLed(ctx, board, g)
	if err != nil {
		return Intent{}, err
	}
	var before Intent
	posted, err := catalog.UpdateNote(ctx, board, intentKey, func(i *Intent) error {
		if i.aborts(g) {
			return catalog.ErrUnchanged
		}
		before = *i
		i.Aborted = append(above(i.Aborted, leads), g)
		if len(i.Aborted) > maxAborted {
			return fmt.Errorf("leader: more than %d generations above %v were given up: promote a higher one first", maxAborted, leads)
		}
		if i.Generation == g {
			i.Generation, i.At, i.By = generation.None, now(), by
		}
		return nil
	})
	if err != nil {
		return posted.Value, err
	}
	// A claim is conditional on the note: behind the write above none lands.
	// One before it did.
	if _, err := leadsOrLed(ctx, board, g); err != nil {
		var late *TooLateError
		if errors.As(err, &late) {
			err = errors.Join(err, putBack(ctx, board, before, posted.Version))
		}
		return posted.Value, err
	}
	return posted.Value, nil
}

// putBack undoes an abort that came too late, unless somebody has written since.
func putBack(ctx context.Context, board *catalog.Board, before Intent, version int64) error {
	now, err := catalog.ReadNote[Intent](ctx, board, intentKey)
	if err != nil || now.Version != version {
		return err
	}
	_, err = catalog.UpdateNote(ctx, board, intentKey, func(i *Intent) error {
		*i = before
		return nil
	})
	return err
}

// leadsOrLed returns which generation leads, and an error where that is g or a
// higher one.
func leadsOrLed(ctx context.Context, board *catalog.Board, g generation.Generation) (generation.Generation, error) {
	head, err := board.Head(ctx)
	if err != nil {
		return generation.None, err
	}
	if head.Claim.Token.Generation >= g {
		return generation.None, &TooLateError{Generation: g, Holding: Holding{Token: head.Claim.Token, Holder: head.Claim.Holder}}
	}
	return head.Claim.Token.Generation, nil
}

func checkNumber(verb string, g generation.Generation) error {
	if g == generation.None || g > generation.Max {
		return fmt.Errorf("leader: cannot %s generation %v: want 1 to %v", verb, g, generation.Max)
	}
	return nil
}

// above returns the generations above g.
func above(all []generation.Generation, g generation.Generation) []generation.Generation {
	return slices.DeleteFunc(slices.Clone(all), func(a generation.Generation) bool { return a <= g })
}

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// leadsAlready returns the intent that stands while g leads.
func leadsAlready(ctx context.Context, board *catalog.Board, g generation.Generation) (catalog.Posted[Intent], error) {
	i, err := catalog.ReadNote[Intent](ctx, board, intentKey)
	if err == nil && i.Value.Generation > g {
		err = &OvertakenError{Wanted: g, Promoted: i.Value}
	}
	return i, err
}

// An OvertakenError says that a generation can't be promoted because a higher
// one was.
type OvertakenError struct {
	Wanted   generation.Generation
	Promoted Intent
}

func (e *OvertakenError) Error() string {
	return fmt.Sprintf("leader: generation %v can't be promoted: generation %v was, at %s by %s",
		e.Wanted, e.Promoted.Generation, e.Promoted.At.Format(time.RFC3339), e.Promoted.By)
}

// An AbortedError says that a generation was given up, and may never lead.
type AbortedError struct{ Generation generation.Generation }

func (e *AbortedError) Error() string {
	return fmt.Sprintf("leader: generation %v was aborted, and can't be promoted any more: give the release a new number", e.Generation)
}

// A TooLateError says that a generation can't be given up because it led before
// the abort was written, or a higher one did.
type TooLateError struct {
	Generation generation.Generation
	Holding    Holding
}

func (e *TooLateError) Error() string {
	return fmt.Sprintf("leader: too late to abort generation %v: %v leads", e.Generation, e.Holding.Token)
}

// refusal reports whether err says that a generation can't be promoted or
// given up, whatever is tried again.
func refusal(err error) bool {
	var overtaken *OvertakenError
	var aborted *AbortedError
	var late *TooLateError
	return errors.Is(err, fence.ErrSuperseded) || errors.As(err, &overtaken) || errors.As(err, &aborted) || errors.As(err, &late)
}

// aborts reports whether g was given up.
func (i Intent) aborts(g generation.Generation) bool { return slices.Contains(i.Aborted, g) }

// ReadIntent returns the newest intent.
func ReadIntent(ctx context.Context, store driver.Store, cfg catalog.Config) (Intent, error) {
	posted, err := catalog.ReadNote[Intent](ctx, catalog.NewBoard(store, cfg), intentKey)
	return posted.Value, err
}
