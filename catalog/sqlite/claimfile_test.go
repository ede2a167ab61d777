package sqlite

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
)

// Synchronous is a setting of a connection, and not of the file.
func TestEveryConnectionThatWritesSyncsInFull(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	inFull := func(s *Store, when string) {
		w, err := s.acquire(t.Context())
		require.NoError(t, err)
		defer s.release(w, false)
		var synchronous int
		var mode string
		require.NoError(t, w.conn.QueryRowContext(t.Context(), "PRAGMA synchronous").Scan(&synchronous))
		require.NoError(t, w.conn.QueryRowContext(t.Context(), "PRAGMA journal_mode").Scan(&mode))
		require.Equal(t, 2, synchronous, "2 is FULL: %s", when)
		require.Equal(t, "wal", mode, when)
	}
	s := openStore(t, path)
	head := drivertest.Install(t, s, 1)
	inFull(s, "behind a claim")
	head = drivertest.Append(t, s, head, nil)
	inFull(s, "behind a commit")
	w, err := s.acquire(t.Context())
	require.NoError(t, err)
	s.release(w, true)
	drivertest.Append(t, s, head, nil)
	inFull(s, "when the connection had broken")
	require.NoError(t, s.Close())
	inFull(openStore(t, path), "in a file that was there")
}

// aClaimFile is the -claim file as another process has it open.
func aClaimFile(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path+"-claim", os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

// free reports whether another process may lock the -claim file so.
func free(t *testing.T, f *os.File, how int) bool {
	t.Helper()
	err := flock(f, how)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_UN)
		assert.NoError(t, err)
		return err == nil
	}
	assert.ErrorIs(t, err, errWanted)
	return false
}

// TestAClaimLocksTheClaimFileBeforeItWaitsAndUntilItEnds has another connection
// write, so that the claim waits for SQLite's own lock.
func TestAClaimLocksTheClaimFileBeforeItWaitsAndUntilItEnds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	s, writing := openStore(t, path), openStore(t, path)
	head := drivertest.Install(t, s, 1)
	head = drivertest.Append(t, s, head, nil)
	file := aClaimFile(t, path)
	require.True(t, free(t, file, unix.LOCK_EX), "behind a claim that landed, and a commit")
	w, err := writing.acquire(t.Context())
	require.NoError(t, err)
	require.NoError(t, w.begin(t.Context(), path, func() error { return nil }))

	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = s.Claim(short)
	assert.ErrorIs(t, err, driver.ErrBlocked)
	assert.True(t, free(t, file, unix.LOCK_EX), "behind a claim whose time was over")

	begun := make(chan driver.Claiming, 1)
	go func() {
		c, err := s.Claim(drivertest.Context(t))
		assert.NoError(t, err)
		begun <- c
	}()
	assert.Eventually(t, func() bool { return !free(t, file, unix.LOCK_SH) }, drivertest.Patience, time.Millisecond,
		"a commit would not give way to the claim that waits")
	assert.Empty(t, begun)
	assert.True(t, w.rollback())
	writing.release(w, false)
	claiming := <-begun
	assert.False(t, free(t, file, unix.LOCK_SH), "while the claim is under way")
	claiming.Abandon()
	require.True(t, free(t, file, unix.LOCK_EX), "behind a claim that was abandoned")
	drivertest.Append(t, writing, head, nil)
	require.True(t, free(t, file, unix.LOCK_EX), "behind a commit, which only looks at the lock")
}

func TestALockThatCantBeTakenAtAllIsNoClaimUnderWay(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "c.db-claim"))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	err = flock(f, unix.LOCK_SH)
	require.ErrorIs(t, err, unix.EBADF)
	require.NotErrorIs(t, err, errWanted, "it would be waited for")
}
