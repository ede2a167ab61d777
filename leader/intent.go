package leader

import (
	"context"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// The keys of the notes that this package keeps on the board.
const (
	intentKey = "promote"
	beatKey   = "holder"
)

// An Intent is the durable wish that a generation shall lead. Its zero value
// means that none was ever promoted.
type Intent struct {
	Generation generation.Generation `json:"generation"`
	At         time.Time             `json:"at"` // by the clock of who asked, for people
	By         string                `json:"by"` // who asked, for people
}

// Promote writes down that generation g shall lead. It is idempotent, and it
// is durable: a process of g that starts later claims at once. It does not wait
// for the claim.
//
// It returns an error that matches fence.ErrSuperseded where a higher
// generation leads, and an *OvertakenError where one was promoted already. It
// succeeds, and writes nothing, where g leads and no higher one was promoted.
func Promote(ctx context.Context, store driver.Store, cfg catalog.Config, g generation.Generation, by string) (Intent, error) {
	if g == generation.None || g > generation.Max {
		return Intent{}, fmt.Errorf("leader: cannot promote generation %v: want 1 to %v", g, generation.Max)
	}
	head, err := catalog.NewBoard(store, cfg).Head(ctx)
	if err != nil {
		return Intent{}, err
	}
	current := head.Claim
	if current.Token.Generation > g {
		return Intent{}, fence.Check(fence.Token{Generation: g}, current.Token, current.Holder)
	}
	if current.Token.Generation == g {
		return leadsAlready(ctx, store, cfg, g)
	}
	board := catalog.NewBoard(store, cfg)
	if err := board.Reserve(ctx, g); err != nil {
		return Intent{}, err
	}
	posted, err := catalog.UpdateNote(ctx, board, intentKey, func(i *Intent) error {
		switch {
		case i.Generation > g:
			return &OvertakenError{Wanted: g, Promoted: *i}
		case i.Generation == g:
			return catalog.ErrUnchanged
		}
		*i = Intent{Generation: g, At: time.Now().UTC().Truncate(time.Microsecond), By: by}
		return nil
	})
	return posted.Value, err
}

// leadsAlready returns the intent that stands while g leads.
func leadsAlready(ctx context.Context, store driver.Store, cfg catalog.Config, g generation.Generation) (Intent, error) {
	i, err := ReadIntent(ctx, store, cfg)
	if err == nil && i.Generation > g {
		err = &OvertakenError{Wanted: g, Promoted: i}
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

// ReadIntent returns the newest intent.
func ReadIntent(ctx context.Context, store driver.Store, cfg catalog.Config) (Intent, error) {
	posted, err := catalog.ReadNote[Intent](ctx, catalog.NewBoard(store, cfg), intentKey)
	return posted.Value, err
}
