package leftovers_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
	"github.com/fencepost/fencepost/reap"
	"github.com/fencepost/fencepost/reap/leftovers"
)

// counted counts the calls of a store.
type counted struct {
	driver.Store
	posts, notes atomic.Int64
}

func (c *counted) Post(ctx context.Context, n driver.Note) (int64, error) {
	c.posts.Add(1)
	return c.Store.Post(ctx, n)
}

func (c *counted) Notes(ctx context.Context, prefix string) ([]driver.Note, error) {
	c.notes.Add(1)
	return c.Store.Notes(ctx, prefix)
}

func TestAHolderMakesOnePassBehindItsClaimAndWritesNothingIfNothingIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		claim(t, s, 9)
		superseded(t, s, 3, old())
		var log bytes.Buffer
		cfg := leftovers.Config{Catalog: catalog.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}}
		ended := errors.New("the work's own")
		idle := func(ctx context.Context, _ *leader.Term) error { <-ctx.Done(); return ended }
		lead := func(st driver.Store, d time.Duration, work leader.Work) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			require.ErrorIs(t, work(ctx, nil), ended)
		}
		c := &counted{Store: s}
		work := leftovers.Beside(idle, c, cfg)
		lead(c, 9*time.Second, work) // a pause before the pass begins
		require.Zero(t, c.notes.Load(), "in the first moments")
		lead(c, time.Hour, work)
		require.EqualValues(t, 4, c.posts.Load(), "three notes are removed; what the intent said stays in the history")
		require.Contains(t, log.String(), "promotion intent")
		reads := c.notes.Load()
		lead(c, time.Hour, work)
		require.Equal(t, reads, c.notes.Load(), "behind another pause")

		again := &counted{Store: s}
		lead(again, time.Hour, leftovers.Beside(idle, again, leftovers.Config{}))
		require.Positive(t, again.notes.Load())
		require.Zero(t, again.posts.Load())
	})
}

func TestReapersDisturbNeitherHolderNorStandbyNorPromotion(t *testing.T) {
	t.Parallel()
	s := memory.New()
	everything := leftovers.Config{Policy: reap.Policy{Keep: reap.KeepNone, MinAge: reap.NoMinAge, OnConflict: reap.Refresh, Backoff: reap.Backoff{Base: time.Millisecond}}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reaping := make(chan error, 1)
	go func() {
		for {
			r, err := leftovers.Pass(ctx, s, everything)
			if ctx.Err() != nil {
				reaping <- nil
				return
			}
			if err = errors.Join(err, r.Err()); err != nil && !errors.Is(err, driver.ErrConflict) {
				reaping <- err
				return
			}
		}
	}()
	var done []<-chan error
	for g := generation.Generation(1); g <= 4; g++ {
		lead, err := leader.New(s, leader.Config{Lease: 10 * time.Second, Poll: time.Millisecond, Catalog: catalog.Config{Generation: g}})
		require.NoError(t, err)
		if g > 1 {
			_, err = leader.Promote(t.Context(), s, catalog.Config{}, g, leader.PromoteOptions{By: "a test", Force: true})
			require.NoError(t, err)
		}
		leads, end := make(chan struct{}), make(chan error, 1)
		go func() {
			end <- lead.Run(ctx, func(ctx context.Context, _ *leader.Term) error {
				close(leads)
				<-ctx.Done()
				return context.Cause(ctx)
			})
		}()
		select {
		case <-leads:
		case err := <-end:
			require.NoError(t, err, "generation %v ended before it led", g)
		}
		require.Eventually(t, func() bool { return beat(t, s).Token.Generation == g }, time.Minute, time.Millisecond, "the holder's own sign of life")
		done = append(done, end)
	}
	require.EqualValues(t, 4, intent(t, s).Generation)
	cancel()
	require.NoError(t, <-reaping)
	for _, end := range done {
		<-end
	}
}

func beat(t testing.TB, s driver.Store) leader.Beat {
	b, err := leader.ReadBeat(context.Background(), s, catalog.Config{})
	require.NoError(t, err)
	return b
}

func TestThePassIsJoinedThoughTheWorkPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &counted{Store: memory.New()}
		claim(t, c, 9)
		work := leftovers.Beside(func(context.Context, *leader.Term) error { panic("in the middle") }, c, leftovers.Config{})
		require.PanicsWithValue(t, "in the middle", func() { _ = work(t.Context(), nil) })
		before := c.notes.Load()
		<-time.After(time.Hour)
		require.Equal(t, before, c.notes.Load(), "nobody is left who makes it")
	})
}
