package leader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
)

// MaxBy is the length of the longest name of who promotes or aborts, in bytes.
const MaxBy = 200

// mostChanges is how many promotions and aborts the history keeps behind the
// newest one.
const mostChanges = 200

// A ChangeKind says what a [Change] is.
type ChangeKind string

const (
	Promoted ChangeKind = "promoted"
	Aborted  ChangeKind = "aborted"
)

// A Change is one promotion or one abort of a generation.
type Change struct {
	ID         driver.ID             `json:"id,omitzero"` // zero if an older build wrote it
	Kind       ChangeKind            `json:"kind"`
	Generation generation.Generation `json:"generation"`
	At         time.Time             `json:"at"` // by the clock of who asked, for people
	By         string                `json:"by"` // who asked, for people
	Reason     string                `json:"reason,omitempty"`
}

// newChange returns a change of now, and names every mistake in it at once.
func newChange(kind ChangeKind, g generation.Generation, by, reason string) (Change, error) {
	verb := map[ChangeKind]string{Promoted: "promote", Aborted: "abort"}[kind]
	errs := []error{checkNumber(verb, g)}
	for _, text := range []struct {
		name, is string
		most     int
	}{{"By", by, MaxBy}, {"Reason", reason, catalog.MaxReason}} {
		if len(text.is) > text.most || !utf8.ValidString(text.is) {
			errs = append(errs, exitcodes.WithCode(fmt.Errorf("leader: cannot %s generation %v: %s has %d bytes, want at most %d of UTF-8",
				verb, g, text.name, len(text.is), text.most), exitcodes.Config))
		}
	}
	return Change{ID: driver.NewID(), Kind: kind, Generation: g, At: now(), By: by, Reason: reason}, errors.Join(errs...)
}

// same reports whether c and other are the same change. A build that knows no
// identities has written the rest.
func (c Change) same(other Change) bool {
	if !c.ID.IsZero() && !other.ID.IsZero() {
		return c.ID == other.ID
	}
	return c.Kind == other.Kind && c.Generation == other.Generation && c.At.Equal(other.At) && c.By == other.By
}

// details returns who did it, when and why, as a part of a sentence.
func (c Change) details() string {
	if c.At.IsZero() {
		return ""
	}
	return fmt.Sprintf(" at %s by %s%s", c.At.Format(time.RFC3339), c.By, because(c.Reason))
}

// because returns a reason as a part of a sentence.
func because(reason string) string {
	if reason == "" {
		return ""
	}
	return fmt.Sprintf(" (%s)", reason)
}

// kept is the note of the changes that the intent does not show any more.
type kept struct {
	Changes []Change `json:"changes"`
}

func (k kept) has(c Change) bool { return slices.ContainsFunc(k.Changes, c.same) }

// keep notes changes that the intent is about to lose, unless they are there.
func keep(ctx context.Context, board *catalog.Board, changes ...Change) error {
	if len(changes) == 0 {
		return nil
	}
	_, err := catalog.UpdateNote(ctx, board, changesKey, func(k *kept) error {
		missing := slices.DeleteFunc(slices.Clone(changes), k.has)
		if len(missing) == 0 {
			return catalog.ErrUnchanged
		}
		all := append(k.Changes, missing...)
		k.Changes = all[max(0, len(all)-mostChanges):]
		return nil
	})
	return err
}

// forget removes a change that was taken back.
func forget(ctx context.Context, board *catalog.Board, change Change) error {
	_, err := catalog.UpdateNote(ctx, board, changesKey, func(k *kept) error {
		if !k.has(change) {
			return catalog.ErrUnchanged
		}
		k.Changes = slices.DeleteFunc(k.Changes, change.same)
		return nil
	})
	return err
}

// Changes returns the promotions and aborts of a catalog, oldest first: the newest
// 200, and what stands. Those that were overtaken or given up are among them. It
// writes nothing.
func Changes(ctx context.Context, store driver.Store, cfg catalog.Config) ([]Change, error) {
	board := catalog.NewBoard(store, cfg)
	intent, err := catalog.ReadNote[Intent](ctx, board, intentKey) // first: what it loses is kept before
	if err != nil {
		return nil, err
	}
	past, err := catalog.ReadNote[kept](ctx, board, changesKey)
	if err != nil {
		return nil, err
	}
	all := past.Value.Changes
	for _, c := range intent.Value.changes() {
		if !past.Value.has(c) {
			all = append(all, c)
		}
	}
	return all, nil
}

// RemoveIntent removes a note that [LeftIntent] has returned, and keeps for
// [Changes] what it says. A note that has changed since stays; the error then wraps
// [driver.ErrConflict].
func RemoveIntent(ctx context.Context, b *catalog.Board, l catalog.LeftNote) (removed bool, err error) {
	if l.Key != intentKey { // a contender's
		return b.RemoveLeft(ctx, l)
	}
	p, err := catalog.ReadNote[Intent](ctx, b, intentKey)
	if err == nil && p.Version == l.Version {
		err = keep(ctx, b, p.Value.changes()...)
	}
	if err != nil {
		return false, err
	}
	return b.RemoveLeft(ctx, l)
}
