package leader_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader"
)

func TestAHolderThatHasLostTheTokenSaysSoHoweverLongItsWorkTakesToEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, end := memory.New(), make(chan struct{})
		cfg := config(1)
		cfg.DrainTimeout, cfg.Catalog.PollInterval = 2*time.Hour, time.Minute
		p := run(t, store.Open(), cfg, stuck(end))
		p.await(t, leader.Leading)
		next, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 2})
		require.NoError(t, err)
		elapse(10 * time.Millisecond) // it is told by push
		synctest.Wait()
		s := p.Status()
		require.Equal(t, leader.Draining, s.Phase)
		require.False(t, s.Serving)
		require.False(t, s.Ready)
		require.Nil(t, s.Token)
		require.Equal(t, "g2.e2", s.Leader.Token.String())
		require.Contains(t, s.Reason, "the token is lost")
		elapse(time.Minute)
		require.Equal(t, leader.Draining, p.Status().Phase)
		close(end)
		require.ErrorIs(t, <-p.ended, fence.ErrSuperseded)
		require.NoError(t, next.Close())
	})
}

func TestAHolderThatLosesTheTokenWhileItStopsSaysSoAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, end, log := memory.New(), make(chan struct{}), &record{}
		cfg := config(1)
		cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
		p := run(t, store.Open(), cfg, stuck(end))
		p.await(t, leader.Leading)
		p.stop(errStop)
		elapse(time.Second)
		require.NotNil(t, p.Status().Token)
		next, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 2})
		require.NoError(t, err)
		elapse(10 * time.Millisecond) // it is told by push
		s := p.Status()
		require.Equal(t, leader.Draining, s.Phase)
		require.Nil(t, s.Token)
		require.Equal(t, "g2.e2", s.Leader.Token.String())
		require.Contains(t, s.Reason, "the token is lost")
		require.Len(t, log.errors(), 1)
		require.Contains(t, log.errors()[0], "the token is lost, and the work is to end")
		close(end)
		require.ErrorIs(t, <-p.ended, fence.ErrSuperseded)
		require.NoError(t, next.Close())
	})
}

func TestAHolderThatIsToStopIsNotReplacedUntilItsWorkHasReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, end := memory.New(), make(chan struct{})
		p := run(t, store.Open(), config(1), stuck(end))
		p.await(t, leader.Leading)
		standby := start(t, store.Open(), config(1))
		standby.await(t, leader.ReadyToPromote)
		p.stop(errStop)
		elapse(time.Minute)
		require.Equal(t, leader.Draining, p.Status().Phase)
		require.True(t, p.Held())
		require.Len(t, claims(t, store), 1)
		close(end)
		require.NoError(t, <-p.ended)
		standby.await(t, leader.Leading)
		require.NoError(t, standby.end(t))
	})
}

func TestAHolderThatIsToStopServesNoMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		p := run(t, memory.New(), config(1), stuck(end))
		p.await(t, leader.Leading)
		p.stop(errStop)
		synctest.Wait()
		require.Equal(t, leader.Draining, p.Status().Phase)
		require.False(t, p.Status().Serving)
		close(end)
		require.NoError(t, <-p.ended)
		require.Equal(t, leader.Stopped, p.Status().Phase)
	})
}

func TestAStopDuringAHandoverIsNoFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		p := run(t, store.Open(), config(1), func(ctx context.Context, _ *leader.Term) error {
			<-ctx.Done()
			elapse(time.Second)
			return context.Cause(ctx)
		})
		p.await(t, leader.Leading)
		go func() { _ = p.StepDown(t.Context(), leader.StepDownOptions{Force: true}) }() // nobody claims
		p.await(t, leader.HandingOver)
		p.stop(errStop)
		require.NoError(t, <-p.ended)
		require.Equal(t, leader.Stopped, p.Status().Phase, p.Status().Reason)
	})
}

func TestTheFirstHeartbeatComesBeforeTheWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, beats := memory.New(), make(chan leader.Beat, 1)
		store.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Post" {
				elapse(10 * time.Millisecond) // in which work that does not wait begins
			}
			return memory.Pass
		})
		p := run(t, store, config(1), func(ctx context.Context, term *leader.Term) error {
			beat, err := leader.ReadBeat(ctx, store, catalog.Config{})
			if err != nil || beat.Claim != term.Claim().ID {
				beat = leader.Beat{}
			}
			beats <- beat
			<-ctx.Done()
			return nil
		})
		_, ok := (<-beats).State()
		require.True(t, ok, "a holder that dies now would cost a lease")
		require.NoError(t, p.end(t))
	})
}
