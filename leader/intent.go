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

	// Promotion and Abort are the newest of each, with their reasons; zero if there
	// was none. They are earlier ones if an older build has written since.
	Promotion Change `json:"promotion,omitzero"`
	Abort     Change `json:"abort,omitzero"`
}

// ReadIntent returns the newest intent.
func ReadIntent(ctx context.Context, store driver.Store, cfg catalog.Config) (Intent, error) {
	posted, err := catalog.ReadNote[Intent](ctx, catalog.NewBoard(store, cfg), intentKey)
	return posted.Value, err
}

// aborts reports whether g was given up.
func (i Intent) aborts(g generation.Generation) bool { return slices.Contains(i.Aborted, g) }

// Refuses returns why generation g can't be promoted any more, and will not lead
// unless it does already: an *[AbortedError] if it was given up, an *[OvertakenError]
// if a higher one was promoted; nil if neither is so.
func (i Intent) Refuses(g generation.Generation) error {
	switch {
	case i.aborts(g):
		return &AbortedError{Generation: g, Abort: i.abortOf(g)}
	case i.Generation > g:
		return &OvertakenError{Wanted: g, Promoted: i}
	}
	return nil
}

// Reason returns why the generation was promoted; empty if nobody said.
func (i Intent) Reason() string { return i.promotion().Reason }

// promotion returns the promotion that stands; zero if none does.
func (i Intent) promotion() Change {
	if i.Generation == generation.None {
		return Change{}
	}
	c := Change{Kind: Promoted, Generation: i.Generation, At: i.At, By: i.By}
	if i.Promotion.same(c) {
		return i.Promotion
	}
	return c
}

// abortOf returns the abort of g, as far as the intent knows it.
func (i Intent) abortOf(g generation.Generation) Change {
	if i.Abort.Generation == g {
		return i.Abort
	}
	return Change{Kind: Aborted, Generation: g}
}

// changes returns the promotions and aborts that the intent knows, oldest first.
func (i Intent) changes() (all []Change) {
	if p := i.promotion(); !p.same(i.Promotion) {
		all = append(all, p)
	}
	all = append(all, i.Promotion, i.Abort)
	all = slices.DeleteFunc(all, func(c Change) bool { return c.Kind == "" })
	slices.SortStableFunc(all, func(a, b Change) int { return a.At.Compare(b.At) })
	return all
}

// has reports whether c is the newest promotion or the newest abort.
func (i Intent) has(c Change) bool { return i.Promotion.same(c) || i.Abort.same(c) }

// A standing is what a catalog says about its generations before a promotion or
// an abort.
type standing struct {
	claim  driver.Claim
	last   generation.Generation // the highest number that was handed out
	intent catalog.Posted[Intent]
}

// readStanding reads all three at once: a person waits for the answer.
func readStanding(ctx context.Context, board *catalog.Board) (s standing, err error) {
	errs := make(chan error, 2)
	go func() {
		var err error
		s.last, err = board.LastGeneration(ctx)
		errs <- err
	}()
	go func() {
		var err error
		s.intent, err = catalog.ReadNote[Intent](ctx, board, intentKey)
		errs <- err
	}()
	head, err := board.Head(ctx)
	for range 2 {
		if other := <-errs; err == nil {
			err = other
		}
	}
	s.claim = head.Claim
	return s, err
}

// leads returns the generation of the newest token.
func (s standing) leads() generation.Generation { return s.claim.Token.Generation }

// handedOut reports whether a release may bear the number g.
func (s standing) handedOut(g generation.Generation) bool { return g <= max(s.last, s.leads()) }

// errMoved means that somebody else has changed the intent since it was read.
var errMoved = errors.New("leader: the intent has changed meanwhile")

// replace changes the intent with fn and notes that as change, on condition that
// it says what was read before. What it has said is kept first, so that the
// history loses nothing. A change that an earlier try has made is found.
func (s standing) replace(ctx context.Context, board *catalog.Board, change Change, fn func(*Intent)) (catalog.Posted[Intent], error) {
	if err := keep(ctx, board, s.intent.Value.changes()...); err != nil {
		return s.intent, err
	}
	return catalog.UpdateNote(ctx, board, intentKey, func(i *Intent) error {
		switch {
		case i.has(change):
			return catalog.ErrUnchanged
		case !slices.EqualFunc(i.changes(), s.intent.Value.changes(), Change.same):
			return errMoved
		}
		if fn(i); change.Kind == Promoted {
			i.Promotion = change
		} else {
			i.Abort = change
		}
		return nil
	})
}

// checkNumber refuses a number that no release can have.
func checkNumber(verb string, g generation.Generation) error {
	if g == generation.None {
		return fmt.Errorf("leader: cannot %s generation %v: want 1 or more", verb, g)
	}
	if g >= generation.Max {
		return fmt.Errorf("leader: cannot %s generation %v: %w", verb, g, g.CheckRoom())
	}
	return nil
}

// above returns the generations above g.
func above(all []generation.Generation, g generation.Generation) []generation.Generation {
	return slices.DeleteFunc(slices.Clone(all), func(a generation.Generation) bool { return a <= g })
}

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// refusal reports whether err says that a generation can't be promoted or
// given up, whatever is tried again.
func refusal(err error) bool {
	var overtaken *OvertakenError
	var aborted *AbortedError
	var late *TooLateError
	var unknown *NotHandedOutError
	return errors.Is(err, fence.ErrSuperseded) || errors.Is(err, generation.ErrNoRoom) ||
		errors.As(err, &overtaken) || errors.As(err, &aborted) || errors.As(err, &late) || errors.As(err, &unknown)
}
