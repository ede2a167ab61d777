package leader_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader"
)

// A preparing answers Prepare.
type preparing struct {
	lacks atomic.Pointer[error]
	calls atomic.Int64
}

func (p *preparing) set(err error) { p.lacks.Store(&err) }

func (p *preparing) ask(context.Context) error {
	p.calls.Add(1)
	if err := p.lacks.Load(); err != nil {
		return *err
	}
	return nil
}

func TestAProcessThatCouldNotServeIsRefusedThePromotionAndTheHolderServesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		blue := start(t, store.Open(), config(1))
		blue.await(t, leader.Leading)
		var could preparing
		could.set(errors.New("port 5432 is taken"))
		cfg := config(2)
		cfg.Prepare, cfg.CatchUpTimeout, cfg.WhenLate = could.ask, time.Minute, leader.ProceedLate
		green := start(t, store.Open(), cfg)
		green.await(t, leader.CatchingUp)
		promote(t, store, 2)
		elapse(time.Minute)
		s := green.Status()
		require.Equal(t, leader.CatchingUp, s.Phase, "WhenLate is no way around it")
		require.Equal(t, "it could not serve: port 5432 is taken", s.Reason)
		require.False(t, s.Ready)
		require.EqualValues(t, 1, blue.works.Load(), "blue was asked to pause")
		require.True(t, blue.Status().Serving)
		could.set(nil)
		green.await(t, leader.Leading)
		require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
		asked := could.calls.Load()
		elapse(time.Minute)
		require.Equal(t, asked, could.calls.Load(), "a process that leads is not asked")
		require.NoError(t, green.end(t))
	})
}

func TestAFirstClaimAndAStandbysToWaitUntilTheProcessCouldServe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		var could preparing
		could.set(errors.New("no credentials"))
		cfg := config(1)
		cfg.Prepare = could.ask
		one := start(t, store.Open(), cfg)
		elapse(time.Minute)
		require.Equal(t, leader.CatchingUp, one.Status().Phase)
		require.Empty(t, claims(t, store))
		could.set(nil)
		one.await(t, leader.Leading)
		could.set(errors.New("no credentials"))
		two := start(t, store.Open(), cfg)
		elapse(time.Minute)
		require.NoError(t, one.end(t))
		elapse(time.Minute)
		require.Equal(t, leader.CatchingUp, two.Status().Phase)
		could.set(nil)
		two.await(t, leader.Leading)
		require.NoError(t, two.end(t))
	})
}

// The holder pauses only for a process that has just said that it could serve.
func TestWhetherAProcessCouldServeIsAskedAgainBeforeTheHolderPausesAndBehind(t *testing.T) {
	t.Parallel()
	store := memory.New()
	blue := start(t, store.Open(), called(1))
	blue.reached(t, leader.Leading)
	var could preparing
	cfg := called(2)
	cfg.Lease, cfg.Prepare = time.Hour, could.ask // so that an answer is good for long
	green := start(t, store.Open(), cfg)
	green.reached(t, leader.ReadyToPromote)
	before := could.calls.Load()
	could.set(errors.New("the schema is gone"))
	promote(t, store, 2)
	require.Eventually(t, func() bool { return green.Status().Reason == "it could not serve: the schema is gone" }, time.Minute, time.Millisecond)
	require.EqualValues(t, 1, blue.works.Load())
	require.NotContains(t, phases(blue), leader.HandingOver)
	could.set(nil)
	green.reached(t, leader.Leading)
	require.GreaterOrEqual(t, could.calls.Load()-before, int64(3), "the refusal, before the pause, and behind it")
	require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
	require.NoError(t, green.end(t))
}

func TestAHookThatDoesNotAnswerHoldsUpNoLookAndItsAnswerIsTakenLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, set := range hooks() {
			store := memory.New()
			blue := start(t, store.Open(), config(1))
			blue.await(t, leader.Leading)
			answer := make(chan error)
			var calls atomic.Int64
			cfg := config(2)
			set(&cfg, func(ctx context.Context) error {
				if calls.Add(1) > 2 {
					return nil
				}
				select {
				case err := <-answer:
					return err
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			})
			mine := store.Open()
			var looks atomic.Int64
			mine.Inject(func(c memory.Call) memory.Fault {
				if c.Method == "Notes" || c.Method == "Note" {
					looks.Add(1)
				}
				return memory.Pass
			})
			green := start(t, mine, cfg)
			elapse(10 * time.Second)
			require.Equal(t, leader.CatchingUp, green.Status().Phase)
			require.Regexp(t, name+` has not answered since 2000-01-01T00:00:\d\dZ$`, green.Status().Reason)
			require.EqualValues(t, 1, calls.Load())
			before := looks.Load()
			elapse(10 * time.Second)
			require.Greater(t, looks.Load()-before, int64(10), "looks at the board")
			go func() {
				for range 2 {
					select {
					case answer <- nil:
					case <-t.Context().Done():
					}
				}
			}()
			green.await(t, leader.ReadyToPromote)
			require.NoError(t, green.end(t))
			require.NoError(t, blue.end(t))
		}
	})
}

// hooks are the two ways of asking the application.
func hooks() map[string]func(*leader.Config, func(context.Context) error) {
	return map[string]func(*leader.Config, func(context.Context) error){
		"Prepare": func(c *leader.Config, hook func(context.Context) error) { c.Prepare = hook },
		"CaughtUp": func(c *leader.Config, hook func(context.Context) error) {
			c.CaughtUp = func(ctx context.Context, _ *catalog.Follower) error { return hook(ctx) }
		},
	}
}

// The hook takes longer than a look at the board waits, as a command does.
func TestAReadyProcessWhoseHookTakesItsTimeStaysReadyAndIsPromoted(t *testing.T) {
	t.Parallel()
	for name, set := range hooks() {
		synctest.Test(t, func(t *testing.T) {
			store := memory.New()
			blue := start(t, store.Open(), config(1))
			blue.await(t, leader.Leading)
			cfg := config(2)
			cfg.CaughtUpFor = time.Second
			set(&cfg, func(ctx context.Context) error {
				if !tick(ctx, 300*time.Millisecond) {
					return context.Cause(ctx)
				}
				return nil
			})
			green := start(t, store.Open(), cfg)
			green.await(t, leader.ReadyToPromote)
			elapse(time.Minute)
			require.Len(t, green.Status().Moves, 2, "%s: it is ready, and stays so: %v", name, green.Status().Moves)
			promote(t, store, 2)
			began := time.Now()
			green.await(t, leader.Leading)
			require.Less(t, time.Since(began), 5*time.Second)
			require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
			require.NoError(t, green.end(t))
		})
	}
}

// tick waits for d, and reports false if ctx ends before.
func tick(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// A look that waits no longer does not end the call.
func TestAHookThatIsTooSlowForAHandoverIsNotCutOffByTheLook(t *testing.T) {
	t.Parallel()
	for name, set := range hooks() {
		synctest.Test(t, func(t *testing.T) {
			store := memory.New()
			blue := start(t, store.Open(), config(1))
			blue.await(t, leader.Leading)
			cfg := config(2)
			var cut atomic.Int64
			set(&cfg, func(ctx context.Context) error {
				if !tick(ctx, 4*time.Second) {
					cut.Add(1)
					return context.Cause(ctx)
				}
				return nil
			})
			green := start(t, store.Open(), cfg)
			promote(t, store, 2)
			for range 600 {
				elapse(100 * time.Millisecond)
				require.NotContains(t, green.Status().Reason, "canceled", name)
			}
			require.Zero(t, cut.Load())
			require.EqualValues(t, 1, blue.works.Load(), "the holder was asked to pause")
			require.NoError(t, green.end(t))
			require.NoError(t, blue.end(t))
		})
	}
}

func TestAHookEndsWithTheCampaignAndIsJoinedByTheEndOfRun(t *testing.T) {
	t.Parallel()
	for name, set := range hooks() {
		synctest.Test(t, func(t *testing.T) {
			store := memory.New()
			blue := start(t, store.Open(), config(1))
			blue.await(t, leader.Leading)
			var running atomic.Int64
			cfg := config(2)
			set(&cfg, func(ctx context.Context) error {
				running.Add(1)
				defer running.Add(-1)
				<-ctx.Done()
				elapse(100 * time.Millisecond) // to clean up
				return nil
			})
			green := start(t, store.Open(), cfg)
			elapse(time.Second)
			require.EqualValues(t, 1, running.Load(), name)
			require.NoError(t, green.end(t))
			require.Zero(t, running.Load(), name)

			hung := make(chan struct{})
			set(&cfg, func(context.Context) error { <-hung; return nil })
			green = start(t, store.Open(), cfg)
			elapse(time.Second)
			began := time.Now()
			require.NoError(t, green.end(t), name)
			require.Less(t, time.Since(began), time.Second, "one that hangs is left behind")
			close(hung)
			require.NoError(t, blue.end(t))
		})
	}
}

func TestAPanicOfAHookIsOneOfRun(t *testing.T) {
	t.Parallel()
	for name, set := range hooks() {
		synctest.Test(t, func(t *testing.T) {
			store := memory.New()
			blue := start(t, store.Open(), config(1))
			blue.await(t, leader.Leading)
			cfg := config(2)
			set(&cfg, func(context.Context) error { panic("in " + name) })
			green, err := leader.New(store.Open(), cfg)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			require.PanicsWithValue(t, "in "+name, func() { _ = green.Run(ctx, stuck(nil)) })
			cancel()
			require.NoError(t, blue.end(t))
		})
	}
}

// The second call is under way when the generation is promoted, and its answer is of
// before.
func TestAnAnswerOfACallThatHadBegunBeforeLetsNobodyAskTheHolder(t *testing.T) {
	t.Parallel()
	store, held := memory.New(), make(chan struct{})
	blue := start(t, store.Open(), called(1))
	blue.reached(t, leader.Leading)
	var calls atomic.Int64
	cfg := called(2)
	cfg.Lease = 900 * time.Millisecond
	cfg.Prepare = func(context.Context) error {
		switch calls.Add(1) {
		case 1:
			return nil
		case 2:
			<-held
			return nil
		default:
			return errors.New("the schema is gone")
		}
	}
	green := start(t, store.Open(), cfg)
	green.reached(t, leader.ReadyToPromote)
	require.Eventually(t, func() bool { return calls.Load() == 2 }, time.Minute, time.Millisecond)
	promote(t, store, 2)
	elapse(20 * time.Millisecond) // so that it is asked again first, if it looks by then; either order is right
	close(held)
	require.Eventually(t, func() bool { return green.Status().Reason == "it could not serve: the schema is gone" }, time.Minute, time.Millisecond)
	require.NotContains(t, phases(blue), leader.HandingOver)
	require.NoError(t, green.end(t))
	require.NoError(t, blue.end(t))
}
