package drivertest

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
)

type presentFunc = func(ctx context.Context, claim driver.ID, call func()) error

// shower is a store whose Present or WatchPresence is replaced.
type shower struct {
	*memory.Store
	present, watch presentFunc
}

func (s shower) Present(ctx context.Context, claim driver.ID, shown func()) error {
	if s.present != nil {
		return s.present(ctx, claim, shown)
	}
	return s.Store.Present(ctx, claim, shown)
}

func (s shower) WatchPresence(ctx context.Context, claim driver.ID, lost func()) error {
	if s.watch != nil {
		return s.watch(ctx, claim, lost)
	}
	return s.Store.WatchPresence(ctx, claim, lost)
}

// brokenPresences are stores with one defect each in what they show or see.
func brokenPresences() map[string]brokenStore {
	watches := func(watch func(*memory.Store) presentFunc) func(*memory.Store, *defect) driver.Store {
		return func(s *memory.Store, _ *defect) driver.Store { return shower{Store: s, watch: watch(s)} }
	}
	return map[string]brokenStore{
		"nobody is told": {[]string{"presence-ends-with-its-context", "presence-ends-with-its-store", "presences-apart", "presence-again"},
			watches(func(s *memory.Store) presentFunc {
				return func(ctx context.Context, claim driver.ID, _ func()) error {
					return s.WatchPresence(ctx, claim, func() {})
				}
			})},
		"a loss is told twice": {[]string{"presence-ends-with-its-context"},
			watches(func(s *memory.Store) presentFunc {
				return func(ctx context.Context, claim driver.ID, lost func()) error {
					return s.WatchPresence(ctx, claim, func() { lost(); lost() })
				}
			})},
		"the errors of presence are bare": {[]string{"presence-ends-with-its-context", "presence-ends-with-its-store"},
			func(s *memory.Store, _ *defect) driver.Store {
				return shower{Store: s, present: func(ctx context.Context, claim driver.ID, shown func()) error {
					_ = s.Present(ctx, claim, shown)
					return errBare
				}}
			}},
		"what is shown survives its store": {[]string{"presence-ends-with-its-store"},
			func(s *memory.Store, _ *defect) driver.Store {
				return shower{Store: s, present: func(ctx context.Context, claim driver.ID, shown func()) error {
					return s.Open().Present(ctx, claim, shown)
				}}
			}},
		"what is not shown is lost": {[]string{"presence-unseen"},
			watches(func(s *memory.Store) presentFunc {
				return func(ctx context.Context, claim driver.ID, lost func()) error {
					lost()
					return s.WatchPresence(ctx, claim, lost)
				}
			})},
		"all claims are one": {[]string{"presences-apart"},
			func(s *memory.Store, _ *defect) driver.Store {
				var all driver.ID
				return shower{s,
					func(ctx context.Context, _ driver.ID, shown func()) error { return s.Present(ctx, all, shown) },
					func(ctx context.Context, _ driver.ID, lost func()) error { return s.WatchPresence(ctx, all, lost) }}
			}},
		"the first loss ends the watch": {[]string{"presence-again"},
			watches(func(s *memory.Store) presentFunc {
				return func(ctx context.Context, claim driver.ID, lost func()) error {
					return s.WatchPresence(ctx, claim, sync.OnceFunc(lost))
				}
			})},
		"watchers hold the lock": {[]string{"presence-waits-for-no-watcher"}, watchersHold},
		"a presence is a note": {[]string{"presence-is-unwritten"},
			func(s *memory.Store, _ *defect) driver.Store {
				return shower{Store: s, present: func(ctx context.Context, claim driver.ID, shown func()) error {
					_, _ = s.Post(ctx, driver.Note{Key: "presence", Value: claim[:]})
					return s.Present(ctx, claim, shown)
				}}
			}},
	}
}

// watchersHold is a store that shows nothing while anybody watches.
func watchersHold(s *memory.Store, d *defect) driver.Store {
	return shower{s,
		func(ctx context.Context, claim driver.ID, shown func()) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			return s.Present(ctx, claim, shown)
		},
		func(ctx context.Context, claim driver.ID, lost func()) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			return s.WatchPresence(ctx, claim, lost)
		}}
}

func TestEveryRuleOfPresenceHasAStoreThatBreaksIt(t *testing.T) {
	broken := make(map[string]bool)
	for _, b := range brokenPresences() {
		for _, rule := range b.rules {
			broken[rule] = true
		}
	}
	for _, r := range presenceRules() {
		require.True(t, broken[r.name], r.name)
	}
}

func TestAStoreWithoutPresenceBreaksNoRule(t *testing.T) {
	for _, r := range presenceRules() {
		catalog := memory.New()
		rec := record(t, r, func() driver.Store { return struct{ driver.Store }{catalog.Open()} })
		require.False(t, rec.Failed(), rec.text.String())
	}
}
