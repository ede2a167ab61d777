package reap_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/reap"
)

// ahead lets another reaper delete these items while the pass has its list.
func (s *shelf) ahead(ids ...string) reap.Source {
	src := s.source()
	list := src.List
	src.List = func(ctx context.Context) ([]reap.Item, error) {
		all, err := list(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.items = slices.DeleteFunc(s.items, func(item reap.Item) bool { return slices.Contains(ids, item.ID) })
		return all, err
	}
	return src
}

// stale returns a shelf with items of generation 1.
func stale(ids ...string) *shelf {
	s := &shelf{fail: map[string]error{}}
	for _, id := range ids {
		s.put(id, 1)
	}
	return s
}

// pass runs a pass of generation 8 and checks its sums.
func pass(t *testing.T, src reap.Source, p reap.Policy) (r reap.Report, waits []reap.Wait) {
	t.Helper()
	p.OnWait = func(w reap.Wait) { waits = append(waits, w) }
	r, err := reap.Pass(t.Context(), src, token(8), p)
	require.NoError(t, err)
	require.NoError(t, r.Check())
	return r, waits
}

func TestYieldStopsAtTheFirstConflict(t *testing.T) {
	t.Parallel()
	s := stale("a", "b", "c")
	r, waits := pass(t, s.ahead("a"), reap.Policy{})
	require.Equal(t, reap.StoppedYielded, r.Stopped)
	require.Equal(t, []int{1, 1, 0, 2}, []int{r.Lists, r.Gone, r.Deleted, r.Left})
	require.Empty(t, waits)
}

func TestRefreshWaitsListsAnewAndGoesOnUntilNothingIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := stale("a", "b", "c", "d")
		r, waits := pass(t, s.ahead("a", "c"), reap.Policy{OnConflict: reap.Refresh})
		require.Equal(t, reap.StoppedDone, r.Stopped)
		require.Equal(t, []string{"a", "b", "d"}, s.deletes, "c has vanished from the second listing")
		require.Equal(t, []int{2, 1, 2, 1}, []int{r.Lists, r.Gone, r.Deleted, r.Vanished})
		require.Len(t, waits, 1)
		require.Equal(t, waits[0].For, r.Waits[reap.WaitConflict].Slept)
	})
}

func TestALoserWaitsBeforeItDoesAnythingElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := stale("a", "b")
		var called []time.Time
		src := s.ahead("a")
		list := src.List
		src.List = func(ctx context.Context) ([]reap.Item, error) {
			called = append(called, time.Now())
			return list(ctx)
		}
		pass(t, src, reap.Policy{OnConflict: reap.Refresh})
		require.GreaterOrEqual(t, called[1].Sub(called[0]), 500*time.Millisecond)
		require.LessOrEqual(t, called[1].Sub(called[0]), time.Second)
	})
}

func TestStopUnderLimitStopsIfFewerThanLimitAreLeftAndOtherwiseGoesOn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit, lists int
		stopped      reap.Stop
	}{
		{4, 1, reap.StoppedRoom}, // 3 are known to be left
		{3, 2, reap.StoppedRoom}, // which only a listing shows
		{2, 2, reap.StoppedDone},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := stale("a", "b", "c", "d")
			r, waits := pass(t, s.ahead("a", "b"), reap.Policy{OnConflict: reap.StopUnderLimit, Limit: c.limit})
			require.Equal(t, c.stopped, r.Stopped, "limit %d", c.limit)
			require.Equal(t, c.lists, r.Lists, "limit %d", c.limit)
			require.Len(t, waits, 1, "it waits before it decides")
		})
	}
}

func TestAPassThatMeetsNobodyDeletesAllThoughThereIsRoom(t *testing.T) {
	t.Parallel()
	s := stale("a", "b")
	r, _ := pass(t, s.source(), reap.Policy{OnConflict: reap.StopUnderLimit, Limit: 10})
	require.Equal(t, 2, r.Deleted)
	require.Equal(t, reap.StoppedDone, r.Stopped)
}

func TestAPassGivesUpAfterSoManyConflicts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := stale("a", "b", "c", "d")
		src := s.source()
		src.Delete = func(context.Context, reap.Item) error { return reap.ErrGone }
		r, waits := pass(t, src, reap.Policy{OnConflict: reap.Refresh, MaxConflicts: 3})
		require.Equal(t, reap.StoppedConflicts, r.Stopped)
		require.Equal(t, 3, r.Gone)
		require.Len(t, waits, 2)
	})
}

func TestAnUnknownStrategyIsAnErrorAndNoDefault(t *testing.T) {
	t.Parallel()
	s := stale("a")
	for _, p := range []reap.Policy{
		{OnConflict: 3}, {OnConflict: -1}, {OnConflict: reap.StopUnderLimit}, {Keep: -2}, {MinAge: -2}, {CallTimeout: -5},
		{MaxConflicts: -1}, {MaxFailures: -1}, {MaxWait: -1}, {Every: -1, Lock: "l"}, {Every: 1}, {SkipIfLocked: true}, {Limit: -1},
		{Backoff: reap.Backoff{Base: -1}}, {Backoff: reap.Backoff{Base: 2, Cap: 1}}, {Backoff: reap.Backoff{Factor: 0.5}},
	} {
		r, err := reap.Pass(t.Context(), s.source(), token(8), p)
		require.ErrorIs(t, err, reap.ErrPolicy, "%+v", p)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
		require.Equal(t, reap.StoppedPolicy, r.Stopped)
	}
	_, err := reap.Pass(t.Context(), s.source(), fence.Token{Epoch: 3}, reap.Policy{OnConflict: 7})
	require.ErrorContains(t, err, "nobody ever held")
	require.ErrorContains(t, err, "OnConflict is 7", "every mistake at once")
	_, err = reap.Pass(t.Context(), reap.Source{}, token(8), reap.Policy{})
	require.ErrorIs(t, err, reap.ErrPolicy)
	_, err = reap.Pass(t.Context(), s.source(), fence.Token{Generation: generation.Max + 1}, reap.Policy{})
	require.ErrorIs(t, err, reap.ErrPolicy)
	require.Zero(t, s.lists)
}

func TestAnItemLeavesTheListBeforeItsDeletionIsTried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := stale("a", "b", "c")
		s.fail["a"] = errors.New("500")
		src := s.ahead("b") // and a, which failed, is in the second listing again
		r, _ := pass(t, src, reap.Policy{OnConflict: reap.Refresh})
		require.Equal(t, []string{"a", "b", "c"}, s.deletes)
		require.Equal(t, []int{2, 1, 1, 1}, []int{r.Lists, r.Failed, r.Gone, r.Deleted})
	})
}

func TestItemsThatCantBeToldApartAreNotDeleted(t *testing.T) {
	t.Parallel()
	s := stale("a", "")
	r, err := reap.Pass(t.Context(), s.source(), token(8), reap.Policy{})
	require.ErrorContains(t, err, "no ID")
	require.Equal(t, reap.StoppedList, r.Stopped)
	s = stale("a", "a")
	s.items = append(s.items, reap.Item{ID: "b", Made: token(1), At: old}, reap.Item{ID: "b", Made: token(8), At: old})
	pass(t, s.source(), reap.Policy{})
	require.Equal(t, []string{"a"}, s.deletes, "of b only the newest entry counts")
}

func TestALoopStopsAtTheFirstItemThatIsTooYoung(t *testing.T) {
	t.Parallel()
	s := stale("a")
	young := time.Now().Add(-9 * time.Minute)
	s.items = append(s.items,
		reap.Item{ID: "future", Made: token(1), At: time.Now().Add(time.Hour)},
		reap.Item{ID: "young", Made: token(2), At: young})
	r, _ := pass(t, s.source(), reap.Policy{})
	require.Equal(t, reap.StoppedYoung, r.Stopped)
	require.Equal(t, []string{"a"}, s.deletes)
	require.Equal(t, 2, r.Kept.Young)
	require.True(t, young.Add(10*time.Minute).Equal(r.Ripe))
	require.Len(t, s.items, 2, "they stay")
}

func TestNoItemOfTheCurrentGenerationOrAHigherOneIsEverDeleted(t *testing.T) {
	t.Parallel()
	s := &shelf{}
	for g := generation.Generation(1); g <= 12; g++ {
		s.put(g.String(), g)
	}
	s.items = append(s.items, reap.Item{ID: "nobody's", At: old}, reap.Item{ID: "older epoch", Made: fence.Token{Generation: 8, Epoch: 1}, At: old})
	r, _ := pass(t, s.source(), reap.Policy{Keep: reap.KeepNone, MinAge: reap.NoMinAge}) // without any other guard rail
	require.Equal(t, []string{"1", "2", "3", "4", "5", "6", "7"}, s.deletes)
	require.Equal(t, reap.Kept{Current: 6, Unlabelled: 1}, r.Kept)
}

func TestKeepSparesSupersededGenerations(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		keep int
		led  []generation.Generation
		kept []string
	}{
		{0, nil, []string{"7"}},
		{reap.KeepNone, nil, nil},
		{2, nil, []string{"6", "7"}},
		{1 << 62, nil, []string{"2", "5", "6", "7"}},
		{1, []generation.Generation{8, 2, 5, 5, 9}, []string{"5", "6", "7"}}, // 6 and 7 never led
		{2, []generation.Generation{8, 5, 2}, []string{"2", "5", "6", "7"}},
		{3, []generation.Generation{8, 5, 2}, []string{"2", "5", "6", "7"}},
		{1, []generation.Generation{}, []string{"2", "5", "6", "7"}}, // nobody knows what a rollback needs
		{reap.KeepNone, []generation.Generation{}, nil},
	} {
		s := &shelf{}
		for _, g := range []generation.Generation{2, 5, 6, 7} {
			s.put(g.String(), g)
		}
		r, _ := pass(t, s.source(), reap.Policy{Keep: c.keep, Led: c.led})
		var kept []string
		for _, item := range s.items {
			kept = append(kept, item.ID)
		}
		require.Equal(t, c.kept, kept, "%+v", c)
		require.Equal(t, len(c.kept), r.Kept.Generation)
	}
}

func TestWhatLiveWorkRefersToStays(t *testing.T) {
	t.Parallel()
	s := stale("a", "b", "c")
	r, _ := pass(t, s.source(), reap.Policy{InUse: func(_ context.Context, item reap.Item) (bool, error) {
		if item.ID == "b" {
			return false, errors.New("can't say")
		}
		return item.ID == "a", nil
	}})
	require.Equal(t, []string{"c"}, s.deletes)
	require.Equal(t, []int{1, 1}, []int{r.Kept.InUse, r.Failed})
}

func TestFailuresAreListedAndBounded(t *testing.T) {
	t.Parallel()
	s := stale("a", "b", "c", "d")
	for _, id := range []string{"a", "c", "d"} {
		s.fail[id] = errors.New("503 of " + id)
	}
	r, err := reap.Pass(t.Context(), s.source(), token(8), reap.Policy{MaxFailures: 2})
	require.ErrorIs(t, err, reap.ErrFailures)
	require.ErrorContains(t, err, "503 of c")
	require.NoError(t, r.Check())
	require.Equal(t, reap.StoppedFailures, r.Stopped)
	require.Equal(t, []int{1, 2, 1}, []int{r.Deleted, r.Failed, r.Left})
	require.Equal(t, "a", r.Failures[0].Item.ID)
	text, err := json.Marshal(r)
	require.NoError(t, err)
	require.Contains(t, string(text), `"error":"503 of a"`)
	var again reap.Report
	require.NoError(t, json.Unmarshal(text, &again))
	require.NoError(t, again.Check())
	require.Equal(t, r, again)
}

func TestARefusalOfTheTokenEndsThePass(t *testing.T) {
	t.Parallel()
	s := stale("a", "b")
	s.fail["a"] = &fence.Error{Held: token(8), Guard: "bucket"}
	r, err := reap.Pass(t.Context(), s.source(), token(8), reap.Policy{})
	require.ErrorIs(t, err, fence.ErrFenced)
	require.Equal(t, reap.StoppedFenced, r.Stopped)
	require.Equal(t, []string{"a"}, s.deletes)
}

func TestEveryWaitSaysWhy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := stale("a", "b", "c")
		var text bytes.Buffer
		limited := true
		src := s.ahead("a")
		del := src.Delete
		src.Delete = func(ctx context.Context, item reap.Item) error {
			if limited {
				limited = false
				return &reap.LimitedError{RetryAfter: 7 * time.Second, Err: errors.New("slow down")}
			}
			return del(ctx, item)
		}
		r, err := reap.Pass(t.Context(), src, token(8), reap.Policy{
			OnConflict: reap.StopUnderLimit, Limit: 1, OnWait: reap.LogWaits(slog.New(slog.NewTextHandler(&text, nil))),
		})
		require.NoError(t, err)
		require.Equal(t, reap.StoppedDone, r.Stopped)
		for _, want := range []string{
			"level=WARN", "reason=retry-after seconds=7", "count=3 limit=1 strategy=stop-under-limit", "slow down",
			"reason=conflict", `\"a\" was already deleted`, "reason=pace",
		} {
			require.Contains(t, text.String(), want)
		}
		require.Equal(t, 1, r.Limited)
		require.Equal(t, 1, r.Waits[reap.WaitRetryAfter].Times)
	})
}

func TestThePassStopsBeforeItWaitsLongerThanItMay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := stale("a")
		s.fail["a"] = &reap.LimitedError{RetryAfter: time.Hour}
		began := time.Now()
		r, waits := pass(t, s.source(), reap.Policy{})
		require.Equal(t, reap.StoppedWaited, r.Stopped)
		require.Zero(t, time.Since(began))
		require.Empty(t, waits)
		require.Equal(t, 1, r.Left)
		s.fail["a"] = &reap.LimitedError{} // for ever
		r, _ = pass(t, s.source(), reap.Policy{MaxWait: time.Minute})
		require.Equal(t, reap.StoppedWaited, r.Stopped)
		require.LessOrEqual(t, r.Slept(), time.Minute)
	})
}

func TestACallThatHangsIsAFailureAndAContextThatEndsIsNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := stale("a", "b")
		src := s.source()
		src.Delete = func(ctx context.Context, item reap.Item) error {
			<-ctx.Done()
			return ctx.Err()
		}
		r, _ := pass(t, src, reap.Policy{CallTimeout: time.Minute})
		require.Equal(t, 2, r.Failed)
		why := errors.New("stopped")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, why)
		defer cancel()
		r, err := reap.Pass(ctx, src, token(8), reap.Policy{CallTimeout: reap.NoTimeout})
		require.ErrorIs(t, err, why)
		require.Equal(t, reap.StoppedContext, r.Stopped)
		require.NoError(t, r.Check())
	})
}

func TestWaitsAfterConflictsGrowToTheirCapAndNoTwoAreAlike(t *testing.T) {
	t.Parallel()
	b := reap.Backoff{}
	for n, whole := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		seen := map[time.Duration]bool{}
		for range 50 {
			d := b.Delay(n)
			require.GreaterOrEqual(t, d, whole*time.Second/2)
			require.LessOrEqual(t, d, whole*time.Second)
			seen[d] = true
		}
		require.Greater(t, len(seen), 40)
	}
	require.LessOrEqual(t, b.Delay(1<<30), time.Minute)
	require.LessOrEqual(t, reap.Backoff{Base: 1<<63 - 1}.Delay(3), time.Duration(1<<63-1))
	require.Positive(t, reap.Backoff{Base: 1<<63 - 1, Factor: 1e300}.Delay(9))
}
