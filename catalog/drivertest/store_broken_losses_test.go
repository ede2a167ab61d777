package drivertest

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
)

// losing is a store whose record of losses is kept by put.
type losing struct {
	store
	put    func(context.Context, driver.Losses, *driver.Head) (int64, error)
	losses func(context.Context) (driver.Losses, error)
}

func (s losing) PutLosses(ctx context.Context, l driver.Losses, at *driver.Head) (int64, error) {
	if s.put == nil {
		return s.Store.PutLosses(ctx, l, at)
	}
	return s.put(ctx, l, at)
}

func (s losing) Losses(ctx context.Context) (driver.Losses, error) {
	if s.losses == nil {
		return s.Store.Losses(ctx)
	}
	return s.losses(ctx)
}

// blind is a claim that does not compare the record of losses: it begins anew just
// before its commit.
type blind struct {
	driver.Claiming
	s    *memory.Store
	next []byte
	put  bool // the record is replaced at once
}

func (c *blind) ReplaceLosses(text []byte) {
	c.next = text
	if c.put {
		l := c.Losses()
		l.Text = text
		_, _ = c.s.PutLosses(context.Background(), l, nil)
	}
}

func (c *blind) Install(ctx context.Context, claim driver.Claim, rec driver.Record, when ...driver.Note) error {
	c.Abandon()
	again, err := c.s.Claim(ctx)
	if err != nil {
		return err
	}
	if c.next != nil && !c.put {
		again.ReplaceLosses(c.next)
	}
	return again.Install(ctx, claim, rec, when...)
}

// brokenLosses are stores with one defect each in how they keep losses.
func brokenLosses() map[string]brokenStore {
	puts := func(put func(*memory.Store, context.Context, driver.Losses, *driver.Head) (int64, error)) func(*memory.Store, *defect) driver.Store {
		return func(s *memory.Store, _ *defect) driver.Store {
			return losing{store: store{Store: s}, put: func(ctx context.Context, l driver.Losses, at *driver.Head) (int64, error) { return put(s, ctx, l, at) }}
		}
	}
	claims := func(early bool) func(*memory.Store, *defect) driver.Store {
		return func(s *memory.Store, _ *defect) driver.Store {
			return losing{store: store{Store: s, claim: claimWith(s, func(c driver.Claiming) driver.Claiming {
				return &blind{Claiming: c, s: s, put: early}
			})}}
		}
	}
	return map[string]brokenStore{
		"losses are kept by each process for itself": {[]string{"losses-are-recorded"}, alone},
		"losses at any version": {[]string{"losses-at-their-version", "losses-race"},
			puts(func(s *memory.Store, ctx context.Context, l driver.Losses, at *driver.Head) (int64, error) {
				for {
					now, err := s.Losses(ctx)
					if err != nil {
						return 0, err
					}
					l.Version = now.Version
					if version, err := s.PutLosses(ctx, l, at); err == nil {
						return version, nil
					}
				}
			})},
		"losses at any head": {[]string{"losses-at-their-head", "losses-are-not-late"},
			puts(func(s *memory.Store, ctx context.Context, l driver.Losses, at *driver.Head) (int64, error) {
				if c, err := s.Claim(ctx); err == nil && at != nil { // behind the claim under way
					c.Abandon()
				}
				return s.PutLosses(ctx, l, nil)
			})},
		"losses at any commit of a revision": {[]string{"losses-at-their-head"},
			puts(func(s *memory.Store, ctx context.Context, l driver.Losses, at *driver.Head) (int64, error) {
				if head, err := s.Head(ctx); err == nil && at != nil && at.Revision == head.Revision {
					same := *at
					same.Commit = head.Commit
					at = &same
				}
				return s.PutLosses(ctx, l, at)
			})},
		"losses at any place": {[]string{"losses-at-their-place"},
			puts(func(s *memory.Store, ctx context.Context, l driver.Losses, at *driver.Head) (int64, error) {
				now, err := s.Losses(ctx)
				if err != nil {
					return 0, err
				}
				l.Place = now.Place
				return s.PutLosses(ctx, l, at)
			})},
		"a claim does not compare the losses":           {[]string{"losses-refuse-a-claim"}, claims(false)},
		"a claim replaces the losses before its commit": {[]string{"losses-go-with-a-claim"}, claims(true)},
		"the losses are a note": {[]string{"losses-are-no-note"},
			func(s *memory.Store, _ *defect) driver.Store {
				return losing{store: store{Store: s, post: func(ctx context.Context, n driver.Note) (int64, error) {
					if n.Key != driver.LossesKey {
						return s.Post(ctx, n)
					}
					l, err := s.Losses(ctx)
					if err != nil {
						return 0, err
					}
					l.Text, l.Version = n.Value, n.Version
					return s.PutLosses(ctx, l, nil)
				}}}
			}},
		"losses make a catalog": {[]string{"losses-need-a-catalog"},
			puts(func(s *memory.Store, ctx context.Context, l driver.Losses, at *driver.Head) (int64, error) {
				c, err := s.Claim(ctx)
				if err != nil {
					return 0, err
				}
				claim := driver.Claim{Token: fence.Token{Generation: 1, Epoch: 1}, ID: driver.NewID(), Revision: 1}
				if err := c.Install(ctx, claim, ClaimRecord(claim)); err != nil {
					return 0, err
				}
				return s.PutLosses(ctx, l, nil)
			})},
	}
}

// alone keeps a record of losses in the process.
func alone(s *memory.Store, _ *defect) driver.Store {
	var mu sync.Mutex
	var own driver.Losses
	return losing{
		store: store{Store: s},
		put: func(ctx context.Context, l driver.Losses, _ *driver.Head) (int64, error) {
			mu.Lock()
			defer mu.Unlock()
			l.Version = own.Version + 1
			own = l
			return l.Version, nil
		},
		losses: func(ctx context.Context) (driver.Losses, error) {
			now, err := s.Losses(ctx)
			mu.Lock()
			defer mu.Unlock()
			if own.Version != 0 {
				return own, err
			}
			return now, err
		},
	}
}

func TestEveryRuleOfLossesHasAStoreThatBreaksIt(t *testing.T) {
	t.Parallel()
	broken := make(map[string]bool)
	for _, b := range brokenLosses() {
		for _, rule := range b.rules {
			broken[rule] = true
		}
	}
	for _, r := range lossRules() {
		require.True(t, broken[r.name], r.name)
	}
}
