package leader

import (
	"context"
	"slices"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// LeftIntent returns the newest intent as a reaper sees it: it belongs to the highest
// generation that it promotes or gives up. Once a higher one leads, it says nothing that
// the head does not say. None if there is no intent.
func LeftIntent(ctx context.Context, b *catalog.Board) ([]catalog.LeftNote, error) {
	p, err := catalog.ReadNote[Intent](ctx, b, intentKey)
	if err != nil || p.Version == 0 {
		return nil, err
	}
	of := slices.Max(append([]generation.Generation{p.Value.Generation}, p.Value.Aborted...))
	return []catalog.LeftNote{{Key: p.Key, Version: p.Version, Made: fence.Token{Generation: of}, At: p.Value.At}}, nil
}

// LeftBeat returns the newest sign of life of a holder as a reaper sees it: it belongs to
// that holder's token. None if there is no sign of life.
func LeftBeat(ctx context.Context, b *catalog.Board) ([]catalog.LeftNote, error) {
	p, err := catalog.ReadNote[Beat](ctx, b, beatKey)
	if err != nil || p.Version == 0 {
		return nil, err
	}
	return []catalog.LeftNote{{Key: p.Key, Version: p.Version, Made: p.Value.Token, At: p.Value.At}}, nil
}
