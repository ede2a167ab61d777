package leader

import (
	"context"
	"slices"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// LeftIntent returns the newest intent, and the newest contender for the claim, as a
// reaper sees them: they belong to the highest generation that they name. Once a higher
// one leads, they say nothing that the head does not say.
func LeftIntent(ctx context.Context, b *catalog.Board) (left []catalog.LeftNote, err error) {
	p, err := catalog.ReadNote[Intent](ctx, b, intentKey)
	if err != nil {
		return nil, err
	}
	of := slices.Max(append([]generation.Generation{p.Value.Generation}, p.Value.Aborted...))
	c, err := catalog.ReadNote[contender](ctx, b, contenderKey)
	return append(leftNote(p, fence.Token{Generation: of}, p.Value.At), leftNote(c, fence.Token{Generation: c.Value.Of}, c.Value.At)...), err
}

// LeftBeat returns the newest heartbeat of a holder, and the newest offer of one, as a
// reaper sees them: they belong to that holder's token.
func LeftBeat(ctx context.Context, b *catalog.Board) (left []catalog.LeftNote, err error) {
	p, err := catalog.ReadNote[Beat](ctx, b, beatKey)
	if err != nil {
		return nil, err
	}
	o, err := catalog.ReadNote[offer](ctx, b, offerKey)
	return append(leftNote(p, p.Value.Token, p.Value.At), leftNote(o, o.Value.Token, o.Value.At)...), err
}

// leftNote is one note, or none if it is not there.
func leftNote[T any](p catalog.Posted[T], made fence.Token, at time.Time) []catalog.LeftNote {
	if p.Version == 0 {
		return nil
	}
	return []catalog.LeftNote{{Key: p.Key, Version: p.Version, Made: made, At: at}}
}

// LeftMembers returns the notes of members as a reaper sees them: each belongs to the
// generation of its process, which ends once a higher one leads. The holder removes
// those of processes that died; the first [MaxMembers] are returned.
func LeftMembers(ctx context.Context, b *catalog.Board) (left []catalog.LeftNote, err error) {
	notes, _, err := b.NotesAfter(ctx, memberPrefix, "", MaxMembers)
	for _, n := range notes {
		if m, ok := parseMember(n); ok {
			left = append(left, catalog.LeftNote{Key: n.Key, Version: n.Version, Made: fence.Token{Generation: m.Generation}, At: m.At})
		}
	}
	return left, err
}
