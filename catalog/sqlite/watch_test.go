package sqlite

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAWatchThatAsksByNameWakesAfterEveryWriteAndAtItsBeginning(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	s, err := Open(path, Config{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	woken, done := make(chan struct{}, 100), make(chan error)
	go func() { done <- s.pollWrites(ctx, func() { woken <- struct{}{} }) }()
	wake := func(why string) {
		select {
		case <-woken:
		case <-time.After(time.Minute):
			require.FailNow(t, "no wake-up", why)
		}
	}
	wake("at the beginning")
	for _, name := range []string{path, path + "-wal"} {
		require.NoError(t, os.WriteFile(name, []byte("a"), 0o644))
		wake(name + " was made")
		require.NoError(t, os.Chtimes(name, time.Time{}, time.Unix(1, 0)))
		wake(name + " was written in place")
		require.NoError(t, os.Remove(name))
		wake(name + " was removed")
	}
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.NoError(t, s.Close())
}
