package reap_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/reap"
)

// An outcome is what Pass has returned.
type outcome struct {
	report reap.Report
	err    error
}

// behind starts passes that all wait for the lock, then releases it, and returns what
// they come to. They call the source one at a time.
func behind(t *testing.T, n int, src reap.Source, p reap.Policy) (all []outcome) {
	t.Helper()
	p.Lock = filepath.Join(t.TempDir(), "lock")
	held, err := reap.HostLock{Path: p.Lock}.TryLock()
	require.NoError(t, err)
	waiting, got := make(chan struct{}, n), make(chan outcome, n)
	p.OnWait = func(w reap.Wait) {
		if w.Reason == reap.WaitLocked {
			select {
			case waiting <- struct{}{}:
			default: // all have waited, this one once more
			}
		}
	}
	for range n {
		go func() {
			r, err := reap.Pass(t.Context(), src, token(8), p)
			got <- outcome{r, err}
		}()
	}
	for range n {
		<-waiting
	}
	require.NoError(t, held.Unlock())
	for range n {
		o := <-got
		require.NoError(t, o.report.Check())
		all = append(all, o)
	}
	return all
}

// count returns how many outcomes stopped so.
func count(all []outcome, s reap.Stop) (n int) {
	for _, o := range all {
		if o.report.Stopped == s {
			n++
		}
	}
	return n
}

func TestAListingThatFailsIsNotTriedAnewByEachThatWaits(t *testing.T) {
	t.Parallel()
	var lists atomic.Int32
	all := behind(t, 5, reap.Source{
		List:   func(context.Context) ([]reap.Item, error) { lists.Add(1); return nil, errors.New("503 of the API") },
		Delete: stale().source().Delete,
	}, reap.Policy{})
	require.EqualValues(t, 1, lists.Load())
	require.Equal(t, []int{1, 4}, []int{count(all, reap.StoppedList), count(all, reap.StoppedShared)})
	for _, o := range all {
		require.ErrorContains(t, o.err, "503 of the API")
	}
}

func TestAServerThatRefusedOneProcessIsNotAskedByTheOthersMeanwhile(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var first time.Time
	refused, served := 0, 0
	all := behind(t, 5, reap.Source{
		List: func(context.Context) ([]reap.Item, error) {
			mu.Lock()
			defer mu.Unlock()
			if first.IsZero() {
				first = time.Now()
			}
			if rest := 200*time.Millisecond - time.Since(first); rest > 0 {
				refused++
				return nil, &reap.LimitedError{RetryAfter: rest}
			}
			served++
			return nil, nil
		},
		Delete: stale().source().Delete,
	}, reap.Policy{})
	require.Equal(t, []int{1, 1}, []int{refused, served})
	require.Equal(t, []int{1, 4}, []int{count(all, reap.StoppedDone), count(all, reap.StoppedShared)})
}

func TestAPassThatYieldedSufficesForThoseThatWouldYieldToo(t *testing.T) {
	t.Parallel()
	for _, strategy := range []reap.Conflict{reap.Yield, reap.Refresh} {
		s := stale("a", "b")
		all := behind(t, 3, s.ahead("a"), reap.Policy{OnConflict: strategy, Backoff: reap.Backoff{Base: time.Millisecond}})
		if strategy == reap.Yield {
			require.Equal(t, []int{1, 2}, []int{count(all, reap.StoppedYielded), count(all, reap.StoppedShared)})
			require.Equal(t, 1, s.lists)
			continue
		}
		require.Zero(t, count(all, reap.StoppedYielded))
		require.Empty(t, s.items, "a user who wants all gone has all gone")
	}
}

func TestAPassThatWaitsEndsIfAnotherHasDoneItsWorkMeanwhile(t *testing.T) {
	t.Parallel()
	s := stale("a", "b", "c")
	path := filepath.Join(t.TempDir(), "lock")
	p := reap.Policy{OnConflict: reap.Refresh, Lock: path, Backoff: reap.Backoff{Base: time.Millisecond}}
	p.OnWait = func(w reap.Wait) {
		require.Equal(t, reap.WaitConflict, w.Reason)
		r, err := reap.Pass(t.Context(), s.source(), token(8), reap.Policy{Lock: path})
		require.NoError(t, err)
		require.Equal(t, 2, r.Deleted)
	}
	r, err := reap.Pass(t.Context(), s.ahead("a"), token(8), p)
	require.NoError(t, err)
	require.NoError(t, r.Check())
	require.Equal(t, reap.StoppedShared, r.Stopped)
	require.Equal(t, []int{1, 2}, []int{r.Lists, r.Left})
}

func TestTheListStaysOverAPauseAndIsReadAnewOnlyIfOthersMadeUseOfIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		reason reap.WaitReason
		lists  int
	}{{reap.WaitPace, 1}, {reap.WaitPace, 2}, {reap.WaitLimited, 1}, {reap.WaitLimited, 2}} {
		reason := c.reason
		path := filepath.Join(t.TempDir(), "lock")
		throttle, err := reap.NewThrottle(reap.ThrottleConfig{Limit: 1000, Window: time.Second})
		require.NoError(t, err)
		s := stale("a", "b", "c")
		src, refuse := s.source(), reason == reap.WaitLimited
		if !refuse {
			throttle.Learn(reap.Answer{Limited: true})
		}
		del := src.Delete
		src.Delete = func(ctx context.Context, item reap.Item) error {
			if refuse {
				refuse = false
				return &reap.LimitedError{}
			}
			return del(ctx, item)
		}
		met := false
		r, err := reap.Pass(t.Context(), src, token(8), reap.Policy{Lock: path, Throttle: throttle, OnWait: func(w reap.Wait) {
			if w.Reason != reason || s.lists != 1 || met {
				return
			}
			met = true
			require.False(t, locked(t, path), "another process has the lock for a moment")
			if c.lists == 2 { // and one makes a part of a pass
				ctx, cancel := context.WithCancel(t.Context())
				other := stale("d").source()
				other.Delete = func(context.Context, reap.Item) error { cancel(); return nil }
				_, err := reap.Pass(ctx, other, token(8), reap.Policy{Lock: path})
				require.ErrorIs(t, err, context.Canceled)
			}
		}})
		require.NoError(t, err)
		require.True(t, met)
		require.Equal(t, []int{c.lists, 3}, []int{r.Lists, r.Deleted}, "%s", reason)
	}
}

func TestAResultOfAnotherUserIsNotBelieved(t *testing.T) {
	t.Parallel()
	f := reap.Flight{Dir: t.TempDir(), Name: "call", MaxAge: time.Hour}
	var calls int32
	_, err := f.Do(t.Context(), answer(&calls, "good", nil))
	require.NoError(t, err)
	want := int32(1)
	if os.Getuid() == 0 { // only root can give a file away
		require.NoError(t, os.Chown(filepath.Join(f.Dir, "call.result"), 65534, -1))
		want = 2
	}
	_, err = f.Do(t.Context(), answer(&calls, "anew", nil))
	require.NoError(t, err)
	require.Equal(t, want, calls)
}

func TestWhateverTheTextOfAFailureIsTheLockFileStaysOne(t *testing.T) {
	t.Parallel()
	for _, r := range []string{"<", "\"", "\\", "\x00", "\xff", "\u2028", "\U000f0000", "é"} {
		p := reap.Policy{Lock: filepath.Join(t.TempDir(), "lock")}
		src := stale().source()
		src.List = func(context.Context) ([]reap.Item, error) { return nil, errors.New(strings.Repeat(r, 5000)) }
		_, err := reap.Pass(t.Context(), src, token(8), p)
		require.ErrorContains(t, err, r)
		_, err = reap.Pass(t.Context(), stale("a").source(), token(8), p)
		require.NoError(t, err, "%q", r)
	}
}

func TestProcessesThatKeepBelowALimitLeaveTheListToOneOfThem(t *testing.T) {
	t.Parallel()
	s := stale()
	for id := 'A'; id < 'A'+12; id++ {
		s.put(string(id), 1)
	}
	src, calls := s.source(), 0
	var mu sync.Mutex
	src.Delete = func(ctx context.Context, item reap.Item) error {
		mu.Lock()
		calls++
		refused := calls == 1 || calls == 4
		mu.Unlock()
		if refused {
			return &reap.LimitedError{}
		}
		return s.source().Delete(ctx, item)
	}
	throttle, err := reap.NewThrottle(reap.ThrottleConfig{Limit: 200, Window: time.Second})
	require.NoError(t, err)
	all := behind(t, 8, src, reap.Policy{Throttle: throttle})
	require.Empty(t, s.items, "no two leave it to each other")
	require.Equal(t, []int{1, 7}, []int{count(all, reap.StoppedDone), count(all, reap.StoppedShared)})
	require.Len(t, s.deletes, 12, "none is wasted")
}

func TestAPassAtStartUpIsSkippedWhileAnotherProcessPauses(t *testing.T) {
	t.Parallel()
	s, path, refused := stale("a", "b"), filepath.Join(t.TempDir(), "lock"), false
	src := s.source()
	src.Delete = func(ctx context.Context, item reap.Item) error {
		if !refused {
			refused = true
			return &reap.LimitedError{RetryAfter: time.Hour}
		}
		return s.source().Delete(ctx, item)
	}
	r, err := reap.Pass(t.Context(), src, token(8), reap.Policy{Lock: path})
	require.NoError(t, err)
	require.Equal(t, reap.StoppedWaited, r.Stopped)
	r, err = reap.Pass(t.Context(), src, token(8), reap.Policy{Lock: path, SkipIfLocked: true, OnWait: func(w reap.Wait) { t.Error(w) }})
	require.NoError(t, err)
	require.Equal(t, reap.StoppedLocked, r.Stopped)
	require.Equal(t, 1, s.lists)
	var wait reap.Wait
	ctx, cancel := context.WithCancel(t.Context())
	_, err = reap.Pass(ctx, src, token(8), reap.Policy{Lock: path, MaxWait: time.Hour, OnWait: func(w reap.Wait) { wait = w; cancel() }})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, reap.WaitRetryAfter, wait.Reason)
	require.LessOrEqual(t, wait.For, 16*time.Minute, "the record outlives the pass, and one call in so long does no harm")
}
