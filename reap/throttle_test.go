package reap_test

import (
	"context"
	"errors"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/reapsim"
	"github.com/fencepost/fencepost/reap"
)

const seeds = 6 // make bench plays 20

// average plays a game from many seeds.
func average(t *testing.T, game func(seed uint64) reapsim.Game, play func(g reapsim.Game) reapsim.Result) (ratio, spread float64, took time.Duration, served int) {
	t.Helper()
	for seed := range uint64(seeds) {
		r := play(game(seed))
		ratio, spread, took, served = ratio+r.Ratio()/seeds, spread+r.Spread/seeds, took+r.Took/seeds, served+r.Served()/seeds
	}
	return ratio, spread, took, served
}

func peer(p reapsim.Peer) func(g reapsim.Game) reapsim.Result {
	return func(g reapsim.Game) reapsim.Result {
		return reapsim.Play(g, func(_ func() time.Time, random func() float64) reapsim.Algorithm { return p.New(g, 0, random) })
	}
}

func ours(t *testing.T, start time.Duration, told bool) func(g reapsim.Game) reapsim.Result {
	return func(g reapsim.Game) reapsim.Result {
		return reapsim.Play(g, func(now func() time.Time, random func() float64) reapsim.Algorithm {
			a, err := reapsim.Ours(g, start, told, now, random)
			require.NoError(t, err)
			return a
		})
	}
}

func TestTheThrottlesRetryRatioIsAtMostFourPercentAtThePublishedLoad(t *testing.T) {
	t.Parallel()
	for seed := range uint64(seeds) {
		for _, told := range []bool{true, false} {
			r := ours(t, 0, told)(reapsim.Published(seed))
			require.LessOrEqual(t, r.Ratio(), 0.04, "seed %d, told %v", seed, told)
		}
	}
	ratio, spread, _, served := average(t, reapsim.Published, ours(t, 0, true))
	require.LessOrEqual(t, spread, 90.0)
	require.GreaterOrEqual(t, served, 2200, "of the 2250 that the server allows")
	for _, p := range reapsim.Peers() {
		theirs, _, _, _ := average(t, reapsim.Published, peer(p))
		t.Logf("%s: retry ratio %.2f %%", p.Name, 100*theirs)
		if p.Name != "ProportionalDecrease" { // which uses half of what is allowed
			require.Less(t, ratio, theirs, p.Name)
		}
	}
	t.Logf("ours: retry ratio %.2f %%, spread %.0f, served %d", 100*ratio, spread, served)
}

func TestTheThrottleUsesUnusedCapacityAtOnceIfTheServerSaysWhatRemains(t *testing.T) {
	t.Parallel()
	g := reapsim.Clearing(1)
	require.LessOrEqual(t, ours(t, time.Second, true)(g).Took, 90*time.Second)
	require.Greater(t, ours(t, time.Second, false)(g).Took, 5*time.Minute, "without the signal it is ProportionalDecrease")
}

func TestARetryAfterIsWaitedOutByAllCallsOfTheThrottle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []reap.Wait
		var mu sync.Mutex
		th, err := reap.NewThrottle(reap.ThrottleConfig{OnWait: func(w reap.Wait) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, w)
		}})
		require.NoError(t, err)
		began := time.Now()
		calls := 0
		require.NoError(t, th.Do(t.Context(), func(context.Context) (reap.Answer, error) {
			calls++
			return reap.Answer{Limited: calls == 1, RetryAfter: time.Hour}, nil
		}))
		require.GreaterOrEqual(t, time.Since(began), time.Hour)
		require.LessOrEqual(t, time.Since(began), time.Hour+6*time.Minute)
		require.Equal(t, reap.WaitRetryAfter, told[0].Reason)

		th.Learn(reap.Answer{Limited: true, RetryAfter: time.Minute})
		began = time.Now()
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				err := th.Do(t.Context(), func(context.Context) (reap.Answer, error) {
					if time.Since(began) < time.Minute {
						return reap.Answer{}, errors.New("called too early")
					}
					return reap.Answer{Remaining: 4000}, nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

func TestARetryAfterIsHonouredWhateverTheAnswerIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th, err := reap.NewThrottle(reap.ThrottleConfig{})
		require.NoError(t, err)
		away := http.Header{"Retry-After": {"120"}}
		began, calls := time.Now(), 0
		call := func(context.Context) (reap.Answer, error) {
			calls++
			return reap.AnswerTo(http.StatusServiceUnavailable, away, time.Now()), errors.New("503")
		}
		require.ErrorContains(t, th.Do(t.Context(), call), "503")
		require.Zero(t, time.Since(began), "it is no refusal that Do repeats")
		require.ErrorContains(t, th.Do(t.Context(), call), "503")
		require.GreaterOrEqual(t, time.Since(began), 2*time.Minute)
		require.Equal(t, 2, calls)
		require.Zero(t, th.Learned())
	})
}

func TestAThrottleThatWasNeverRefusedDoesNotPause(t *testing.T) {
	t.Parallel()
	th, err := reap.NewThrottle(reap.ThrottleConfig{OnWait: func(w reap.Wait) { t.Error(w) }})
	require.NoError(t, err)
	for range 100 {
		require.NoError(t, th.Do(t.Context(), func(context.Context) (reap.Answer, error) { return reap.Answer{Remaining: -1}, nil }))
	}
	require.Zero(t, th.Learned())
}

func TestNoThreadsLessonIsLost(t *testing.T) {
	t.Parallel()
	th, err := reap.NewThrottle(reap.ThrottleConfig{Limit: 1000, Window: time.Second, Jitter: func() float64 { return 0 }})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { th.Learn(reap.Answer{Limited: true}) })
	}
	wg.Wait()
	want := time.Duration(0)
	for range 8 {
		want = time.Duration(float64(want+time.Millisecond) * 1.2)
	}
	require.Equal(t, want, th.Learned())
}

func TestWhatACallLearnsStaysThoughTheCallFailsOrPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th, err := reap.NewThrottle(reap.ThrottleConfig{})
		require.NoError(t, err)
		calls := 0
		boom := errors.New("boom")
		require.ErrorIs(t, th.Do(t.Context(), func(context.Context) (reap.Answer, error) {
			calls++
			return reap.Answer{Limited: calls < 3, Remaining: -1}, boom
		}), boom)
		require.Equal(t, 3, calls)
		before := th.Learned()
		require.Greater(t, before, time.Second)
		require.Panics(t, func() {
			_ = th.Do(t.Context(), func(context.Context) (reap.Answer, error) { panic("in the middle") })
		})
		require.Equal(t, before, th.Learned())
		_, why := th.Pause() // nothing is locked
		require.Equal(t, reap.WaitPace, why)
	})
}

func TestAWaitOfTheThrottleEndsWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th, err := reap.NewThrottle(reap.ThrottleConfig{})
		require.NoError(t, err)
		why := errors.New("the operator has had enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, why)
		defer cancel()
		var calls atomic.Int32
		require.ErrorIs(t, th.Do(ctx, func(context.Context) (reap.Answer, error) {
			calls.Add(1)
			return reap.Answer{Limited: true, RetryAfter: math.MaxInt64}, nil
		}), why)
		require.EqualValues(t, 1, calls.Load())
		require.ErrorIs(t, th.Do(ctx, nil), why, "nothing is called once the context has ended")
	})
}

func TestAPauseIsBoundedHoweverOftenTheServerRefuses(t *testing.T) {
	t.Parallel()
	th, err := reap.NewThrottle(reap.ThrottleConfig{MaxPause: time.Minute})
	require.NoError(t, err)
	for range 1000 {
		d, why := th.Learn(reap.Answer{Limited: true})
		require.LessOrEqual(t, d, 66*time.Second)
		require.Equal(t, reap.WaitLimited, why)
	}
	for range 3 {
		th.Learn(reap.Answer{Remaining: 1 << 40}) // more than the limit
	}
	require.Zero(t, th.Learned())
}

func TestAThrottleWithoutSenseIsRefusedAsConfiguration(t *testing.T) {
	t.Parallel()
	for _, cfg := range []reap.ThrottleConfig{{Limit: -1}, {Window: -1}, {MaxPause: -1}} {
		_, err := reap.NewThrottle(cfg)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	}
}

func TestTheAnswerOfAServerIsReadFromItsHeader(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		status int
		header map[string]string
		want   reap.Answer
	}{
		{200, nil, reap.Answer{Remaining: -1}},
		{200, map[string]string{"RateLimit-Remaining": " 17"}, reap.Answer{Remaining: 17}},
		{200, map[string]string{"X-RateLimit-Remaining": "0"}, reap.Answer{Remaining: 0}},
		{429, map[string]string{"Retry-After": "120"}, reap.Answer{Limited: true, Remaining: -1, RetryAfter: 2 * time.Minute}},
		{429, map[string]string{"Retry-After": "Fri, 02 Jan 2026 03:04:35 GMT"}, reap.Answer{Limited: true, Remaining: -1, RetryAfter: 30 * time.Second}},
		{429, map[string]string{"Retry-After": "Fri, 02 Jan 2025 03:04:35 GMT"}, reap.Answer{Limited: true, Remaining: -1}},
		{429, map[string]string{"Retry-After": "99999999999999999999999"}, reap.Answer{Limited: true, Remaining: -1, RetryAfter: math.MaxInt64}},
		{429, map[string]string{"Retry-After": "9999999999999"}, reap.Answer{Limited: true, Remaining: -1, RetryAfter: math.MaxInt64}},
		{429, map[string]string{"Retry-After": "-5", "RateLimit-Remaining": "-5"}, reap.Answer{Limited: true, Remaining: -1}},
		{503, map[string]string{"Retry-After": "soon", "RateLimit-Remaining": "many"}, reap.Answer{Remaining: -1}},
	} {
		h := http.Header{}
		for k, v := range c.header {
			h.Set(k, v)
		}
		require.Equal(t, c.want, reap.AnswerTo(c.status, h, now), "%+v", c)
	}
}
