package drivertest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
)

// warmed is a store whose Warm is warm.
type warmed struct {
	*memory.Store
	warm func(context.Context) error
}

func (s warmed) Warm(ctx context.Context) error { return s.warm(ctx) }

// brokenWarmers are stores with one defect each in how they warm up.
func brokenWarmers() map[string]brokenStore {
	warms := func(warm func(*memory.Store, context.Context) error) func(*memory.Store, *defect) driver.Store {
		return func(s *memory.Store, _ *defect) driver.Store {
			return warmed{s, func(ctx context.Context) error { return warm(s, ctx) }}
		}
	}
	return map[string]brokenStore{
		"warming up leaves a note": {[]string{"warm-is-unwritten"},
			warms(func(s *memory.Store, ctx context.Context) error {
				_, err := s.Post(ctx, driver.Note{Key: "warm", Value: []byte("x")})
				return err
			})},
		"warming up takes the claim's lock": {[]string{"warm-keeps-nobody-waiting"},
			warms(func(s *memory.Store, ctx context.Context) error {
				c, err := s.Claim(ctx)
				if err == nil {
					c.Abandon()
				}
				return err
			})},
		"warming up keeps the claim's lock": {[]string{"warm-then-claim"},
			warms(func(s *memory.Store, ctx context.Context) error {
				_, err := s.Claim(ctx)
				return err
			})},
		"warming up always succeeds": {[]string{"warm-closed"},
			warms(func(*memory.Store, context.Context) error { return nil })},
	}
}

func TestEveryRuleOfWarmersHasAStoreThatBreaksIt(t *testing.T) {
	broken := make(map[string]bool)
	for _, b := range brokenWarmers() {
		for _, rule := range b.rules {
			broken[rule] = true
		}
	}
	for _, r := range warmRules() {
		require.True(t, broken[r.name], r.name)
	}
}

func TestAStoreThatIsNoWarmerBreaksNoRule(t *testing.T) {
	for _, r := range warmRules() {
		catalog := memory.New()
		rec := record(t, r, func() driver.Store { return catalog.Open() })
		require.False(t, rec.Failed(), rec.text.String())
	}
}
