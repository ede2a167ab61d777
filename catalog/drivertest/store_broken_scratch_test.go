package drivertest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
)

// scratched is a store whose Scratch is scratch.
type scratched struct {
	*memory.Store
	scratch func(context.Context) (driver.Scratch, error)
}

func (s scratched) Scratch(ctx context.Context) (driver.Scratch, error) { return s.scratch(ctx) }

// brokenScratchers are stores with one defect each in their scratch places.
func brokenScratchers() map[string]brokenStore {
	scratches := func(scratch func(*memory.Store, context.Context) (driver.Scratch, error)) func(*memory.Store, *defect) driver.Store {
		return func(s *memory.Store, _ *defect) driver.Store {
			return scratched{s, func(ctx context.Context) (driver.Scratch, error) { return scratch(s, ctx) }}
		}
	}
	keep := func(context.Context) error { return nil }
	return map[string]brokenStore{
		"the scratch place is the catalog": {[]string{"scratch-is-apart", "scratch-is-new"},
			scratches(func(s *memory.Store, _ context.Context) (driver.Scratch, error) {
				one, two := s.Open(), s.Open()
				return driver.Scratch{Stores: []driver.Store{one, two}, Discard: func(context.Context) error {
					_ = two.Close()
					return one.Close()
				}}, nil
			})},
		"each store has a place of its own": {[]string{"scratch-is-one-place"},
			scratches(func(_ *memory.Store, _ context.Context) (driver.Scratch, error) {
				return driver.Scratch{Stores: []driver.Store{memory.New(), memory.New()}, Discard: keep}, nil
			})},
		"there is one store": {[]string{"scratch-is-one-place"},
			scratches(func(_ *memory.Store, _ context.Context) (driver.Scratch, error) {
				return driver.Scratch{Stores: []driver.Store{memory.New()}, Discard: keep}, nil
			})},
		"Discard closes nothing": {[]string{"scratch-ends"},
			scratches(func(s *memory.Store, ctx context.Context) (driver.Scratch, error) {
				scratch, err := s.Scratch(ctx)
				scratch.Discard = keep
				return scratch, err
			})},
		"Scratch always succeeds": {[]string{"scratch-closed"},
			scratches(func(_ *memory.Store, ctx context.Context) (driver.Scratch, error) {
				return memory.New().Scratch(ctx)
			})},
	}
}

func TestEveryRuleOfScratchPlacesHasAStoreThatBreaksIt(t *testing.T) {
	broken := make(map[string]bool)
	for _, b := range brokenScratchers() {
		for _, rule := range b.rules {
			broken[rule] = true
		}
	}
	for _, r := range scratchRules() {
		require.True(t, broken[r.name], r.name)
	}
}
