package sqlite_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/crashtest"
)

func TestTheDeathOfAProcessThatShowsAClaimIsTold(t *testing.T) {
	t.Parallel()
	path, _ := claimed(t)
	crashtest.RunPresence(t, path, openAt, 5*time.Second)
}

// present shows a claim, and returns a channel that gets why that ended.
func present(ctx context.Context, t *testing.T, s *sqlite.Store, claim driver.ID) <-chan error {
	t.Helper()
	shown, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- s.Present(ctx, claim, func() { close(shown) }) }()
	select {
	case <-shown:
	case err := <-done:
		require.FailNow(t, "not shown", "%v", err)
	}
	return done
}

func TestAPresenceWhoseFileIsReplacedOrRemovedIsLostAndMayBeShownAgain(t *testing.T) {
	t.Parallel()
	path, head := claimed(t)
	s, other, claim := open(t, path), open(t, path), head.Claim.ID
	lost := make(chan struct{}, 100)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	watching := make(chan error, 1)
	go func() { watching <- other.WatchPresence(ctx, claim, func() { lost <- struct{}{} }) }()
	defer func() { cancel(); <-watching }()
	spoil := map[string]func() error{
		"removed": func() error { return os.Remove(path + "-presence") },
		"replaced": func() error {
			require.NoError(t, os.WriteFile(path+"-new", nil, 0o600))
			return os.Rename(path+"-new", path+"-presence")
		},
	}
	for how, spoil := range spoil {
		told := false
		for life := 50 * time.Millisecond; !told; life *= 2 { // the watcher must come to see it
			done := present(ctx, t, s, claim)
			require.False(t, within(lost, life), "lost, and nothing has happened")
			require.NoError(t, spoil(), how)
			err := <-done
			require.ErrorContains(t, err, "no longer the one that was locked", how)
			require.Equal(t, exitcodes.Retry, exitcodes.Of(err), how)
			told = within(lost, time.Second)
		}
	}
}

// within reports whether there is news before so much time has passed.
func within(news <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-news:
		return true
	case <-timer.C:
		return false
	}
}

func TestAnotherProcessThatShowsTheSameClaimIsWaitedForAndNamedAsTheReason(t *testing.T) {
	t.Parallel()
	path, head := claimed(t)
	first, cancel := context.WithCancel(t.Context())
	done := present(first, t, open(t, path), head.Claim.ID)
	bounded, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	s := open(t, path)
	err := s.Present(bounded, head.Claim.ID, func() { t.Error("two processes show one claim") })
	require.ErrorContains(t, err, "another process shows this claim")
	require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	again, stop := context.WithCancel(t.Context())
	done = present(again, t, s, head.Claim.ID)
	stop()
	require.ErrorIs(t, <-done, context.Canceled)
}

func TestWhoMayNotWriteTheDatabaseMayNotShowAClaim(t *testing.T) {
	t.Parallel()
	for database, want := range map[os.FileMode]os.FileMode{0o644: 0o600, 0o660: 0o660} {
		path, head := claimed(t)
		require.NoError(t, os.Chmod(path, database))
		ctx, cancel := context.WithCancel(t.Context())
		done := present(ctx, t, open(t, path), head.Claim.ID)
		info, err := os.Stat(path + "-presence")
		require.NoError(t, err)
		require.Equal(t, want, info.Mode().Perm())
		require.Zero(t, info.Size())
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	}
}

func TestAWatchOfAPresenceCreatesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "c.db"))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := s.WatchPresence(ctx, driver.NewID(), func() { t.Error("lost, and never there") })
	require.ErrorIs(t, err, context.DeadlineExceeded)
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, files)
}

func TestAClaimCanBeShownOnlyWhereItsDatabaseIs(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "c.db"))
	err := s.Present(t.Context(), driver.NewID(), func() { t.Error("shown") })
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = os.Stat(s.String()[len("sqlite:"):] + "-presence")
	require.ErrorIs(t, err, os.ErrNotExist)
}
