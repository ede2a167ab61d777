package reap_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/reap"
)

// locked reports whether somebody has the lock.
func locked(t *testing.T, path string) bool {
	t.Helper()
	held, err := reap.HostLock{Path: path}.TryLock()
	if errors.Is(err, reap.ErrLocked) {
		return true
	}
	require.NoError(t, err)
	require.NoError(t, held.Unlock())
	return false
}

func TestGoroutinesOfOneProcessHaveTheLockOneAtATime(t *testing.T) {
	t.Parallel()
	lock := reap.HostLock{Path: filepath.Join(t.TempDir(), "lock")}
	var inside, most atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			held, err := lock.Lock(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			if n := inside.Add(1); n > 1 {
				most.Store(n)
			}
			<-time.After(time.Millisecond)
			inside.Add(-1)
			if err := held.Unlock(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Zero(t, most.Load(), "inside at once")
}

func TestALockIsHeldOneAtATimeThoughEachHolderRemovesItsFileAtItsEnd(t *testing.T) {
	t.Parallel()
	lock := reap.HostLock{Path: filepath.Join(t.TempDir(), "lock")}
	var inside, crowds atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				held, err := lock.Lock(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) > 1 {
					crowds.Add(1)
				}
				runtime.Gosched()
				inside.Add(-1)
				if err := errors.Join(os.Remove(lock.Path), held.Unlock()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, crowds.Load(), "more than one inside")
}

func TestTheLockIsReleasedHoweverAPassEnds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	p := reap.Policy{Lock: path}
	run := func(s *shelf) error {
		src := s.source()
		del := src.Delete
		src.Delete = func(ctx context.Context, item reap.Item) error {
			require.True(t, locked(t, path), "the lock covers the deletions")
			return del(ctx, item)
		}
		_, err := reap.Pass(t.Context(), src, token(8), p)
		return err
	}
	require.NoError(t, run(stale("a", "b")), "it ends")
	require.False(t, locked(t, path))
	gone := stale("a", "b")
	gone.fail["a"] = reap.ErrGone
	require.NoError(t, run(gone), "it ends early")
	require.False(t, locked(t, path))
	boom := errors.New("boom")
	_, err := reap.Pass(t.Context(), reap.Source{
		List: func(context.Context) ([]reap.Item, error) {
			require.True(t, locked(t, path), "the lock covers the listing")
			return nil, boom
		},
		Delete: stale().source().Delete,
	}, token(8), p)
	require.ErrorIs(t, err, boom)
	require.False(t, locked(t, path))
	src := stale("a").source()
	src.Delete = func(context.Context, reap.Item) error { panic("in the middle") }
	require.PanicsWithValue(t, "in the middle", func() { _, _ = reap.Pass(t.Context(), src, token(8), p) })
	require.False(t, locked(t, path))
}

func TestWaitingForTheLockEndsWithTheContext(t *testing.T) {
	t.Parallel()
	lock := reap.HostLock{Path: filepath.Join(t.TempDir(), "lock"), Token: token(7)}
	held, err := lock.TryLock()
	require.NoError(t, err)
	why := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	other := lock
	other.OnWait = func(w reap.Wait) {
		require.Equal(t, reap.WaitLocked, w.Reason)
		require.Contains(t, w.Detail, "under g7.e47")
		cancel(why)
	}
	_, err = other.Lock(ctx)
	require.ErrorIs(t, err, why)
	require.ErrorIs(t, err, reap.ErrLocked)
	require.Equal(t, exitcodes.Retry, exitcodes.Of(err))

	ctx, cancel = context.WithCancelCause(t.Context())
	s := stale("a")
	r, err := reap.Pass(ctx, s.source(), token(8), reap.Policy{Lock: lock.Path, OnWait: func(w reap.Wait) {
		require.Equal(t, 15*time.Minute, w.For)
		cancel(why)
	}})
	require.ErrorIs(t, err, why)
	require.Equal(t, reap.StoppedContext, r.Stopped)
	r, err = reap.Pass(t.Context(), s.source(), token(8), reap.Policy{Lock: lock.Path, MaxWait: time.Millisecond})
	require.NoError(t, err)
	require.Equal(t, reap.StoppedWaited, r.Stopped)
	require.Zero(t, s.lists)
	require.NoError(t, held.Unlock())
}

func TestALockFileThatIsRemovedOrReplacedIsNoLock(t *testing.T) {
	t.Parallel()
	lock := reap.HostLock{Path: filepath.Join(t.TempDir(), "lock")}
	held, err := lock.TryLock()
	require.NoError(t, err)
	waiting, got := make(chan struct{}), make(chan error)
	go func() {
		other := lock
		other.OnWait = func(reap.Wait) { close(waiting) }
		held, err := other.Lock(t.Context())
		if err == nil {
			err = held.Unlock()
		}
		got <- err
	}()
	<-waiting
	require.NoError(t, os.Remove(lock.Path))
	require.NoError(t, <-got, "it locks the file that is there now")
	require.NoError(t, held.Unlock())
	require.False(t, locked(t, lock.Path))
}

func TestNothingButALockFileIsLockedOrWrittenTo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	for name, plant := range map[string]func(at string) error{
		"a link":            func(at string) error { return os.Symlink(victim, at) },
		"a link to nowhere": func(at string) error { return os.Symlink(filepath.Join(dir, "nowhere"), at) },
		"a second name":     func(at string) error { return os.Link(victim, at) },
		"a pipe":            func(at string) error { return syscall.Mkfifo(at, 0o666) },
		"a folder":          func(at string) error { return os.Mkdir(at, 0o777) },
		"another file":      func(at string) error { return os.WriteFile(at, []byte(`{"format":"other"}`), 0o600) },
		"a large file":      func(at string) error { return os.WriteFile(at, make([]byte, 5000), 0o600) },
	} {
		require.NoError(t, os.WriteFile(victim, nil, 0o600))
		path := filepath.Join(dir, name)
		require.NoError(t, plant(path))
		before, _ := os.ReadFile(victim)
		r, err := reap.Pass(t.Context(), stale("a").source(), token(8), reap.Policy{Lock: path})
		require.Error(t, err, name)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err), name)
		require.Equal(t, reap.StoppedLock, r.Stopped)
		after, err := os.ReadFile(victim)
		require.NoError(t, err)
		require.Equal(t, before, after, name)
	}
	require.NoFileExists(t, filepath.Join(dir, "nowhere"))
	for _, path := range []string{filepath.Join(dir, "no folder", "lock"), ""} {
		_, err := reap.HostLock{Path: path}.TryLock()
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	}
}

func TestALockFileIsReadableAfterAPowerCut(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "\x00\x00\x00\x00", `{"format":"fencepost host lock 2","anything`} {
		path := filepath.Join(t.TempDir(), "lock")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		require.False(t, locked(t, path))
	}
}

func TestAPassIsSkippedIfOneThatMightDeleteAsMuchBeganLessThanEveryAgo(t *testing.T) {
	t.Parallel()
	p := reap.Policy{Lock: filepath.Join(t.TempDir(), "lock"), Every: 24 * time.Hour}
	for n, c := range []struct {
		g     generation.Generation
		with  reap.Policy
		lists int
	}{
		{8, reap.Policy{}, 1}, // the first
		{8, reap.Policy{}, 0},
		{9, reap.Policy{}, 1}, // a higher generation may delete more
		{8, reap.Policy{}, 0}, // and a lower one less
		{9, reap.Policy{Keep: reap.KeepNone}, 1},
		{9, reap.Policy{Keep: 2}, 0},
		{9, reap.Policy{MinAge: time.Minute}, 1},
		{9, reap.Policy{MinAge: time.Hour, Led: []generation.Generation{3}}, 0},
		{9, reap.Policy{MinAge: reap.NoMinAge, Led: []generation.Generation{3}}, 1},
		{9, reap.Policy{}, 1}, // which spared only 3, and the last one everything
	} {
		c.with.Lock, c.with.Every = p.Lock, p.Every
		s := stale()
		_, err := reap.Pass(t.Context(), s.source(), token(c.g), c.with)
		require.NoError(t, err)
		require.Equal(t, c.lists, s.lists, "step %d", n)
	}
	s := stale()
	p.Every = 1
	_, err := reap.Pass(t.Context(), s.source(), token(8), p)
	require.NoError(t, err)
	require.Equal(t, 1, s.lists, "it is too long ago")
}

func TestAPassThatYieldedSparesOnlyThoseThatWouldYieldToo(t *testing.T) {
	t.Parallel()
	p := reap.Policy{Lock: filepath.Join(t.TempDir(), "lock"), Every: time.Hour}
	s := stale("a", "b")
	for _, c := range []struct {
		strategy reap.Conflict
		stopped  reap.Stop
	}{{reap.Yield, reap.StoppedYielded}, {reap.Yield, reap.StoppedShared}, {reap.Refresh, reap.StoppedDone}, {reap.Refresh, reap.StoppedShared}} {
		p.OnConflict = c.strategy
		r, err := reap.Pass(t.Context(), s.ahead("a"), token(8), p)
		require.NoError(t, err)
		require.Equal(t, c.stopped, r.Stopped)
	}
}

func TestAPassThatDidNotComeToItsEndSparesNobodyAnother(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]reap.Policy{"failures": {MaxFailures: 1}, "done": {}, "conflicts": {OnConflict: reap.Refresh, MaxConflicts: 1}} {
		p.Lock, p.Every = filepath.Join(t.TempDir(), "lock"), time.Hour
		s := stale("a")
		s.fail["a"] = map[string]error{"failures": errors.New("503"), "done": errors.New("504"), "conflicts": reap.ErrGone}[name]
		r, _ := reap.Pass(t.Context(), s.source(), token(8), p)
		require.EqualValues(t, name, r.Stopped)
		delete(s.fail, "a")
		r, err := reap.Pass(t.Context(), s.source(), token(8), p)
		require.NoError(t, err)
		require.Equal(t, 1, r.Deleted, name)
	}
}
