package catalog

import (
	"context"
	"errors"
	"time"

	"github.com/fencepost/fencepost/fence"
)

// A Refusal is a guard's refusal that a process of the service was told of. A
// guard that rolls back can keep no record of its own.
type Refusal struct {
	At      time.Time    `json:"at"` // by the clock of that process
	By      fence.Holder `json:"by"` // that process
	Guard   string       `json:"guard"`
	Held    fence.Token  `json:"held"`
	Current fence.Token  `json:"current"` // zero if the guard did not say
	Text    string       `json:"text"`
}

const (
	refusalsKey  = "refusals"
	mostRefusals = 32
	longestText  = 256 // bytes
)

type refusals struct {
	Refusals []Refusal `json:"refusals"`
}

// NoteRefusal notes on the board that by was refused, if err holds the refusal of a
// guard, and else does nothing. The newest 32 are kept. Nothing rests on them.
func NoteRefusal(ctx context.Context, b *Board, by fence.Holder, err error) error {
	r := Refusal{At: time.Now().UTC(), By: by}
	var stale *fence.Error
	var other *fence.TokenError
	switch {
	case errors.As(err, &stale) && stale.Guard != "":
		r.Guard, r.Held, r.Current, r.Text = stale.Guard, stale.Held, stale.Current, stale.Error()
	case errors.As(err, &other):
		r.Guard, r.Text = other.Guard, other.Error()
	default:
		return nil
	}
	r.Text = r.Text[:min(len(r.Text), longestText)]
	_, err = UpdateNote(ctx, b, refusalsKey, func(kept *refusals) error {
		all := append(kept.Refusals, r)
		kept.Refusals = all[max(0, len(all)-mostRefusals):]
		return nil
	})
	return err
}

// Refusals returns what [NoteRefusal] has kept, oldest first.
func Refusals(ctx context.Context, b *Board) ([]Refusal, error) {
	note, err := ReadNote[refusals](ctx, b, refusalsKey)
	return note.Value.Refusals, err
}
