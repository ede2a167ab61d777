package sqlite

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// A name that leads to another file each time is a file system on which nobody
// sees the locks, or the mapped memory, of anybody else.
func TestAFileSystemThatGrantsALockTwiceIsFound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	apart := func() (*os.File, error) {
		f, err := os.CreateTemp(dir, "")
		if err == nil {
			err = f.Truncate(int64(os.Getpagesize()))
		}
		return f, err
	}
	err := tryLocksOf(apart)
	require.ErrorIs(t, err, driver.ErrTwoWon)
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf((&Store{path: dir}).wrap("scratch", err, false)))
	one, err := apart()
	require.NoError(t, err)
	defer one.Close()
	two, err := apart()
	require.NoError(t, err)
	defer two.Close()
	for _, try := range lockTries() {
		require.ErrorIs(t, try.on(one, two), driver.ErrTwoWon, try.what)
		require.ErrorContains(t, try.on(one, two), try.what)
	}
	require.ErrorIs(t, tryMemory(one, two), driver.ErrTwoWon)
}

func TestACheckLeavesNoFileBehindAndRemovesThoseOfDeadProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(filepath.Join(dir, "c.db"), Config{})
	require.NoError(t, err)
	const expired = "c.db-check-5f000000-0123456789abcdef"
	kept := []string{"c.db-check-" + driver.NewScratchName(), "c.db-check-by-hand", "c.db-check-5f000000", "other.db-check-5f000000-0123456789abcdef"}
	for _, name := range append(kept, expired, expired+"-wal", expired+"-locks", "."+expired+"-claim-XYZ") {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	c, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, s.Close())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var left []string
	for _, e := range entries {
		if strings.Contains(e.Name(), "-check-") {
			left = append(left, e.Name())
		}
	}
	require.ElementsMatch(t, kept, left)
}
