package leftovers

import (
	"context"
	"slices"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/leader"
	"github.com/fencepost/fencepost/reap"
)

// A Kind says what an item is.
type Kind string

const (
	Intent  Kind = "promotion intent"
	Beat    Kind = "sign of life"
	Request Kind = "request to give way"
	Member  Kind = "member's note"

	ScratchPlace   = Kind(driver.ScratchPlace)
	UnfinishedFile = Kind(driver.UnfinishedFile)
)

// A kind is one source.
type kind struct {
	name      Kind
	ofTheDead bool // it belongs to no generation; of a process that must be dead

	list    func(ctx context.Context, p pass) ([]entry, error)
	remove  func(ctx context.Context, p pass, e entry) (removed bool, err error)
	changed func(ctx context.Context, p pass, e entry) (bool, error) // since it was listed; nil: it can't
}

// kinds lists the sources, in the order in which they are reaped.
func kinds() []kind {
	return []kind{
		noteKind(Intent, leader.LeftIntent, leader.RemoveIntent),
		noteKind(Beat, leader.LeftBeat, removeNote),
		noteKind(Request, catalog.LeftRequest, removeNote),
		noteKind(Member, leader.LeftMembers, removeNote),
		deadKind(ScratchPlace),
		deadKind(UnfinishedFile),
	}
}

// An entry is one thing that was listed: a note, or what a dead process left.
type entry struct {
	note catalog.LeftNote
	left driver.Leftover
}

func (e entry) name() string {
	if e.note.Key != "" {
		return e.note.Key
	}
	return e.left.Name
}

func (e entry) at() time.Time {
	if e.note.Key != "" {
		return e.note.At
	}
	return e.left.Made
}

// item is the entry as package reap sees it.
func (e entry) item(k kind) reap.Item {
	made := e.note.Made
	if k.ofTheDead {
		made = ofTheDead()
	}
	return reap.Item{ID: e.name(), Made: made, At: e.at()}
}

func removeNote(ctx context.Context, b *catalog.Board, n catalog.LeftNote) (removed bool, err error) {
	return b.RemoveLeft(ctx, n)
}

// noteKind is a kind of notes on the board.
func noteKind(
	name Kind,
	list func(context.Context, *catalog.Board) ([]catalog.LeftNote, error),
	remove func(context.Context, *catalog.Board, catalog.LeftNote) (bool, error),
) kind {
	return kind{
		name: name,
		list: func(ctx context.Context, p pass) (entries []entry, err error) {
			notes, err := list(ctx, p.board)
			for _, n := range notes {
				entries = append(entries, entry{note: n})
			}
			return entries, err
		},
		remove: func(ctx context.Context, p pass, e entry) (bool, error) { return remove(ctx, p.board, e.note) },
		changed: func(ctx context.Context, p pass, e entry) (bool, error) {
			now, err := list(ctx, p.board)
			return slices.ContainsFunc(now, func(n catalog.LeftNote) bool { return n.Key == e.note.Key && n.Version != e.note.Version }), err
		},
	}
}

// deadKind is a kind of what processes leave when they die.
func deadKind(name Kind) kind {
	return kind{
		name: name, ofTheDead: true,
		list: func(ctx context.Context, p pass) (entries []entry, err error) {
			c, ok := driver.As[driver.Cleaner](p.store)
			if !ok {
				return nil, nil
			}
			all, err := c.Left(ctx)
			for _, l := range all {
				if Kind(l.Kind) == name {
					entries = append(entries, entry{left: l})
				}
			}
			return entries, err
		},
		remove: func(ctx context.Context, p pass, e entry) (bool, error) {
			c, ok := driver.As[driver.Cleaner](p.store)
			if !ok {
				return false, nil
			}
			return c.RemoveLeft(ctx, e.left)
		},
	}
}
