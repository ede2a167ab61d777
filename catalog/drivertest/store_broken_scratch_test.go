package drivertest

import (
	"context"
	"errors"
	"maps"
	"slices"
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

// cleaned is a store that knows which scratch places were opened and not discarded.
type cleaned struct {
	*memory.Store
	places *[]driver.Leftover
	lists  func([]driver.Leftover) []driver.Leftover
	inUse  error
}

func (s cleaned) Scratch(ctx context.Context) (driver.Scratch, error) {
	scratch, err := s.Store.Scratch(ctx)
	place, _ := driver.ScratchLeft(driver.NewScratchName())
	*s.places = append(*s.places, place)
	discard := scratch.Discard
	scratch.Discard = func(ctx context.Context) error {
		*s.places = slices.DeleteFunc(*s.places, func(l driver.Leftover) bool { return l == place })
		return discard(ctx)
	}
	return scratch, err
}

func (s cleaned) Left(context.Context) ([]driver.Leftover, error) {
	return s.lists(slices.Clone(*s.places)), nil
}

func (s cleaned) RemoveLeft(context.Context, driver.Leftover) (bool, error) {
	return s.inUse == nil, s.inUse
}

// brokenCleaners are stores with one defect each in what they list and remove.
func brokenCleaners() map[string]brokenStore {
	cleans := func(lists func([]driver.Leftover) []driver.Leftover, inUse error) func(*memory.Store, *defect) driver.Store {
		return func(s *memory.Store, _ *defect) driver.Store {
			return cleaned{Store: s, places: new([]driver.Leftover), lists: lists, inUse: inUse}
		}
	}
	all := func(places []driver.Leftover) []driver.Leftover { return places }
	refused := &driver.Error{Op: "remove left", Err: errors.New("in use")}
	return map[string]brokenStore{
		"one place is not listed": {[]string{"left-lists"}, cleans(func(places []driver.Leftover) []driver.Leftover {
			return places[:min(len(places), 1)]
		}, refused)},
		"what is in use is removed": {[]string{"left-in-use"}, cleans(all, nil)},
	}
}

func TestEveryRuleOfScratchPlacesHasAStoreThatBreaksIt(t *testing.T) {
	broken := make(map[string]bool)
	for _, b := range slices.Concat(slices.Collect(maps.Values(brokenScratchers())), slices.Collect(maps.Values(brokenCleaners()))) {
		for _, rule := range b.rules {
			broken[rule] = true
		}
	}
	for _, r := range scratchRules() {
		require.True(t, broken[r.name], r.name)
	}
}
